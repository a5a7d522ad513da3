//! HTTP/1.1 messages as bytes.
//!
//! Owns the reading and writing of heads and chunks where they cost the most: on the path of the ordinary request. What
//! is not ordinary is recognised here, judged (`guard.rs`) and left to the HTTP library (`proxy/accept.rs`). It must not know sockets, time,
//! pools or policies.
//!
//! Invariant: nothing is accepted here that the library refuses (`tests/e2e/proxy/lanes.rs` puts the same cases to
//! both), and no function panics, whatever the bytes.
//! Read next: `http1/request.rs`.

mod chunked;
mod fields;
mod guard;
mod head;
mod known;
mod request;
mod response;
mod runs;
mod target;
mod write;

pub use chunked::{Chunks, write_chunk};
pub use fields::{FIELD_BYTES_MAX, is_about_client, is_about_message};
pub use guard::{Guard, POISON, Passage};
pub use head::Head;
pub use known::Known;
pub use request::{Inbox, Received};
pub use response::{Framing, Malformed, Reply, Rules, read_fields, read_reply, skim_reply};
pub(crate) use target::{HostForm, host_form, settle_host, settle_path};
pub use write::{Peer, is_straight, via_name, write_answer, write_request, write_straight};
