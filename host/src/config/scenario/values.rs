//! The forms of values that only scenarios have: fractions, and times below a millisecond.
//!
//! It must not know a key.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::super::{
    reader::{Table, Value},
    units::{parse_fine_duration, show_fine_duration},
};

/// A number with or without a fraction.
pub(super) fn number(value: &Value<'_>, range: &RangeInclusive<f64>) -> Option<f64> {
    let number = match value.kind() {
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        _ => None,
    };
    let number = number.filter(|number| range.contains(number));
    number.or_else(|| value.expected(format!("a number from {} to {}", range.start(), range.end())))
}

pub(super) fn number_or(
    table: &Table<'_>,
    key: &'static str,
    range: &RangeInclusive<f64>,
    default: f64,
) -> f64 {
    let value = table.take(key);
    value.and_then(|value| number(&value, range)).unwrap_or(default)
}

/// A time down to microseconds.
pub(super) fn time(value: &Value<'_>, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let time = value.kind().as_str().and_then(parse_fine_duration);
    time.filter(|time| range.contains(time)).or_else(|| {
        let [low, high] = [range.start(), range.end()].map(|end| show_fine_duration(*end));
        value.expected(format!(
            "a duration from \"{low}\" to \"{high}\" (a whole number with us, ms, s, m or h)"
        ))
    })
}

pub(super) fn time_or(
    table: &Table<'_>,
    key: &'static str,
    range: &RangeInclusive<Duration>,
    default: Duration,
) -> Duration {
    let value = table.take(key);
    value.and_then(|value| time(&value, range)).unwrap_or(default)
}

/// Notes every key of these that is there, because another key's value has no use for it.
pub(super) fn refuse(table: &Table<'_>, keys: &[&'static str], why: &str) {
    for key in keys {
        if table.take(key).is_some() {
            table.wrong_key(key, why);
        }
    }
}
