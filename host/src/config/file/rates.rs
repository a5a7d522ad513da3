//! `[listener.rates]`.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use super::super::{
    Protocol,
    rates::{Rate, Rates},
    reader::{Keys, Table, Value},
    units::{h, s},
};

pub(in super::super) const RATES: Keys = &[
    "requests",
    "requests_burst",
    "connections",
    "connections_burst",
    "client_requests",
    "client_requests_burst",
    "client_connections",
    "client_connections_burst",
    "clients",
    "ipv6_prefix",
];
const AMOUNT: RangeInclusive<u32> = 1..=10_000_000;
const CLIENTS: RangeInclusive<u32> = 1024..=4_194_304;
/// Less is a whole provider.
const IPV6_PREFIX: RangeInclusive<u32> = 32..=128;

pub(super) fn rates(value: &Value<'_>, protocol: Protocol) -> Option<Rates> {
    let table = value.table(RATES)?;
    let about_requests = |key, burst| {
        let rate = rate(&table, key, burst);
        if rate.is_some() && protocol == Protocol::Tcp {
            table.wrong_key(key, "only listeners with protocol = \"http\" have this key");
        }
        rate
    };
    let rates = Rates {
        requests: about_requests("requests", "requests_burst"),
        connections: rate(&table, "connections", "connections_burst"),
        client_requests: about_requests("client_requests", "client_requests_burst"),
        client_connections: rate(&table, "client_connections", "client_connections_burst"),
        clients: table.whole("clients", CLIENTS, 65536),
        ipv6_prefix: table.whole("ipv6_prefix", IPV6_PREFIX, 64),
    };
    Some(rates)
}

fn rate(table: &Table<'_>, key: &'static str, burst_key: &'static str) -> Option<Rate> {
    let value = table.take(key);
    let has_rate = value.is_some();
    let rate = value.and_then(|value| amount(&value));
    let burst = table.take(burst_key).map(|value| {
        if !has_rate {
            value.wrong(format!("has no effect without {key}"));
        }
        number(&value)
    });
    let (amount, per) = rate?;
    Some(Rate {
        amount,
        per,
        burst: burst.unwrap_or(Some(amount))?,
    })
}

/// So many a second, or in the time that the text says.
fn amount(value: &Value<'_>) -> Option<(NonZeroU32, Duration)> {
    if !value.kind().is_str() {
        return Some((number(value)?, s(1)));
    }
    value.parsed(|text| {
        let expected = || "expected a number, or one in a time, like \"30/m\" (s, m or h)".to_owned();
        let (amount, unit) = text.split_once('/').ok_or_else(expected)?;
        let per = match unit {
            "s" => s(1),
            "m" => s(60),
            "h" => h(1),
            _ => return Err(expected()),
        };
        let amount = amount.parse().map_err(|_| expected())?;
        if !AMOUNT.contains(&amount) {
            return Err(expected());
        }
        Ok((NonZeroU32::new(amount).ok_or_else(expected)?, per))
    })
}

fn number(value: &Value<'_>) -> Option<NonZeroU32> {
    value.whole(AMOUNT).and_then(NonZeroU32::new)
}
