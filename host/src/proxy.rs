//! The data path: from a client's connection to a backend's response.
//!
//! Owns sockets, HTTP on both sides, upstream connections, retries and time-outs. It must not know which algorithm runs
//! (a `policy::Seat` decides) nor how configurations come about (`server.rs` sends them as [`Message`]s).
//!
//! Everything below runs on one worker thread and belongs to it; workers share only counters that each of them writes
//! for itself. Invariants: a request is answered exactly once; an upstream connection is reused only after a complete
//! exchange; every wait on a peer has a time-out.
//! Read next: `proxy/serve.rs`.

mod accept;
mod access;
mod address;
mod attempts;
mod body;
mod budget;
mod canary;
mod client;
mod discard;
mod error;
mod forward;
mod gate;
mod guarded;
mod headers;
mod hedge;
mod http2;
mod introduction;
mod journey;
mod lane;
mod ledger;
mod pacing;
mod places;
mod plain;
mod pool;
mod prefixed;
mod queue;
mod relay;
mod room;
mod route;
mod scratch;
mod serve;
mod session;
mod spares;
mod straight;
mod tcp;
mod upgrade;
mod upstream;
mod worker;

pub use access::{AccessLog, AccessWriter};
pub use error::{Error, Fault};
pub use route::takes;
pub use worker::{Arrivals, CanaryPlan, Idle, ListenerPlan, Message, Plan, PoolPlan, Shared, Worker};
