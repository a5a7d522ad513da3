//! What can go wrong in a policy.
//!
//! Owns the kinds of faults and their words. What follows from one is the seat's business.

use wasmtime::WasmBacktrace;

use super::text::tame;

/// So many functions of a guest's stack are named, and of each so much.
const FRAMES_MAX: usize = 4;
const NAME_BYTES_MAX: usize = 80;

/// What went wrong in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It trapped: a panic, an access out of bounds, a stack overflow.
    Trap,
    /// It did not answer in time.
    Deadline,
    /// It trapped after it was denied more memory.
    Memory,
    /// It named a backend that does not exist.
    BadIndex,
    /// It named a backend that is not usable, or was already tried while others were not.
    Unusable,
    /// It refused its configuration.
    Configure,
    /// The host failed inside an import. A bug of ours.
    Host,
}

impl FaultKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::BadIndex,
        Self::Unusable,
        Self::Configure,
        Self::Host,
    ];

    /// The word used in logs, metrics and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::BadIndex => "bad-index",
            Self::Unusable => "unusable",
            Self::Configure => "configure",
            Self::Host => "host",
        }
    }

    /// Whether the instance can go on: it gave an answer, if a bad one.
    pub(super) fn is_survivable(self) -> bool {
        matches!(self, Self::BadIndex | Self::Unusable)
    }
}

/// A fault of a policy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the policy failed in {call}: {message}")]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// In which call.
    pub call: &'static str,
    /// What the guest or the engine said.
    pub message: String,
}

/// Where a guest trapped: the innermost functions, if the component has names.
pub(super) fn place(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let named = frames.iter().filter_map(|frame| frame.func_name());
    let names: Vec<String> = named
        .take(FRAMES_MAX)
        .map(|name| tame(name.to_owned(), NAME_BYTES_MAX))
        .collect();
    (!names.is_empty()).then(|| names.join(" < "))
}
