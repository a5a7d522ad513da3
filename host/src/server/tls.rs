//! Certificates on their way from files into service.
//!
//! Owns which files are read again and which of what was made of them stays. It must not know what is in them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{StartError, cluster};
use crate::{
    config::{Config, Listener, Mistakes, Protocol},
    etcd,
    tls::{ALPN_H2, ALPN_HTTP1, Originator, SharedSecret, Terminator},
};

/// What listeners with TLS need, by their keys.
pub(super) type Terminators = BTreeMap<String, Arc<Terminator>>;
/// What pools with TLS need, by their names.
pub(super) type Originators = BTreeMap<String, Arc<Originator>>;

/// All that TLS needs.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    pub(super) terminators: Terminators,
    pub(super) originators: Originators,
    /// Of a cluster's node, as it was at the start.
    shared: Option<SharedSecret>,
}

/// Reads the files of all listeners and pools, and those for etcd; what is made of the same ones again is the same.
///
/// # Errors
/// Every file that is not what it should be.
pub(super) fn load_all(config: &Config, known: &Loaded) -> Result<Loaded, StartError> {
    let mut wrong = Vec::new();
    let mut made = Loaded {
        shared: match (&config.cluster, &known.shared) {
            (Some(config), None) => Some(SharedSecret(cluster::derived(config, "tls tickets")?)),
            (_, known) => known.clone(),
        },
        ..Loaded::default()
    };
    for (name, pool) in &config.pools {
        let Some(tls) = &pool.tls else { continue };
        match Originator::load(tls, &pool.backends, known.originators.get(name)) {
            Ok(originator) => {
                made.originators.insert(name.clone(), originator);
            }
            Err(mistakes) => wrong.extend(mistakes),
        }
    }
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        let key = listener.key();
        let shared = made
            .shared
            .as_ref()
            .map(|secret| (secret, listener.name.as_str()));
        match Terminator::load(tls, spoken(listener), known.terminators.get(&key), shared) {
            Ok(terminator) => {
                made.terminators.insert(key, terminator);
            }
            Err(mistakes) => wrong.extend(mistakes),
        }
    }
    // Which is read again at each connection; here, so that a mistake does not come to light then.
    wrong.extend(config.etcd.iter().flat_map(|config| etcd::mistakes(config)));
    match Mistakes::collect(wrong) {
        Some(mistakes) => Err(StartError::Mistakes(mistakes)),
        None => Ok(made),
    }
}

/// What is agreed on inside of TLS, the best first. Of bytes we do not know.
fn spoken(listener: &Listener) -> &'static [&'static [u8]] {
    match (listener.protocol, &listener.http2) {
        (Protocol::Tcp, _) => &[],
        (Protocol::Http, None) => &[ALPN_HTTP1],
        (Protocol::Http, Some(_)) => &[ALPN_H2, ALPN_HTTP1],
    }
}

/// Whether nothing was made anew.
pub(super) fn are_same(these: &Terminators, those: &Terminators) -> bool {
    these.len() == those.len()
        && these
            .iter()
            .all(|(key, terminator)| Terminator::is_same(Some(terminator), those.get(key)))
}

/// The files that are watched for it.
pub(super) fn files(config: &Config) -> impl Iterator<Item = PathBuf> {
    config.tls_files().map(|file| file.path.clone())
}
