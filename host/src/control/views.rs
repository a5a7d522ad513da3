//! What is in service, as the rest of the process sees it.
//!
//! Owns the views of a pool, of a listener and of an upgrade. It must not know who puts them there.

use std::{net::SocketAddr, sync::Arc};

use crate::{config, discovery::Finder, health::Supervisor, metrics, policy::Deployment, pool::Pool};

/// A pool in service.
#[derive(Clone)]
pub struct PoolView {
    /// Its backends.
    pub pool: Arc<Pool>,
    /// Its policy.
    pub deployment: Arc<Deployment>,
    /// Its checks.
    pub supervisor: Arc<Supervisor>,
    /// Where its backends are found, if they are.
    pub discovery: Option<Arc<Finder>>,
}

/// A listener in service.
#[derive(Clone)]
pub struct ListenerView {
    /// Its rules.
    pub config: Arc<config::Listener>,
    /// Where it really listens, which matters for port 0.
    pub address: SocketAddr,
    /// What is counted of it.
    pub counters: Arc<metrics::Listener>,
}

/// What became of the last try to have another process take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeView {
    /// How far it is; `None` if there is none just now.
    pub stage: Option<UpgradeStage>,
    /// Why the last one does not serve, a line for each mistake.
    pub last_error: Option<String>,
}

/// How far a process is that is to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UpgradeStage {
    /// It reads, compiles and tries.
    Starting,
    /// It could serve; this process gives up its place in the cluster first, and its lease before that.
    Leaving,
    /// It takes that place.
    Joining,
}
