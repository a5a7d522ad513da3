//! The metrics text: its grammar, its names, and that the page of documentation has them all.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Sample = (String, Vec<(String, String)>, f64);

/// What a strict reader finds: the type of each family, and each sample's name, labels and value.
#[derive(Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(
                !help.trim().is_empty() && helped.insert(name.to_owned()),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(helped.contains(name), "{line}");
            let old = parsed.kinds.insert(name.to_owned(), kind.to_owned());
            assert!(old.is_none(), "{line}");
            current = name.to_owned();
        } else {
            let sample = parse_sample(line);
            let suffix = sample.0.strip_prefix(&current).expect(line);
            let suffixes: &[&str] = match parsed.kinds[&current].as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            parsed.samples.push(sample);
        }
    }
    parsed
}

fn parse_sample(line: &str) -> Sample {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let end = line.find(|c| !is_name(c)).expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(!label.is_empty() && label.chars().all(is_name), "{line}");
            let (value, after) = unescape(after, line);
            labels.push((label.to_owned(), value));
            match after.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line).parse().expect(line);
    (name.to_owned(), labels, value)
}

/// The value up to its closing quote, and what follows it.
fn unescape<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => panic!("{line}"),
            },
            c => value.push(c),
        }
    }
    panic!("{line}")
}

async fn scrape(server: &Server) -> Parsed {
    let answer = get(server.handle(), "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("version=0.0.4"), "{}", answer.head);
    parse(&answer.body)
}

impl Parsed {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &[(String, String)]| {
            labels
                .iter()
                .all(|(name, value)| of.contains(&((*name).to_owned(), (*value).to_owned())))
        };
        let mut found = self.samples.iter().filter(|(of, has, _)| of == name && fits(has));
        let value = found.next().unwrap_or_else(|| panic!("{name} {labels:?}")).2;
        assert!(found.next().is_none(), "{name} {labels:?} is not alone");
        value
    }
}

#[tokio::test]
async fn series_are_unique_and_labels_are_escaped() {
    let server = start().await;
    let parsed = scrape(&server).await;
    let series: BTreeSet<_> = parsed
        .samples
        .iter()
        .map(|(name, labels, _)| (name, labels))
        .collect();
    assert_eq!(series.len(), parsed.samples.len());
    assert_eq!(parsed.value("trimtab_pool_usable", &[("pool", "a\"b")]), 1.0);
    assert_eq!(parsed.value("trimtab_pool_usable", &[("pool", "shop")]), 2.0);
    stop(server).await;
}

#[tokio::test]
async fn a_request_shows_in_every_layer() {
    let server = start().await;
    let handle = server.handle();
    let address = handle.listeners()[0].1;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    // The worker counts the end of a response after the client has seen it.
    let mut parsed = scrape(&server).await;
    for _ in 0..500 {
        if parsed.value("trimtab_request_duration_seconds_count", &[]) > 0.0 {
            break;
        }
        parsed = scrape(&server).await;
    }
    let one = |name, labels: &[_]| assert_eq!(parsed.value(name, labels), 1.0, "{name}");
    one("trimtab_connections_total", &[]);
    one("trimtab_responses_total", &[("class", "5xx")]);
    one("trimtab_errors_total", &[]);
    one("trimtab_request_duration_seconds_bucket", &[("le", "+Inf")]);
    let pool = ("pool", "a\"b");
    assert!(parsed.value("trimtab_backend_failures_total", &[pool]) >= 1.0);
    assert!(parsed.value("trimtab_policy_decisions_total", &[pool]) >= 1.0);
    assert_eq!(
        parsed.value("trimtab_policy_decisions_total", &[("pool", "shop")]),
        0.0
    );
    stop(server).await;
}

#[tokio::test]
async fn buckets_only_grow_and_states_are_one_hot() {
    let server = start().await;
    let handle = server.handle();
    handle.metrics().workers[0].record(200, 700);
    handle.metrics().workers[0].record(200, 40_000_000);
    patch(
        handle,
        "/v1/pools/shop/backends/127.0.0.1:1",
        r#"{"drain": true}"#,
    )
    .await;
    let parsed = scrape(&server).await;
    let bucket = |le| parsed.value("trimtab_request_duration_seconds_bucket", &[("le", le)]);
    assert_eq!(
        [bucket("0.0005"), bucket("0.001"), bucket("30"), bucket("+Inf")],
        [0.0, 1.0, 1.0, 2.0]
    );
    let sum = parsed.value("trimtab_request_duration_seconds_sum", &[]);
    assert!((sum - 40.0007).abs() < 1e-6, "{sum}");
    let state = |state| {
        let labels = [("pool", "shop"), ("backend", "127.0.0.1:1"), ("state", state)];
        parsed.value("trimtab_backend_state", &labels)
    };
    assert_eq!(
        ["ready", "down", "ejected", "draining"].map(state),
        [0.0, 0.0, 0.0, 1.0]
    );
    stop(server).await;
}

/// A line for each family: name, type, names of its labels.
fn names(parsed: &Parsed) -> String {
    let mut lines = String::new();
    for (family, kind) in &parsed.kinds {
        let of_family = parsed.samples.iter().filter(|(name, ..)| {
            let suffix = name.strip_prefix(family);
            suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
        });
        let labels: BTreeSet<&str> = of_family
            .flat_map(|(_, labels, _)| labels.iter().map(|(name, _)| name.as_str()))
            .collect();
        let labels: Vec<&str> = labels.into_iter().collect();
        lines += format!("{family} {kind} {}", labels.join(",")).trim_end();
        lines.push('\n');
    }
    lines
}

#[tokio::test]
async fn names_types_and_labels_are_those_of_the_golden_file() {
    let server = start().await;
    golden("metrics.txt", &names(&scrape(&server).await));
    stop(server).await;
}

#[tokio::test]
async fn the_page_has_a_row_for_each_metric_and_no_other() {
    let server = start().await;
    let parsed = scrape(&server).await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/admin.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `trimtab_"));
    let rows: BTreeSet<String> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            format!("trimtab_{} {}", cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let served = parsed.kinds.iter().map(|(name, kind)| format!("{name} {kind}"));
    assert_eq!(rows, served.collect());
    stop(server).await;
}

#[tokio::test]
async fn a_pool_makes_as_many_series_as_its_tenant_is_charged_for() {
    let server = start().await;
    let parsed = scrape(&server).await;
    for view in server.handle().pools().iter() {
        let is_of_pool =
            |labels: &[(String, String)]| labels.contains(&("pool".to_owned(), view.pool.name().to_owned()));
        let series = parsed.samples.iter().filter(|(_, labels, _)| is_of_pool(labels));
        assert_eq!(
            series.count() as u32,
            view.pool.config.series(),
            "see config/tenant.rs and docs/configuration.md: {}",
            view.pool.name()
        );
    }
    stop(server).await;
}
