//! HTTP/1.1 messages as bytes.
//!
//! Owns the reading and writing of heads and chunks where they cost the most, on the path of the ordinary request. What is
//! not ordinary is recognised here and left to the HTTP library (`proxy/accept.rs`). It must not know sockets, time,
//! pools or policies.
//!
//! Invariant: nothing is accepted here that the HTTP library refuses (`tests/e2e/proxy/lanes.rs` holds both to the same
//! cases), and no function panics, whatever the bytes.

pub mod head;

pub use head::Head;
