//! Pools for unit tests: a valid configuration to change field by field.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Pool;
use crate::config;

/// Backends at these addresses, all else at its default; no active checks, as without a `health` table.
pub(crate) fn config(addresses: &[&str]) -> config::Pool {
    config::Pool {
        name: "shop".into(),
        tenant: None,
        policy: "least-connections".into(),
        fallback: "least-connections".into(),
        hash_on: vec![config::HashOn::ClientIp],
        backends: addresses.iter().map(|address| backend(address)).collect(),
        discover: None,
        connect_timeout: Duration::from_secs(1),
        protocol: config::PoolProtocol::Http1,
        tls: None,
        send_proxy: None,
        response_timeout: Duration::from_secs(60),
        request_timeout: None,
        body_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(30),
        idle_connections: 256,
        panic_threshold: 50,
        overflow: None,
        zone: None,
        drain_timeout: Duration::from_secs(300),
        slow_start: Duration::ZERO,
        load_view: config::LoadView::Node,
        health: None,
        outlier: Some(config::Outlier {
            consecutive_failures: count(5),
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            max_ejected: 50,
        }),
        sticky: None,
        retry: config::Retry::default(),
        limits: None,
        record: None,
    }
}

/// TCP checks with the default times.
pub(crate) fn health() -> config::Health {
    config::Health {
        kind: config::HealthKind::Tcp,
        port: None,
        tls: false,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: count(2),
        fall: count(3),
    }
}

/// A backend with the defaults.
pub(crate) fn backend(address: &str) -> config::Backend {
    config::Backend {
        address: address.into(),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    }
}

/// A pool of one worker; its addresses must be numeric.
pub(crate) fn pool(config: config::Pool, previous: Option<&Pool>, now: Instant) -> Pool {
    let sockets: Vec<SocketAddr> = config
        .backends
        .iter()
        .map(|backend| backend.address.parse().expect("address:port"))
        .collect();
    Pool::new(Arc::new(config), &sockets, 1, previous, now)
}

/// A number that is not 0.
pub(crate) fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not 0")
}
