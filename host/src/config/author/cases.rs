//! A file of cases: situations, and the picks that an author expects in them.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use toml::de::DeValue;

use super::super::{
    Backend,
    file::pool::backend_in,
    names::Unique,
    reader::{Keys, Table, Value},
};

pub(super) const ROOT: Keys = &["backends", "settings", "request", "case"];
const CASE: Keys = &[
    "name",
    "backends",
    "settings",
    "request",
    "tried",
    "expect",
    "expect_sequence",
];
const BACKEND: Keys = &[
    "address",
    "weight",
    "zone",
    "tier",
    "labels",
    "state",
    "active",
    "others",
    "others_age_ms",
    "latency_us",
    "throughput",
];
const REQUEST: Keys = &[
    "method", "path", "host", "headers", "cookies", "client", "key", "random",
];
const REJECT: Keys = &["reject"];
const ANY: RangeInclusive<u32> = 0..=u32::MAX;
const STATUS: RangeInclusive<u32> = 400..=599;
/// As many attempts as the host remembers.
const TRIED_MAX: usize = 10;

/// A situation, and what has to be picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Key `name`, required and unique.
    pub name: String,
    /// Line of the case in its file.
    pub line: usize,
    /// Key `backends`: of the case, or of the file.
    pub backends: Vec<CaseBackend>,
    /// Key `settings` as JSON text: of the case, or of the file, or else those of `policy.toml`.
    pub settings_json: Option<String>,
    /// Key `request`: of the case, or of the file.
    pub request: CaseRequest,
    /// Key `tried`: where earlier attempts went, as indices of `backends`. Default nowhere.
    pub tried: Vec<usize>,
    /// Key `expect`, or `expect_sequence` with an answer for each of several requests.
    pub expect: Vec<Expected>,
}

/// A backend of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseBackend {
    /// As in the balancer's file.
    pub backend: Backend,
    /// Key `state`, default up.
    pub state: BackendState,
    /// Key `active`: requests in flight, default 0.
    pub active: u32,
    /// Keys `others`, how many of these are other nodes', default 0; and `others_age_ms`, how many milliseconds before the first
    /// request of the case that was told, default 0. Without either, nobody tells anything.
    pub others: Option<CaseOthers>,
    /// Key `latency_us`: average microseconds to the response head, default 0 (unmeasured).
    pub latency_us: u32,
    /// Key `throughput`: body bytes per second, default 0.
    pub throughput: u64,
}

/// What other nodes tell of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseOthers {
    /// Requests in flight.
    pub active: u32,
    /// How old that is.
    pub age_ms: u32,
}

/// The condition of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It serves.
    Up,
    /// Its checks fail.
    Down,
    /// An operator takes it out.
    Draining,
}

/// The request of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseRequest {
    /// Key `method`, default GET.
    pub method: String,
    /// Key `path`, with the query, default `/`.
    pub path: String,
    /// Key `host`, default empty.
    pub host: String,
    /// Key `headers`, default none.
    pub headers: BTreeMap<String, String>,
    /// Key `cookies`, default none.
    pub cookies: BTreeMap<String, String>,
    /// Key `client`: its address, default 192.0.2.1.
    pub client: IpAddr,
    /// Key `key`: the text whose hash is the pool's key. Default the client's address.
    pub key: Option<String>,
    /// Key `random`: the random number of the first request, default 0; each further one has one more.
    pub random: u64,
}

impl Default for CaseRequest {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: String::new(),
            headers: BTreeMap::new(),
            cookies: BTreeMap::new(),
            client: IpAddr::from([192, 0, 2, 1]),
            key: None,
            random: 0,
        }
    }
}

/// What a pick may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One of these, as indices of the case's backends.
    AnyOf(Vec<usize>),
    /// No opinion.
    NoOpinion,
    /// The request is refused with this status.
    Reject(u16),
}

/// Whatever cases share unless they say otherwise.
struct Shared {
    backends: Option<Vec<CaseBackend>>,
    settings_json: Option<String>,
    request: CaseRequest,
}

pub(super) fn cases(root: &Table<'_>) -> Option<Vec<Case>> {
    let shared = Shared {
        backends: root.take("backends").map(|value| backends(&value)),
        settings_json: settings(root),
        request: request(root).unwrap_or_default(),
    };
    let items = root
        .require("case")?
        .items("an array of tables: [[case]] with two brackets")?;
    if items.is_empty() {
        root.wrong_key("case", "expected at least one [[case]]");
    }
    let mut names = Unique::new("name");
    Some(
        items
            .iter()
            .filter_map(|item| case(item, &shared, &mut names))
            .collect(),
    )
}

fn settings(table: &Table<'_>) -> Option<String> {
    let value = table.take("settings")?;
    super::policy::config_json(&value)
}

fn case(value: &Value<'_>, shared: &Shared, names: &mut Unique<String>) -> Option<Case> {
    let table = value.table(CASE)?;
    let name = table.require("name").and_then(|value| {
        let name = value.text()?;
        names.claim(name.to_owned(), &value);
        Some(name.to_owned())
    });
    let backends = match table.take("backends") {
        Some(value) => backends(&value),
        None => shared.backends.clone().unwrap_or_else(|| {
            table.wrong_key("backends", "required, here or before the first [[case]]");
            Vec::new()
        }),
    };
    let tried = table.take("tried").map(|value| tried(&value, &backends));
    let expect = expectations(&table, &backends);
    Some(Case {
        line: value.line(),
        settings_json: settings(&table).or_else(|| shared.settings_json.clone()),
        request: request(&table).unwrap_or_else(|| shared.request.clone()),
        tried: tried.unwrap_or_default(),
        expect: expect?,
        backends,
        name: name?,
    })
}

fn backends(value: &Value<'_>) -> Vec<CaseBackend> {
    let items = value.items("a list of backends, like [{ address = \"a:80\", active = 3 }]");
    let mut addresses = Unique::new("address");
    let items = items.unwrap_or_default();
    items
        .iter()
        .filter_map(|item| backend(item, &mut addresses))
        .collect()
}

fn backend(item: &Value<'_>, addresses: &mut Unique<String>) -> Option<CaseBackend> {
    let table = item.table(BACKEND)?;
    let states = [
        ("up", BackendState::Up),
        ("down", BackendState::Down),
        ("draining", BackendState::Draining),
    ];
    let active = table.whole("active", ANY, 0);
    let said = ["others", "others_age_ms"].map(|key| {
        let value = table.take(key)?;
        value.whole(ANY)
    });
    let others = said.iter().any(Option::is_some).then(|| CaseOthers {
        active: said[0].unwrap_or(0),
        age_ms: said[1].unwrap_or(0),
    });
    if others.is_some_and(|others| others.active > active) {
        table.wrong_key("others", "more than `active`, which counts them too");
    }
    Some(CaseBackend {
        backend: backend_in(&table, addresses),
        state: table.choice("state", &states, BackendState::Up),
        active,
        others,
        latency_us: table.whole("latency_us", ANY, 0),
        throughput: table
            .take("throughput")
            .and_then(|value| number(&value))
            .unwrap_or(0),
    })
}

/// The indices of the backends that are named.
fn tried(value: &Value<'_>, backends: &[CaseBackend]) -> Vec<usize> {
    let items = value.items("a list of addresses of backends").unwrap_or_default();
    if items.len() > TRIED_MAX {
        value.wrong(format!("expected at most {TRIED_MAX} addresses"));
    }
    items.iter().filter_map(|item| place(item, backends)).collect()
}

fn place(value: &Value<'_>, backends: &[CaseBackend]) -> Option<usize> {
    let text = value.text()?;
    let mut addresses = backends.iter().map(|known| known.backend.address.as_str());
    let found = addresses.position(|address| address == text);
    found.or_else(|| {
        let known: Vec<_> = backends
            .iter()
            .map(|known| known.backend.address.as_str())
            .collect();
        value.expected(format!(
            "the address of a backend of the case: {}",
            known.join(", ")
        ))
    })
}

fn request(table: &Table<'_>) -> Option<CaseRequest> {
    let table = table.take("request")?.table(REQUEST)?;
    let default = CaseRequest::default();
    let text = |key, default: String| {
        let value = table.take(key).and_then(|value| value.text().map(str::to_owned));
        value.unwrap_or(default)
    };
    let texts = |key| {
        let entries = table.take(key).and_then(|value| value.entries());
        let entries = entries.unwrap_or_default();
        let text = |(name, value): (&str, Value<'_>)| Some((name.to_owned(), value.text()?.to_owned()));
        entries.into_iter().filter_map(text).collect()
    };
    let path = table.take("path").and_then(|value| {
        value.parsed(|path| {
            path.starts_with('/')
                .then(|| path.to_owned())
                .ok_or_else(|| "expected a path that begins with a slash".to_owned())
        })
    });
    let client = table.take("client").and_then(|value| {
        value.parsed(|text| {
            text.parse()
                .map_err(|_| "expected an IP address without a port".to_owned())
        })
    });
    Some(CaseRequest {
        method: text("method", default.method),
        path: path.unwrap_or(default.path),
        host: text("host", default.host),
        headers: texts("headers"),
        cookies: texts("cookies"),
        client: client.unwrap_or(default.client),
        key: table
            .take("key")
            .and_then(|value| value.text().map(str::to_owned)),
        random: table
            .take("random")
            .and_then(|value| number(&value))
            .unwrap_or(default.random),
    })
}

fn number(value: &Value<'_>) -> Option<u64> {
    let number = match value.kind() {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    number.or_else(|| value.expected("a whole number that fits into 64 bits"))
}

fn expectations(table: &Table<'_>, backends: &[CaseBackend]) -> Option<Vec<Expected>> {
    match (table.take("expect"), table.take("expect_sequence")) {
        (Some(one), None) => Some(vec![expected(&one, backends)?]),
        (None, Some(list)) => {
            let items = list.items("a list of expected picks, one for each request")?;
            if items.is_empty() {
                return list.expected("at least one pick");
            }
            let picks: Vec<_> = items.iter().map(|item| expected(item, backends)).collect();
            picks.into_iter().collect()
        }
        (Some(_), Some(list)) => {
            list.wrong("expected `expect` or `expect_sequence`, not both");
            None
        }
        (None, None) => {
            table.wrong("expected `expect`, or `expect_sequence` for several requests");
            None
        }
    }
}

fn expected(value: &Value<'_>, backends: &[CaseBackend]) -> Option<Expected> {
    match value.kind() {
        DeValue::String(text) if text.as_ref() == "none" => Some(Expected::NoOpinion),
        DeValue::String(_) => Some(Expected::AnyOf(vec![place(value, backends)?])),
        DeValue::Array(_) => {
            let items = value.items("a list of addresses")?;
            if items.is_empty() {
                return value.expected("at least one address; \"none\" means no opinion");
            }
            let places: Vec<_> = items.iter().map(|item| place(item, backends)).collect();
            places.into_iter().collect::<Option<_>>().map(Expected::AnyOf)
        }
        DeValue::Table(_) => {
            let status = value.table(REJECT)?.require("reject")?.whole(STATUS)?;
            u16::try_from(status).ok().map(Expected::Reject)
        }
        _ => value.expected("an address, a list of addresses, \"none\", or { reject = 503 }"),
    }
}
