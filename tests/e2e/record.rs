//! Decisions of a balancer under real requests: recorded, replayed and explained.

mod seams;

use std::{fs::File, path::PathBuf, time::Duration};

use serde_json::Value;
use trimtab::{
    policy::LogReader,
    replay::{Order, Report, replay},
};
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, Load, Origin, Response, Setup, wait_until};

/// Asks the admin listener.
async fn admin(balancer: &Balancer, line: &str, body: &str) -> (u16, Value) {
    let address = balancer.handle().admin().unwrap();
    let mut client = Client::connect(address).await;
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = client.ask(request).await;
    let value = serde_json::from_slice(&response.body);
    (
        response.status,
        value.unwrap_or_else(|error| panic!("{error}: {}", response.text())),
    )
}

async fn explain(balancer: &Balancer, query: &str) -> Value {
    let (status, value) = admin(balancer, &format!("GET /v1/explain?{query}"), "").await;
    assert_eq!(status, 200, "{value:#}");
    value
}

/// The recorded request of this id, as soon as it is known.
async fn explained(balancer: &Balancer, id: &str) -> Value {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let (status, value) = admin(balancer, &format!("GET /v1/explain?id={id}"), "").await;
        if status == 200 {
            return value;
        }
        assert!(status == 404 && tokio::time::Instant::now() < end, "{value:#}");
        tokio::task::yield_now().await;
    }
}

async fn ask(client: &mut Client, fields: &str) -> Response {
    let request = format!("GET /a/b?token=secret HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n");
    let response = client.ask(request).await;
    assert_eq!(response.status, 200);
    response
}

/// Has the next decisions recorded, and gives the file.
pub(crate) async fn record(balancer: &Balancer, picks: u32) -> Option<PathBuf> {
    let (status, report) = admin(
        balancer,
        "POST /v1/pools/main/record",
        &format!("{{\"picks\": {picks}}}"),
    )
    .await;
    assert_eq!(status, 200, "{report:#}");
    assert_eq!(report["picks"], picks);
    report["file"].as_str().map(PathBuf::from)
}

pub(crate) fn is_closed(path: &PathBuf) -> bool {
    let Ok(mut log) = LogReader::new(File::open(path).unwrap()) else {
        return false;
    };
    loop {
        match log.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Has the next decisions recorded, and asks until the worker has begun.
async fn record_from_here(balancer: &Balancer, picks: u32, client: &mut Client) {
    record(balancer, picks).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        ask(client, "x-request-id: first\r\n").await;
        let (status, value) = admin(balancer, "GET /v1/explain?id=first", "").await;
        if status == 200 {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{value:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The report on a file, once it is closed.
pub(crate) async fn replayed(path: &PathBuf, order: &Order) -> Report {
    wait_until("the file is closed", DEADLINE, || is_closed(path)).await;
    replay(File::open(path).unwrap(), order).unwrap()
}

#[tokio::test]
async fn what_a_balancer_under_load_records_is_replayed_bit_for_bit() {
    let directory = Directory::new();
    let origins = Origin::start_all(["a", "b", "c"]).await;
    for policy in ["peak-ewma", "least-connections"] {
        let balancer = Setup::new()
            .workers(2)
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool(&format!("policy = {policy:?}"))
            .rest(&format!("[record]\ndirectory = {:?}", directory.path()))
            .start()
            .await;
        let load = Load::start(balancer.address, 16);
        let path = record(&balancer, 400).await.unwrap();
        load.more(50).await;
        // Something happens to the pool in the midst of it.
        let id = balancer.id(1);
        balancer
            .view()
            .pool
            .set_draining(id, true, std::time::Instant::now());
        load.more(50).await;
        balancer
            .view()
            .pool
            .set_draining(id, false, std::time::Instant::now());
        let report = replayed(&path, &Order::default()).await;
        load.stop().await.expect_no_failure();
        assert!(report.is_identical(), "{policy}: {:#?}", report.first_difference);
        assert!(report.is_same_version && report.gaps == 0);
        assert_eq!((report.streams, report.picks), (2, 800), "{policy}");
        balancer.stop().await;
    }
}

#[tokio::test]
async fn a_pool_that_says_so_is_recorded_again_and_again() {
    let directory = Directory::new();
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\nrecord = { picks = 20, every = \"1s\" }")
        .rest(&format!("[record]\ndirectory = {:?}", directory.path()))
        .start()
        .await;
    let load = Load::start(balancer.address, 2);
    let files = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    wait_until("three segments", DEADLINE, || files().len() >= 3).await;
    load.stop().await.expect_no_failure();
    balancer.stop().await;
    let mut files = files();
    files.sort();
    for path in &files {
        let report = replay(File::open(path).unwrap(), &Order::default()).unwrap();
        assert!(report.is_identical() && report.picks <= 20, "{report:#?}");
    }
    let first = replay(File::open(&files[0]).unwrap(), &Order::default()).unwrap();
    assert_eq!(first.picks, 20);
}

#[tokio::test]
async fn a_recorded_request_is_explained_by_its_id_and_decided_the_same_again() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .with_admin()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"by-user\"\nhash_on = \"header:x-user\"")
        .pool("record = { headers = [\"x-plan\", \"x-secret\"], show = [\"x-plan\"] }")
        .rest("[policy.by-user]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-user\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    record_from_here(&balancer, 1000, &mut client).await;
    for number in 0..50 {
        let fields = format!(
            "x-user: alice-{number}\r\nx-secret: hunter2\r\nx-plan: gold\r\nx-request-id: id-{number}\r\n"
        );
        let response = ask(&mut client, &fields).await;
        if number % 10 > 0 {
            continue;
        }
        let told = explained(&balancer, &format!("id-{number}")).await;
        let attempt = &told["attempts"][0];
        let served = response.field("x-origin").unwrap();
        let origin = origins.iter().find(|origin| origin.name() == served).unwrap();
        assert_eq!(attempt["re_executed"], "same", "{told:#}");
        assert_eq!(attempt["decision"]["backend"], origin.address());
        assert_eq!(attempt["decision"]["chosen_by"], "policy");
        assert_eq!(attempt["key"]["source"], "header:x-user");
        assert_eq!(attempt["request"]["path"], "/a/b");
        assert_eq!(attempt["request"]["headers"]["x-plan"], "gold");
        assert_eq!(attempt["candidates"].as_array().unwrap().len(), 3);
        let text = told.to_string();
        for private in ["alice", "hunter2", "secret=", "token"] {
            assert!(!text.contains(private), "{private} in {told:#}");
        }
    }
    let (status, value) = admin(&balancer, "GET /v1/explain?id=never-seen", "").await;
    assert_eq!(status, 404, "{value:#}");
}

#[tokio::test]
async fn a_request_without_an_id_is_found_by_the_one_in_the_access_log() {
    let directory = Directory::new();
    let log = directory.path().join("access.log");
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .with_admin()
        .top(&format!("log.access = {log:?}"))
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    ask(&mut client, "").await;
    record(&balancer, 10).await;
    let mut lines: Vec<Value> = Vec::new();
    let has_id = |line: &&Value| line.get("id").is_some();
    // Until the worker has begun, and stopped.
    while lines.iter().filter(has_id).count() < 10 || lines.last().is_some_and(|line| has_id(&line)) {
        ask(&mut client, "").await;
        let text = std::fs::read_to_string(&log).unwrap();
        lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
    }
    let recorded: Vec<&Value> = lines.iter().filter(has_id).collect();
    assert_eq!(recorded.len(), 10, "{lines:#?}");
    assert!(lines[0].get("id").is_none());
    for line in recorded {
        let told = explained(&balancer, line["id"].as_str().unwrap()).await;
        assert_eq!(told["attempts"][0]["re_executed"], "same");
        assert_eq!(told["attempts"][0]["decision"]["backend"], line["backend"]);
    }
}

#[tokio::test]
async fn each_attempt_of_a_request_is_explained() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .with_admin()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\noutlier = \"off\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    record_from_here(&balancer, 1000, &mut client).await;
    origins[0].kill();
    for number in 0..2 {
        ask(&mut client, &format!("x-request-id: try-{number}\r\n")).await;
    }
    let mut tried = Vec::new();
    for number in 0..2 {
        let told = explained(&balancer, &format!("try-{number}")).await;
        let attempts = told["attempts"].as_array().unwrap();
        assert!(
            attempts.iter().all(|attempt| attempt["re_executed"] == "same"),
            "{told:#}"
        );
        tried.push(attempts.len());
        if let [_, second] = &attempts[..] {
            assert_eq!(second["candidates"][0]["tried"], true);
            assert_eq!(second["decision"]["backend"], origins[1].address());
        }
    }
    assert!(tried.contains(&2), "{tried:?}");
}

#[tokio::test]
async fn a_request_that_nobody_sent_is_explained_as_the_next_one_is_decided() {
    for (policy, rest) in [
        ("ip-hash", ""),
        // By default it also looks at the load, which the last request may still be part of.
        (
            "ring",
            "[policy.ring]\nbuiltin = \"consistent-hash\"\nconfig = { balance = 0 }",
        ),
        (
            "by-user",
            "[policy.by-user]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-user\" }",
        ),
    ] {
        let origins = Origin::start_all(["a", "b", "c"]).await;
        let balancer = Setup::new()
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool(&format!("policy = {policy:?}\nhash_on = \"header:x-user\""))
            .rest(rest)
            .start()
            .await;
        let mut client = Client::connect(balancer.address).await;
        for number in 0..20 {
            let query = format!("host=shop.example&path=/a/b%3Ftoken=secret&header=x-user:u{number}");
            let told = explain(&balancer, &query).await;
            let response = ask(&mut client, &format!("x-user: u{number}\r\n")).await;
            let served = response.field("x-origin").unwrap();
            let origin = origins.iter().find(|origin| origin.name() == served).unwrap();
            assert_eq!(told["decision"]["backend"], origin.address(), "{policy} {told:#}");
            assert_eq!(told["route"]["listener"], "main");
            assert_eq!(told["key"]["source"], "header:x-user");
        }
    }
}

#[tokio::test]
async fn an_explanation_says_when_the_host_would_choose_and_why() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .with_admin()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"ill\"")
        .rest("[policy.ill]\nbuiltin = \"chaos\"\nconfig = { fault = \"bad-index\", every = 2 }")
        .start()
        .await;
    // A scratch instance is new: its first pick is a good one.
    let told = explain(&balancer, "pool=main").await;
    assert_eq!(told["decision"]["chosen_by"], "policy", "{told:#}");
    for index in 0..2 {
        let id = balancer.id(index);
        balancer
            .view()
            .pool
            .set_draining(id, true, std::time::Instant::now());
    }
    let told = explain(&balancer, "path=/x").await;
    assert_eq!(told["decision"]["backend"], Value::Null);
    assert_eq!(told["decision"]["reason"], "no backend is usable");
    assert_eq!(told["candidates"][0]["state"], "draining");
    for (query, status) in [
        ("", 400),
        ("nonsense=1", 400),
        ("pool=none", 404),
        ("id=x&path=/", 400),
    ] {
        let (answered, value) = admin(&balancer, &format!("GET /v1/explain?{query}"), "").await;
        assert_eq!(answered, status, "{query}: {value:#}");
    }
}
