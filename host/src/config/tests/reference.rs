//! Holds `docs/configuration.md` to the reader: the same keys, and defaults, ranges and examples that are true.

use std::collections::BTreeMap;

use super::{
    super::{file, reader::Keys, units},
    MINIMAL, parse,
};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The page's heading of each table, and its header in a file.
const TABLES: [(&str, &str, Keys); 33] = [
    ("Top level", "", file::ROOT),
    ("`[admin]`", "[admin]", file::ADMIN),
    ("`[log]`", "[log]", file::LOG),
    ("`[compile]`", "[compile]", file::COMPILE),
    ("`[state]`", "[state]", file::STATE),
    ("`[record]`", "[record]", file::RECORD),
    ("`[cluster]`", "[cluster]", file::cluster::CLUSTER),
    (
        "`[[cluster.member]]`",
        "[[cluster.member]]",
        file::cluster::MEMBER,
    ),
    ("`[etcd]`", "[etcd]", file::fleet::ETCD),
    ("`[fleet]`", "[fleet]", file::fleet::FLEET),
    ("`[peers]`", "[peers]", file::peers::PEERS),
    ("`[registry.NAME]`", REGISTRY, file::registry::REGISTRY),
    ("`[[listener]]`", "[[listener]]", file::LISTENER),
    ("`[listener.tls]`", "[listener.tls]", file::TLS),
    (
        "`[[listener.tls.certificates]]`",
        "[[listener.tls.certificates]]",
        file::CERTIFICATE,
    ),
    (
        "`[listener.proxy_protocol]`",
        "[listener.proxy_protocol]",
        file::proxy_protocol::PROXY_PROTOCOL,
    ),
    ("`[listener.http2]`", "[listener.http2]", file::HTTP2),
    ("`[listener.limits]`", "[listener.limits]", file::LIMITS),
    ("`[listener.rates]`", "[listener.rates]", file::rates::RATES),
    ("`[[listener.route]]`", "[[listener.route]]", file::ROUTE),
    ("`[tenant.NAME]`", "[tenant.shop]", file::TENANT),
    ("`[pool.NAME]`", "[pool.shop]", file::POOL),
    (
        "`[[pool.NAME.backends]]`",
        "[[pool.shop.backends]]",
        file::BACKEND,
    ),
    (
        "`[pool.NAME.discover]`",
        "[pool.shop.discover]",
        file::discover::DISCOVER,
    ),
    ("`[pool.NAME.tls]`", "[pool.shop.tls]", file::tls::POOL_TLS),
    ("`[pool.NAME.health]`", "[pool.shop.health]", file::HEALTH),
    ("`[pool.NAME.outlier]`", "[pool.shop.outlier]", file::OUTLIER),
    (
        "`[pool.NAME.retry]`",
        "[pool.shop.retry]",
        file::resilience::RETRY,
    ),
    (
        "`[pool.NAME.limits]`",
        "[pool.shop.limits]",
        file::resilience::LIMITS,
    ),
    ("`[pool.NAME.sticky]`", "[pool.shop.sticky]", file::sticky::STICKY),
    ("`[pool.NAME.record]`", "[pool.shop.record]", file::SAMPLING),
    ("`[policy.NAME]`", "[policy.mine]", file::POLICY),
    ("`[policy.NAME.grants]`", "[policy.mine.grants]", file::GRANTS),
];

struct Row {
    header: &'static str,
    key: String,
    default: String,
    range: String,
    example: String,
}

fn rows() -> Vec<Row> {
    let mut header = None;
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let table = TABLES.iter().find(|(known, ..)| *known == heading);
            header = Some(table.unwrap_or_else(|| panic!("no table is headed {heading}")).1);
        }
        let Some(cells) = line.strip_prefix("| `") else {
            continue;
        };
        let cells: Vec<_> = cells.trim_end_matches('|').split('|').map(str::trim).collect();
        let [key, _, default, range, example] = cells[..] else {
            panic!("five cells: {line}")
        };
        let [default, range, example] = [default, range, example].map(str::to_owned);
        let key = key.trim_end_matches('`').to_owned();
        rows.push(Row {
            header: header.expect("a heading comes first"),
            key,
            default,
            range,
            example,
        });
    }
    rows
}

/// The literals of a cell, in backticks.
fn literals(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A small good file with some keys set in one table, whose other keys there give way where they must.
fn file_with(header: &str, keys: &[(&str, &str)]) -> String {
    let mut tables: Vec<(&str, BTreeMap<&str, &str>)> =
        TABLES.map(|(_, header, _)| (header, BTreeMap::new())).into();
    let mut set = |header: &str, key: &'static str, value: &'static str| {
        let table = tables
            .iter_mut()
            .find(|(known, _)| *known == header)
            .expect("a known header");
        table.1.insert(key, value);
    };
    set("[[listener]]", "listen", "\"127.0.0.1:0\"");
    set("[[listener.route]]", "pool", "\"shop\"");
    set("[[pool.shop.backends]]", "address", "\"127.0.0.1:9001\"");
    set("[pool.shop.health]", "kind", "\"http\"");
    set("[pool.shop.record]", "every", "\"10m\"");
    if header == "[listener.tls]" {
        set("[listener.tls]", "certificates", "[{ cert = \"a.pem\" }]");
    }
    if header == "[[listener.tls.certificates]]" {
        set("[[listener.tls.certificates]]", "cert", "\"a.pem\"");
    }
    if keys.iter().any(|(key, _)| *key == "server_name") && header == "[[listener.route]]" {
        set("[[listener]]", "protocol", "\"tcp\"");
    }
    if header == "[listener.proxy_protocol]" {
        set(header, "trusted", "[\"10.0.0.0/8\"]");
    }
    let names_source = |(key, _): &(&str, &str)| matches!(*key, "dns" | "srv" | "file" | "etcd");
    if header == "[pool.shop.discover]" && !keys.iter().any(names_source) {
        set(header, "dns", "\"shop.internal:8080\"");
    }
    match header {
        "[pool.shop.limits]" => set(header, "requests", "1000"),
        "[listener.rates]" => set(header, "client_requests", "5"),
        "[pool.shop.sticky]" => set(header, "cookie", "\"trimtab\""),
        _ => {}
    }
    if header == "[pool.shop.tls]" {
        set("[pool.shop.tls]", "min_version", "\"1.2\"");
    }
    if header == "[pool.shop.health]" && keys.contains(&("tls", "true")) {
        set("[pool.shop]", "tls", "{}");
    }
    let is_about_policies = header.starts_with("[policy.mine");
    if is_about_policies {
        set("[pool.shop]", "policy", "\"mine\"");
        set("[policy.mine]", "builtin", "\"chaos\"");
    }
    if header == "[tenant.shop]" || keys.iter().any(|(key, _)| *key == "tenant") {
        set("[tenant.shop]", "hosts", "[\"shop.example\"]");
        set("[[listener.route]]", "host", "\"shop.example\"");
        set("[pool.shop]", "tenant", "\"shop\"");
        if is_about_policies {
            set("[policy.mine]", "tenant", "\"shop\"");
        }
    }
    if keys
        .iter()
        .any(|(key, value)| *key == "hosts" && value.contains("api"))
    {
        set("[[listener.route]]", "host", "\"api.example\"");
    }
    for (table, key, value) in in_any_case(header).into_iter().chain(of_a_fleet(header, keys)) {
        set(table, key, value);
    }
    let text = written(tables, header, keys);
    if header.contains("cluster") {
        with_members(text, keys)
    } else {
        text
    }
}

/// What a file about etcd or a registry has in any case.
fn of_a_fleet(header: &str, keys: &[(&str, &str)]) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut found = Vec::new();
    if header == REGISTRY {
        found.push((REGISTRY, "endpoint", "\"https://ghcr.io:443\""));
    }
    if header == "[fleet]" {
        found.push(("[state]", "directory", "\"state\""));
        found.push(("[fleet]", "node", "\"a\""));
    }
    if keys.contains(&("etcd", "\"shop\"")) || matches!(header, "[fleet]" | "[etcd]") {
        found.push(("[etcd]", "endpoints", "[\"http://10.0.0.1:2379\"]"));
    }
    found
}

/// What a file about a cluster or a pool has in any case.
fn in_any_case(header: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut found = Vec::new();
    if header == "[pool.shop]" {
        found.push(("", "zone", "\"a\""));
    }
    if matches!(header, "[pool.shop]" | "[peers]") {
        found.extend([
            ("[peers]", "listen", "\"10.0.0.9:7947\""),
            ("[peers]", "key_file", "\"peers.key\""),
            ("[peers]", "others", "[\"10.0.0.8:7947\"]"),
        ]);
    }
    if header.contains("cluster") {
        found.extend([
            ("[cluster]", "name", "\"edge\""),
            ("[cluster]", "node", "\"b\""),
            ("[cluster]", "key_file", "\"cluster.key\""),
        ]);
    }
    if header == "[[cluster.member]]" {
        found.extend([
            (MEMBER, "name", "\"a\""),
            (MEMBER, "address", "\"10.0.0.9:7946\""),
        ]);
    }
    found
}

const MEMBER: &str = "[[cluster.member]]";
const REGISTRY: &str = "[registry.\"ghcr.io\"]";

/// The file of a node with as many others as its keys want.
fn with_members(mut text: String, keys: &[(&str, &str)]) -> String {
    let has = |key: &str| keys.iter().any(|(known, _)| *known == key);
    let others = match (has("member"), has("without_witness")) {
        (true, _) => 0,
        (false, true) => 2,
        (false, false) => 3,
    };
    for (name, port) in [("b", 1), ("c", 2), ("d", 3)].into_iter().take(others) {
        text += &format!("[[cluster.member]]\nname = \"{name}\"\naddress = \"10.0.0.1:{port}\"\n");
    }
    text
}

/// The tables as a file, with these keys in the one of this header.
fn written(tables: Vec<(&str, BTreeMap<&str, &str>)>, header: &str, keys: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (known, mut values) in tables {
        if known == header {
            values.extend(keys.iter().copied());
        }
        if keys.iter().any(|(key, _)| *key == "component") {
            values.remove("builtin");
        }
        let replaced = keys.iter().find(|(key, _)| {
            format!("{header}.{key}") == "[pool.shop].backends" && known.contains("backends")
        });
        if values.is_empty() || replaced.is_some() {
            continue;
        }
        text += &format!("{known}\n");
        for (key, value) in values {
            text += &format!("{key} = {value}\n");
        }
    }
    text
}

/// What else a value needs to be allowed.
fn with_company<'a>(table: &str, key: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let company: &[(&str, &str)] = match (key, value) {
        ("timeout", _) if matches!(table, "[pool.shop.discover]" | "[etcd]" | REGISTRY) => &[],
        ("user", _) => &[("password_file", "\"etcd.password\"")],
        ("password_file", _) => &[("user", "\"trimtab\"")],
        ("interval_max", _) => &[("interval_min", "\"100ms\"")],
        ("timeout", _) => &[("interval", "\"1h\"")],
        ("base_ejection", _) => &[("max_ejection", "\"24h\"")],
        ("key", "\"balancer.key\"") => &[("cert", "\"balancer.pem\"")],
        ("client_auth" | "client_crl", _) => &[("client_ca", "\"ca.pem\"")],
        ("peek_sni", _) => &[("protocol", "\"tcp\"")],
        ("requests_burst", _) => &[("requests", "5")],
        ("connections_burst", _) => &[("connections", "5")],
        ("client_requests_burst", _) => &[("client_requests", "5")],
        ("client_connections_burst", _) => &[("client_connections", "5")],
        // Without TLS nothing tells which is spoken.
        ("protocol", "\"auto\"") => &[("tls", "{}")],
        ("max_ejection", _) => &[("base_ejection", "\"100ms\"")],
        ("stale_after", _) => &[("interval", "\"10ms\"")],
        ("heartbeat" | "margin", _) => &[("lease", "\"1m\"")],
        ("addresses", _) => &[("takeover", "\"address\""), ("interface", "\"eth0\"")],
        ("gate", "\"lifetime\"") => &[
            ("takeover", "\"address\""),
            ("addresses", "[\"10.0.0.5\"]"),
            ("interface", "\"eth0\""),
            ("lease", "\"3s\""),
            ("margin", "\"500ms\""),
        ],
        ("gate", _) => &[
            ("takeover", "\"address\""),
            ("addresses", "[\"10.0.0.5\"]"),
            ("interface", "\"eth0\""),
        ],
        ("interface", _) => &[("takeover", "\"address\""), ("addresses", "[\"10.0.0.5\"]")],
        _ => &[],
    };
    company.iter().copied().chain([(key, value)]).collect()
}

fn outcome(row: &Row, value: &str) -> Result<(), String> {
    let table = row.header;
    // The sub-table that the base file has would be a second one of the same name.
    let text = match (table, row.key.as_str()) {
        ("[pool.shop]", "outlier") => format!("{MINIMAL}outlier = {value}\n"),
        (_, key) => file_with(table, &with_company(table, key, value)),
    };
    parse(&text)
        .map(|_| ())
        .map_err(|mistakes| format!("{mistakes}\nin\n{text}"))
}

#[test]
fn page_lists_exactly_the_keys_that_are_read() {
    let mut listed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rows() {
        listed.entry(row.header).or_default().push(row.key);
    }
    for (heading, header, keys) in TABLES {
        assert_eq!(listed.remove(header).unwrap_or_default(), keys, "{heading}");
    }
}

#[test]
fn every_listed_key_is_read() {
    // A date is wrong for every key, so a key that nobody reads is one that nobody complains about.
    for (_, header, keys) in TABLES {
        for key in keys {
            let is_of_table = header.is_empty() || MINIMAL.contains(&format!("{header}\n"));
            let text = match (header, *key) {
                ("", "listener" | "pool") => format!("{key} = 1979-05-27\n"),
                ("[[listener]]", "listen") => MINIMAL.replace("\"127.0.0.1:0\"", "1979-05-27"),
                ("[pool.shop]", "backends") => MINIMAL.replace("[\"127.0.0.1:9001\"]", "1979-05-27"),
                _ if is_of_table => MINIMAL.replacen(header, &format!("{header}\n{key} = 1979-05-27\n"), 1),
                _ => file_with(header, &[(key, "1979-05-27")]),
            };
            let mistakes = parse(&text).expect_err(&text);
            let told = mistakes
                .as_slice()
                .iter()
                .find(|mistake| mistake.value == "1979-05-27");
            let told = told.unwrap_or_else(|| panic!("{header} {key} is not read\n{mistakes}\nin\n{text}"));
            assert!(
                told.key.ends_with(key) && !told.message.contains("unknown"),
                "{told}"
            );
        }
    }
}

#[test]
fn written_defaults_change_nothing() {
    let mut compared = 0;
    for row in rows() {
        let Some(default) = row
            .default
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix('`'))
        else {
            continue;
        };
        let written = file_with(row.header, &[(&row.key, default)]);
        let [with, without] = [written.clone(), file_with(row.header, &[])].map(|text| {
            let mut config = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"));
            // A policy's line is where its table is, which the added line moves.
            for policy in config.policies.values_mut() {
                std::sync::Arc::make_mut(policy).line = None;
            }
            // That the file says more is what it is told by.
            config.shared = 0;
            format!("{config:?}")
        });
        let is_same = with == without;
        assert!(
            is_same,
            "the default of {} {} is not {default}",
            row.header, row.key
        );
        compared += 1;
    }
    assert!(compared >= 35, "{compared} defaults compared");
}

#[test]
fn written_examples_are_good() {
    for row in rows() {
        for example in literals(&row.example) {
            outcome(&row, example).unwrap_or_else(|text| panic!("{} {}: {text}", row.header, row.key));
        }
    }
}

#[test]
fn written_ranges_end_where_they_say() {
    let mut compared = 0;
    for row in rows() {
        let values = literals(&row.range);
        if row.range.starts_with("one of ") {
            for value in values {
                outcome(&row, value).unwrap_or_else(|text| panic!("{} {}: {text}", row.header, row.key));
            }
            assert!(outcome(&row, "\"\"").is_err(), "{} {}", row.header, row.key);
        } else if let [low, high] = values[..]
            && row.range.contains("` to `")
        {
            for end in [low, high] {
                outcome(&row, end).unwrap_or_else(|text| panic!("{} {}: {text}", row.header, row.key));
            }
            for beyond in [step(low, -1), step(high, 1)].into_iter().flatten() {
                assert!(
                    outcome(&row, &beyond).is_err(),
                    "{} {} = {beyond}",
                    row.header,
                    row.key
                );
            }
            compared += 1;
        }
    }
    assert!(compared >= 25, "{compared} ranges compared");
}

/// The next value of the same kind, if there is one.
fn step(literal: &str, by: i64) -> Option<String> {
    let add = |amount: u64| amount.checked_add_signed(by);
    let text = literal.trim_matches('"');
    if let Some(duration) = units::parse_duration(text) {
        return add(duration.as_millis() as u64).map(|millis| format!("\"{millis}ms\""));
    }
    if let Some(size) = units::parse_size(text) {
        return add(size).map(|bytes| format!("\"{bytes}B\""));
    }
    let number: i64 = literal.parse().expect("a number, a duration or a size");
    Some((number + by).to_string())
}
