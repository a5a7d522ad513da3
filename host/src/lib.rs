//! trimtab: a load balancer whose every backend choice is made by a sandboxed WebAssembly component.
//!
//! Modules are listed in the order of their dependencies: a module may use only those above it (`tests/tidy`). The
//! request's way is in `proxy/serve.rs`; how a policy is called is in `policy/instance.rs`.

#![warn(missing_docs)]

pub mod clock;
pub mod proxy_header;

pub mod config;
pub mod http1;
pub mod sched;
pub mod sticky;
pub mod tenant;
pub mod tls;

pub mod pool;
pub mod state;

pub mod outgoing;

pub mod etcd;

pub mod discovery;
pub mod handover;
pub mod systemd;

pub mod health;
pub mod metrics;
pub mod rate;

pub mod policy;
pub mod registry;
pub mod rollout;
pub mod warm;

pub mod replay;
pub mod simulate;

pub mod kit;

pub mod proxy;

pub mod cluster;
pub mod fleet;
pub mod peers;

pub mod control;

pub mod admin;

pub mod server;

pub mod demo;

pub mod logging;
