//! The versions that are kept, and what of them survives a restart.
//!
//! Owns the order of writing: a component is there before anything names it, and gone after nothing does any more. Without
//! a state directory everything is kept in memory. A disk that fails costs the memory of a restart and nothing else.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    policy::{Components, Versions},
    state::{Durability, Sealed, State},
};

/// Most bytes of components that are kept in memory.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const INDEX: &str = "index";
const INDEX_BYTES_MAX: usize = 64 << 20;

/// Where versions are kept.
pub(super) struct Archive {
    pub(super) components: Arc<Components>,
    index: Option<Arc<Sealed>>,
    bytes_max: u64,
}

impl Archive {
    /// In the state directory, or in memory without one.
    pub(super) fn open(state: Option<(&State, u64)>) -> std::io::Result<Self> {
        let Some((state, bytes_max)) = state else {
            return Ok(Self {
                components: Arc::new(Components::in_memory()),
                index: None,
                bytes_max: MEMORY_BYTES_MAX,
            });
        };
        Ok(Self {
            components: Arc::new(Components::Disk(state.directory("components")?)),
            index: Some(Arc::new(state.sealed("versions")?)),
            bytes_max,
        })
    }

    /// What the last process kept.
    pub(super) async fn restore(&self) -> Versions {
        let Some(index) = self.index.clone() else {
            return Versions::default();
        };
        let read = tokio::task::spawn_blocking(move || index.read(INDEX, INDEX_BYTES_MAX)).await;
        let text = match read {
            Ok(Ok(Some(text))) => text,
            Ok(Ok(None)) => return Versions::default(),
            Ok(Err(distrust)) => return lost(&distrust.to_string()),
            Err(error) => return lost(&error.to_string()),
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| lost(&error.to_string()))
    }

    /// Keeps these components, and then what names them.
    pub(super) async fn keep(
        &self,
        versions: &mut Versions,
        wasm: Vec<(String, Arc<[u8]>)>,
        pools: &BTreeSet<&str>,
        versions_max: usize,
    ) {
        versions.trim(pools, versions_max, self.bytes_max);
        let wanted = versions.digests();
        let (components, index) = (self.components.clone(), self.index.clone());
        let text = serde_json::to_vec(versions);
        let written = tokio::task::spawn_blocking(move || {
            for (digest, wasm) in wasm.iter().filter(|(digest, _)| wanted.contains(digest)) {
                components.keep(digest, wasm)?;
            }
            if let Some(index) = index {
                index.write(INDEX, &text?, Durability::Power)?;
            }
            components.retain(&wanted);
            Ok::<_, std::io::Error>(())
        });
        let error = match written.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error,
            "versions cannot be kept; a restart would forget the last change"
        );
    }
}

fn lost(reason: &str) -> Versions {
    tracing::error!(
        reason,
        "the kept versions are not trusted and forgotten; every pool is served as the configuration says"
    );
    Versions::default()
}
