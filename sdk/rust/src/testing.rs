//! A host for tests: policies run natively against it, by the same code that runs them as components.
//!
//! [`pool`] builds pools, [`with_host`] scripts what the host's functions answer, [`Trial`] makes many picks and counts
//! them, and [`Native`] drives a policy by the contract's own calls, which is what a conformance suite compares with
//! the component. Everything is per thread and seeded, so tests run side by side and repeat.

mod drive;
mod fake;
mod pools;

pub(crate) use fake::imports;

pub use drive::{Dice, Driven, Native, Shares, Trial};
pub use fake::{FakeHost, with_host};
pub use pools::{PoolBuilder, pool};
