//! Autobahn's fuzzing client for WebSocket, through the balancer to Autobahn's own echo server.

use serde_json::{Value, json};
use tokio::process::Command;
use trimtab_tests::{Directory, Setup};

use crate::program::{Server, here, install, run, told, tools};

/// Performance (9) and compression (12, 13) are left out: the first is no rule, the others take half an hour, and a
/// balancer that does not look into frames has no part in them.
const LEFT_OUT: [&str; 3] = ["9.*", "12.*", "13.*"];
/// How many are left of version 0.8.2.
const CASES: usize = 247;

#[tokio::test]
async fn autobahn_fails_nothing() {
    install("autobahn").await;
    let programs = tools().join("autobahn/bin");
    let mut echo = Command::new(programs.join("python"));
    let origin = Server::start(echo.arg(here().join("autobahn/echo.py"))).await;
    let balancer = Setup::to(origin.address.to_string()).start().await;
    let directory = Directory::new();
    let specification = json!({
        "outdir": directory.path().join("report"),
        "servers": [{ "agent": "trimtab", "url": format!("ws://{}/", balancer.address) }],
        "cases": ["*"],
        "exclude-cases": LEFT_OUT,
    });
    let specification = directory.write("cases.json", specification.to_string());
    let mut suite = Command::new(programs.join("python"));
    suite
        .arg(programs.join("wstest"))
        .args(["-m", "fuzzingclient", "-s"])
        .arg(specification)
        .current_dir(directory.path());
    let output = run(&mut suite).await;
    let report = std::fs::read_to_string(directory.path().join("report/index.json"));
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    let report: Value = serde_json::from_str(&report).unwrap();
    let cases = report["trimtab"].as_object().unwrap();
    let is_good = |verdict: &Value| {
        let verdict = verdict.as_str().unwrap_or_default();
        ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&verdict)
    };
    let bad: Vec<_> = cases
        .iter()
        .filter(|(_, case)| !is_good(&case["behavior"]) || !is_good(&case["behaviorClose"]))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(cases.len(), CASES);
    // The suite asks for their number and lets itself be reported to besides.
    let tunnels = balancer.count(|worker| &worker.upgrades);
    assert!(tunnels >= CASES as u64, "{tunnels}");
}
