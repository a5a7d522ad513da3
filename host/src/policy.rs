//! Policies: sandboxed components that choose the backend of each request.
//!
//! Owns everything about WebAssembly: the engine and its clock, compiling and admission of components, instances, what
//! they may call, and the chain of those who choose when a policy does not. It must not know sockets or HTTP bodies, and it cannot fail
//! a request: the worst a policy can do is to be ignored ([`Seat::decide`]).
//!
//! Invariants: an instance belongs to one worker and one pool; nothing of a guest runs without a deadline; a guest's
//! answer is an index that the host checks before use.
//! Read next: `policy/seat.rs` (a decision from start to end), `policy/seat/chain.rs` (who chooses otherwise),
//! `policy/instance.rs` (the call), `wit/` (the contract).

mod admission;
mod bindings;
mod breaker;
mod cache;
mod changes;
mod code;
mod compile;
mod components;
mod engine;
mod fallback;
mod fault;
#[cfg(test)]
mod fixture;
mod grants;
mod imports;
mod instance;
mod lent;
mod loader;
mod native;
mod quarantine;
mod record;
mod request;
mod seat;
mod standby;
mod stats;
mod store;
mod text;
mod trial;
mod versions;
mod wasi;

pub use admission::{Candidate, Refusal, Report, builtin_component};
pub use breaker::BreakerState;
pub use cache::CodeCache;
pub use code::{Code, Maker, digest};
pub use compile::{ChildLimits, Compiler, SUBCOMMAND, serve as compile_here};
pub use components::Components;
pub use engine::Engine;
pub use fault::{Fault, FaultKind};
pub use grants::facts_told;
pub use instance::{Answer, Instance, check};
pub use loader::Loader;
pub use native::Algorithm;
pub use record::{
    AnswerEvent, BackendEvent, BackendsEvent, Batch, CookieEvent, Ending, Event, FaultEvent, FieldEvent,
    Frame, LoadEvent, LogError, LogReader, LogWriter, Opened, OthersEvent, OutcomesEvent, PickEvent, Reads,
    Recorded, Recorder, Recordings, Segment, StartEvent, StateEvent, Storage, StreamState, decode_events,
    own_id,
};
pub use request::{Facts, Tried, client_bits, key_from, key_of};
pub use seat::{Choice, Chooser, Decision, Ended, Rebuild, Seat};
pub use stats::{Deployment, Reason, Stats, Step};
pub use trial::{Outcome, Trial};
pub use versions::{FileSays, Origin, Sought, Upload, Version, Versions};
