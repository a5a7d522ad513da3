//! `[pool.NAME.discover]`, and the files that it may name.
//!
//! Such a file is TOML, or JSON: that is read as the TOML which it becomes by writing `=` for `:`, so that both have the same keys,
//! the same limits and the same messages, with the line.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        Backend, Discover, DiscoverFrom, Etcd, Family, Mistakes, addresses,
        reader::{Keys, Table, Value},
        units::{h, ms, s, show_duration},
    },
    file_path, fleet, pool,
};

pub(in crate::config) const DISCOVER: Keys = &[
    "dns",
    "srv",
    "file",
    "etcd",
    "family",
    "resolver",
    "interval_min",
    "interval_max",
    "timeout",
];
/// Of a file that `discover.file` names.
pub(in crate::config) const LISTED: Keys = &["backends"];
const SOURCES: [&str; 4] = ["dns", "srv", "file", "etcd"];
const INTERVAL_MIN: RangeInclusive<Duration> = ms(100)..=h(1);
const INTERVAL_MAX: RangeInclusive<Duration> = ms(100)..=h(24);
const TIMEOUT: RangeInclusive<Duration> = ms(10)..=s(60);
const FAMILIES: [(&str, Family); 3] = [("any", Family::Any), ("ipv4", Family::V4), ("ipv6", Family::V6)];
/// As many as the C library's resolver takes, and then some.
const RESOLVERS_MAX: usize = 8;

pub(super) fn discover(value: &Value<'_>, directory: &Path, etcd: Option<&Arc<Etcd>>) -> Option<Discover> {
    let table = value.table(DISCOVER)?;
    let sources: Vec<&str> = SOURCES
        .into_iter()
        .filter(|key| table.take(key).is_some())
        .collect();
    match *sources {
        [_] => {}
        [] => table.wrong("expected one of the keys dns, srv, file and etcd"),
        [_, second, ..] => {
            table.wrong_key(
                static_key(second),
                "expected only one of the keys dns, srv, file and etcd",
            );
        }
    }
    if matches!(sources.first(), Some(&("file" | "etcd"))) {
        for key in ["family", "resolver", "interval_min", "interval_max", "timeout"] {
            if table.take(key).is_some() {
                table.wrong_key(key, "only with dns and srv");
            }
        }
    }
    let interval_min = table.duration("interval_min", INTERVAL_MIN, s(1));
    // The default follows a long minimum.
    let interval_max = table.duration("interval_max", INTERVAL_MAX, s(30).max(interval_min));
    if interval_max < interval_min {
        let least = show_duration(interval_min);
        table.wrong_key(
            "interval_max",
            format!("expected at least interval_min, \"{least}\""),
        );
    }
    let found = Discover {
        family: table.choice("family", &FAMILIES, Family::Any),
        resolver: table
            .take("resolver")
            .map(|value| resolver(&value))
            .unwrap_or_default(),
        interval_min,
        interval_max,
        timeout: table.duration("timeout", TIMEOUT, s(2)),
        from: from(&table, directory, etcd)?,
    };
    Some(found)
}

/// The same key, as one of the list.
fn static_key(key: &str) -> &'static str {
    SOURCES.into_iter().find(|known| *known == key).unwrap_or("srv")
}

fn from(table: &Table<'_>, directory: &Path, etcd: Option<&Arc<Etcd>>) -> Option<DiscoverFrom> {
    if let Some(value) = table.take("dns") {
        let (name, port) = value.parsed(addresses::name_and_port)?;
        return Some(DiscoverFrom::Dns { name, port });
    }
    if let Some(value) = table.take("srv") {
        let name = value.parsed(addresses::service)?;
        return Some(DiscoverFrom::Srv { name });
    }
    if let Some(value) = table.take("etcd") {
        let service = value.parsed(fleet::service);
        if etcd.is_none() {
            value.wrong("needs the table [etcd], which says where to ask");
        }
        return Some(DiscoverFrom::Etcd {
            at: etcd?.clone(),
            service: service?,
        });
    }
    let value = table.take("file")?;
    let path: PathBuf = file_path(value.text()?, &value, directory)?;
    Some(DiscoverFrom::File(path))
}

fn resolver(value: &Value<'_>) -> Vec<SocketAddr> {
    let items = value.items("a list of addresses, like [\"10.0.0.53:53\"]");
    let items = items.unwrap_or_default();
    if value.kind().is_array() && !(1..=RESOLVERS_MAX).contains(&items.len()) {
        value.wrong(format!("expected 1 to {RESOLVERS_MAX} addresses"));
    }
    items
        .iter()
        .filter_map(|item| item.parsed(addresses::listen))
        .collect()
}

/// The backends that a file lists.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn listed_backends(path: &Path) -> Result<Vec<Backend>, Mistakes> {
    let read = |table: &Table<'_>, _: &Path| Some(pool::backends(table));
    super::load_text_with(path, as_toml, read, LISTED)
}

/// The backend that a value in etcd is: an address, or JSON with the keys of an entry of `backends`. `origin` is for the message.
///
/// # Errors
/// Every mistake in it.
pub(crate) fn registered_backend(text: &str, origin: &str) -> Result<Backend, Mistakes> {
    let is_json = text.trim_start().starts_with(['{', '"']);
    let list = match is_json {
        true => format!("[{text}]"),
        false => format!("[{}]", serde_json::Value::from(text.trim())),
    };
    let read = |table: &Table<'_>| match <[Backend; 1]>::try_from(pool::backends(table)) {
        Ok([backend]) => Some(backend),
        Err(found) if found.is_empty() => None,
        Err(_) => {
            table.wrong("expected one backend");
            None
        }
    };
    super::parse_with(&as_toml(list), origin, read, LISTED)
}

/// A list, or a table with one, in JSON; what is TOML already stays as it is. Lines stay lines.
fn as_toml(text: String) -> String {
    let begin = text.trim_start();
    // A header of TOML begins like a list of JSON, but with a word, and such a file has no headers anyway.
    let is_json = begin.starts_with(['[', '{']);
    if !is_json {
        return text;
    }
    let is_list = begin.starts_with('[');
    let mut toml = String::with_capacity(text.len() + 16);
    if is_list {
        toml.push_str("backends = ");
    }
    let text = if is_list { text } else { without_braces(&text) };
    let mut letters = text.chars();
    let mut is_string = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                is_string = !is_string;
                toml.push('"');
            }
            // TOML has all escapes of JSON but this one.
            '\\' if is_string => match letters.next() {
                Some('/') => toml.push('/'),
                escaped => {
                    toml.push('\\');
                    toml.extend(escaped);
                }
            },
            ':' if !is_string => toml.push_str(" ="),
            letter => toml.push(letter),
        }
    }
    toml
}

/// Without the outer braces, so that the table in them is the file's own. Lines stay where they are.
fn without_braces(text: &str) -> String {
    let opened = text.replacen('{', " ", 1);
    match opened.trim_end().strip_suffix('}') {
        Some(inner) => inner.to_owned(),
        None => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Backend>, String> {
        let toml = as_toml(text.to_owned());
        let read = |table: &Table<'_>| Some(pool::backends(table));
        super::super::parse_with(&toml, "found", read, LISTED).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_same_list_in_each_form_is_the_same() {
        let expected =
            read("backends = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 2, tier = 1 }]\n")
                .unwrap();
        assert_eq!(expected.len(), 2);
        assert_eq!((expected[1].weight, expected[1].tier), (2, 1));
        for json in [
            "[\"10.0.0.1:80\", {\"address\": \"10.0.0.2:80\", \"weight\": 2, \"tier\": 1}]",
            "[\n  \"10.0.0.1:80\",\n  {\n    \"address\": \"10.0.0.2:80\",\n    \"weight\": 2,\n    \"tier\": 1\n  }\n]\n",
            "{\"backends\": [\"10.0.0.1:80\", {\"address\": \"10.0.0.2:80\", \"weight\": 2, \"tier\": 1}]}",
            "{\n  \"backends\": [\n    \"10.0.0.1:80\",\n    {\"address\": \"10.0.0.2:80\", \"weight\": 2, \"tier\": 1}\n  ]\n}\n",
        ] {
            assert_eq!(read(json).as_ref(), Ok(&expected), "{json}");
        }
    }

    #[test]
    fn strings_stay_what_they_are() {
        let found = read("[{\"address\": \"a:1\", \"labels\": {\"url\": \"http:\\/\\/a:b\\\"c\"}}]").unwrap();
        assert_eq!(found[0].labels["url"], "http://a:b\"c");
    }

    #[test]
    fn a_mistake_is_told_with_line_key_and_value() {
        for (text, told) in [
            (
                "[\n  \"10.0.0.1:80\",\n  {\"address\": \"10.0.0.2:80\", \"weight\": -1}\n]",
                "found:3: backends[1].weight = -1: ",
            ),
            (
                "[\n  {\"address\": \"10.0.0.2:80\",\n   \"wieght\": 1}\n]",
                "found:3: backends[0].wieght = 1: unknown key",
            ),
            (
                "{\n\"backends\": []\n}",
                "found:2: backends = []: expected at least one backend",
            ),
            (
                "backends = [\"10.0.0.1\"]",
                "found:1: backends[0] = \"10.0.0.1\": ",
            ),
            (
                "[\"10.0.0.1:80\", \"10.0.0.1:80\"]",
                "backends[1] = \"10.0.0.1:80\": ",
            ),
            ("", "backends: required"),
            ("[null]", "found:1"),
            ("[\"10.0.0.1:80\"", "found:"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(told), "{text}\n{error}");
        }
    }
}
