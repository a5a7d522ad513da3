//! `[log]` as a file may say it.
//!
//! Owns the values. It must not open files.

use std::path::PathBuf;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Key `level`: error, warn, info, debug. Default info.
    pub level: LogLevel,
    /// Key `format`: auto (pretty on a terminal, JSON otherwise), pretty, json. Default auto.
    pub format: LogFormat,
    /// Key `access`: off, stdout, stderr, or a file's path (appended to). Default off.
    pub access: AccessLog,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// Also what may need one.
    Warn,
    /// Also every change of state.
    Info,
    /// Also what policies say at debug level, and the balancer's own details.
    Debug,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, `Json` otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// Appended to this file; relative to the configuration file.
    File(PathBuf),
}
