//! What goes into an instance and what comes out of it, as a log from which every pick can be made again.
//!
//! Owns the events of a log, the recorder that an instance carries for a while, the file's format, and the thread that
//! writes. It must not decide when something is recorded (`server/recording.rs` does), nor make picks again
//! (`replay.rs` does).
//!
//! Invariant: a worker never waits for a log. What does not fit into the queue ends its stream, and the log says so.
//! Read next: `record/event.rs` (what is in a log), `record/recorder.rs` (the worker's side), `record/writer.rs` (the other).

mod event;
mod file;
mod reads;
mod recent;
mod recorder;
mod recordings;
mod writer;

#[cfg(test)]
mod tests;

pub use event::{
    AnswerEvent, BackendEvent, BackendsEvent, CookieEvent, Event, FaultEvent, FieldEvent, LoadEvent,
    OthersEvent, OutcomesEvent, PickEvent, StartEvent, StateEvent, decode_events,
};
pub use file::{Ending, Frame, LogError, LogReader, LogWriter};
pub use reads::Reads;
pub use recent::Recorded;
pub(in crate::policy) use recorder::Asked;
pub use recorder::{Batch, Recorder, StreamState, own_id};
pub use recordings::{Opened, Recordings, Segment, Storage};
