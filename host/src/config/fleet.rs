//! `[etcd]` and `[fleet]` as a file may say it: where the fleet keeps what it shares, and which of its nodes this is.
//!
//! Owns the values. `file/fleet.rs` reads them; etcd is spoken to in `etcd.rs`, and the fleet is in `fleet.rs`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Mistake, NamedFile, PoolTls};

/// `[etcd]`: where to ask. A change takes a restart, except for what pools discover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Key `endpoints`, required: members of etcd as `host:port`; any that answers will do. 1 to 16.
    pub endpoints: Vec<String>,
    /// Key `prefix`: what the names of all keys begin with. Default `trimtab/`.
    pub prefix: String,
    /// Key `timeout` for one answer of one member, connecting included. Default 2 s, 100 ms to 1 min.
    pub timeout: Duration,
    /// Keys `user` and `password_file`: who asks. Default nobody, which an etcd with users refuses.
    pub user: Option<User>,
    /// `[etcd.tls]`, the defaults of it if endpoints begin with `https://` and there is no table; `None` is plain text.
    pub tls: Option<PoolTls>,
}

/// Who asks, of etcd or of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Key `user`.
    pub name: String,
    /// Key `password_file`: a file with the password, read at each login.
    pub password: NamedFile,
}

/// `[fleet]`: nodes that serve side by side and have their configuration from etcd. A change takes a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Key `node`, required: this node's name, another one on each.
    pub node: String,
    /// The table `[etcd]`, which a fleet needs.
    pub etcd: Arc<Etcd>,
    /// Key `ttl`: how long a node is still a member that is not heard any more. Default 10 s, 2 s to 5 min, whole seconds.
    pub ttl: Duration,
    /// Key `canary`: whether this node is among the first to take another configuration. Default false; if no node of the
    /// fleet says so, the first one by its name is.
    pub canary: bool,
    /// Key `canary_for`: how long this node serves another configuration before it is called good. Default 30 s, 0 s to 24 h.
    pub canary_for: Duration,
    /// Where the last good configuration and the components that it names are kept: `state.directory`, which a fleet needs.
    pub directory: PathBuf,
}

/// A password that everybody on the way could read.
pub(super) fn open_password(etcd: &Option<Arc<Etcd>>) -> Option<Mistake> {
    let etcd = etcd.as_ref().filter(|etcd| etcd.tls.is_none())?;
    let password = &etcd.user.as_ref()?.password;
    let message = "the password is sent unencrypted: endpoints begin with http://";
    (!etcd.endpoints.iter().all(|endpoint| is_here(endpoint))).then(|| *password.mistake(message))
}

/// Whether what is sent there stays on this machine.
pub(super) fn is_here(address: &str) -> bool {
    let socket = address.parse::<std::net::SocketAddr>();
    socket.is_ok_and(|socket| socket.ip().is_loopback())
}

impl Fleet {
    /// Where a component with this digest is kept.
    pub fn component(&self, digest: &str) -> PathBuf {
        component(&self.directory, digest)
    }
}

pub(super) fn component(directory: &std::path::Path, digest: &str) -> PathBuf {
    directory.join("fleet-policies").join(format!("{digest}.wasm"))
}
