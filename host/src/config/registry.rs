//! `[registry.NAME]`, and components that are in one, as a file may say it.
//!
//! Owns the values. `file/registry.rs` reads them; registries are asked in `registry.rs` at the top.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use super::{Mistake, Place, PoolTls, User, fleet::is_here};

/// By their names: those that have a table, and those that a component is in.
pub type Registries = BTreeMap<String, Arc<Registry>>;

/// `[registry.NAME]`: how a registry is asked. A registry without a table has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Key `endpoint`: where it is, or a mirror of it. Default `https://` and its name.
    pub endpoint: Endpoint,
    /// Key `timeout` for one component, all that has to be asked included. Default 1 min, 1 s to 1 h.
    pub timeout: Duration,
    /// Keys `user` and `password_file`: who asks. Default nobody.
    pub user: Option<User>,
    /// `[registry.NAME.tls]`.
    pub tls: PoolTls,
}

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is spoken to by TLS.
    pub is_secret: bool,
    /// `host:port`.
    pub address: String,
}

/// A component in a registry: what `component = "oci://…"` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The registry's name: a host, with a port unless that is 443.
    pub registry: String,
    /// The name of the repository in it.
    pub repository: String,
    /// SHA-256 of the manifest, in hex: what was reviewed.
    pub digest: String,
    /// For messages.
    pub place: Place,
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            repository,
            digest,
            ..
        } = self;
        write!(f, "oci://{registry}/{repository}@sha256:{digest}")
    }
}

/// Passwords that everybody on the way could read.
pub(super) fn open_passwords(registries: &Registries) -> impl Iterator<Item = Mistake> {
    registries.values().filter_map(|registry| {
        let is_open = !registry.endpoint.is_secret && !is_here(&registry.endpoint.address);
        let user = registry.user.as_ref().filter(|_| is_open)?;
        let message = "the password is sent unencrypted: endpoint begins with http://";
        Some(*user.password.mistake(message))
    })
}
