//! The file: which keys there are, and how a whole one becomes a [`Config`].
//!
//! Owns the lists of keys, the root table, `[admin]`, `[log]`, and the checks that need several tables at once. The
//! larger tables have a file each below `file/`. It must not look at TOML spans or types; that is `reader.rs`.
//!
//! Invariant: every key that is read is in a list here, and every list is in the reference (`docs/configuration.md`);
//! a debug assertion and a test keep both.
//! Read next: `file/listener.rs`, `file/pool.rs`, `file/policy.rs`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Admin, BUILTIN_POLICIES, Config, Etcd, Fleet, Listener, MemberRole, Mistake, Mistakes, Peers, Policy,
    Pool, addresses,
    names::{Names, Unique},
    reader::{Keys, Table, Value},
    units::{h, s},
};

pub(super) mod cluster;
pub(super) mod discover;
pub(super) mod fleet;
mod grants;
mod listener;
mod own;
pub(super) mod peers;
pub(super) mod policy;
pub(super) mod pool;
pub(super) mod proxy_protocol;
pub(super) mod rates;
mod read;
mod record;
pub(super) mod registry;
pub(super) mod resilience;
pub(super) mod sticky;
pub(super) mod tenant;
pub(super) mod tls;

pub use fleet::components_in;
pub(super) use own::COMPILE_DEFAULT;
#[cfg(test)]
pub(super) use read::FILE_BYTES_MAX;
pub use read::Shared;
#[cfg(test)]
use read::parse_here_with;
pub(super) use read::{load_shared, load_text_with, load_with, parse_shared, parse_with};
use tenant::Tenancy;

pub(super) const ROOT: Keys = &[
    "workers",
    "drain",
    "drain_delay",
    "zone",
    "admin",
    "log",
    "compile",
    "state",
    "record",
    "cluster",
    "etcd",
    "fleet",
    "peers",
    "registry",
    "listener",
    "tenant",
    "pool",
    "policy",
];
pub(super) const ADMIN: Keys = &["listen"];
pub(super) const LOG: Keys = &["level", "format", "access"];
pub(super) const COMPILE: Keys = &["size", "memory", "cpu_time", "wall_time", "processes"];
pub(super) const STATE: Keys = &["directory", "size", "versions"];
pub(super) const RECORD: Keys = &["directory", "limit", "memory"];
pub(super) const LISTENER: Keys = &[
    "name",
    "listen",
    "protocol",
    "tls",
    "peek_sni",
    "proxy_protocol",
    "http2",
    "forwarded",
    "paths",
    "underscores",
    "upgrades",
    "connect",
    "via",
    "limits",
    "rates",
    "route",
];
pub(super) const TLS: Keys = &[
    "certificates",
    "min_version",
    "strict_sni",
    "handshake_timeout",
    "client_ca",
    "client_auth",
    "client_crl",
    "ticket_key",
];
pub(super) const CERTIFICATE: Keys = &["cert", "key"];
pub(super) const HTTP2: Keys = &["streams", "stream_window", "window"];
pub(super) const LIMITS: Keys = &[
    "connections",
    "header_bytes",
    "headers",
    "header_timeout",
    "idle_timeout",
    "body_timeout",
    "body_rate_min",
    "tunnel_timeout",
    "half_closed_timeout",
];
pub(super) const ROUTE: Keys = &["host", "path_prefix", "server_name", "pool"];
pub(super) const TENANT: Keys = &["hosts", "memory", "deadline", "cpu", "log_lines", "series"];
pub(super) const POOL: Keys = &[
    "tenant",
    "policy",
    "fallback",
    "hash_on",
    "backends",
    "discover",
    "protocol",
    "tls",
    "send_proxy",
    "connect_timeout",
    "response_timeout",
    "request_timeout",
    "body_timeout",
    "idle_timeout",
    "idle_connections",
    "panic_threshold",
    "overflow",
    "zone_aware",
    "drain_timeout",
    "slow_start",
    "load_view",
    "health",
    "outlier",
    "retry",
    "limits",
    "sticky",
    "record",
];
pub(super) const BACKEND: Keys = &["address", "weight", "zone", "tier", "labels"];
pub(super) const HEALTH: Keys = &[
    "kind", "port", "tls", "interval", "timeout", "rise", "fall", "path", "host", "expect",
];
pub(super) const OUTLIER: Keys = &[
    "consecutive_failures",
    "base_ejection",
    "max_ejection",
    "max_ejected",
];
pub(super) const SAMPLING: Keys = &["picks", "every", "headers", "show"];
pub(super) const POLICY: Keys = &[
    "tenant",
    "component",
    "builtin",
    "memory",
    "deadline",
    "wasi",
    "grants",
    "config",
];
pub(super) const GRANTS: Keys = &[
    "headers",
    "cookies",
    "client",
    "method",
    "authority",
    "path",
    "query",
    "load",
];

/// Names go into metrics' labels and log lines.
const NAME_CHARS_MAX: usize = 64;
const WORKERS: RangeInclusive<u32> = 1..=512;
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=h(1);
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Reads the file at `path`; see [`Config::load`].
pub(super) fn load(path: &Path) -> Result<Config, Mistakes> {
    load_with(path, config, ROOT)
}

/// Reads `text`; see [`Config::parse`].
pub(super) fn parse(text: &str, origin: &str, directory: &Path) -> Result<Config, Mistakes> {
    parse_with(text, origin, |root| config(root, directory), ROOT)
}

/// As [`parse`], on the caller's stack.
#[cfg(test)]
pub(super) fn parse_here(text: &str, origin: &str, directory: &Path) -> Result<Config, Mistakes> {
    parse_here_with(text, &origin.into(), |root| config(root, directory), ROOT)
}

fn config(root: &Table<'_>, directory: &Path) -> Option<Config> {
    let cluster = cluster::cluster(root, directory);
    if cluster
        .as_ref()
        .is_some_and(|cluster| cluster.role() == MemberRole::Witness)
    {
        return Some(cluster::witness(root, directory, cluster));
    }
    let (state, versions_kept) = own::state(root, directory);
    let etcd = fleet::etcd(root, directory);
    let fleet = fleet::fleet(root, etcd.as_ref(), state.as_ref());
    let peers = peers::peers(root, directory);
    if fleet::is_bare(root) {
        let nobody = own::serving_nobody(root, directory, cluster);
        return Some(nobody_yet(root, nobody, (etcd, fleet, peers)));
    }
    let defined_pools = defined_pools(root);
    let entries = |key| root.take(key).and_then(|value| value.entries());
    let defined_policies = entries("policy").unwrap_or_default();
    let defined_tenants = entries("tenant").unwrap_or_default();
    let tenancy = Tenancy::read(&defined_tenants, &defined_pools, &defined_policies);
    let pool_names = Names::new("pool", &[], &defined_pools);
    let policy_names = Names::new("policy", &BUILTIN_POLICIES, &defined_policies);
    let admin = admin(root);
    let listeners = listeners(root, directory, (&pool_names, &tenancy), admin.as_ref());
    if listeners.is_none() {
        pool_names.mark_doubtful();
    }
    let zone = root.take("zone").and_then(|value| value.parsed(check_name));
    let here = Here {
        directory,
        zone: zone.as_deref(),
        etcd: etcd.as_ref(),
        fleet: fleet.as_ref(),
        has_peers: root.take("peers").is_some(),
    };
    let pools = named(&defined_pools, |name, value| {
        pool::pool(name, value, (&policy_names, here), &tenancy).map(Arc::new)
    });
    tenancy.check_series(&pools);
    let policies = Policies::collect(here, &defined_policies, (&tenancy, &pools));
    pool_names.note_unused("no route names this pool");
    policy_names.note_unused("no pool names this policy");
    tenancy.names.note_unused("no pool names this tenant");
    Some(Config {
        workers: workers(root),
        drain: root.duration("drain", DRAIN, s(10)),
        drain_delay: root.duration("drain_delay", DRAIN, Duration::ZERO),
        admin,
        log: own::log(root, directory),
        compile: own::compile(root),
        state,
        versions_kept,
        record: record::record(&root.table("record", RECORD), directory),
        cluster,
        etcd: etcd.clone(),
        fleet: fleet.clone(),
        peers,
        registries: registry::registries(root, directory, &policies.by_name),
        listeners: listeners?,
        pools,
        policies: policies.by_name,
        tenants: tenancy.tenants,
        shared: cluster::shared(root.whole_text()),
        components: policies.components,
    })
}

/// A node that has everything from its fleet.
fn nobody_yet(
    root: &Table<'_>,
    nobody: Config,
    (etcd, fleet, peers): (Option<Arc<Etcd>>, Option<Fleet>, Option<Peers>),
) -> Config {
    Config {
        workers: workers(root),
        etcd,
        fleet,
        peers,
        ..nobody
    }
}

fn defined_pools<'a>(root: &Table<'a>) -> Vec<(&'a str, Value<'a>)> {
    let defined = root.require("pool").and_then(|value| value.entries());
    if defined.as_ref().is_some_and(Vec::is_empty) {
        root.wrong_key("pool", "expected at least one [pool.NAME]");
    }
    defined.unwrap_or_default()
}

fn workers(root: &Table<'_>) -> NonZeroUsize {
    let most = *WORKERS.end() as usize;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(most));
    let count = root
        .take("workers")
        .and_then(|value| value.whole(WORKERS))
        .map_or(cores, |count| count as usize);
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

fn admin(root: &Table<'_>) -> Option<Admin> {
    let table = root.table("admin", ADMIN);
    match table.take("listen") {
        None => Some(Admin {
            listen: ADMIN_DEFAULT,
        }),
        Some(value) if value.kind().as_str() == Some("off") => None,
        Some(value) => {
            let listen = value
                .parsed(|text| addresses::listen(text).map_err(|message| format!("{message}, or \"off\"")));
            listen.map(|listen| Admin { listen })
        }
    }
}

/// A path relative to the configuration file.
fn file_path(text: &str, value: &Value<'_>, directory: &Path) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return value.expected("a file's path");
    }
    Some(directory.join(text))
}

fn listeners(
    root: &Table<'_>,
    directory: &Path,
    (pools, tenancy): (&Names<'_>, &Tenancy<'_>),
    admin: Option<&Admin>,
) -> Option<Vec<Listener>> {
    let items = root
        .require("listener")?
        .items("an array of tables: [[listener]] with two brackets")?;
    if items.is_empty() {
        root.wrong_key("listener", "expected at least one [[listener]]");
    }
    let mut taken = Taken {
        names: Unique::new("name (by default the address)"),
        addresses: Unique::new("address"),
        admin: admin.map(|admin| admin.listen),
    };
    let mut found = Vec::new();
    for item in &items {
        let Some(table) = item.table(LISTENER) else {
            pools.mark_doubtful();
            continue;
        };
        let socket = taken.name_and_address(&table);
        let rest = listener::listener(&table, directory, pools, tenancy);
        found.extend(socket.map(|(name, listen)| rest.into_listener(name, listen)));
    }
    Some(found)
}

/// What the listeners above have, so that no other can.
struct Taken {
    names: Unique<String>,
    addresses: Unique<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Taken {
    fn name_and_address(&mut self, table: &Table<'_>) -> Option<(String, SocketAddr)> {
        let name = table.take("name");
        let listen = table.require("listen")?;
        let address = listen.parsed(addresses::listen);
        let text = match &name {
            Some(name) => name.parsed(check_name),
            None => address.map(|address| address.to_string()),
        };
        // With port 0 the system chooses, another one each time.
        let is_fresh = match address.filter(|address| address.port() != 0) {
            Some(address) if self.admin == Some(address) => {
                listen.wrong("the admin listener has this address (key admin.listen)");
                false
            }
            Some(address) => self.addresses.claim(address, &listen),
            None => true,
        };
        if name.is_some() || is_fresh {
            self.names.claim(text.clone()?, name.as_ref().unwrap_or(&listen));
        }
        Some((text?, address?))
    }
}

/// Reads tables by their names, each of which must be one.
pub(super) fn named<T>(
    defined: &[(&str, Value<'_>)],
    mut read: impl FnMut(&str, &Value<'_>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (name, value) in defined {
        if let Err(message) = check_name(name) {
            value.wrong(message);
        }
        if let Some(read) = read(name, value) {
            found.insert((*name).to_owned(), read);
        }
    }
    found
}

pub(super) fn check_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    if !text.is_empty()
        && text.chars().take(NAME_CHARS_MAX + 1).count() <= NAME_CHARS_MAX
        && text.chars().all(is_plain)
    {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected a name of 1 to {NAME_CHARS_MAX} characters without spaces"
    ))
}

/// What a table may refer to that is elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    /// Of the file, which paths are relative to.
    pub(super) directory: &'a Path,
    /// Where the balancer is, for policies that ask.
    pub(super) zone: Option<&'a str>,
    /// Where backends may have registered.
    pub(super) etcd: Option<&'a Arc<Etcd>>,
    /// Where components may come from.
    pub(super) fleet: Option<&'a Fleet>,
    /// Whether other nodes tell this one their load.
    pub(super) has_peers: bool,
}

/// The policies as they are collected.
struct Policies<'a> {
    here: Here<'a>,
    /// Of the policies that are files: where each is, and the mistake that it would be to be missing.
    components: Vec<(PathBuf, Mistake)>,
    by_name: BTreeMap<String, Arc<Policy>>,
}

impl<'a> Policies<'a> {
    fn collect(
        here: Here<'a>,
        defined: &[(&str, Value<'_>)],
        (tenancy, pools): (&Tenancy<'_>, &BTreeMap<String, Arc<Pool>>),
    ) -> Self {
        let mut policies = Self {
            here,
            components: Vec::new(),
            by_name: BTreeMap::new(),
        };
        policies.read(defined, tenancy);
        policies.add_builtins(pools);
        policies
    }

    fn read(&mut self, defined: &[(&str, Value<'_>)], tenancy: &Tenancy<'_>) {
        let (here, components) = (self.here, &mut self.components);
        self.by_name = named(defined, |name, value| {
            policy::policy(name, value, tenancy, (here, &mut *components)).map(Arc::new)
        });
    }

    /// What pools name without a table gets its defaults.
    fn add_builtins(&mut self, pools: &BTreeMap<String, Arc<Pool>>) {
        for pool in pools.values() {
            if BUILTIN_POLICIES.contains(&pool.policy.as_str()) {
                self.by_name
                    .entry(pool.policy.clone())
                    .or_insert_with(|| Arc::new(policy::builtin(&pool.policy)));
            }
        }
    }
}
