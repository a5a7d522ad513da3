//! Backends that are found while the balancer runs, instead of being listed in its configuration.
//!
//! Owns the sources (names of the DNS, a file, etcd), when they are asked again, and the last good set of each pool. It must not
//! know what becomes of a set: who follows it is told that there is another one.
//!
//! Invariant: a set that was found stays until another one is found. A source that fails, or that has nothing to say, takes no
//! backend away: an outage of the DNS must not become an outage of everything behind it.
//! Read next: `discovery/finder.rs` (the last good set), `discovery/dns.rs`, `discovery/file.rs`, `discovery/etcd.rs`.

use std::{future::Future, pin::Pin};

use crate::config::{Backend, Discover, DiscoverFrom};

mod dns;
mod etcd;
mod file;
mod finder;
#[cfg(test)]
mod tests;

pub use finder::{Finder, Report, Update};

/// Backends that one source may name. More is a mistake of somebody's, and would cost every worker memory and time.
const FOUND_MAX: usize = 10_000;

/// Why nothing was found, in words for an operator. The set before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a source is about to say.
pub type Finding<'a> = Pin<Box<dyn Future<Output = Result<Vec<Backend>, Failure>> + Send + 'a>>;

/// Where backends are found.
pub trait Source: Send {
    /// The set as it is now, the first time; from then on this waits until the set may be another one. It says when by
    /// itself: a source that is told of changes waits for them, one that is not waits for a time. After a failure, it waits
    /// before it tries again. Dropping what is waited for loses nothing.
    fn next(&mut self) -> Finding<'_>;
}

/// The source that the configuration names.
fn source(discover: &Discover) -> Box<dyn Source> {
    match &discover.from {
        DiscoverFrom::Dns { .. } | DiscoverFrom::Srv { .. } => Box::new(dns::Dns::new(discover.clone())),
        DiscoverFrom::File(path) => Box::new(file::File::new(path.clone())),
        DiscoverFrom::Etcd { at, service } => Box::new(etcd::Etcd::new(at, service)),
    }
}
