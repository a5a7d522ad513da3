//! The author's kit: make, build, examine and try out a policy, without a balancer.
//!
//! Owns what `trimtab policy new`, `build`, `check`, `test` and `bench` do, and what they find, as values. It must not
//! know sockets, the command line, or a running balancer: it asks instances as [`crate::policy::Trial`]s.
//!
//! Invariant: what is found depends on the component, its settings and the seed, but for what is measured in time.
//! Read next: `kit/subject.rs` (what is looked at), `kit/rules.rs` (what every policy has to keep), `sdk/README.md`.

mod bench;
mod build;
mod cases;
mod check;
mod claims;
mod create;
mod field;
mod lab;
mod rules;
mod scene;
mod shrink;
mod subject;
mod templates;
mod test;

pub use bench::{Bench, BenchRow, SIZES, bench};
pub use build::{build, show_step};
pub use check::{CheckReport, Cost, admission, check};
pub use create::create;
pub use subject::Subject;
pub use templates::{LANGUAGES, Language};
pub use test::{Failure, RuleResult, TestReport, test};

/// Why a folder cannot be made, built or looked at: a sentence for the author.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KitError(pub String);
