//! `[policy.NAME]` as a file may say it: where a component comes from, and what it may use.
//!
//! Owns the values; `file/policy.rs` reads them.

use std::{path::PathBuf, time::Duration};

use super::{Artifact, Grants};

/// `[policy.NAME]`: a component with its limits and its own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The table's name, or the built-in's.
    pub name: String,
    /// Key `tenant`: whose it is; only pools of the same tenant may use it. Default nobody's.
    pub tenant: Option<String>,
    /// Key `component` or `builtin`, exactly one.
    pub source: PolicySource,
    /// Key `memory`: most memory of one instance, tables included. Default 32 MiB, 1 MiB to 1 GiB, at most the tenant's.
    pub memory_bytes: usize,
    /// Key `deadline` of a pick. Default 1 ms, 1 ms to 1 s, whole milliseconds, at most the tenant's.
    pub deadline: Duration,
    /// Key `wasi`: what a component that imports WASI gets. Default none.
    pub wasi: Wasi,
    /// `[policy.NAME.grants]`: what it may read. Default everything; for a tenant's component, little.
    pub grants: Grants,
    /// `[policy.NAME.config]` as JSON text, handed to `configure`. Default `{}`.
    pub config_json: String,
    /// Line of the table in the file, for messages; `None` for a built-in named without a table.
    pub line: Option<usize>,
}

/// Where a policy's component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// A `.wasm` file; relative to the configuration file, made absolute here. Watched.
    File(PathBuf),
    /// One in a registry, by its digest.
    Registry(Artifact),
    /// One that is part of this program: [`BUILTIN_POLICIES`](super::BUILTIN_POLICIES).
    Builtin(String),
}

impl PolicySource {
    /// Whether it is part of this program, and not somebody's own.
    pub fn is_builtin(&self) -> bool {
        matches!(self, Self::Builtin(_))
    }
}

/// What a component that imports WASI gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// It is refused at load, with the tool's flag that removes the imports.
    None,
    /// A context with nothing granted: no files, no network, no arguments. Its clocks advance by 1 us with each reading and
    /// its random numbers are the same in every run, so its picks can be replayed.
    Empty,
}
