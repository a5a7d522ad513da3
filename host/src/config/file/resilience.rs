//! `[pool.NAME.retry]` and `[pool.NAME.limits]`.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use crate::config::{
    PoolLimits, Retry, RetryOn,
    reader::{Keys, Table, Value},
    units::{h, ms, s},
};

pub(in crate::config) const RETRY: Keys =
    &["attempts", "on", "budget", "floor", "try_timeout", "hedge_after"];
pub(in crate::config) const LIMITS: Keys = &[
    "connections",
    "backend_requests",
    "requests",
    "queue",
    "queue_timeout",
];
/// Of a scenario, whose backends either answer or do not.
const SIMULATED_RETRY: Keys = &["attempts"];
const ATTEMPTS: RangeInclusive<u32> = 1..=10;
const PERCENT: RangeInclusive<u32> = 0..=100;
const FLOOR: RangeInclusive<u32> = 0..=100_000;
const TRY_TIMEOUT: RangeInclusive<Duration> = ms(1)..=h(24);
const IN_FLIGHT: RangeInclusive<u32> = 1..=1_000_000;
const QUEUE: RangeInclusive<u32> = 0..=1_000_000;
const QUEUE_TIMEOUT: RangeInclusive<Duration> = ms(1)..=h(1);
const STATUSES: RangeInclusive<u16> = 400..=599;

pub(super) fn retry(pool: &Table<'_>) -> Retry {
    let table = pool.table("retry", RETRY);
    let default = Retry::default();
    Retry {
        attempts: attempts(&table),
        on: table.take("on").map_or(default.on, |value| outcomes(&value)),
        budget: u8::try_from(table.whole("budget", PERCENT, default.budget.into())).unwrap_or(u8::MAX),
        floor: table.whole("floor", FLOOR, default.floor),
        try_timeout: table
            .take("try_timeout")
            .and_then(|value| value.duration(TRY_TIMEOUT)),
        hedge_after: table
            .take("hedge_after")
            .and_then(|value| value.duration(TRY_TIMEOUT)),
    }
}

pub(super) fn simulated_retry(pool: &Table<'_>) -> Retry {
    Retry {
        attempts: attempts(&pool.table("retry", SIMULATED_RETRY)),
        ..Retry::default()
    }
}

pub(super) fn limits(value: &Value<'_>) -> Option<PoolLimits> {
    let table = value.table(LIMITS)?;
    let limit = |key| {
        let value = table.take(key);
        value.map(|value| value.whole(IN_FLIGHT).and_then(NonZeroU32::new))
    };
    let limits = ["connections", "backend_requests", "requests"].map(limit);
    if limits.iter().all(Option::is_none) {
        table.wrong("limits nothing: expected connections, backend_requests or requests");
    }
    let [connections, backend_requests, requests] = limits.map(Option::flatten);
    Some(PoolLimits {
        connections,
        backend_requests,
        requests,
        queue: table.whole("queue", QUEUE, 1000),
        queue_timeout: table.duration("queue_timeout", QUEUE_TIMEOUT, s(1)),
    })
}

fn attempts(table: &Table<'_>) -> NonZeroU32 {
    let default = Retry::default().attempts;
    NonZeroU32::new(table.whole("attempts", ATTEMPTS, default.get())).unwrap_or(default)
}

fn outcomes(value: &Value<'_>) -> RetryOn {
    let mut on = RetryOn {
        connect: false,
        reset: false,
        statuses: Vec::new(),
    };
    let items = value.items("a list, like [\"connect\", \"reset\", 503]");
    for item in &items.unwrap_or_default() {
        match item.kind() {
            DeValue::String(text) if text == "connect" => on.connect = true,
            DeValue::String(text) if text == "reset" => on.reset = true,
            DeValue::Integer(number) => {
                let status = number
                    .as_str()
                    .parse()
                    .ok()
                    .filter(|status| STATUSES.contains(status));
                match status {
                    Some(status) if !on.statuses.contains(&status) => on.statuses.push(status),
                    Some(_) => item.wrong("is there twice"),
                    None => item.wrong("expected a status from 400 to 599"),
                }
            }
            _ => item.wrong("expected \"connect\", \"reset\" or a status from 400 to 599"),
        }
    }
    on
}
