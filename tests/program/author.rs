//! `trimtab policy new`, `build`, `check`, `test`, `bench` and `push --watch`, as an author uses them.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use trimtab::policy::digest;
use trimtab_tests::{
    Directory,
    guest::{Guest, State},
};

use crate::{
    PROGRAM,
    operator::{Running, guest, stage},
};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist");

fn policy(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("policy").args(arguments).output().unwrap()
}

/// The exit code and everything that is printed, with the directory's path made the same in each run.
fn told(directory: &Directory, arguments: &[&str]) -> (i32, String) {
    let output = policy(arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let path = directory.path().display().to_string();
    (
        output.status.code().unwrap(),
        text.replace(&path, "DIR").replace(DIST, "DIST"),
    )
}

/// A policy's folder with these lines more.
fn folder(component: &str, rest: &str) -> Directory {
    let directory = Directory::new();
    let text = format!("name = \"tried\"\ncomponent = \"{component}\"\n{rest}");
    directory.write("policy.toml", text);
    directory
}

fn path(directory: &Directory) -> String {
    directory.path().display().to_string()
}

#[test]
fn a_broken_rule_is_told_with_the_smallest_situation() {
    let directory = folder(
        &format!("{DIST}/chaos.wasm"),
        "[settings]\nfault = \"unusable\"\nevery = 3\n[claims]\nalways_picks = true",
    );
    let (code, text) = told(&directory, &["test", &path(&directory)]);
    assert_eq!(code, 1, "{text}");
    let golden = include_str!("golden/broken.txt");
    assert_eq!(text, golden, "\nand in tests/program/golden/broken.txt\n{golden}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let again = told(&directory, &["test", &path(&directory)]);
    assert_eq!(again.1, text, "the same seed");
}

/// Policies that keep one rule less than they should, and the rule.
#[test]
fn every_rule_can_be_broken() {
    let always = |bad: &str| format!("{bad} {}", Guest::any());
    let text = "no thanks".to_owned();
    let refusing = Guest {
        text: text.clone(),
        ..Guest::default()
    };
    let guests = [
        (
            "bounded-memory",
            Guest {
                pick: always(
                    "(if (i32.eqz (i32.rem_u (global.get $picks) (i32.const 1000))) (then (drop (memory.grow (i32.const 1)))))",
                ),
                ..Guest::default()
            },
        ),
        (
            "bounded-cost",
            Guest {
                pick: format!(
                    "(local $left i32) (local.set $left (i32.mul (call $len) (call $len)))
                     (loop $next (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                       (br_if $next (i32.gt_s (local.get $left) (i32.const 0)))) {}",
                    Guest::any()
                ),
                ..Guest::default()
            },
        ),
        (
            "state",
            Guest {
                pick: Guest::any(),
                state: Some(State {
                    import: refusing.refuse(),
                    ..State::of("own/1", 8)
                }),
                text,
                ..Guest::default()
            },
        ),
        (
            // The generation is another in each pool, which nothing may depend on.
            "repeatable",
            Guest {
                update: "(i64.store (i32.const 2048) (i64.load (local.get $snapshot)))".into(),
                pick: "(call $some (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 2048)) (i64.extend_i32_u (call $len)))))".into(),
                ..Guest::default()
            },
        ),
    ];
    let directory = Directory::new();
    for (rule, guest) in guests {
        let guest = Guest { pages: 512, ..guest };
        directory.write("guest.wasm", guest.build());
        let file = directory.path().join("guest.wasm").display().to_string();
        let (code, text) = told(&directory, &["test", &file]);
        assert!(
            code == 1 && text.contains(&format!("BROKEN {rule}")),
            "{rule}: {text}"
        );
    }
    let claims = [
        (
            "round-robin",
            "least-connections",
            ["follows-load", "order-blind"],
        ),
        ("round-robin", "consistent-hash", ["sticky", "few-move"]),
        ("round-robin", "weighted-round-robin", ["fair", "slow-start"]),
        ("weighted-round-robin", "round-robin", ["fair", "fair"]),
    ];
    for (name, like, rules) in claims {
        let (code, text) = told(&directory, &["test", name, "--like", like]);
        for rule in rules {
            assert!(
                code == 1 && text.contains(&format!("BROKEN {rule}")),
                "{name} like {like}, {rule}: {text}"
            );
        }
    }
}

#[test]
fn every_built_in_keeps_what_it_claims() {
    for name in trimtab::config::BUILTIN_POLICIES {
        let output = policy(&["test", name, "--seed", "7"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(name == "chaos" || text.contains("ok     fair"), "{text}");
    }
}

#[test]
fn the_author_s_cases_are_tried() {
    let directory = folder(
        &format!("{DIST}/least-connections.wasm"),
        "tests = \"cases.toml\"",
    );
    directory.write(
        "cases.toml",
        "backends = [{ address = \"a:80\", active = 3 }, { address = \"b:80\" }, { address = \"c:80\", state = \"down\" }]\n\
         [[case]]\nname = \"idle first\"\nexpect = \"b:80\"\n\
         [[case]]\nname = \"a retry\"\ntried = [\"b:80\"]\nexpect = [\"a:80\", \"c:80\"]\n\
         [[case]]\nname = \"wrong\"\nexpect_sequence = [\"b:80\", \"a:80\"]\n\
         [[case]]\nname = \"refused settings\"\nsettings = { x = 1 }\nexpect = { reject = 503 }\n",
    );
    let (code, text) = told(&directory, &["test", &path(&directory)]);
    assert_eq!(code, 1, "{text}");
    for expected in [
        "2 of 4 cases hold\n",
        "DIR/cases.toml:9: wrong: request 2: expected a:80, and it is b:80",
        "DIR/cases.toml:12: refused settings: the policy failed in configure: unknown key `x`",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn mistakes_say_what_to_do() {
    let directory = Directory::new();
    directory.write("text.wasm", "I am no component");
    let file = directory.path().join("text.wasm").display().to_string();
    let (code, text) = told(&directory, &["check", &file]);
    assert!(
        code == 2 && text.contains("not a WebAssembly component"),
        "{text}"
    );
    let (code, text) = told(&directory, &["test", "no-such-thing"]);
    assert!(
        code == 2
            && text.contains("expected a folder with a policy.toml, a .wasm file, or a built-in policy"),
        "{text}"
    );
    let cases = [
        (
            "",
            "component = DIR/out.wasm: no step of the build made this file",
        ),
        (
            "[[build]]\nrun = [\"no-such-program-here\", \"x\"]\nneeds = \"apt-get install it\"",
            "build[0]: `no-such-program-here` is not installed\n  install it by: apt-get install it",
        ),
        (
            "[[build]]\nrun = [\"true\"]\n[[build]]\nrun = [\"sh\", \"-c\", \"exit 3\"]\nneeds = \"this\"",
            "+ true\n+ sh -c 'exit 3'\nDIR/policy.toml: build[1]: `sh -c 'exit 3'` failed (exit status: 3)\n  if that is \
             because something is missing: this",
        ),
        (
            "languag = \"c\"",
            "DIR/policy.toml:3: languag = \"c\": unknown key; did you mean \"language\"",
        ),
    ];
    for (rest, expected) in cases {
        let directory = folder("out.wasm", rest);
        let (code, text) = told(&directory, &["build", &path(&directory)]);
        assert!(
            code == 2 && text.contains(expected),
            "{expected}\nis not in\n{text}"
        );
    }
}

#[test]
fn a_new_folder_has_all_it_needs_and_replaces_none() {
    let directory = Directory::new();
    let place = path(&directory);
    for language in trimtab::kit::LANGUAGES {
        let name = format!("my-{}", language.name);
        let arguments = ["new", "--lang", language.name, &name, "--dir", &place];
        let (code, text) = told(&directory, &arguments);
        assert!(
            code == 0 && text.contains(&format!("DIR/{name} is ready")),
            "{text}"
        );
        let folder = directory.path().join(&name);
        assert!(folder.join("policy.toml").exists(), "{name}");
        assert_no_placeholder(&folder);
        // There is no component yet, but everything that is written by hand is right.
        let (_, text) = told(&directory, &["test", &folder.display().to_string()]);
        assert!(text.contains("`trimtab policy build` makes it"), "{text}");
        let (code, text) = told(&directory, &arguments);
        assert!(code == 2 && text.contains("exists already"), "{text}");
    }
    for (name, reason) in [
        ("My", "lower-case"),
        ("round-robin", "a built-in policy has this name"),
    ] {
        let (code, text) = told(&directory, &["new", "--lang", "rust", name, "--dir", &place]);
        assert!(code == 2 && text.contains(reason), "{text}");
    }
}

fn assert_no_placeholder(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_placeholder(&path);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("{{name"), "{}", path.display());
        }
    }
}

#[test]
fn check_and_bench_tell_people_and_programs() {
    let (code, text) = told(&Directory::new(), &["check", "peak-ewma"]);
    assert!(
        code == 0 && text.contains("exports       picker, observer, stateful"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = policy(arguments);
        assert!(output.status.success(), "{arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let report = json(&["check", "round-robin", "--json"]);
    assert_eq!(report["deterministic"], true);
    assert_eq!(report["costs"].as_array().unwrap().len(), 3);
    assert!(report["costs"][2]["pick_work"].as_u64().unwrap() > 0, "{report}");
    let bench = json(&["bench", "random-two-choices", "--json"]);
    let names: Vec<_> = bench["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["random-two-choices", "round-robin", "least-connections"]);
    assert!(bench["rows"][0]["pick_ns"][2].as_f64().unwrap() > 0.0, "{bench}");
}

/// A source is copied by the build; each save of it is pushed, but for one that does not work.
#[tokio::test(flavor = "multi_thread")]
async fn each_save_is_built_and_pushed() {
    let (directory, _origin) = stage().await;
    let running = Running::start(&directory);
    let author = folder(
        "build/out.wasm",
        "[[build]]\nrun = [\"cp\", \"source\", \"build/out.wasm\"]",
    );
    std::fs::create_dir(author.path().join("build")).unwrap();
    author.write("source", guest("one"));
    let mut watch = Command::new(PROGRAM)
        .args([
            "policy",
            "push",
            &path(&author),
            "--pool",
            "main",
            "--promote",
            "--watch",
        ])
        .args(["--admin", &running.admin])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut mistakes = BufReader::new(watch.stderr.take().unwrap()).lines();
    let mut expect = |text: &str| {
        let found = said.find(|line| line.as_ref().unwrap().contains(text));
        assert!(found.is_some(), "{text}");
    };
    expect(&format!("{} serves in place of", &digest(&guest("one"))[..12]));
    expect("watching");
    author.write("source", "broken");
    let mut told = mistakes.by_ref().map_while(Result::ok);
    assert!(told.any(|line| line.contains("not a WebAssembly component")));
    expect("watching");
    author.write("source", guest("two"));
    expect(&format!("{} serves in place of", &digest(&guest("two"))[..12]));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// `policy push` without a FILE, in this folder.
fn push_from(folder: &Directory, admin: &str) -> Output {
    Command::new(PROGRAM)
        .args(["policy", "push", "--pool", "main", "--admin", admin])
        .current_dir(folder.path())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn push_takes_the_present_folder() {
    let (directory, _origin) = stage().await;
    let running = Running::start(&directory);
    let author = folder("out.wasm", "");
    author.write("out.wasm", guest("one"));
    let output = push_from(&author, &running.admin);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(&digest(&guest("one"))[..12]),
        "{output:?}"
    );
    let output = push_from(&Directory::new(), &running.admin);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("policy.toml: cannot be read"),
        "{output:?}"
    );
}
