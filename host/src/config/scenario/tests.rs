//! What a scenario means, and what is said of one with mistakes. `UPDATE_GOLDEN=1 cargo test scenario` writes the golden
//! files anew; read the difference then.

use std::collections::BTreeSet;

use super::{super::reader::Keys, *};

const SMALL: &str = "policies = [\"round-robin\"]\narrivals = { load = 0.5 }\nservice = { mean = \"10ms\" }\n\
                     backends = [{ name = \"web\", count = 3 }]\n";

fn parse(text: &str) -> Result<Scenario, Mistakes> {
    Scenario::parse(text, "my/small.toml", Path::new("/etc"))
}

fn good(text: &str) -> Scenario {
    parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

#[test]
fn a_small_scenario_has_defaults_and_the_name_of_its_file() {
    let scenario = good(SMALL);
    assert_eq!(
        (scenario.title.as_str(), scenario.seed, scenario.requests),
        ("small", 1, 100_000)
    );
    assert_eq!(
        (scenario.classes.len(), scenario.classes[0].method.as_str()),
        (1, "GET")
    );
    assert_eq!(scenario.pool.hash_on, [HashOn::ClientIp]);
    assert!(scenario.pool.health.is_none() && scenario.pool.outlier.is_some());
    assert_eq!(scenario.balancers.count, 1);
}

#[test]
fn load_is_a_share_of_what_the_backends_can_serve() {
    // 3 x 8 at a time, 10 ms each.
    assert_eq!(good(SMALL).arrivals.rate, 1200.0);
    let slower = SMALL.replace(
        "count = 3 }",
        "count = 3 }, { name = \"old\", concurrency = 4, factor = 2 }",
    );
    assert_eq!(good(&slower).capacity(), 2600.0);
    let mixed = format!(
        "{SMALL}[[class]]\nname = \"a\"\nweight = 3\n[[class]]\nname = \"b\"\nservice = {{ mean = \"50ms\" }}\n"
    );
    assert_eq!(good(&mixed).mean_service_s(), 0.02);
    assert_eq!(good(&mixed).arrivals.rate, 600.0);
}

#[test]
fn keys_are_hashed_where_they_are_unless_the_pool_says_otherwise() {
    let keyed = format!("{SMALL}[keys]\nin = \"cookie:sid\"\n");
    assert_eq!(good(&keyed).pool.hash_on, [HashOn::Cookie("sid".to_owned())]);
    let other = format!("{keyed}[pool]\nhash_on = \"path\"\n");
    assert_eq!(good(&other).pool.hash_on, [HashOn::Path]);
}

#[test]
fn times_may_be_microseconds_and_numbers_whole_or_not() {
    let scenario = good(&SMALL.replace("10ms", "250us").replace("0.5", "1"));
    assert_eq!(scenario.service.mean_s(), 0.000_25);
    assert_eq!(scenario.arrivals.rate, 96_000.0);
}

#[test]
fn messages_are_those_in_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/scenario");
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of golden files") {
        let path = entry.expect("can be listed").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a golden file");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mistakes = Scenario::parse(&text, &name, Path::new("/etc/trimtab")).expect_err(&name);
        let told = format!("{mistakes}\n");
        let expected = path.with_extension("expected");
        if is_update {
            std::fs::write(&expected, &told).expect("can be written");
        }
        let expected = std::fs::read_to_string(&expected).expect("the expected messages");
        assert!(
            told == expected,
            "{name}\n--- expected\n{expected}--- told\n{told}"
        );
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn the_page_has_every_key_and_no_other() {
    const PAGE: &str = include_str!("../../../docs/simulate.md");
    const TABLES: [(&str, &[Keys]); 10] = [
        ("Top level", &[read::ROOT]),
        ("`[arrivals]`", &[read::ARRIVALS]),
        ("`[service]`", &[read::SERVICE]),
        ("`[[class]]`", &[read::CLASS]),
        ("`[keys]`", &[read::KEYS]),
        ("`[[backends]]`", &[read::BACKENDS]),
        ("`[balancers]` and `[network]`", &[read::BALANCERS, read::NETWORK]),
        ("`[pool]`", &[read::POOL]),
        ("`[[event]]`", &[read::EVENT]),
        ("`[autoscale]`", &[read::AUTOSCALE]),
    ];
    let is_table = |key: &str| {
        TABLES
            .iter()
            .any(|(heading, _)| heading.contains(&format!("[{key}]")))
            || key == "policy"
    };
    for (heading, keys) in TABLES {
        let (_, section) = PAGE.split_once(&format!("### {heading}\n")).expect(heading);
        let section = section.split("\n### ").next().unwrap_or_default();
        // Keys are in the first column; those of the pool in a sentence.
        let cells = section.lines().filter_map(|line| match line.strip_prefix("| ") {
            Some(row) => row.split(" | ").next(),
            None if heading == "`[pool]`" => Some(line),
            None => None,
        });
        let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let words = words.map(|word| word.rsplit('.').next().unwrap_or(word));
        let told: BTreeSet<&str> = words.filter(|word| !word.contains(['"', '/'])).collect();
        let known: BTreeSet<&str> = keys
            .iter()
            .flat_map(|keys| keys.iter().copied())
            .filter(|key| heading != "Top level" || !is_table(key))
            .collect();
        let missing: Vec<_> = known.difference(&told).collect();
        assert!(missing.is_empty(), "{heading}: {missing:?}");
        if heading != "`[pool]`" {
            let unknown: Vec<_> = told.difference(&known).collect();
            assert!(unknown.is_empty(), "{heading}: {unknown:?}");
        }
    }
}
