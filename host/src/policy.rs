//! Policies: sandboxed components that choose the backend of each request.
//!
//! Owns everything about WebAssembly: the engine and its clock, admission of components, instances, what they may call,
//! and the host's own choice when a policy has none. It must not know sockets or HTTP bodies, and it cannot fail a
//! request: the worst a policy can do is to be ignored ([`Seat::decide`]).
//!
//! Invariants: an instance belongs to one worker and one pool; nothing of a guest runs without a deadline; a guest's
//! answer is an index that the host checks before use.
//! Read next: `policy/seat.rs` (a decision from start to end), `policy/instance.rs` (the call), `wit/` (the contract).

mod admission;
mod bindings;
mod engine;
mod fallback;
mod imports;
mod instance;
mod record;
mod request;
mod seat;
mod stats;
mod store;
mod trial;

pub use admission::{Candidate, Refusal, builtin_component};
pub use engine::Engine;
pub use instance::{Answer, Fault, FaultKind, Instance, check};
pub use record::{
    AnswerEvent, BackendEvent, BackendsEvent, Batch, CookieEvent, Ending, Event, FaultEvent, FieldEvent,
    Frame, LoadEvent, LogError, LogReader, LogWriter, Opened, OutcomesEvent, PickEvent, Reads, Recorded,
    Recorder, Recordings, Segment, StartEvent, Storage, StreamState, decode_events, own_id,
};
pub use request::{Facts, Tried, client_bits, key_from, key_of};
pub use seat::{Choice, Chooser, Decision, Ended, Rebuild, Seat};
pub use stats::{Deployment, Reason, Stats};
pub use trial::{Outcome, Trial};
