//! The last good generation, and the components that it names, on this node's disk.
//!
//! Owns what a start without etcd serves. What is kept carries a seal, like all that the balancer keeps.

use std::{collections::BTreeSet, io};

use super::record::Generation;
use crate::{
    config,
    policy::digest,
    state::{Durability, Sealed, State},
};

const NAME: &str = "generation";
/// A generation fits into one value of etcd.
const BYTES_MAX: usize = 4 << 20;
/// The directory of [`config::Fleet::component`].
const COMPONENTS: &str = "fleet-policies";

/// What is kept.
#[derive(Debug)]
pub struct Store {
    generation: Sealed,
    components: crate::state::Directory,
}

impl Store {
    /// Opens it, and makes what is missing.
    ///
    /// # Errors
    /// When it cannot be made, or others could write into it.
    pub fn open(config: &config::Fleet) -> io::Result<Self> {
        let state = State::open(&config.directory)?;
        Ok(Self {
            generation: state.sealed("fleet")?,
            components: state.directory(COMPONENTS)?,
        })
    }

    /// The generation that served last; `None` if none did.
    pub fn generation(&self) -> Option<Generation> {
        let read = self.generation.read(NAME, BYTES_MAX);
        let read = read.map_err(|error| error.to_string()).and_then(|bytes| {
            let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes));
            parsed.transpose().map_err(|error| error.to_string())
        });
        read.unwrap_or_else(|error| {
            tracing::error!(error, "the fleet's last configuration cannot be read back");
            None
        })
    }

    /// Keeps this one in place of the one before, and only the components that either names.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, generation: &Generation, before: Option<&Generation>) -> io::Result<()> {
        let text = serde_json::to_vec(generation)?;
        self.generation
            .write(NAME, &[&text[..]].concat(), Durability::Power)?;
        let named = |generation: &Generation| {
            generation
                .policies
                .iter()
                .map(|digest| format!("{digest}.wasm"))
                .collect()
        };
        let mut wanted: BTreeSet<String> = named(generation);
        wanted.extend(before.map(named).into_iter().flatten());
        for entry in self.components.entries() {
            if !wanted.contains(&entry.name) {
                self.components.remove(&entry.name)?;
            }
        }
        Ok(())
    }

    /// The node serves what is in its file.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn forget(&self) -> io::Result<()> {
        self.generation.directory().remove(NAME)
    }

    /// Whether a component is here.
    pub fn has(&self, digest: &str) -> bool {
        self.components.path().join(format!("{digest}.wasm")).exists()
    }

    /// Keeps a component.
    ///
    /// # Errors
    /// When its bytes are others than its name says, or it cannot be written.
    pub fn add(&self, wanted: &str, wasm: &[u8]) -> io::Result<()> {
        if digest(wasm) != wanted {
            return Err(io::Error::other(format!(
                "component {wanted} has other bytes than its digest says"
            )));
        }
        self.components
            .write(&format!("{wanted}.wasm"), &[wasm], Durability::Power)
    }
}
