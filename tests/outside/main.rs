//! Programs that others wrote, as clients and backends of the balancer: suites that judge a protocol, and what people use.
//! `install.sh` installs what is missing, in the versions that the tests were written for; nothing is skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod autobahn;
mod chromium;
mod curl;
mod etcd;
mod faults;
mod fleet;
mod grpc;
mod http2;
mod mishaps;
mod program;
mod registry;
mod rollout;
mod secured;
mod slowhttptest;
mod testssl;
mod varnishtest;
mod websocket;
mod wire;
