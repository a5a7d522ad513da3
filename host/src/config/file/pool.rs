//! `[pool.NAME]`: its backends, checks and retries.

use std::{collections::BTreeMap, num::NonZeroU32, ops::RangeInclusive, time::Duration};

use http::HeaderName;
use toml::de::DeValue;

use super::{
    super::{
        Backend, Discover, DiscoverFrom, FALLBACKS, HashOn, Health, HealthKind, LoadView, Outlier, Pool,
        PoolProtocol, PoolTls, addresses,
        names::{Names, Unique},
        reader::{Table, Value},
        units::{h, ms, s, show_duration},
    },
    BACKEND, HEALTH, Here, OUTLIER, POOL, discover, peers,
    proxy_protocol::send_proxy,
    record, resilience, sticky,
    tenant::Tenancy,
    tls::pool_tls,
};

const PROTOCOLS: [(&str, PoolProtocol); 3] = [
    ("http1", PoolProtocol::Http1),
    ("h2", PoolProtocol::Http2),
    ("auto", PoolProtocol::Auto),
];
const POLICY_DEFAULT: &str = "least-connections";
const FALLBACK_DEFAULT: &str = "least-connections";
const CONNECT_TIMEOUT: RangeInclusive<Duration> = ms(1)..=s(60);
const RESPONSE_TIMEOUT: RangeInclusive<Duration> = ms(1)..=h(24);
const REQUEST_TIMEOUT: RangeInclusive<Duration> = ms(1)..=h(24);
const BODY_TIMEOUT: RangeInclusive<Duration> = ms(1)..=h(24);
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=h(1);
const OVERFLOW: RangeInclusive<u32> = 100..=1000;
const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=h(24);
const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=h(1);
const IDLE_CONNECTIONS: RangeInclusive<u32> = 0..=65536;
const PERCENT: RangeInclusive<u32> = 0..=100;
const WEIGHT: RangeInclusive<u32> = 0..=65535;
const TIER: RangeInclusive<u32> = 0..=15;
const PORT: RangeInclusive<u32> = 1..=65535;
const INTERVAL: RangeInclusive<Duration> = ms(10)..=h(1);
const TIMEOUT: RangeInclusive<Duration> = ms(1)..=s(60);
const IN_A_ROW: RangeInclusive<u32> = 1..=100;
const STATUS: RangeInclusive<u16> = 100..=599;
const CONSECUTIVE_FAILURES: RangeInclusive<u32> = 1..=1000;
const BASE_EJECTION: RangeInclusive<Duration> = ms(100)..=h(1);
const MAX_EJECTION: RangeInclusive<Duration> = ms(100)..=h(24);
/// A request looks for each in turn.
const HASH_SOURCES_MAX: usize = 8;

pub(super) fn pool(
    name: &str,
    value: &Value<'_>,
    (policies, here): (&Names<'_>, Here<'_>),
    tenancy: &Tenancy<'_>,
) -> Option<Pool> {
    if !value.kind().is_table() {
        policies.mark_doubtful();
        return value.expected("a table: [pool.NAME]");
    }
    let table = value.table(POOL)?;
    let tenant = tenancy.refer(table.take("tenant"));
    let tls = table.take("tls");
    let has_tls = tls.is_some();
    let protocol = protocol(&table, has_tls);
    let discover = table.take("discover");
    let is_found = discover.is_some();
    let discover = discover.and_then(|value| discover::discover(&value, here.directory, here.etcd));
    let is_empty = |value: Value<'_>| value.kind().as_array().is_some_and(|list| list.is_empty());
    let backends = match table.take("backends").is_none_or(is_empty) {
        // What is found is enough.
        true if is_found => Vec::new(),
        _ => backends(&table),
    };
    let tls = tls
        .and_then(|value| pool_tls(&value, here.directory))
        .map(|tls| named(tls, discover.as_ref(), &backends));
    Some(Pool {
        name: name.to_owned(),
        policy: match table.take("policy") {
            Some(value) => {
                let policy = policies.refer(Some(&value)).unwrap_or_default();
                tenancy.check_policy(tenant.as_deref(), &policy, &value);
                policy
            }
            None => {
                policies.mark_used(POLICY_DEFAULT);
                POLICY_DEFAULT.to_owned()
            }
        },
        fallback: fallback(&table),
        tenant,
        hash_on: table
            .take("hash_on")
            .map_or_else(|| vec![HashOn::ClientIp], |value| hash_on(&value)),
        backends,
        discover,
        protocol,
        tls,
        send_proxy: send_proxy(&table),
        connect_timeout: table.duration("connect_timeout", CONNECT_TIMEOUT, s(1)),
        response_timeout: table.duration("response_timeout", RESPONSE_TIMEOUT, s(60)),
        request_timeout: table
            .take("request_timeout")
            .and_then(|value| value.duration(REQUEST_TIMEOUT)),
        body_timeout: table.duration("body_timeout", BODY_TIMEOUT, s(60)),
        idle_timeout: table.duration("idle_timeout", IDLE_TIMEOUT, s(30)),
        idle_connections: table.whole("idle_connections", IDLE_CONNECTIONS, 256) as usize,
        panic_threshold: percent(&table, "panic_threshold"),
        overflow: table
            .take("overflow")
            .and_then(|value| value.whole(OVERFLOW))
            .and_then(NonZeroU32::new),
        zone: own_zone(&table, here.zone),
        drain_timeout: table.duration("drain_timeout", DRAIN_TIMEOUT, s(300)),
        slow_start: table.duration("slow_start", SLOW_START, Duration::ZERO),
        load_view: peers::load_view(&table, here.has_peers),
        health: table.take("health").and_then(|value| health(&value, has_tls)),
        outlier: outlier(&table),
        retry: resilience::retry(&table),
        limits: table.take("limits").and_then(|value| resilience::limits(&value)),
        sticky: table
            .take("sticky")
            .and_then(|value| sticky::sticky(&value, here.directory)),
        record: table.take("record").and_then(|value| record::sampling(&value)),
    })
}

/// The balancer's own, if its backends come first.
fn own_zone(table: &Table<'_>, zone: Option<&str>) -> Option<String> {
    let is_aware = table.flag("zone_aware", false);
    if is_aware && zone.is_none() {
        let message = "needs the key `zone` at the top of the file, which says where this balancer is";
        table.wrong_key("zone_aware", message);
    }
    zone.filter(|_| is_aware).map(str::to_owned)
}

/// Backends that are all found by one name have certificates for that name.
fn named(tls: PoolTls, discover: Option<&Discover>, listed: &[Backend]) -> PoolTls {
    let found = match discover.map(|discover| &discover.from) {
        Some(DiscoverFrom::Dns { name, .. }) if listed.is_empty() => Some(name.clone()),
        _ => None,
    };
    PoolTls {
        server_name: tls.server_name.or(found),
        ..tls
    }
}

/// What of a pool a simulation has: without its name, policy and backends, and without what only sockets need.
pub(in crate::config) fn simulated(table: &Table<'_>, hash_on_default: HashOn) -> Pool {
    Pool {
        name: "simulated".to_owned(),
        tenant: None,
        policy: POLICY_DEFAULT.to_owned(),
        fallback: fallback(table),
        hash_on: table
            .take("hash_on")
            .map_or_else(|| vec![hash_on_default], |value| hash_on(&value)),
        backends: Vec::new(),
        discover: None,
        protocol: PoolProtocol::Http1,
        tls: None,
        send_proxy: None,
        connect_timeout: s(1),
        response_timeout: table.duration("response_timeout", RESPONSE_TIMEOUT, s(60)),
        request_timeout: None,
        body_timeout: s(60),
        idle_timeout: s(30),
        idle_connections: 256,
        panic_threshold: percent(table, "panic_threshold"),
        overflow: None,
        zone: None,
        drain_timeout: s(300),
        slow_start: table.duration("slow_start", SLOW_START, Duration::ZERO),
        load_view: LoadView::Node,
        health: table.take("health").and_then(|value| health(&value, false)),
        outlier: outlier(table),
        retry: resilience::simulated_retry(table),
        limits: None,
        sticky: None,
        record: None,
    }
}

fn protocol(table: &Table<'_>, has_tls: bool) -> PoolProtocol {
    let protocol = table.choice("protocol", &PROTOCOLS, PoolProtocol::Http1);
    if protocol == PoolProtocol::Auto && !has_tls {
        let message =
            "needs [pool.NAME.tls], whose handshake decides; without TLS expected \"http1\" or \"h2\"";
        table.wrong_key("protocol", message);
    }
    protocol
}

fn fallback(table: &Table<'_>) -> String {
    let names = Names::new("fallback", &FALLBACKS, &[]);
    let named = table.take("fallback").and_then(|value| names.refer(Some(&value)));
    named.unwrap_or_else(|| FALLBACK_DEFAULT.to_owned())
}

/// Both percentages default to a half.
fn percent(table: &Table<'_>, key: &'static str) -> u8 {
    u8::try_from(table.whole(key, PERCENT, 50)).unwrap_or(u8::MAX)
}

fn count(table: &Table<'_>, key: &'static str, range: RangeInclusive<u32>, default: u32) -> NonZeroU32 {
    NonZeroU32::new(table.whole(key, range, default)).unwrap_or(NonZeroU32::MIN)
}

fn hash_on(value: &Value<'_>) -> Vec<HashOn> {
    if value.kind().is_str() {
        return value.parsed(hash_source).into_iter().collect();
    }
    let items = value
        .items("a source, like \"header:x-user\", or a list of them")
        .unwrap_or_default();
    if value.kind().is_array() && !(1..=HASH_SOURCES_MAX).contains(&items.len()) {
        value.wrong(format!("expected 1 to {HASH_SOURCES_MAX} sources"));
        return Vec::new();
    }
    items.iter().filter_map(|item| item.parsed(hash_source)).collect()
}

pub(in crate::config) fn hash_source(text: &str) -> Result<HashOn, String> {
    let source = match text.split_once(':') {
        None => match text {
            "client-ip" => Some(HashOn::ClientIp),
            "path" => Some(HashOn::Path),
            "host" => Some(HashOn::Host),
            _ => None,
        },
        Some(("header", name)) => {
            // The type lowers the case and refuses what no field can be called.
            let name = HeaderName::from_bytes(name.as_bytes());
            Some(HashOn::Header(
                name.map_err(|_| "expected a header's name after `header:`")?
                    .as_str()
                    .to_owned(),
            ))
        }
        Some(("cookie", name)) => {
            // RFC 6265: a cookie's name is a token, as a field's is, but its case counts.
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| "expected a cookie's name after `cookie:`")?;
            Some(HashOn::Cookie(name.to_owned()))
        }
        Some(("query", "")) => return Err("expected a parameter's name after `query:`".to_owned()),
        Some(("query", name)) => Some(HashOn::Query(name.to_owned())),
        Some(_) => None,
    };
    source.ok_or_else(|| "expected client-ip, path, host, header:NAME, cookie:NAME or query:NAME".to_owned())
}

/// A list of backends under the key `backends`.
pub(super) fn backends(table: &Table<'_>) -> Vec<Backend> {
    let Some(value) = table.require("backends") else {
        return Vec::new();
    };
    let items = value.items("a list of addresses, like [\"10.0.0.1:8080\"]");
    if items.as_ref().is_some_and(Vec::is_empty) {
        value.wrong("expected at least one backend");
    }
    let mut addresses = Unique::new("address");
    let items = items.unwrap_or_default();
    items
        .iter()
        .filter_map(|item| backend(item, &mut addresses))
        .collect()
}

fn backend(item: &Value<'_>, addresses: &mut Unique<String>) -> Option<Backend> {
    match item.kind() {
        DeValue::String(_) => Some(Backend {
            address: address(item, addresses)?,
            weight: 1,
            zone: None,
            tier: 0,
            labels: BTreeMap::new(),
        }),
        DeValue::Table(_) => Some(backend_in(&item.table(BACKEND)?, addresses)),
        _ => {
            item.expected("an address in quotes or a table, like { address = \"10.0.0.1:8080\", weight = 2 }")
        }
    }
}

/// The backend that a table describes, among keys of the caller's own.
pub(in super::super) fn backend_in(table: &Table<'_>, addresses: &mut Unique<String>) -> Backend {
    Backend {
        address: table
            .require("address")
            .and_then(|value| address(&value, addresses))
            .unwrap_or_default(),
        weight: table.whole("weight", WEIGHT, 1),
        zone: table
            .take("zone")
            .and_then(|value| value.parsed(super::check_name)),
        tier: u8::try_from(table.whole("tier", TIER, 0)).unwrap_or(u8::MAX),
        labels: table
            .take("labels")
            .map(|value| labels(&value))
            .unwrap_or_default(),
    }
}

fn address(value: &Value<'_>, addresses: &mut Unique<String>) -> Option<String> {
    let canonical = value.parsed(addresses::backend)?;
    addresses.claim(canonical, value);
    value.text().map(str::to_owned)
}

pub(in crate::config) fn labels(value: &Value<'_>) -> BTreeMap<String, String> {
    let entries = value.entries().unwrap_or_default();
    let label = |(name, value): &(&str, Value<'_>)| Some(((*name).to_owned(), value.text()?.to_owned()));
    entries.iter().filter_map(label).collect()
}

fn health(value: &Value<'_>, has_tls: bool) -> Option<Health> {
    let table = value.table(HEALTH)?;
    let kind = table
        .require("kind")
        .and_then(|value| value.choice(&[("http", Kind::Http), ("tcp", Kind::Tcp)]));
    let interval = table.duration("interval", INTERVAL, s(2));
    // A short interval alone is no contradiction: the default follows it.
    let timeout = table.duration("timeout", TIMEOUT, s(1).min(interval));
    if timeout > interval {
        table.wrong_key(
            "timeout",
            format!("expected at most the interval, \"{}\"", show_duration(interval)),
        );
    }
    let port = table.take("port").and_then(|value| value.whole(PORT));
    // What listens on another port is for checks only, and nobody said that it speaks TLS.
    let tls = table.flag("tls", has_tls && port.is_none());
    if tls && !has_tls {
        table.wrong_key("tls", "needs [pool.NAME.tls], which says how");
    }
    Some(Health {
        tls,
        kind: match kind {
            Some(Kind::Tcp) => tcp(&table),
            // An unknown kind was noted; the keys of the larger one can still be checked.
            Some(Kind::Http) | None => http(&table),
        },
        port: port.and_then(|port| u16::try_from(port).ok()),
        interval,
        timeout,
        rise: count(&table, "rise", IN_A_ROW, 2),
        fall: count(&table, "fall", IN_A_ROW, 3),
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Tcp,
}

fn tcp(table: &Table<'_>) -> HealthKind {
    for key in ["path", "host", "expect"] {
        if table.take(key).is_some() {
            table.wrong_key(key, "only checks of kind = \"http\" have this key");
        }
    }
    HealthKind::Tcp
}

fn http(table: &Table<'_>) -> HealthKind {
    let path = table.take("path").and_then(|value| value.parsed(addresses::path));
    HealthKind::Http {
        path: path.unwrap_or_else(|| "/".to_owned()),
        host: table
            .take("host")
            .and_then(|value| value.parsed(addresses::host_field)),
        expect: table
            .take("expect")
            .and_then(|value| expect(&value))
            .unwrap_or(200..=399),
    }
}

fn expect(value: &Value<'_>) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        text.parse()
            .ok()
            .filter(|status| text.len() == 3 && STATUS.contains(status))
    };
    let range = match value.kind() {
        DeValue::Integer(number) => status(number.as_str()).map(|only| only..=only),
        DeValue::String(text) => text
            .split_once('-')
            .and_then(|(low, high)| Some(status(low)?..=status(high)?)),
        _ => None,
    };
    let range = range.filter(|range| !range.is_empty());
    range.or_else(|| value.expected("a status from 100 to 599, like 200, or a range, like \"200-399\""))
}

fn outlier(table: &Table<'_>) -> Option<Outlier> {
    let value = table.take("outlier");
    if let Some(value) = value.filter(|value| !value.kind().is_table()) {
        if value.kind().as_str() != Some("off") {
            value.wrong("expected a table or \"off\"");
        }
        return None;
    }
    let table = table.table("outlier", OUTLIER);
    let base_ejection = table.duration("base_ejection", BASE_EJECTION, s(10));
    // As for a check's timeout: the default follows.
    let max_ejection = table.duration("max_ejection", MAX_EJECTION, s(300).max(base_ejection));
    if max_ejection < base_ejection {
        let least = show_duration(base_ejection);
        table.wrong_key(
            "max_ejection",
            format!("expected at least base_ejection, \"{least}\""),
        );
    }
    Some(Outlier {
        consecutive_failures: count(&table, "consecutive_failures", CONSECUTIVE_FAILURES, 5),
        base_ejection,
        max_ejection,
        max_ejected: percent(&table, "max_ejected"),
    })
}
