//! Durations and sizes: text with a unit, and back to the same text for messages.
//!
//! Every quantity with a unit is a string in the file, so that `5` can never mean milliseconds to one reader and seconds
//! to another. There is one unit a value, and no fractions. Pure functions; nothing here knows a key.

use std::time::Duration;

/// Milliseconds, for bounds and defaults that are constants.
pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Seconds.
pub(super) const fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Minutes.
pub(super) const fn m(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Hours.
pub(super) const fn h(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// From large to small, for showing.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// As above, in microseconds.
const FINE_DURATIONS: [(&str, u64); 5] = [
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];
/// As above, in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `500ms`, `10s`, `2m`, `1h`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// As [`parse_duration`], and `200us`: for what is simulated, not waited for.
pub(super) fn parse_fine_duration(text: &str) -> Option<Duration> {
    parse(text, &FINE_DURATIONS).map(Duration::from_micros)
}

/// `1024B`, `64KiB`, `16MiB`, `1GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// In the largest unit that leaves a whole number.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        "0s".to_owned()
    } else {
        show(millis, &DURATIONS)
    }
}

/// As [`show_duration`], down to microseconds.
pub(crate) fn show_fine_duration(duration: Duration) -> String {
    match u64::try_from(duration.as_micros()).unwrap_or(u64::MAX) {
        0 => "0s".to_owned(),
        micros => show(micros, &FINE_DURATIONS),
    }
}

/// As [`show_duration`].
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    // The digits alone: `parse` would also take a sign.
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = units
        .iter()
        .find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor));
    let (name, factor) = whole.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_whole_number_and_one_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("1s", 1000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(ms(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "1 s",
            "-1s",
            "+1s",
            "1h30m",
            "5S",
            "5us",
            "99999999999999999999s",
            "٣s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn size_has_a_binary_unit() {
        for (text, bytes) in [
            ("16MiB", 16 << 20),
            ("64KiB", 65536),
            ("1024B", 1024),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "64", "64KB", "64kib", "1.5MiB", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn shown_unit_is_the_largest_that_leaves_a_whole_number() {
        for text in ["0s", "1ms", "1500ms", "90s", "5m", "24h"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Some(text));
        }
        for text in ["0B", "1500B", "64KiB", "1GiB"] {
            assert_eq!(parse_size(text).map(show_size).as_deref(), Some(text));
        }
    }

    #[test]
    fn multiplication_cannot_overflow_a_duration() {
        assert_eq!(parse_duration("18446744073709551615h"), None);
        assert_eq!(parse_duration("18446744073709551615ms"), Some(ms(u64::MAX)));
    }
}
