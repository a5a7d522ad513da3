//! `trimtab simulate`, as its users call it.

use std::process::{Command, Output};

use trimtab_tests::Directory;

use crate::PROGRAM;

const SCENARIO: &str = "\
policies = [\"round-robin\"]
requests = 500
arrivals = { load = 0.5 }
service = { mean = \"10ms\" }
backends = [{ name = \"web\", count = 3 }]
";

fn simulate(directory: &Directory, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .current_dir(directory.path())
        .arg("simulate")
        .args(arguments);
    command.output().unwrap()
}

fn told(directory: &Directory, arguments: &[&str]) -> String {
    let output = simulate(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{arguments:?}: {errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_scenario_gives_a_table_json_and_a_page_each_the_same_every_time() {
    let directory = Directory::new();
    directory.write("small.toml", SCENARIO);
    let table = told(
        &directory,
        &[
            "small.toml",
            "--report",
            "one.html",
            "--policy",
            "least-connections",
        ],
    );
    assert!(table.starts_with("small\n500 requests over "), "{table}");
    assert!(table.contains("\nround-robin ") && table.contains("\nleast-connections "));
    told(
        &directory,
        &[
            "small.toml",
            "--report",
            "two.html",
            "--policy",
            "least-connections",
        ],
    );
    let page = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    assert!(page("one.html") == page("two.html"));
    let json = |more: &[&str]| told(&directory, &[&["small.toml", "--json"], more].concat());
    assert_eq!(json(&[]), json(&["--seed", "1"]));
    assert_ne!(json(&[]), json(&["--seed", "2"]));
    let fewer: serde_json::Value = serde_json::from_str(&json(&["--requests", "10"])).unwrap();
    assert_eq!(fewer["requests"], 10);
    assert_eq!(fewer["policies"][0]["answered"], 10);
}

#[test]
fn mistakes_are_told_with_their_place_and_the_exit_code_is_2() {
    let directory = Directory::new();
    directory.write("small.toml", SCENARIO);
    directory.write("wrong.toml", SCENARIO.replace("load = 0.5", "laod = 0.5"));
    directory.write(
        "file.toml",
        SCENARIO.replace("[\"round-robin\"]", "[\"mine\"]") + "[policy.mine]\ncomponent = \"no.wasm\"\n",
    );
    directory.write("no-component.wasm", "text");
    let refused = |arguments: &[&str]| {
        let output = simulate(&directory, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong = refused(&["wrong.toml"]);
    let unknown = "wrong.toml:3: arrivals.laod = 0.5: unknown key; did you mean \"load\"?\n";
    assert!(wrong.contains(unknown), "{wrong}");
    assert!(refused(&["none.toml"]).starts_with("none.toml: cannot be read: "));
    let missing = refused(&["file.toml"]);
    assert!(
        missing.starts_with("file.toml:7: policy.mine.component = \"no.wasm\": cannot be read: "),
        "{missing}"
    );
    let text = refused(&["small.toml", "--policy", "mine=no-component.wasm"]);
    assert!(text.starts_with("mine: not a WebAssembly component: "), "{text}");
    assert!(refused(&["small.toml", "--policy", "mine="]).contains("expected NAME=FILE.wasm"));
    let unwritable = refused(&["small.toml", "--report", "no/such/folder.html"]);
    assert!(
        unwritable.starts_with("no/such/folder.html: cannot be written: "),
        "{unwritable}"
    );
}
