//! Where a pool's backends are found while the balancer runs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::Etcd;

/// `[pool.NAME.discover]`: backends that are found, beside those that are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// Exactly one of the keys `dns`, `srv`, `file` and `etcd`.
    pub from: DiscoverFrom,
    /// Key `family`: which addresses of a name are backends. Default any.
    pub family: Family,
    /// Key `resolver`: the DNS servers that are asked. Default empty, which is those of the system (`/etc/resolv.conf`).
    pub resolver: Vec<SocketAddr>,
    /// Key `interval_min`: answers with a shorter time to live are kept for this long, and after a failure it is the first
    /// pause. Default 1 s, 100 ms to 1 h.
    pub interval_min: Duration,
    /// Key `interval_max`: answers with a longer time to live are asked for again after this, and after failures in a row it is
    /// the longest pause. Default 30 s, at least `interval_min`, up to 24 h.
    pub interval_max: Duration,
    /// Key `timeout` for one answer, with all tries. Default 2 s, 10 ms to 1 min.
    pub timeout: Duration,
}

/// A source of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverFrom {
    /// Key `dns`: every address of a name, at one port.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// Key `srv`: every target of a service.
    Srv {
        /// The service, like `_http._tcp.shop.internal`.
        name: String,
    },
    /// Key `file`: what another program has listed there; relative to the configuration file.
    File(PathBuf),
    /// Key `etcd`: what has registered under a name there, and is still there.
    Etcd {
        /// Where to ask: the table `[etcd]`.
        at: Arc<Etcd>,
        /// The name.
        service: String,
    },
}

impl std::fmt::Display for DiscoverFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns { name, port } => write!(f, "dns {name}:{port}"),
            Self::Srv { name } => write!(f, "srv {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Etcd { at, service } => write!(f, "etcd {}backends/{service}/", at.prefix),
        }
    }
}

/// Which addresses of a name are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// All.
    Any,
    /// A.
    V4,
    /// AAAA.
    V6,
}
