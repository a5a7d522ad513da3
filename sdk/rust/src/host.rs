//! The one place that calls the host: as a component through the generated bindings, otherwise through
//! [`crate::testing`]. Everything above it is the same code on both.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::policy::trimtab::policy::{diagnostics, nodes, pool, request};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::imports::{diagnostics, nodes, pool, request};

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The policy cannot do its work.
    Error = 0,
    /// Something an operator should look at.
    Warn = 1,
    /// Something worth knowing once.
    Info = 2,
    /// For the policy's author.
    Debug = 3,
}

/// Writes a line to the balancer's log. The host keeps at most 10 lines a second per instance, each cut at 1024 bytes.
pub fn log(level: Level, message: &str) {
    diagnostics::log(level as u8, message);
}
