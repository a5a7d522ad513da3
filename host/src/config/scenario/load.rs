//! What the backends are asked for: arrivals, costs, kinds and keys of requests.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use super::{
    super::{
        HashOn, addresses,
        file::{check_name, pool},
        names::Unique,
        reader::{Table, Value},
        units::{h, ms, s},
    },
    Arrivals, Class, Distribution, Keys, Popularity, Process,
    read::{ARRIVALS, CLASS, KEYS, SERVICE, share},
    values::{number, number_or, refuse, time, time_or},
};

const RATE: RangeInclusive<f64> = 0.001..=100_000_000.0;
const LOAD: RangeInclusive<f64> = 0.001..=100.0;
const BURST: RangeInclusive<f64> = 1.0..=1000.0;
const SPAN: RangeInclusive<Duration> = ms(1)..=h(24);
const SERVICE_TIME: RangeInclusive<Duration> = Duration::from_micros(1)..=h(1);
const SIGMA: RangeInclusive<f64> = 0.01..=4.0;
const SHAPE: RangeInclusive<f64> = 1.05..=10.0;
const CLASS_WEIGHT: RangeInclusive<f64> = 0.000_001..=1_000_000.0;
const BODY: RangeInclusive<usize> = 0..=(1 << 30);
const KEY_COUNT: RangeInclusive<u32> = 1..=1_000_000;
const EXPONENT: RangeInclusive<f64> = 0.1..=4.0;
const CLASSES_MAX: usize = 100;
const HOST: &str = "simulated.test";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Poisson,
    Constant,
    Bursty,
    Ramp,
    Diurnal,
}

/// Whose keys these are, and what is said of one where it has no use.
const OF_KIND: [(Kind, &[&str], &str); 3] = [
    (
        Kind::Bursty,
        &["burst", "burst_time", "quiet_time"],
        "only process = \"bursty\" has this key",
    ),
    (
        Kind::Ramp,
        &["to", "load_to", "over"],
        "only process = \"ramp\" has this key",
    ),
    (
        Kind::Diurnal,
        &["swing", "period"],
        "only process = \"diurnal\" has this key",
    ),
];

pub(super) fn arrivals(root: &Table<'_>, capacity: Option<f64>) -> Option<Arrivals> {
    let table = root.require("arrivals")?.table(ARRIVALS)?;
    let kinds = [
        ("poisson", Kind::Poisson),
        ("constant", Kind::Constant),
        ("bursty", Kind::Bursty),
        ("ramp", Kind::Ramp),
        ("diurnal", Kind::Diurnal),
    ];
    let kind = match table.take("process") {
        None => Kind::Poisson,
        Some(value) => value.choice(&kinds)?,
    };
    for (owner, keys, why) in OF_KIND {
        if owner != kind {
            refuse(&table, keys, why);
        }
    }
    let rate = rate(&table, ("rate", "load"), capacity);
    let process = match kind {
        Kind::Poisson => Process::Poisson,
        Kind::Constant => Process::Constant,
        Kind::Bursty => Process::Bursty {
            burst: number_or(&table, "burst", &BURST, 5.0),
            burst_time: time_or(&table, "burst_time", &SPAN, ms(500)),
            quiet_time: time_or(&table, "quiet_time", &SPAN, s(2)),
        },
        Kind::Ramp => Process::Ramp {
            to: rate_of(&table, ("to", "load_to"), capacity)?,
            over: time(&table.require("over")?, &SPAN)?,
        },
        Kind::Diurnal => Process::Diurnal {
            swing: share(&table, "swing", 0.5),
            period: time_or(&table, "period", &SPAN, s(60)),
        },
    };
    Some(Arrivals { process, rate: rate? })
}

fn rate(table: &Table<'_>, keys: (&'static str, &'static str), capacity: Option<f64>) -> Option<f64> {
    rate_of(table, keys, capacity)
}

/// Requests a second, given as they are or as a share of what the backends can serve. `None` without a mistake only if
/// the capacity is unknown, whose cause is one.
fn rate_of(
    table: &Table<'_>,
    (absolute, relative): (&'static str, &'static str),
    capacity: Option<f64>,
) -> Option<f64> {
    match (table.take(absolute), table.take(relative)) {
        (Some(rate), None) => number(&rate, &RATE),
        (None, Some(load)) => Some(number(&load, &LOAD)? * capacity?),
        (Some(_), Some(load)) => {
            load.wrong(format!("expected `{absolute}` or `{relative}`, not both"));
            None
        }
        (None, None) => {
            table.wrong_key(
                absolute,
                format!(
                    "expected requests a second, or `{relative}`, a share of what the backends can serve"
                ),
            );
            None
        }
    }
}

pub(super) fn service_of(root: &Table<'_>) -> Option<Distribution> {
    service(&root.require("service")?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Constant,
    Exponential,
    Lognormal,
    Pareto,
    Bimodal,
}

fn service(value: &Value<'_>) -> Option<Distribution> {
    let table = value.table(SERVICE)?;
    let shapes = [
        ("constant", Shape::Constant),
        ("exponential", Shape::Exponential),
        ("lognormal", Shape::Lognormal),
        ("pareto", Shape::Pareto),
        ("bimodal", Shape::Bimodal),
    ];
    let shape = match table.take("distribution") {
        None => Shape::Exponential,
        Some(value) => value.choice(&shapes)?,
    };
    if shape != Shape::Lognormal {
        refuse(
            &table,
            &["sigma"],
            "only distribution = \"lognormal\" has this key",
        );
    }
    if shape != Shape::Pareto {
        refuse(&table, &["shape"], "only distribution = \"pareto\" has this key");
    }
    if shape == Shape::Bimodal {
        refuse(
            &table,
            &["mean"],
            "distribution = \"bimodal\" has `fast` and `slow`",
        );
        return Some(Distribution::Bimodal {
            fast: time(&table.require("fast")?, &SERVICE_TIME)?,
            slow: time(&table.require("slow")?, &SERVICE_TIME)?,
            slow_share: share(&table, "slow_share", 0.01),
        });
    }
    let keys = ["fast", "slow", "slow_share"];
    refuse(&table, &keys, "only distribution = \"bimodal\" has this key");
    let mean = time(&table.require("mean")?, &SERVICE_TIME)?;
    Some(match shape {
        Shape::Constant => Distribution::Constant { mean },
        Shape::Exponential | Shape::Bimodal => Distribution::Exponential { mean },
        Shape::Lognormal => Distribution::Lognormal {
            mean,
            sigma: number_or(&table, "sigma", &SIGMA, 1.0),
        },
        Shape::Pareto => Distribution::Pareto {
            mean,
            shape: number_or(&table, "shape", &SHAPE, 2.1),
        },
    })
}

/// One that stands for all if none is given; empty if what is given is wrong.
pub(super) fn classes(root: &Table<'_>) -> Vec<Class> {
    let Some(list) = root.take("class") else {
        return vec![Class {
            name: "all".to_owned(),
            weight: 1.0,
            method: "GET".to_owned(),
            host: HOST.to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            service: None,
            body_bytes: 0,
        }];
    };
    let items = list.items("an array of tables: [[class]] with two brackets");
    let items = items.unwrap_or_default();
    if items.len() > CLASSES_MAX {
        list.wrong(format!("expected at most {CLASSES_MAX} classes"));
    }
    let mut names = Unique::new("name");
    let classes: Vec<_> = items.iter().map(|item| class(item, &mut names)).collect();
    classes.into_iter().collect::<Option<_>>().unwrap_or_default()
}

fn class(item: &Value<'_>, names: &mut Unique<String>) -> Option<Class> {
    let table = item.table(CLASS)?;
    let name = table.require("name").and_then(|value| {
        let name = value.parsed(check_name)?;
        names.claim(name.clone(), &value);
        Some(name)
    });
    let text = |key, default: &str, check: fn(&str) -> Result<String, String>| {
        let value = table.take(key);
        let text = value.and_then(|value| value.parsed(check));
        text.unwrap_or_else(|| default.to_owned())
    };
    Some(Class {
        weight: number_or(&table, "weight", &CLASS_WEIGHT, 1.0),
        method: text("method", "GET", method),
        host: text("host", HOST, addresses::host_field),
        path: text("path", "/", target),
        headers: table
            .take("headers")
            .map(|value| headers(&value))
            .unwrap_or_default(),
        service: match table.take("service") {
            Some(value) => Some(service(&value)?),
            None => None,
        },
        body_bytes: table.size("body", BODY, 0) as u64,
        name: name?,
    })
}

/// A path, perhaps with a query.
fn target(text: &str) -> Result<String, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let is_plain = query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match addresses::path(path) {
        Ok(_) if is_plain => Ok(text.to_owned()),
        _ => Err("expected a path that begins with `/`, without spaces and `#`".to_owned()),
    }
}

fn method(text: &str) -> Result<String, String> {
    let method = Method::from_bytes(text.as_bytes());
    method
        .map(|method| method.as_str().to_owned())
        .map_err(|_| "expected a method, like \"GET\"".to_owned())
}

fn headers(value: &Value<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in value.entries().unwrap_or_default() {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => {
                let text = value.parsed(|text| match HeaderValue::from_str(text) {
                    Ok(_) => Ok(text.to_owned()),
                    Err(_) => Err("expected a header's value: one line of visible characters".to_owned()),
                });
                found.insert(name.as_str().to_owned(), text.unwrap_or_default());
            }
            Err(_) => value.wrong("no header can have this name"),
        }
    }
    found
}

pub(super) fn keys(value: &Value<'_>) -> Option<Keys> {
    let table = value.table(KEYS)?;
    let is_zipf = table.choice("popularity", &[("uniform", false), ("zipf", true)], false);
    if !is_zipf {
        refuse(&table, &["exponent"], "only popularity = \"zipf\" has this key");
    }
    let place = table.take("in").and_then(|value| value.parsed(pool::hash_source));
    Some(Keys {
        count: table.whole("count", KEY_COUNT, 1000),
        popularity: if is_zipf {
            let exponent = number_or(&table, "exponent", &EXPONENT, 1.0);
            Popularity::Zipf { exponent }
        } else {
            Popularity::Uniform
        },
        place: place.unwrap_or(HashOn::ClientIp),
    })
}
