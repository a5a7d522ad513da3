//! HTTP/1.1 messages as bytes.
//!
//! Owns the reading and writing of heads and chunks where they cost the most: on the path of the ordinary request. What
//! is not ordinary is recognised here and left to the HTTP library (`proxy/accept.rs`). It must not know sockets, time,
//! pools or policies.
//!
//! Invariant: nothing is accepted here that the library refuses (`tests/e2e/proxy/lanes.rs` puts the same cases to
//! both), and no function panics, whatever the bytes.
//! Read next: `http1/request.rs`.

mod chunked;
mod fields;
mod head;
mod request;
mod response;
mod write;

pub use chunked::{Chunks, write_chunk};
pub use head::Head;
pub use request::{Inbox, Received};
pub use response::{Framing, Malformed, Reply, Rules, read_reply};
pub use write::{Peer, write_answer, write_request};
