//! The case list is whole, and names tests that are there; and no dependency is older than its last hole.

use std::collections::BTreeMap;

use crate::{none, tree::read};

/// How many cases each group has.
const GROUPS: [(char, u32); 13] = [
    ('A', 20),
    ('B', 11),
    ('C', 12),
    ('D', 11),
    ('E', 12),
    ('F', 13),
    ('G', 17),
    ('H', 13),
    ('I', 10),
    ('J', 9),
    ('K', 7),
    ('L', 7),
    ('M', 5),
];
/// What a dependency must not be older than, by the advisories of 2026-08-21 (RustSec).
const FLOORS: [(&str, [u32; 3]); 7] = [
    ("h2", [0, 4, 16]),
    ("hyper", [1, 0, 0]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("tungstenite", [0, 20, 1]),
    ("wasmtime", [48, 0, 0]),
    ("wasmtime-wasi", [48, 0, 0]),
];

/// The source of the module that a test is in.
fn source(name: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = name.split("::").collect();
    let (target, modules, test) = (*parts.first()?, parts.get(1..parts.len() - 1)?, *parts.last()?);
    let folder = if target == "lib" { "host/src" } else { "tests" };
    let path = match target {
        "lib" => format!("{folder}/{}.rs", modules.join("/")),
        target => format!("{folder}/{target}/{}.rs", modules.join("/")),
    };
    Some((read(&path)?, test.to_owned()))
}

#[test]
fn every_case_has_an_entry_and_every_test_that_it_names_exists() {
    let text = read("tests/cases/cases.toml").expect("the list");
    let list: BTreeMap<String, toml::Table> = toml::from_str(&text).expect("TOML");
    let mut offenders = Vec::new();
    for (group, count) in GROUPS {
        let missing = (1..=count)
            .map(|number| format!("{group}{number}"))
            .filter(|name| !list.contains_key(name));
        offenders.extend(missing.map(|name| format!("{name} has no entry")));
    }
    assert_eq!(
        list.len(),
        GROUPS.iter().map(|(_, count)| *count as usize).sum::<usize>()
    );
    for (case, entry) in &list {
        let tests = entry.get("tests").and_then(toml::Value::as_array);
        let has_reason = entry.contains_key("not") || entry.contains_key("open");
        if tests.is_none_or(Vec::is_empty) && !has_reason {
            offenders.push(format!("{case}: neither a test nor a reason"));
        }
        for name in tests.into_iter().flatten().filter_map(toml::Value::as_str) {
            let is_there = source(name).is_some_and(|(text, test)| text.contains(&format!("fn {test}()")));
            if !is_there {
                offenders.push(format!("{case}: no test {name}"));
            }
        }
    }
    none(
        offenders,
        "tests/cases/cases.toml is the whole list of cases, A to M",
    );
}

#[test]
fn no_dependency_is_older_than_its_last_hole() {
    let lock = read("Cargo.lock").expect("Cargo.lock");
    let mut offenders = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let rest = package.split_once(&format!("\n{key} = \""))?.1;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else {
            continue;
        };
        let Some((_, floor)) = FLOORS.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let parts: Vec<u32> = version
            .split(['.', '-', '+'])
            .filter_map(|part| part.parse().ok())
            .collect();
        if parts.as_slice() < floor.as_slice() {
            offenders.push(format!("{name} {version}, needs {floor:?}"));
        }
    }
    none(offenders, "update them: cargo update -p NAME");
}
