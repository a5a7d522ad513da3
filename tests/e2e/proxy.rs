//! A request's way to an origin and back, judged on the bytes at both ends.

mod access;
mod backends;
mod bodies;
mod connect;
mod errors;
mod fields;
mod framing;
mod http2;
mod lanes;
mod limits;
mod proxy_protocol;
mod rates;
mod resilience;
mod retries;
mod room;
mod routes;
mod sticky;
mod tcp;
mod timeouts;
mod tls;
mod upgrade;
mod upstream_tls;
