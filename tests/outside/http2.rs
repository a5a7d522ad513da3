//! Suites and clients of HTTP/2: httpwg-cli, which judges frames, and h2load and nghttp, which send many requests at once.

use tokio::process::Command;
use trimtab_tests::{Balancer, Directory, Origin, Setup, tls::Authority};

use crate::program::{install, run, told, tools};

/// How many cases httpwg-cli 0.2.5 has.
const CASES: usize = 107;

#[tokio::test]
async fn httpwg_finds_nothing() {
    install("httpwg").await;
    // It wants a body of some bytes, to be sent by twos and threes.
    let origin = Origin::start("some-words").await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut suite = Command::new(tools().join("bin/httpwg"));
    suite
        .args(["-a", &balancer.address.to_string()])
        // On a busy machine, what comes may come late.
        .args(["--frame-timeout", "2000", "--connect-timeout", "10000"])
        .env("RUST_BACKTRACE", "0")
        .env("NO_COLOR", "1");
    let output = run(&mut suite).await;
    let told = told(&output);
    let failed: Vec<&str> = told
        .lines()
        .filter_map(|line| Some(line.split_once("Test failed: ")?.1.trim()))
        .collect();
    assert!(failed.is_empty(), "{failed:?}\n{told}");
    assert_eq!(told.matches("Test passed: ").count(), CASES, "{told}");
}

/// The line of h2load that counts, without its times.
fn counted(told: &str) -> &str {
    told.lines()
        .find(|line| line.starts_with("requests: "))
        .unwrap_or_else(|| panic!("{told}"))
}

async fn h2load(arguments: &[&str]) -> String {
    install("nghttp2").await;
    let output = run(Command::new("h2load").args(arguments)).await;
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    told
}

/// 5 connections of 100 streams each, more than that many requests, and each with a body both ways.
const MANY: [&str; 6] = ["-n", "5000", "-c", "5", "-m", "100"];
const ALL: &str =
    "requests: 5000 total, 5000 started, 5000 done, 5000 succeeded, 0 failed, 0 errored, 0 timeout";

#[tokio::test]
async fn h2load_has_all_of_its_requests_answered_over_plain_text() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).workers(2).start().await;
    let url = format!("http://{}/", balancer.address);
    let told = h2load(&[&MANY[..], &[&url]].concat()).await;
    assert_eq!(counted(&told), ALL, "{told}");
    assert!(
        told.contains("status codes: 5000 2xx, 0 3xx, 0 4xx, 0 5xx"),
        "{told}"
    );
    assert_eq!(origin.hits(), 5000);
    let told = h2load(&[&MANY[..], &["--h1", "-m", "1", &url]].concat()).await;
    assert_eq!(counted(&told), ALL, "{told}");
    assert_eq!(origin.hits(), 10_000);
}

#[tokio::test]
async fn h2load_has_all_of_its_uploads_answered_over_tls() {
    let origin = Origin::start("a").await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let body = directory.write("body", vec![b'x'; 20_000]).display().to_string();
    let setup = Setup::to(origin.address())
        .workers(2)
        .listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let url = format!("https://{}/", balancer.address);
    let told = h2load(&["-n", "1000", "-c", "5", "-m", "100", "-d", &body, &url]).await;
    assert!(told.contains("Application protocol: h2"), "{told}");
    assert_eq!(counted(&told), ALL.replace("5000", "1000"), "{told}");
    assert!(told.contains("status codes: 1000 2xx"), "{told}");
    assert_eq!(origin.hits(), 1000);
}

#[tokio::test]
async fn nghttp_has_each_of_many_streams_answered() {
    install("nghttp2").await;
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let url = format!("http://{}/", balancer.address);
    let output = run(Command::new("nghttp").args(["--null-out", "--stat", "-m", "300", &url])).await;
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    // The table that it ends with has a line for each: id, times, status, size, path.
    let answered = told.lines().filter(|line| line.contains("  200    1 /"));
    assert_eq!(answered.count(), 300, "{told}");
    assert_eq!(origin.hits(), 300);
}
