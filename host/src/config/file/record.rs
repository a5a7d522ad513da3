//! `[record]` and `[pool.NAME.record]`: which decisions are recorded, and where.

use std::{num::NonZeroU32, ops::RangeInclusive, path::Path, time::Duration};

use http::HeaderName;

use super::{
    super::{
        Record, Sampling,
        reader::{Table, Value},
        units::{h, s},
    },
    SAMPLING, file_path,
};

const LIMIT: RangeInclusive<usize> = (1 << 20)..=(1 << 40);
const LIMIT_DEFAULT: usize = 256 << 20;
const MEMORY: RangeInclusive<usize> = (64 << 10)..=(1 << 30);
const MEMORY_DEFAULT: usize = 16 << 20;
const PICKS: RangeInclusive<u32> = 1..=10_000_000;
const EVERY: RangeInclusive<Duration> = s(1)..=h(24);
/// Each is looked for at every recorded pick.
const FIELDS_MAX: usize = 32;

pub(super) fn record(table: &Table<'_>, directory: &Path) -> Record {
    let path = table.take("directory").and_then(|value| {
        let text = value.text()?;
        file_path(text, &value, directory)
    });
    Record {
        directory: path,
        limit_bytes: table.size("limit", LIMIT, LIMIT_DEFAULT),
        memory_bytes: table.size("memory", MEMORY, MEMORY_DEFAULT),
    }
}

pub(super) fn sampling(value: &Value<'_>) -> Option<Sampling> {
    let table = value.table(SAMPLING)?;
    Some(Sampling {
        picks: NonZeroU32::new(table.whole("picks", PICKS, 10_000)).unwrap_or(NonZeroU32::MIN),
        every: table.duration("every", EVERY, s(600)),
        headers: fields(&table, "headers"),
        show: fields(&table, "show"),
    })
}

fn fields(table: &Table<'_>, key: &'static str) -> Vec<String> {
    let Some(value) = table.take(key) else {
        return Vec::new();
    };
    let items = value
        .items("a list of header names, like [\"x-user\"]")
        .unwrap_or_default();
    if items.len() > FIELDS_MAX {
        value.wrong(format!("expected at most {FIELDS_MAX} names"));
    }
    // The type lowers the case and refuses what no field can be called.
    let name = |text: &str| {
        let name = HeaderName::from_bytes(text.as_bytes());
        name.map(|name| name.as_str().to_owned())
            .map_err(|_| "expected a header's name".to_owned())
    };
    items.iter().filter_map(|item| item.parsed(name)).collect()
}
