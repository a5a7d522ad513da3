//! What is in service, as the rest of the process sees it.
//!
//! Owns the views of a pool and of a listener. It must not know who puts them there.

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
