//! `[[listener]]`: its limits and its routes.
//!
//! Invariant: no route of a listener is hidden by an earlier one. Name and address are read by `file.rs`, which sees all
//! listeners and so knows whether they are unique.

use std::{net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use super::{
    super::{
        Forwarded, Http2, Limits, Listener, Paths, Protocol, ProxyProtocol, Rates, Route, Tls, Underscores,
        addresses,
        names::Names,
        reader::{Table, Value},
        units::{h, ms, s},
    },
    HTTP2, LIMITS, ROUTE,
    proxy_protocol::proxy_protocol,
    rates,
    tenant::Tenancy,
    tls,
};

const PROTOCOLS: [(&str, Protocol); 2] = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];
/// Keys about requests.
const ONLY_HTTP: [&str; 7] = [
    "http2",
    "forwarded",
    "paths",
    "underscores",
    "upgrades",
    "connect",
    "via",
];
const CONNECTIONS: RangeInclusive<u32> = 1..=10_000_000;
const HEADER_BYTES: RangeInclusive<usize> = (8 << 10)..=(1 << 20);
const HEADERS: RangeInclusive<u32> = 10..=1000;
const STREAMS: RangeInclusive<u32> = 1..=10_000;
/// RFC 9113, 6.9.2: what everyone begins with, so less would have to be taken back.
const STREAM_WINDOW: RangeInclusive<usize> = (64 << 10)..=(16 << 20);
const WINDOW: RangeInclusive<usize> = (64 << 10)..=(64 << 20);
const HEADER_TIMEOUT: RangeInclusive<Duration> = ms(100)..=s(600);
const IDLE_TIMEOUT: RangeInclusive<Duration> = s(1)..=h(1);
const BODY_TIMEOUT: RangeInclusive<Duration> = ms(100)..=h(1);
const BODY_RATE_MIN: RangeInclusive<usize> = 0..=(1 << 20);
const TUNNEL_TIMEOUT: RangeInclusive<Duration> = s(1)..=h(24);
const PATHS: [(&str, Paths); 3] = [
    ("strict", Paths::Strict),
    ("encoded-slashes", Paths::EncodedSlashes),
    ("as-sent", Paths::AsSent),
];
const UNDERSCORES: [(&str, Underscores); 2] = [("drop", Underscores::Drop), ("pass", Underscores::Pass)];
/// A request that asks is compared with each.
const UPGRADES_MAX: usize = 16;
/// Each request walks through them, and each is compared with all before it when they are read.
const ROUTES_MAX: usize = 5000;

/// A listener but for its name and address.
pub(super) struct Rest {
    protocol: Protocol,
    tls: Option<Tls>,
    peek_sni: bool,
    proxy_protocol: Option<ProxyProtocol>,
    http2: Option<Http2>,
    forwarded: Forwarded,
    paths: Paths,
    underscores: Underscores,
    upgrades: Vec<String>,
    connect: bool,
    via: bool,
    limits: Limits,
    rates: Option<Rates>,
    routes: Vec<Route>,
}

impl Rest {
    pub(super) fn into_listener(self, name: String, listen: SocketAddr) -> Listener {
        let Self {
            protocol,
            tls,
            peek_sni,
            proxy_protocol,
            http2,
            forwarded,
            paths,
            underscores,
            upgrades,
            connect,
            via,
            limits,
            rates,
            routes,
        } = self;
        Listener {
            name,
            listen,
            protocol,
            tls,
            peek_sni,
            proxy_protocol,
            http2,
            forwarded,
            paths,
            underscores,
            upgrades,
            connect,
            via,
            limits,
            rates,
            routes,
        }
    }
}

pub(super) fn listener(
    table: &Table<'_>,
    directory: &Path,
    pools: &Names<'_>,
    tenancy: &Tenancy<'_>,
) -> Rest {
    let forwarded = [
        ("replace", Forwarded::Replace),
        ("append", Forwarded::Append),
        ("off", Forwarded::Off),
    ];
    let protocol = table.choice("protocol", &PROTOCOLS, Protocol::Http);
    if protocol == Protocol::Tcp {
        for key in ONLY_HTTP {
            if let Some(value) = table.take(key) {
                value.wrong("only listeners with protocol = \"http\" have this key");
            }
        }
    }
    let tls = table.take("tls");
    let routes = routes(table, protocol, pools, tenancy);
    Rest {
        protocol,
        peek_sni: peek_sni(table, (protocol, tls.is_some()), &routes),
        tls: tls.and_then(|value| tls::tls(&value, directory)),
        proxy_protocol: table
            .take("proxy_protocol")
            .and_then(|value| proxy_protocol(&value)),
        http2: http2(table),
        forwarded: table.choice("forwarded", &forwarded, Forwarded::Replace),
        paths: table.choice("paths", &PATHS, Paths::Strict),
        underscores: table.choice("underscores", &UNDERSCORES, Underscores::Drop),
        upgrades: upgrades(table),
        connect: table.flag("connect", false),
        via: table.flag("via", true),
        limits: limits(&table.table("limits", LIMITS)),
        rates: table
            .take("rates")
            .and_then(|value| rates::rates(&value, protocol)),
        routes,
    }
}

/// A handshake that we take part in tells the name anyway.
fn peek_sni(table: &Table<'_>, (protocol, has_tls): (Protocol, bool), routes: &[Route]) -> bool {
    let is_named = routes.iter().any(|route| route.host.is_some());
    let value = table.take("peek_sni");
    let why_not = match protocol {
        Protocol::Http => Some("only listeners with protocol = \"tcp\" have this key"),
        Protocol::Tcp if has_tls => Some("has no effect with tls, whose handshake tells the name"),
        Protocol::Tcp => None,
    };
    if let Some(why_not) = why_not {
        if let Some(value) = value {
            value.wrong(why_not);
        }
        return false;
    }
    let peeks = value.as_ref().and_then(Value::flag).unwrap_or(is_named);
    if let Some(value) = value.filter(|_| is_named && !peeks) {
        value.wrong("routes have a server_name, which nothing else finds out");
    }
    peeks
}

/// On, unless the file says `"off"`.
fn http2(table: &Table<'_>) -> Option<Http2> {
    if table
        .take("http2")
        .is_some_and(|value| value.kind().as_str() == Some("off"))
    {
        return None;
    }
    let table = table.table("http2", HTTP2);
    let size = |key, range, default: u32| {
        u32::try_from(table.size(key, range, default as usize)).unwrap_or(u32::MAX)
    };
    let default = Http2::default();
    Some(Http2 {
        streams: table.whole("streams", STREAMS, default.streams),
        stream_window: size("stream_window", STREAM_WINDOW, default.stream_window),
        window: size("window", WINDOW, default.window),
    })
}

fn upgrades(table: &Table<'_>) -> Vec<String> {
    let Some(value) = table.take("upgrades") else {
        return vec!["websocket".to_owned()];
    };
    let items = value
        .items("a list of protocols, like [\"websocket\"]")
        .unwrap_or_default();
    if items.len() > UPGRADES_MAX {
        value.wrong(format!("expected at most {UPGRADES_MAX} protocols"));
        return Vec::new();
    }
    items.iter().filter_map(|item| item.parsed(protocol)).collect()
}

/// RFC 9110, 7.8: a token, which may have a version after a slash.
fn protocol(text: &str) -> Result<String, String> {
    let is_token = |part: &str| http::HeaderName::from_bytes(part.as_bytes()).is_ok();
    let (name, version) = text.split_once('/').unwrap_or((text, "1"));
    let lower = text.to_ascii_lowercase();
    if lower == "h2c" || lower == "tls" || lower.starts_with("tls/") {
        // Behind it, the client would speak to the backend past every route and limit.
        return Err("is never passed on; HTTP/2 and TLS have keys of their own".to_owned());
    }
    if !is_token(name) || !is_token(version) {
        return Err("expected a protocol's name, like \"websocket\"".to_owned());
    }
    Ok(lower)
}

fn limits(table: &Table<'_>) -> Limits {
    Limits {
        connections: table
            .take("connections")
            .and_then(|value| value.whole(CONNECTIONS)),
        header_bytes: table.size("header_bytes", HEADER_BYTES, 64 << 10),
        headers: table.whole("headers", HEADERS, 100) as usize,
        header_timeout: table.duration("header_timeout", HEADER_TIMEOUT, s(10)),
        idle_timeout: table.duration("idle_timeout", IDLE_TIMEOUT, s(75)),
        body_timeout: table.duration("body_timeout", BODY_TIMEOUT, s(30)),
        body_rate_min: table.size("body_rate_min", BODY_RATE_MIN, 100) as u64,
        tunnel_timeout: table.duration("tunnel_timeout", TUNNEL_TIMEOUT, h(1)),
        half_closed_timeout: table.duration("half_closed_timeout", TUNNEL_TIMEOUT, s(300)),
    }
}

fn routes(table: &Table<'_>, protocol: Protocol, pools: &Names<'_>, tenancy: &Tenancy<'_>) -> Vec<Route> {
    let Some(value) = table.take("route") else {
        return implied_route(table, pools, tenancy);
    };
    let items = value
        .items("an array of tables: [[listener.route]] with two brackets")
        .unwrap_or_default();
    if items.len() > ROUTES_MAX {
        value.wrong(format!("expected at most {ROUTES_MAX} routes"));
        return Vec::new();
    }
    if items.is_empty() {
        pools.mark_doubtful();
        value.wrong("expected at least one route");
    }
    let mut read: Vec<(Route, usize)> = Vec::new();
    for item in &items {
        let Some(route) = route(item, protocol, pools) else {
            continue;
        };
        tenancy.check_route(item, &route);
        if let Some((_, line)) = read.iter().find(|(earlier, _)| takes_all_of(earlier, &route)) {
            item.wrong(format!(
                "never matches: the route on line {line} takes all its requests"
            ));
        }
        read.push((route, item.line()));
    }
    read.into_iter().map(|(route, _)| route).collect()
}

/// With a single pool there is no question where requests go.
fn implied_route(table: &Table<'_>, pools: &Names<'_>, tenancy: &Tenancy<'_>) -> Vec<Route> {
    match pools.single() {
        Some(name) => {
            pools.mark_used(name);
            if let Err(message) = tenancy.check_implied_route(name) {
                table.wrong_key("route", message);
            }
            vec![Route {
                host: None,
                path_prefix: None,
                pool: name.to_owned(),
            }]
        }
        None => {
            // Some of the pools are meant to be named here.
            pools.mark_doubtful();
            if !pools.is_empty() {
                let message = "expected at least one [[listener.route]], as there is more than one pool";
                table.wrong_key("route", message);
            }
            Vec::new()
        }
    }
}

/// `None` only where whole keys could not be read: a route that is half known must not be compared with others.
fn route(item: &Value<'_>, protocol: Protocol, pools: &Names<'_>) -> Option<Route> {
    let Some(table) = item.table(ROUTE) else {
        pools.mark_doubtful();
        return None;
    };
    let pool = pools.refer(table.require("pool").as_ref());
    let (name, others, speaks): (_, &[_], _) = match protocol {
        Protocol::Http => ("host", &["server_name"], "tcp"),
        Protocol::Tcp => ("server_name", &["host", "path_prefix"], "http"),
    };
    for value in others.iter().filter_map(|key| table.take(key)) {
        value.wrong(format!(
            "only routes of listeners with protocol = \"{speaks}\" have this key"
        ));
    }
    let host = table.take(name).map(|value| value.parsed(addresses::route_host));
    let path_prefix = table
        .take("path_prefix")
        .map(|value| value.parsed(addresses::route_prefix));
    let host = host.map_or(Some(None), |read| read.map(Some))?;
    // `/` is read as no prefix.
    let path_prefix = path_prefix.unwrap_or(Some(None))?;
    // The pool does not matter for what a route takes, so a wrong one still hides those after it.
    Some(Route {
        host,
        path_prefix,
        pool: pool.unwrap_or_default(),
    })
}

/// Whether `earlier` matches every request that `later` would.
fn takes_all_of(earlier: &Route, later: &Route) -> bool {
    let takes_host = match (&earlier.host, &later.host) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => {
            let below = earlier.strip_prefix('*');
            earlier == later
                || below.is_some_and(|suffix| {
                    later.strip_prefix('*').unwrap_or(later).ends_with(suffix) && later.len() > suffix.len()
                })
        }
    };
    let takes_path = match (&earlier.path_prefix, &later.path_prefix) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => later
            .strip_prefix(earlier.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    takes_host && takes_path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: Option<&str>, prefix: Option<&str>) -> Route {
        Route {
            host: host.map(str::to_owned),
            path_prefix: prefix.map(str::to_owned),
            pool: String::new(),
        }
    }

    #[test]
    fn route_hides_those_that_only_narrow_it() {
        for (earlier, later) in [
            (to(None, None), to(Some("a.b"), Some("/x"))),
            (to(Some("a.b"), None), to(Some("a.b"), Some("/x"))),
            (to(Some("*.b"), None), to(Some("a.b"), None)),
            (to(Some("*.b"), None), to(Some("*.a.b"), None)),
            (to(Some("*.b"), None), to(Some("*.b"), None)),
            (to(None, Some("/x")), to(Some("a.b"), Some("/x/y"))),
        ] {
            assert!(takes_all_of(&earlier, &later), "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn route_does_not_hide_what_it_leaves_over() {
        for (earlier, later) in [
            (to(Some("a.b"), None), to(None, None)),
            (to(Some("*.b"), None), to(Some("b"), None)),
            (to(Some("*.b"), None), to(Some("cb"), None)),
            (to(Some("*.a.b"), None), to(Some("*.b"), None)),
            (to(None, Some("/x")), to(None, Some("/xy"))),
            (to(None, Some("/x")), to(Some("a.b"), None)),
        ] {
            assert!(!takes_all_of(&earlier, &later), "{earlier:?} {later:?}");
        }
    }
}
