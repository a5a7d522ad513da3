//! The demonstration. A placeholder until the real one is merged.

use std::process::ExitCode;

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long; its own length without.
    pub seconds: Option<u64>,
    /// Whether to go on serving afterwards.
    pub keep: bool,
}

/// Runs it.
pub fn run(options: Options) -> ExitCode {
    let _ = options;
    ExitCode::FAILURE
}
