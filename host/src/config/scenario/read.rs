//! From a TOML tree to a scenario: the root, its policies and its backends.
//!
//! Owns the lists of keys. What the load is made of is read in `load.rs`, what changes with time in `dynamics.rs`.
//!
//! Invariant: every key that is read is in a list here, and every list is in `docs/simulate.md`; a test keeps both.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        BUILTIN_POLICIES, HashOn, Mistake, Policy,
        file::{
            Here, check_name, named,
            policy::{builtin, policy},
            pool,
            tenant::Tenancy,
        },
        names::{Names, Unique},
        reader::{Keys, Table, Value},
        units::{h, s},
        zone::OWN_ZONE,
    },
    Balancers, Group, Network, Scenario, capacity, dynamics, load, mean_service_s,
    values::{number, number_or, time, time_or},
};

pub(super) const ROOT: Keys = &[
    "title",
    "seed",
    "requests",
    "warm_up",
    "policies",
    "arrivals",
    "service",
    "class",
    "keys",
    "backends",
    "balancers",
    "network",
    "pool",
    "autoscale",
    "event",
    "policy",
];
pub(super) const ARRIVALS: Keys = &[
    "process",
    "rate",
    "load",
    "burst",
    "burst_time",
    "quiet_time",
    "to",
    "load_to",
    "over",
    "swing",
    "period",
];
pub(super) const SERVICE: Keys = &[
    "distribution",
    "mean",
    "sigma",
    "shape",
    "fast",
    "slow",
    "slow_share",
];
pub(super) const CLASS: Keys = &[
    "name", "weight", "method", "host", "path", "headers", "service", "body",
];
pub(super) const KEYS: Keys = &["count", "popularity", "exponent", "in"];
pub(super) const BACKENDS: Keys = &[
    "name",
    "count",
    "concurrency",
    "queue",
    "factor",
    "weight",
    "zone",
    "tier",
    "labels",
];
pub(super) const BALANCERS: Keys = &["count", "workers", "digest", "zones"];
pub(super) const NETWORK: Keys = &["round_trip", "between_zones"];
pub(super) const POOL: Keys = &[
    "fallback",
    "hash_on",
    "response_timeout",
    "panic_threshold",
    "slow_start",
    "health",
    "outlier",
    "retry",
];
pub(super) const AUTOSCALE: Keys = &["group", "min", "max", "every", "above", "below", "step", "delay"];
pub(super) const EVENT: Keys = &["at", "until", "group", "count", "do", "factor", "rate", "status"];

const REQUESTS: RangeInclusive<u32> = 1..=100_000_000;
const WARM_UP: RangeInclusive<Duration> = Duration::ZERO..=h(24);
const TITLE_CHARS_MAX: usize = 120;
const COUNT: RangeInclusive<u32> = 1..=10_000;
/// All groups together: each has a row of figures for every policy.
const BACKENDS_MAX: u32 = 20_000;
const CONCURRENCY: RangeInclusive<u32> = 1..=100_000;
const QUEUE: RangeInclusive<u32> = 0..=10_000_000;
const FACTOR: RangeInclusive<f64> = 0.01..=1000.0;
const WEIGHT: RangeInclusive<u32> = 0..=65535;
const TIER: RangeInclusive<u32> = 0..=15;
const BALANCER_COUNT: RangeInclusive<u32> = 1..=64;
const DIGEST: RangeInclusive<Duration> = Duration::from_millis(1)..=s(60);
const ROUND_TRIP: RangeInclusive<Duration> = Duration::ZERO..=s(10);
const POLICIES_MAX: usize = 12;

pub(super) fn scenario(root: &Table<'_>, origin: &str, directory: &Path) -> Option<Scenario> {
    let (defined, components, compared) = policies(root, directory);
    let groups = groups(root);
    let service = load::service_of(root);
    let classes = load::classes(root);
    let keys = root.take("keys").and_then(|value| load::keys(&value));
    let capacity = match (&groups, &service) {
        (Some(groups), Some(service)) if !classes.is_empty() => {
            Some(capacity(groups, mean_service_s(&classes, service)))
        }
        _ => None,
    };
    let arrivals = load::arrivals(root, capacity);
    let place = keys.as_ref().map_or(HashOn::ClientIp, |keys| keys.place.clone());
    let pool = pool::simulated(&root.table("pool", POOL), place);
    let named = groups.as_deref().unwrap_or_default();
    let autoscale = dynamics::autoscale(root, named);
    let events = dynamics::events(root, named);
    let (balancers, network) = (balancers(root), network(root));
    // From here on a part may be missing, so nothing more is read that could be wrong by itself.
    let scenario = Scenario {
        title: title(root, origin),
        seed: u64::from(root.whole("seed", 0..=u32::MAX, 1)),
        requests: u64::from(root.whole("requests", REQUESTS, 100_000)),
        warm_up: time_or(root, "warm_up", &WARM_UP, Duration::ZERO),
        policies: compared?,
        defined,
        arrivals: arrivals?,
        service: service?,
        classes,
        keys,
        balancers,
        network,
        pool: Arc::new(pool),
        autoscale,
        events,
        groups: groups?,
        components,
    };
    Some(scenario)
}

fn title(root: &Table<'_>, origin: &str) -> String {
    let given = root.take("title").and_then(|value| {
        let text = value.text()?;
        let is_line = !text.is_empty() && !text.chars().any(char::is_control);
        if is_line && text.chars().count() <= TITLE_CHARS_MAX {
            return Some(text.to_owned());
        }
        value.expected(format!("one line of at most {TITLE_CHARS_MAX} characters"))
    });
    given.unwrap_or_else(|| {
        let name = Path::new(origin).file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    })
}

type Defined = (
    BTreeMap<String, Arc<Policy>>,
    Vec<(PathBuf, Mistake)>,
    Option<Vec<Arc<Policy>>>,
);

fn policies(root: &Table<'_>, directory: &Path) -> Defined {
    let tables = root.take("policy").and_then(|value| value.entries());
    let tables = tables.unwrap_or_default();
    let tenancy = Tenancy::read(&[], &[], &[]);
    let mut components = Vec::new();
    let defined = named(&tables, |name, value| {
        // Each balancer's zone is put in later.
        let here = Here {
            directory,
            zone: Some(OWN_ZONE),
            etcd: None,
            fleet: None,
            has_peers: false,
        };
        policy(name, value, &tenancy, (here, &mut components)).map(Arc::new)
    });
    let names = Names::new("policy", &BUILTIN_POLICIES, &tables);
    let compared = compared(root, &names, &defined);
    if compared.is_some() {
        names.note_unused("`policies` does not list this policy");
    }
    (defined, components, compared)
}

fn compared(
    root: &Table<'_>,
    names: &Names<'_>,
    defined: &BTreeMap<String, Arc<Policy>>,
) -> Option<Vec<Arc<Policy>>> {
    let list = root.require("policies")?;
    let items = list.items("a list of policies, like [\"round-robin\", \"least-connections\"]")?;
    if !(1..=POLICIES_MAX).contains(&items.len()) {
        return list.expected(format!("1 to {POLICIES_MAX} policies"));
    }
    let mut once = Unique::new("policy");
    let mut found = Vec::new();
    for item in &items {
        let Some(name) = names.refer(Some(item)) else {
            continue;
        };
        if once.claim(name.clone(), item) {
            let policy = defined.get(&name).cloned();
            found.push(policy.unwrap_or_else(|| Arc::new(builtin(&name))));
        }
    }
    (found.len() == items.len()).then_some(found)
}

fn groups(root: &Table<'_>) -> Option<Vec<Group>> {
    let list = root.require("backends")?;
    let items = list.items("an array of tables: [[backends]] with two brackets")?;
    if items.is_empty() {
        return list.expected("at least one [[backends]]");
    }
    let mut names = Unique::new("name");
    let groups: Vec<_> = items.iter().map(|item| group(item, &mut names)).collect();
    let groups: Vec<Group> = groups.into_iter().collect::<Option<_>>()?;
    if groups.iter().map(|group| group.count).sum::<u32>() > BACKENDS_MAX {
        return list.expected(format!("at most {BACKENDS_MAX} backends in all groups together"));
    }
    if groups.iter().all(|group| group.weight == 0) {
        return list.expected("a group with a weight above 0");
    }
    Some(groups)
}

fn group(item: &Value<'_>, names: &mut Unique<String>) -> Option<Group> {
    let table = item.table(BACKENDS)?;
    let name = table.require("name").and_then(|value| {
        let name = value.parsed(check_name)?;
        names.claim(name.clone(), &value);
        Some(name)
    });
    let labels = table.take("labels").map(|value| pool::labels(&value));
    let zone = table.take("zone").and_then(|value| value.parsed(check_name));
    Some(Group {
        count: table.whole("count", COUNT, 1),
        concurrency: table.whole("concurrency", CONCURRENCY, 8),
        queue: table.whole("queue", QUEUE, 100_000),
        factor: number_or(&table, "factor", &FACTOR, 1.0),
        weight: table.whole("weight", WEIGHT, 1),
        zone,
        tier: u8::try_from(table.whole("tier", TIER, 0)).unwrap_or(u8::MAX),
        labels: labels.unwrap_or_default(),
        name: name?,
    })
}

fn balancers(root: &Table<'_>) -> Balancers {
    let table = root.table("balancers", BALANCERS);
    let zones = table.take("zones").and_then(|value| {
        let items = value.items("a list of zones, like [\"a\", \"b\"]")?;
        Some(items.iter().filter_map(|item| item.parsed(check_name)).collect())
    });
    Balancers {
        count: table.whole("count", BALANCER_COUNT, 1),
        workers: table.whole("workers", BALANCER_COUNT, 1),
        digest: table
            .take("digest")
            .and_then(|value| match value.kind().as_str() {
                Some("off") => None,
                _ => time(&value, &DIGEST),
            }),
        zones: zones.unwrap_or_default(),
    }
}

fn network(root: &Table<'_>) -> Network {
    let table = root.table("network", NETWORK);
    Network {
        round_trip: time_or(&table, "round_trip", &ROUND_TRIP, Duration::ZERO),
        between_zones: time_or(&table, "between_zones", &ROUND_TRIP, Duration::ZERO),
    }
}

/// The position of the group that a value names.
pub(super) fn group_named(value: Option<&Value<'_>>, groups: &[Group]) -> Option<usize> {
    let known: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    if known.is_empty() {
        return None;
    }
    let name = Names::new("group of backends", &known, &[]).refer(value)?;
    groups.iter().position(|group| group.name == name)
}

/// A share from 0 to 1.
pub(super) fn share(table: &Table<'_>, key: &'static str, default: f64) -> f64 {
    let value = table.take(key);
    value
        .and_then(|value| number(&value, &(0.0..=1.0)))
        .unwrap_or(default)
}
