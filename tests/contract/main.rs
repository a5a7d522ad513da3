//! What the contract promises over releases: a policy that was built once loads for ever, and answers the same.
//!
//! `VERSION/` has the contract of each release, with components that were built by it then; `README.md` tells the rules.
//! Read next: `fixtures.rs` (old components in the host of today) and `compatible.rs` (what a change of `wit/` may do).

mod compatible;
mod fixtures;
mod transcript;

use std::path::{Path, PathBuf};

/// The folders of the releases, oldest first.
fn releases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let entries = std::fs::read_dir(&folder).expect("the contract's tests");
    let mut releases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("wit").is_dir())
        .collect();
    assert!(!releases.is_empty(), "no release in {}", folder.display());
    releases.sort();
    releases
}
