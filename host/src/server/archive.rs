//! The versions that are kept, and what of them survives a restart.
//!
//! Owns how a kept version's code is had again, and the order of writing: a component is there before anything names it,
//! and gone after nothing does any more. Without a state directory everything is kept in memory. A disk that fails costs
//! the memory of a restart and nothing else.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use super::loading::read_file;
use crate::{
    config,
    control::Denial,
    policy::{Code, Components, Loader, Refusal, Version, Versions, digest},
    registry::Store,
    state::{Durability, Sealed, State},
};

/// Most bytes of components that are kept in memory.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const INDEX: &str = "index";
const INDEX_BYTES_MAX: usize = 64 << 20;

/// Where a component's bytes can be had. Those of files are read again: of many tenants they would be much to hold until
/// all are loaded.
pub(super) enum Bytes {
    Here(Arc<[u8]>),
    File(PathBuf),
    Pulled(Arc<Store>),
}

/// Where versions are kept.
pub(super) struct Archive {
    pub(super) components: Arc<Components>,
    index: Option<Arc<Sealed>>,
    bytes_max: u64,
}

impl Archive {
    /// In the state directory, or in memory without one.
    pub(super) fn open(state: Option<(&State, u64)>) -> io::Result<Self> {
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
        found: Vec<(String, Bytes)>,
        pools: &BTreeSet<&str>,
        versions_max: usize,
    ) {
        versions.trim(pools, versions_max, self.bytes_max);
        let wanted = versions.digests();
        if self.index.is_none() && found.is_empty() {
            return self.components.retain(&wanted);
        }
        let (components, index) = (self.components.clone(), self.index.clone());
        let text = serde_json::to_vec(versions);
        let written = tokio::task::spawn_blocking(move || {
            for (digest, bytes) in found.iter().filter(|(digest, _)| wanted.contains(digest)) {
                keep(&components, digest, bytes)?;
            }
            if let Some(index) = index {
                index.write(INDEX, &text?, Durability::Power)?;
            }
            components.retain(&wanted);
            Ok::<_, io::Error>(())
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

/// A kept version's code.
pub(super) async fn load(
    loader: &Loader,
    limits: &config::Compile,
    components: &Arc<Components>,
    version: &Version,
) -> Result<Arc<Code>, Denial> {
    let refused = |refusal: Refusal| Denial::Refused(refusal.to_string());
    // No need to read and to hash it again, unless it would be refused now.
    if let Some(code) = loader.loaded(&version.digest)
        && code.bytes <= limits.size_bytes
    {
        return Ok(code);
    }
    if let Some(wasm) = version.builtin() {
        return loader.load_builtin(&wasm.into(), limits).await.map_err(refused);
    }
    let (components, digest) = (components.clone(), version.digest.clone());
    let found = tokio::task::spawn_blocking(move || components.find(&digest));
    let wasm = found.await.ok().flatten().ok_or_else(|| {
        let version = version.short();
        Denial::Unknown(format!(
            "the component of version {version} is not there any more"
        ))
    })?;
    loader.load(&wasm, limits).await.map_err(refused)
}

fn keep(components: &Components, wanted: &str, bytes: &Bytes) -> io::Result<()> {
    let path = match bytes {
        Bytes::Here(wasm) => return components.keep(wanted, wasm),
        Bytes::File(_) | Bytes::Pulled(_) if components.has(wanted) => return Ok(()),
        Bytes::Pulled(store) => {
            let wasm = store.kept(wanted);
            return wasm.map_or(Ok(()), |wasm| components.keep(wanted, &wasm));
        }
        Bytes::File(path) => path,
    };
    match read_file(path, usize::MAX - 1) {
        Ok(wasm) if digest(&wasm) == wanted => components.keep(wanted, &wasm.into()),
        other => {
            let reason = other.map_or_else(|error| error.to_string(), |_| "it has changed since".to_owned());
            tracing::warn!(component = %path.display(), digest = wanted, reason, "cannot be gone back to");
            Ok(())
        }
    }
}

fn lost(reason: &str) -> Versions {
    tracing::error!(
        reason,
        "the kept versions are not trusted and forgotten; every pool is served as the configuration says"
    );
    Versions::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_by_now_is_not_kept_for_the_one_that_serves() {
        let path = std::env::temp_dir().join(format!("trimtab-archive-{}", fastrand::u64(..)));
        let components = Components::in_memory();
        let serves = digest(b"serves");
        std::fs::write(&path, b"newer").unwrap();
        keep(&components, &serves, &Bytes::File(path.clone())).unwrap();
        assert!(!components.has(&serves) && !components.has(&digest(b"newer")));
        std::fs::write(&path, b"serves").unwrap();
        keep(&components, &serves, &Bytes::File(path.clone())).unwrap();
        assert_eq!(components.find(&serves).as_deref(), Some(&b"serves"[..]));
        std::fs::remove_file(&path).unwrap();
        keep(&components, &serves, &Bytes::File(path)).unwrap();
    }
}
