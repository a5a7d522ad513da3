//! Certificates on their way from files into service.
//!
//! Owns which files are read again and which of what was made of them stays. It must not know what is in them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::StartError;
use crate::{
    config::{Config, Listener, Mistakes},
    tls::Terminator,
};

/// What listeners with TLS need, by their keys.
pub(super) type Terminators = BTreeMap<String, Arc<Terminator>>;

/// Reads the files of all listeners; what is made of the same ones again is the same.
///
/// # Errors
/// Every file that is not what it should be.
pub(super) fn load_all(listeners: &[Listener], known: &Terminators) -> Result<Terminators, StartError> {
    let (mut made, mut wrong) = (Terminators::new(), Vec::new());
    for listener in listeners {
        let Some(tls) = &listener.tls else { continue };
        let key = listener.key();
        match Terminator::load(tls, listener.http2.is_some(), known.get(&key)) {
            Ok(terminator) => {
                made.insert(key, terminator);
            }
            Err(mistakes) => wrong.extend(mistakes),
        }
    }
    match Mistakes::collect(wrong) {
        Some(mistakes) => Err(StartError::Mistakes(mistakes)),
        None => Ok(made),
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
