//! Which backends are fit to serve: active checks, failures of real requests, and the way back.
//!
//! Owns when a backend is checked, what a check's result means, and which failures are too many. Every verdict goes
//! through `Pool`, which decides what it means for picks. It must not choose a backend, nor know what a policy is.
//!
//! Invariant: one [`Supervisor`] changes the condition of a pool's backends, one event after the other; workers only
//! send it reports, and never wait for it.
//! Read next: `health/tally.rs` (when checks count), `health/supervisor.rs` (what happens then), `pool.rs`.

mod outlier;
mod plain;
mod probe;
mod stream;
mod supervisor;
mod tally;

pub(crate) use outlier::Conduct;
pub use outlier::Reporter;
pub use probe::CheckResult;
pub use supervisor::{Supervisor, Transitions};
pub(crate) use tally::{Past, Tally, Verdict};

#[cfg(test)]
mod tests;
