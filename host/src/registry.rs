//! Components from OCI registries, by digest.
//!
//! Owns the way of a component from a registry to this machine (OCI Distribution Specification 1.1), and where it is kept, so that it is asked
//! for once. It must not know what a component does, nor which pool wants it.
//!
//! Invariant: bytes are given out only if the digest in the configuration leads to them, by way of the manifest, whether they come from a
//! registry, from a mirror or from the disk.
//! Read next: `registry/pull.rs` (what is asked), `registry/kept.rs`.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex as AsyncMutex, Semaphore};

mod kept;
mod login;
mod manifest;
mod pull;
#[cfg(test)]
mod tests;
mod url;

use crate::{
    config::{Artifact, Mistake, Registry},
    state::State,
};
use kept::Kept;
use pull::{Failed, Pull, Pulled};

/// Registries count requests, and components are held in memory.
const AT_ONCE: usize = 4;
/// Tries of one pull, while there is time.
const TRIES: u32 = 3;
/// Before the second try, and twice that before the third.
const PAUSE: Duration = Duration::from_millis(500);

/// The components that were pulled.
#[derive(Debug)]
pub struct Store {
    kept: Arc<Kept>,
    places: Semaphore,
    /// By their manifests' digests; locked by whoever pulls one.
    under_way: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

impl Store {
    /// Kept until the process ends.
    pub fn in_memory() -> Self {
        Self::over(Kept::in_memory())
    }

    /// Kept over restarts, up to so many bytes: those that were used last.
    ///
    /// # Errors
    /// When the directory cannot be made, or others could write into it.
    pub fn open(state: &State, bytes_max: u64) -> io::Result<Self> {
        let directory = state.directory("registry")?;
        Ok(Self::over(Kept::on_disk(directory, bytes_max)))
    }

    fn over(kept: Kept) -> Self {
        Self {
            kept: Arc::new(kept),
            places: Semaphore::new(AT_ONCE),
            under_way: Mutex::default(),
        }
    }

    /// A component: the one that is kept, or else the registry's. Dropping this ends the pull.
    ///
    /// # Errors
    /// Why it cannot be had, told at the key that names it or at the one that is the cause.
    pub async fn component(
        &self,
        artifact: &Artifact,
        registry: &Registry,
        bytes_max: usize,
    ) -> Result<Arc<[u8]>, Box<Mistake>> {
        let place = self.place(&artifact.digest);
        let _only_one = place.lock().await;
        if let Some(found) = self.find(artifact).await {
            return Ok(found);
        }
        // Never closed.
        let _place = self.places.acquire().await;
        let started = Instant::now();
        let Pulled { manifest, component } = pull(artifact, registry, bytes_max).await?;
        tracing::info!(
            component = %artifact,
            bytes = component.len(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "pulled from a registry"
        );
        let component: Arc<[u8]> = component.into();
        let (kept, wasm) = (self.kept.clone(), component.clone());
        // What cannot be kept serves all the same, and says so.
        let _ = tokio::task::spawn_blocking(move || kept.keep(&manifest, &wasm)).await;
        Ok(component)
    }

    /// The bytes that have this digest, if a component that was pulled is still kept. It may block.
    pub fn kept(&self, digest: &str) -> Option<Arc<[u8]>> {
        self.kept.find(digest)
    }

    async fn find(&self, artifact: &Artifact) -> Option<Arc<[u8]>> {
        let (kept, digest) = (self.kept.clone(), artifact.digest.clone());
        let find = move || {
            let manifest = kept.find(&digest)?;
            let layer = manifest::layer(&manifest).ok()?;
            kept.find(&layer.digest)
        };
        tokio::task::spawn_blocking(find).await.ok()?
    }

    fn place(&self, digest: &str) -> Arc<AsyncMutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, place| place.strong_count() > 0);
        if let Some(place) = under_way.get(digest).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::new(AsyncMutex::new(()));
        under_way.insert(digest.to_owned(), Arc::downgrade(&place));
        place
    }
}

/// Pulls, again if that may help, as long as there is time.
async fn pull(artifact: &Artifact, registry: &Registry, bytes_max: usize) -> Result<Pulled, Box<Mistake>> {
    let until = Instant::now() + registry.timeout;
    let mut last = None;
    for number in 1..=TRIES {
        let pull = Pull::new(artifact, registry);
        match tokio::time::timeout_at(until.into(), pull.run(bytes_max)).await {
            Ok(Ok(pulled)) => return Ok(pulled),
            Ok(Err(Failed::Wrong(mistake))) => return Err(mistake),
            Ok(Err(Failed::Refused(text))) => return Err(artifact.place.mistake(text)),
            Ok(Err(Failed::Away(text))) => last = Some(text),
            Err(_) => {
                let cause = last
                    .map(|text| format!("; before that: {text}"))
                    .unwrap_or_default();
                let text = format!(
                    "is not here after {:?} (timeout of the registry){cause}",
                    registry.timeout
                );
                return Err(artifact.place.mistake(text));
            }
        }
        if number < TRIES {
            tokio::time::sleep(PAUSE * number).await;
        }
    }
    Err(artifact.place.mistake(last.unwrap_or_default()))
}
