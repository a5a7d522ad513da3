//! Grants: for each import, that it says nothing of what is denied; and that nothing denied is in the guest's memory.

use trimtab::policy::{FaultKind, Reason};
use trimtab_tests::{Client, DEADLINE, guest::Guest, wait_until};

use super::{EVERYTHING, Stage, Wants};

/// Names at their places in the guest's memory.
const NAMES: &str = "x-secret........cookie..........session.........host............";
const X_SECRET: &str = "(i32.const 1024) (i32.const 8)";
const COOKIE: &str = "(i32.const 1040) (i32.const 6)";
const SESSION: &str = "(i32.const 1056) (i32.const 7)";
const HOST: &str = "(i32.const 1072) (i32.const 4)";
/// In every part of the request. A guest that looks for it has it in its code, not in its memory.
/// In lower case, as hosts are by the time that a policy sees them.
const SECRET: &str = "secretxy";

/// Sends so many requests with the secret everywhere, while two are in flight at one of mallory's backends or the other.
async fn ask(stage: &Stage, times: usize) {
    let mut held = Vec::new();
    for count in 1..=2 {
        let mut client = Client::connect(stage.balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await;
        held.push(client);
        let in_flight = || {
            stage.origins[..2]
                .iter()
                .map(|origin| origin.in_flight())
                .sum::<usize>()
        };
        wait_until("it is held", DEADLINE, || in_flight() == count).await;
    }
    let mut client = Client::connect(stage.balancer.address).await;
    for _ in 0..times {
        let request = format!(
            "GET /{SECRET}?{SECRET} HTTP/1.1\r\nhost: {SECRET}.mallory\r\nx-secret: {SECRET}\r\n\
             cookie: session={SECRET}\r\n\r\n"
        );
        assert_eq!(client.ask(request).await.status, 200);
    }
    stage.origins.iter().for_each(|origin| origin.release());
    for mut client in held {
        assert_eq!(client.response().await.status, 200);
    }
}

/// Whether a guest that traps when this is true does so, with these grants.
async fn is_true(condition: &str, grants: &str) -> bool {
    let guest = Guest {
        text: NAMES.into(),
        pick: format!(
            "(if (i32.ge_u (global.get $picks) (i32.const 4)) (then (if {condition} (then unreachable)))) {}",
            Guest::any()
        ),
        ..Guest::default()
    };
    let wants = Wants {
        workers: 1,
        policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"10ms\"",
        grants,
        ..Wants::default()
    };
    let stage = Stage::want(&guest, wants).await;
    ask(&stage, 40).await;
    let faults = stage.main().deployment.faults();
    assert_eq!(faults, stage.balancer.faults(FaultKind::Trap), "of another kind");
    if faults == 0 {
        assert_eq!(stage.host(Reason::Fault) + stage.host(Reason::Rebuilding), 0);
    }
    faults > 0
}

/// The same grants with this one in place of what they say of its key.
fn but(grant: &str) -> String {
    let key = grant.split(' ').next().unwrap_or_default();
    let mut grants = format!("{EVERYTHING}, method = \"allow\", authority = \"allow\", load = \"allow\"");
    let start = grants.find(&format!("{key} = ")).expect("a known key");
    // A table has a comma only after its end here.
    let end = grants[start..]
        .find(", ")
        .map_or(grants.len(), |comma| start + comma);
    grants.replace_range(start..end, grant);
    grants
}

const IS_SOME: &str = "(i32.load8_u (i32.const 32))";
const IS_TEXT: &str = "(i32.load (i32.const 36))";

fn option(function: &str, name: &str) -> String {
    format!("(block (result i32) (call {function} {name} (i32.const 32)) {IS_SOME})")
}

fn text(function: &str) -> String {
    format!("(block (result i32) (call {function} (i32.const 32)) {IS_TEXT})")
}

/// Whether the first number of a column is not 0; `load` reads one.
fn column(function: &str, load: &str) -> String {
    format!("(block (result i32) (call {function} (i32.const 32)) ({load} (i32.load (i32.const 32))))")
}

/// Each import with the grant that it needs, and what a guest finds true when it has it.
fn capabilities() -> Vec<(&'static str, String)> {
    let headers = "headers = { x-secret = \"deny\" }";
    let cookies = "cookies = { session = \"deny\" }";
    let [authority, load] = ["authority = \"deny\"", "load = \"deny\""];
    vec![
        (headers, option("$header", X_SECRET)),
        (headers, option("$header_hash", X_SECRET)),
        ("headers = { \"*\" = \"deny\" }", option("$header", X_SECRET)),
        ("headers = { \"*\" = \"deny\" }", option("$header", HOST)),
        (cookies, option("$cookie", SESSION)),
        (cookies, option("$header", COOKIE)),
        (cookies, option("$header_hash", COOKIE)),
        ("client = \"deny\"", "(i32.wrap_i64 (local.get $lo))".into()),
        (
            "client = \"deny\"",
            "(i64.ne (local.get $key) (local.get $random))".into(),
        ),
        ("method = \"deny\"", text("$method")),
        (authority, text("$authority")),
        (authority, option("$header", HOST)),
        (authority, option("$header_hash", HOST)),
        ("path = \"deny\"", text("$path")),
        ("query = \"deny\"", option("$query", "")),
        (load, "(i32.or (call $active (i32.const 0)) (call $active (i32.const 1)))".into()),
        (load, "(call $active_total)".into()),
        (load, "(block (result i32) (call $active_all (i32.const 32)) (i32.or \
            (i32.load (i32.load (i32.const 32))) (i32.load offset=4 (i32.load (i32.const 32)))))".into()),
        (load, "(i32.or (call $latency_us (i32.const 0)) (call $latency_us (i32.const 1)))".into()),
        (load, column("$latency_us_all", "i32.load")),
        (load, "(i64.ne (i64.or (call $throughput (i32.const 0)) (call $throughput (i32.const 1))) (i64.const 0))".into()),
        (load, column("$throughput_all", "i32.load")),
    ]
}

#[tokio::test]
async fn no_import_tells_what_is_denied_and_each_tells_what_is_allowed() {
    let mut wrong = Vec::new();
    for (grant, condition) in capabilities() {
        if !is_true(&condition, &but("path = \"allow\"")).await {
            wrong.push(format!("allowed, and not told: {condition}"));
        }
        if is_true(&condition, &but(grant)).await {
            wrong.push(format!("{grant}, and told: {condition}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Calls everything there is, and then looks for the secret in all of its memory.
fn searching() -> String {
    let secret = u64::from_le_bytes(*SECRET.as_bytes().first_chunk::<8>().expect("8 bytes"));
    let calls = [X_SECRET, COOKIE, SESSION, HOST].map(|name| {
        format!("(call $header {name} (i32.const 32)) (call $header_hash {name} (i32.const 48)) (call $cookie {name} (i32.const 32))")
    });
    format!(
        "(block (result i32) (local.set $at (i32.const 0))
          {} (call $method (i32.const 32)) (call $authority (i32.const 32)) (call $path (i32.const 32)) (call $query (i32.const 32))
          (loop $on (result i32)
            (if (result i32) (i64.eq (i64.load (local.get $at)) (i64.const {secret}))
              (then (i32.const 1))
              (else
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (if (result i32) (i32.lt_u (local.get $at) (i32.const 1060000))
                  (then (br $on)) (else (i32.const 0)))))))",
        calls.join(" ")
    )
}

#[tokio::test]
async fn no_byte_of_what_is_denied_or_hashed_is_in_a_guests_memory() {
    let level = |level: &str| {
        format!(
            "headers = {{ \"*\" = \"{level}\" }}, cookies = {{ \"*\" = \"{level}\" }}, client = \"{level}\", \
             method = \"{level}\", authority = \"{level}\", path = \"{level}\", query = \"{level}\""
        )
    };
    assert!(finds(&level("allow")).await, "it can find what is there");
    for hidden in ["deny", "hash"] {
        assert!(!finds(&level(hidden)).await, "{hidden}");
    }
    // Each alone is enough to be found, so each has to be denied.
    let all_but = |key: &str| {
        level("deny")
            .replace(
                &format!("{key} = {{ \"*\" = \"deny\" }}"),
                &format!("{key} = {{ \"*\" = \"allow\" }}"),
            )
            .replace(&format!("{key} = \"deny\""), &format!("{key} = \"allow\""))
    };
    for key in ["headers", "cookies", "authority", "path", "query"] {
        assert!(finds(&all_but(key)).await, "{key}");
    }
}

async fn finds(grants: &str) -> bool {
    let guest = Guest {
        text: NAMES.into(),
        pick: format!(
            "(local $at i32) (if (global.get $picks) (then (if {} (then unreachable)))) {}",
            searching(),
            Guest::any()
        ),
        ..Guest::default()
    };
    let wants = Wants {
        workers: 1,
        tenant: "deadline = \"1s\"",
        policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"1s\"",
        grants,
    };
    let stage = Stage::want(&guest, wants).await;
    ask(&stage, 3).await;
    let faults = stage.main().deployment.faults();
    assert_eq!(faults, stage.balancer.faults(FaultKind::Trap), "of another kind");
    faults > 0
}

#[tokio::test]
async fn an_import_that_the_file_says_nothing_about_is_refused_by_name() {
    let stage = Stage::with(&Guest::default()).await;
    for (key, import) in [
        ("headers", "header (grants.headers)"),
        ("headers", "header-hash (grants.headers)"),
        ("cookies", "cookie (grants.cookies)"),
        ("path", "path (grants.path)"),
        ("query", "query (grants.query)"),
    ] {
        let others: Vec<_> = EVERYTHING
            .split(", ")
            .filter(|grant| !grant.starts_with(key))
            .collect();
        let unsaid = stage.setup.text().replace(EVERYTHING, &others.join(", "));
        let refusal = stage.balancer.handle().replace(unsaid).await.unwrap_err();
        assert!(refusal.contains(import), "{key}: {refusal}");
        assert!(refusal.contains("policy.hostile.component"), "{refusal}");
    }
}
