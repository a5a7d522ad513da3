//! The configuration: what a file may say, as values that cannot be invalid.
//!
//! Owns the file format (TOML), its defaults and every message about a mistake in it. It is the only module that knows
//! TOML. It must not read the environment, open sockets, resolve names or load components: `check` has to work on a
//! laptop that has none of the backends.
//!
//! Invariant: a [`Config`] that exists is usable; references between its parts (route to pool, pool to policy) hold.
//! Read next: `config/file.rs` (the keys), `config/reader.rs` (how mistakes are collected), `pool.rs`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::proxy_header;

mod addresses;
pub mod author;
mod cluster;
mod discover;
mod file;
mod fleet;
mod grants;
mod listener;
mod log;
mod mistakes;
mod names;
mod peers;
mod policy;
mod proxy_protocol;
mod rates;
mod reader;
mod registry;
mod resilience;
mod scenario;
mod sticky;
mod syntax;
mod tenant;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod zone;
pub use cluster::{
    Cluster, GateKind, Hooks, LIFETIME_LATE, LIFETIME_UNIT, Member as ClusterMember, MemberRole, Takeover,
    WithoutWitness,
};
pub use discover::{Discover, DiscoverFrom, Family};
pub use file::{Shared, components_in};
pub(crate) use file::{
    discover::{listed_backends, registered_backend},
    policy::builtin as builtin_policy,
};
pub use fleet::{Etcd, Fleet, User};
pub use grants::{Grant, Grants, Listed};
pub use listener::{Forwarded, Http2, Limits, Listener, Paths, Protocol, Route, Underscores};
pub use log::{AccessLog, Log, LogFormat, LogLevel};
pub use mistakes::{Mistake, Mistakes};
pub use peers::{LoadView, Peers};
pub use policy::{Policy, PolicySource, Wasi};
pub use proxy_protocol::{ProxyProtocol, Subnet};
pub use rates::{Rate, Rates};
pub use registry::{Artifact, Endpoint, Registries, Registry};
pub use resilience::{PoolLimits, Retry, RetryOn};
pub use scenario::{
    Action, Arrivals, Autoscale, Balancers, Class, Distribution, Group, Happening, Keys, Network, Popularity,
    Process, Scenario,
};
pub use sticky::{SameSite, Secure, Sticky};
pub use tenant::{Tenant, Tenants};
pub use tls::{Certificate, ClientCertificates, NamedFile, Place, PoolTls, Tls, TlsVersion};
pub(crate) use units::{show_duration, show_size};
pub(crate) use zone::{asks_for_zone, in_zone};

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads. Key `workers`, default one per core available to the process, 1 to 512.
    pub workers: NonZeroUsize,
    /// How long a graceful stop waits for requests in flight. Key `drain`, default 10 s, 0 s to 1 h.
    pub drain: Duration,
    /// How long listeners still accept after the stop has begun and `/readyz` says so, before `drain` begins. Key
    /// `drain_delay`, default 0 s, 0 s to 1 h.
    pub drain_delay: Duration,
    /// The admin listener; `None` only with `admin.listen = "off"`.
    pub admin: Option<Admin>,
    /// What is logged, and how.
    pub log: Log,
    /// What compiling a component may cost.
    pub compile: Compile,
    /// What is kept on disk; `None` without `state.directory`.
    pub state: Option<State>,
    /// Versions of its policy that are kept for each pool, the one in service included. Key `state.versions`, default 10,
    /// 2 to 100.
    pub versions_kept: usize,
    /// Where recorded decisions are kept.
    pub record: Record,
    /// `[cluster]`: of which this node may be the active one; `None` without the table.
    pub cluster: Option<Cluster>,
    /// `[etcd]`: where the fleet and discovered backends are; `None` without the table.
    pub etcd: Option<Arc<Etcd>>,
    /// `[fleet]`: whose configuration this node takes; `None` without the table.
    pub fleet: Option<Fleet>,
    /// `[peers]`: who tells this node its load; nobody without the table.
    pub peers: Option<Peers>,
    /// `[registry.NAME]`: how registries are asked for components. Each that a component is in is here.
    pub registries: Registries,
    /// In the order of the file; at least one, but none in a witness; names and addresses are unique.
    pub listeners: Vec<Listener>,
    /// By name; every pool that a route names is here. A pool without a route is a mistake.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// By name; every policy that a pool names is here, built-ins that were named without a table included.
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// By name; every tenant that a pool or a policy names is here.
    pub tenants: Tenants,
    /// A digest of what all nodes of a cluster should have: of all tables but those that are about one node.
    pub shared: u64,
    /// Of the policies that are files: where each is, and the mistake that it would be to be missing.
    pub(crate) components: Vec<(PathBuf, Mistake)>,
}

impl Default for Compile {
    fn default() -> Self {
        file::COMPILE_DEFAULT
    }
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// Every mistake in it, in the order of its lines.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        file::load(path)
    }

    /// Reads text that came from `origin`, which messages name. Relative paths are relative to `directory`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, origin: &str, directory: &Path) -> Result<Self, Mistakes> {
        file::parse(text, origin, directory)
    }

    /// Reads a file with what a fleet adds to it.
    ///
    /// # Errors
    /// As [`Config::load`]; each mistake with the text that it is in.
    pub fn load_shared(path: &Path, shared: &Shared) -> Result<Self, Mistakes> {
        file::load_shared(path, shared)
    }

    /// Reads text with what a fleet adds to it.
    ///
    /// # Errors
    /// As [`Config::load_shared`].
    pub fn parse_shared(
        text: &str,
        origin: &str,
        directory: &Path,
        shared: &Shared,
    ) -> Result<Self, Mistakes> {
        file::parse_shared(text, origin, directory, shared)
    }

    /// The certificates and keys that it names.
    pub fn tls_files(&self) -> impl Iterator<Item = &NamedFile> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let pools = self.pools.values().filter_map(|pool| pool.tls.as_ref());
        let sticky = self.pools.values().filter_map(|pool| pool.sticky.as_ref());
        listeners
            .flat_map(Tls::files)
            .chain(pools.flat_map(PoolTls::files))
            .chain(sticky.filter_map(|sticky| sticky.key.as_ref()))
    }

    /// What is no mistake, and should still not go unnoticed.
    pub fn warnings(&self) -> Vec<Mistake> {
        let tables = self.pools.values().filter_map(|pool| pool.tls.as_ref());
        let unverified = tables.filter(|tls| !tls.verify);
        let unproven = "backends are believed without a proof (verify = false)";
        let warn = |tls: &PoolTls| *tls.place.mistake(unproven);
        let sticky = self.pools.values().filter_map(|pool| pool.sticky.as_ref());
        let is_alone = self.state.is_none() && self.cluster.is_none();
        let forgotten = sticky.filter(|sticky| sticky.key.is_none() && is_alone);
        let short_lived = "sessions end with the process: there is neither a key nor a [state] directory";
        let forgets = |sticky: &Sticky| *sticky.place.mistake(short_lived);
        let told = unverified.map(warn).chain(forgotten.map(forgets));
        told.chain(fleet::open_password(&self.etcd))
            .chain(registry::open_passwords(&self.registries))
            .collect()
    }

    /// The components that are not there or cannot be read. `parse` does not look, since a policy may well be built
    /// after the file that names it is written; `check` and `run` do.
    pub fn missing_components(&self) -> Vec<Mistake> {
        let missing = |(path, place): &(PathBuf, Mistake)| {
            // Opening a directory succeeds, reading it does not.
            let opened = std::fs::File::open(path).and_then(|file| file.metadata());
            let problem = match opened {
                Ok(metadata) if metadata.is_file() => return None,
                Ok(_) => "not a file".to_owned(),
                Err(error) => error.to_string(),
            };
            let message = format!("cannot be read: {} ({problem})", path.display());
            Some(Mistake {
                message,
                ..place.clone()
            })
        };
        self.components.iter().filter_map(missing).collect()
    }
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Key `listen`, default `127.0.0.1:9901`.
    pub listen: SocketAddr,
}

/// `[compile]`: what compiling one component may cost. A component that needs more is refused; what serves goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compile {
    /// Key `size`: bytes of a component, looked at before anything else. Default 64 MiB, 1 KiB to 1 GiB.
    pub size_bytes: usize,
    /// Key `memory`: address space of the compiling process. Default 2 GiB, 256 MiB to 64 GiB.
    pub memory_bytes: usize,
    /// Key `cpu_time` of the compiling process, in whole seconds. Default 30 s, 1 s to 1 h.
    pub cpu_time: Duration,
    /// Key `wall_time`, by the clock. Longer than `cpu_time`, since compiling gives way to serving. Default 60 s, 1 s to 1 h.
    pub wall_time: Duration,
    /// Key `processes`: components compiled at once. Default 2, 1 to 64. A change takes a restart.
    pub processes: usize,
}

/// `[state]`: what is kept on disk over restarts. A change takes a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Key `directory`; relative to the configuration file.
    pub directory: PathBuf,
    /// Key `size`: most bytes of compiled code, and of components. Default 1 GiB, 1 MiB to 1 TiB.
    pub size_bytes: u64,
}

/// `[record]`: where recorded decisions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Key `directory`: relative to the configuration file. Default none: in memory only.
    pub directory: Option<PathBuf>,
    /// Key `limit`: all files in the directory together; the oldest are removed. Default 256 MiB, 1 MiB to 1 TiB.
    pub limit_bytes: usize,
    /// Key `memory`: what `explain` can look at. Default 16 MiB, 64 KiB to 1 GiB.
    pub memory_bytes: usize,
}

/// `[pool.NAME]`: backends that serve the same requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The table's name.
    pub name: String,
    /// Key `tenant`: whose it is. Default nobody's, which is those who run the balancer.
    pub tenant: Option<String>,
    /// Key `policy`: a built-in's name or a `[policy.NAME]`. Default `least-connections`.
    pub policy: String,
    /// Key `fallback`: one of [`FALLBACKS`], which chooses when neither the policy nor its last good version does.
    /// Default `least-connections`.
    pub fallback: String,
    /// Key `hash_on`: what the `key` of a pick is made of; a string or a list of strings, of which the first that the
    /// request has is used. Default client-ip.
    pub hash_on: Vec<HashOn>,
    /// Key `backends`: unique addresses; at least one without `discover`.
    pub backends: Vec<Backend>,
    /// `[pool.NAME.discover]`: where more of them are found; nowhere without the table.
    pub discover: Option<Discover>,
    /// Key `protocol`: what is spoken with the backends. Default http1.
    pub protocol: PoolProtocol,
    /// `[pool.NAME.tls]`: TLS with the backends; none without the table.
    pub tls: Option<PoolTls>,
    /// Key `send_proxy`: the header of the PROXY protocol that begins each connection, for the client it is for. Default
    /// none.
    pub send_proxy: Option<proxy_header::Version>,
    /// Key `connect_timeout`, the TLS handshake included. Default 1 s, 1 ms to 1 min.
    pub connect_timeout: Duration,
    /// Key `response_timeout`: from the request's last byte sent to the response head. Above: 504. Default 60 s,
    /// 1 ms to 24 h.
    pub response_timeout: Duration,
    /// Key `request_timeout`: from a request's head to the end of its response. Above: 504, or the response is cut. Default
    /// none, 1 ms to 24 h.
    pub request_timeout: Option<Duration>,
    /// Key `body_timeout`: longest pause in a response's body. Above: the response is cut. Default 60 s, 1 ms to 24 h.
    pub body_timeout: Duration,
    /// Key `idle_timeout`: how long an unused upstream connection is kept. Default 30 s, 0 s (none is kept) to 1 h.
    pub idle_timeout: Duration,
    /// Key `idle_connections`: unused upstream connections kept for each backend by each worker. Default 256, 0 to 65536.
    pub idle_connections: usize,
    /// Key `panic_threshold`, in percent: when fewer of the backends are healthy, health is ignored. Default 50, 0 to 100;
    /// 0 turns it off.
    pub panic_threshold: u8,
    /// Key `overflow`, in percent: how much of the load a tier takes for its share of healthy backends. Default none: one
    /// tier takes all. 100 to 1000.
    pub overflow: Option<NonZeroU32>,
    /// Key `zone_aware`: the zone that the balancer is in (key `zone` of the file), whose backends come first. Default none
    /// does.
    pub zone: Option<String>,
    /// Key `drain_timeout`: how long tunnels of a backend go on that drains, or that the file no longer has. Default 5 min,
    /// 0 s to 24 h.
    pub drain_timeout: Duration,
    /// Key `slow_start`: how long a backend that came back ramps up to its weight. Default 0 s (off), up to 1 h.
    pub slow_start: Duration,
    /// Key `load_view`: whose requests in flight policies see. Default cluster with `[peers]`, and node without.
    pub load_view: LoadView,
    /// `[pool.NAME.health]`: active checks; none without the table.
    pub health: Option<Health>,
    /// `[pool.NAME.outlier]`: passive ejection; on by default, off with `outlier = "off"`.
    pub outlier: Option<Outlier>,
    /// `[pool.NAME.retry]`
    pub retry: Retry,
    /// `[pool.NAME.limits]`: when it is full; never without the table.
    pub limits: Option<PoolLimits>,
    /// `[pool.NAME.sticky]`: sessions stay with their backend; none without the table.
    pub sticky: Option<Sticky>,
    /// `[pool.NAME.record]`: which decisions are recorded; none without the table, unless an operator asks.
    pub record: Option<Sampling>,
}

/// What is spoken with backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 from the first byte on, many requests on a connection. What gRPC needs.
    Http2,
    /// What the backend chooses in the TLS handshake (ALPN), for each connection.
    Auto,
}

/// An entry of `backends`: one server. A plain string is an address with the defaults.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backend {
    /// Key `address`, required: `address:port`, `[v6]:port` or `name:port`; a name is resolved when the file is loaded.
    pub address: String,
    /// Key `weight`, default 1, 0 to 65535. 0 receives nothing new.
    pub weight: u32,
    /// Key `zone`, default none.
    pub zone: Option<String>,
    /// Key `tier`, default 0, 0 to 15.
    pub tier: u8,
    /// Key `labels`: a table of strings that policies see, default empty.
    pub labels: BTreeMap<String, String>,
}

/// A source of the pick's hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// `client-ip`
    ClientIp,
    /// `header:NAME`, in lower case.
    Header(String),
    /// `cookie:NAME`
    Cookie(String),
    /// `query:NAME`, the value of a query parameter.
    Query(String),
    /// `path`
    Path,
    /// `host`, in lower case, without the port.
    Host,
}

/// `[pool.NAME.health]`: active checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Key `kind`, required: `http` or `tcp`; with what only HTTP has.
    pub kind: HealthKind,
    /// Key `port`: checked instead of the backend's own. Default the backend's.
    pub port: Option<u16>,
    /// Key `tls`: whether it is over TLS, as `[pool.NAME.tls]` says. Default with that table, and without a `port`.
    pub tls: bool,
    /// Key `interval` between the starts of two checks of one backend, each moved by up to 10 % at random. Default 2 s,
    /// 10 ms to 1 h.
    pub interval: Duration,
    /// Key `timeout` of one check, connect included. Default 1 s, 1 ms to 1 min, at most the interval.
    pub timeout: Duration,
    /// Key `rise`: good checks in a row that bring a backend back. Default 2, 1 to 100.
    pub rise: NonZeroU32,
    /// Key `fall`: bad checks in a row that take a backend out. Default 3, 1 to 100.
    pub fall: NonZeroU32,
}

/// What an active check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// Good when the connection opens.
    Tcp,
    /// Good when a GET answers with an expected status.
    Http {
        /// Key `path`, default `/`.
        path: String,
        /// Key `host`: the Host header. Default the backend's address.
        host: Option<String>,
        /// Key `expect`: a status (`200`), or a range (`"200-399"`). Default 200-399.
        expect: std::ops::RangeInclusive<u16>,
    },
}

/// `[pool.NAME.outlier]`: passive ejection, from real requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Key `consecutive_failures`: failures in a row, seen by one worker, that eject a backend: no response, or status
    /// 502, 503 or 504. Default 5, 1 to 1000.
    pub consecutive_failures: NonZeroU32,
    /// Key `base_ejection`: the first ejection's time; the n-th in a row lasts n times as long. Default 10 s, 100 ms to 1 h.
    pub base_ejection: Duration,
    /// Key `max_ejection`: the longest ejection. Default 300 s, at least `base_ejection`, up to 24 h.
    pub max_ejection: Duration,
    /// Key `max_ejected`, in percent of the pool: more are never ejected at once, though one always may be. Default 50, 0 to 100.
    pub max_ejected: u8,
}

/// `[pool.NAME.record]`: which decisions are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Key `picks`: so many by each worker. Default 10,000, 1 to 10,000,000.
    pub picks: NonZeroU32,
    /// Key `every`: how often that begins anew. Default 10 min, 1 s to 24 h.
    pub every: Duration,
    /// Key `headers`: fields that are recorded although the policy does not read them, in lower case. Default none.
    pub headers: Vec<String>,
    /// Key `show`: fields whose values `explain` may show, in lower case. Default none.
    pub show: Vec<String>,
}

/// Policies that are part of this program, by the names that files use.
pub const BUILTIN_POLICIES: [&str; 11] = [
    "round-robin",
    "weighted-round-robin",
    "least-connections",
    "least-response-time",
    "least-bandwidth",
    "ip-hash",
    "consistent-hash",
    "content-hash",
    "random-two-choices",
    "peak-ewma",
    "chaos",
];

/// Built-in policies of which the host has a version of its own, for when a policy fails.
pub const FALLBACKS: [&str; 10] = [
    "round-robin",
    "weighted-round-robin",
    "least-connections",
    "least-response-time",
    "least-bandwidth",
    "ip-hash",
    "consistent-hash",
    "content-hash",
    "random-two-choices",
    "peak-ewma",
];
