//! What sticky sessions are signed with.
//!
//! Owns where a pool's secret comes from: its file, else the cluster's key, else the state directory, else this process.
//! It must not know what a cookie looks like.

use std::{collections::BTreeMap, sync::Arc};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{StartError, cluster};
use crate::{
    config::{self, Config, Mistake, Mistakes, NamedFile},
    control::PoolView,
    state::State,
    sticky::{Secret, Sticky},
};

/// As many bits as the seal can use.
const SECRET_BYTES_MIN: usize = 32;
/// A larger file is some other one.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// The secrets in service.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Of pools with a file of their own.
    by_pool: BTreeMap<String, Secret>,
    /// Of all others. The same as long as the process lives, or the state directory; in all nodes of a cluster.
    own: Option<Secret>,
}

impl Secrets {
    /// Reads what the configuration needs.
    ///
    /// # Errors
    /// Every file that is no good, or what the system says.
    pub(super) async fn load(&self, config: Config) -> Result<(Config, Self), StartError> {
        if config.pools.values().all(|pool| pool.sticky.is_none()) {
            return Ok((config, self.clone()));
        }
        let known = self.clone();
        let load = move || known.load_now(&config).map(|secrets| (config, secrets));
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.map_err(|error| StartError::Engine(error.to_string()))?
    }

    fn load_now(self, config: &Config) -> Result<Self, StartError> {
        let (mut by_pool, mut wrong) = (BTreeMap::new(), Vec::new());
        for (name, pool) in &config.pools {
            let file = pool.sticky.as_ref().and_then(|sticky| sticky.key.as_ref());
            match file.map(read) {
                Some(Ok(secret)) => drop(by_pool.insert(name.clone(), secret)),
                Some(Err(mistake)) => wrong.push(*mistake),
                None => {}
            }
        }
        if let Some(mistakes) = Mistakes::collect(wrong) {
            return Err(StartError::Mistakes(mistakes));
        }
        let own = match (self.own, &config.cluster, &config.state) {
            (Some(own), ..) => own,
            // A session has to outlive a node.
            (None, Some(config), _) => Secret::of(&cluster::derived(config, "sticky")?),
            (None, None, Some(kept)) => {
                let state = State::open(&kept.directory).map_err(|error| StartError::State {
                    path: kept.directory.display().to_string(),
                    error,
                })?;
                Secret::of(&state.derived("sticky"))
            }
            (None, None, None) => random().map_err(StartError::Thread)?,
        };
        Ok(Self {
            by_pool,
            own: Some(own),
        })
    }

    /// The sessions of a pool; those that it has already, if nothing about them changed.
    pub(super) fn sticky(
        &self,
        pool: &config::Pool,
        known: Option<&PoolView>,
        workers: usize,
    ) -> Option<Arc<Sticky>> {
        let config = pool.sticky.as_ref()?;
        let secret = self.by_pool.get(&pool.name).or(self.own.as_ref())?;
        let known = known.and_then(|view| view.pool.sticky());
        let same = known.filter(|sticky| sticky.is_of(config, secret));
        Some(
            same.cloned().unwrap_or_else(|| {
                Arc::new(Sticky::new(config.clone(), secret.clone(), &pool.name, workers))
            }),
        )
    }
}

fn read(file: &NamedFile) -> Result<Secret, Box<Mistake>> {
    let bytes =
        std::fs::read(&file.path).map_err(|error| file.mistake(format!("cannot be read: {error}")))?;
    // Editors end a text with an empty line.
    let secret = bytes.trim_ascii();
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(file.mistake(format!(
            "expected {SECRET_BYTES_MIN} bytes of secret at least, as `openssl rand -hex 32` gives; there are {}",
            secret.len()
        )));
    }
    Ok(Secret::of(secret))
}

fn random() -> std::io::Result<Secret> {
    let mut bytes = [0; SECRET_BYTES_MIN];
    if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
        return Err(std::io::Error::other("the system gave too few random bytes"));
    }
    Ok(Secret::of(&bytes))
}
