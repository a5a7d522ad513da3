//! How the balancer writes its log: one line a record, to standard error.
//!
//! Owns format and level. It must not read the environment, nor know what is logged.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Begins to log, for the rest of the process; what was begun before stays.
pub fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let is_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(is_terminal);
    let is_json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    // Fails only when a log was begun already.
    let _ = if is_json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
}
