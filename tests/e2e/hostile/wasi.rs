//! Guests that insist on WASI: refused with what to do about it, or, where the policy says so, given one in which nothing
//! is reached, nothing waits, and everything happens again in the same way.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use trimtab::{
    config,
    http1::Head,
    policy::{Answer, Candidate, Engine, Facts, Fault, Refusal, Trial, Tried},
    pool::Pool,
};
use trimtab_tests::{Lines, guest::Guest};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{Stage, Wants};

/// As Go, C and C++ ask for it.
const PREVIEW1: &str = r#"
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;

/// As components ask for it.
const PREVIEW2: &str = r#"
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random_u64 (result i64)))
  (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#;

/// An index out of a number below 2^63 on the stack.
const INDEX: &str = "(call $some (i32.wrap_i64 (i64.rem_u (i64.shr_u (local.get $value) (i64.const 8)) \
                     (i64.extend_i32_u (call $len)))))";

fn preview1(pick: &str) -> Guest {
    Guest {
        imports: PREVIEW1.into(),
        pick: format!("(local $value i64) {pick}"),
        ..Guest::default()
    }
}

/// A component that imports preview 2 of WASI.
fn preview2(pick: &str) -> Vec<u8> {
    let guest = Guest {
        imports: PREVIEW2.into(),
        pick: format!("(local $value i64) {pick}"),
        ..Guest::default()
    };
    let mut module = guest.bare();
    let mut resolve = Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
    resolve.push_dir(contract).unwrap();
    let mut push = |text: &str| resolve.push_str("test.wit", text).unwrap();
    push("package wasi:clocks@0.2.0; interface monotonic-clock { now: func() -> u64; }");
    push("package wasi:random@0.2.0; interface random { get-random-u64: func() -> u64; }");
    push(
        "package wasi:io@0.2.0;
         interface poll { resource pollable; poll: func(in: list<borrow<pollable>>) -> list<u32>; }",
    );
    let package = push(
        "package test:guest; world policy {
           include trimtab:policy/policy@0.1.1;
           import wasi:clocks/monotonic-clock@0.2.0;
           import wasi:random/random@0.2.0;
           import wasi:io/poll@0.2.0;
         }",
    );
    let world = resolve.select_world(&[package], None).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap();
    encoder.encode().unwrap()
}

fn admit(wasm: &[u8], wasi: config::Wasi) -> Result<Candidate, Refusal> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().unwrap());
    let spec = config::Policy {
        tenant: None,
        grants: config::Grants::everything(),
        name: "insists".into(),
        source: config::PolicySource::File("insists.wasm".into()),
        memory_bytes: 8 << 20,
        deadline: Duration::from_secs(1),
        wasi,
        config_json: "{}".into(),
        line: None,
    };
    Candidate::compile(engine, Arc::new(spec), wasm)
}

/// Answers of one new instance to the same questions.
fn answers(candidate: &Candidate, picks: usize) -> Result<Vec<Answer>, Fault> {
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[listener.route]]\npool = \"main\"\n\
                [pool.main]\npolicy = \"round-robin\"\nbackends = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]";
    let config = config::Config::parse(text, "test.toml", std::path::Path::new("")).unwrap();
    let sockets: Vec<_> = (1..=3).map(|port| ([127, 0, 0, 1], port).into()).collect();
    let pool = Pool::new(config.pools["main"].clone(), &sockets, 1, None, Instant::now());
    let mut trial = Trial::new(candidate, &pool.snapshot())?;
    (0..picks)
        .map(|_| trial.pick(&Facts::default(), &Tried::default(), &mut Head::default()))
        .collect()
}

/// The time and chance of both previews decide, and decide the same in each instance.
fn expect_repeatable(wasm: &[u8]) {
    let refusal = admit(wasm, config::Wasi::None).map(drop).unwrap_err();
    assert!(matches!(refusal, Refusal::Wasi(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("wasi = \"empty\""), "{refusal}");
    let candidate = admit(wasm, config::Wasi::Empty).unwrap();
    let once = answers(&candidate, 100).unwrap();
    for index in 0..3 {
        assert!(once.contains(&Answer::Index(index)), "no choice: {once:?}");
    }
    assert_eq!(once, answers(&candidate, 100).unwrap());
}

#[test]
fn preview_1_has_a_clock_and_chance_that_repeat() {
    let chance = "(drop (call $random_get (i32.const 256) (i32.const 8)))
                  (local.set $value (i64.load (i32.const 256)))";
    expect_repeatable(&preview1(&format!("{chance} {INDEX}")).core());
    let clock = "(drop (call $clock (i32.const 0) (i64.const 1) (i32.const 256)))
                 (local.set $value (i64.load (i32.const 256)))";
    expect_repeatable(&preview1(&format!("{clock} {INDEX}")).bare());
}

#[test]
fn preview_2_has_a_clock_and_chance_that_repeat() {
    expect_repeatable(&preview2(&format!(
        "(local.set $value (call $random_u64)) {INDEX}"
    )));
    expect_repeatable(&preview2(&format!("(local.set $value (call $now)) {INDEX}")));
}

#[test]
fn no_file_is_opened() {
    // 8 is EBADF; anything else ends in a trap.
    let open =
        "(if (i32.ne (i32.const 8) (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
                    (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 256)))
                  (then unreachable))";
    let candidate = admit(
        &preview1(&format!("{open} {}", Guest::any())).core(),
        config::Wasi::Empty,
    );
    assert_eq!(answers(&candidate.unwrap(), 1).unwrap().len(), 1);
}

#[test]
fn nothing_waits() {
    let wait = "(call $poll (i32.const 0) (i32.const 0) (i32.const 256))";
    let candidate = admit(
        &preview2(&format!("{wait} {}", Guest::any())),
        config::Wasi::Empty,
    )
    .unwrap();
    let fault = answers(&candidate, 1).unwrap_err();
    assert!(
        fault.message.contains("waits by WASI, which no policy can"),
        "{fault}"
    );
}

#[test]
fn a_component_of_the_asynchronous_abi_is_refused_with_the_flag_to_use() {
    let component = wat::parse_str(
        "(component
           (core module $m (func (export \"f\") (result i32) (i32.const 0))
             (func (export \"c\") (param i32 i32 i32) (result i32) (i32.const 0)))
           (core instance $i (instantiate $m))
           (type $f (func async))
           (func (export \"f\") (type $f)
             (canon lift (core func $i \"f\") async (callback (core func $i \"c\")))))",
    )
    .unwrap();
    let refusal = admit(&component, config::Wasi::None).map(drop).unwrap_err();
    assert!(
        refusal.to_string().contains("componentize-qjs: --sync"),
        "{refusal}"
    );
}

/// What Go, C++ or Python write before they give up is in the log, with policy and version, and where they were.
#[tokio::test]
async fn the_output_and_the_place_of_a_trap_reach_the_log() {
    let lines = Lines::keep();
    // An iovec at 256: the text.
    let write = "(i32.store (i32.const 256) (i32.const 1024)) (i32.store (i32.const 260) (i32.const 16))
                 (drop (call $fd_write (i32.const 2) (i32.const 256) (i32.const 1) (i32.const 264))) (call $gives_up)";
    let guest = Guest {
        text: "panic: wasi boom\\0a".into(),
        more: "(func $gives_up unreachable)".into(),
        ..preview1(&Guest::after_admission(write))
    };
    let wants = Wants {
        policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"1s\"\nwasi = \"empty\"",
        tenant: "deadline = \"1s\"",
        ..Wants::default()
    };
    let stage = Stage::want_bytes(&guest.core(), wants).await;
    stage
        .until("it has died", || !lines.with("panic: wasi boom").is_empty())
        .await;
    let line = lines.with("panic: wasi boom").remove(0);
    let version = &stage.main().deployment.candidate.version;
    for words in [
        "its last words: panic: wasi boom",
        "in gives_up < do_pick",
        "policy=hostile",
        &format!("version={version}"),
    ] {
        assert!(line.contains(words), "no {words:?}: {line}");
    }
}

/// As [`expect_repeatable`] for the words of a refusal that a user reads.
#[tokio::test]
async fn a_module_of_preview_1_is_refused_until_the_policy_says_empty() {
    let stage = Stage::with(&Guest::default()).await;
    let module = preview1(&format!(
        "(drop (call $random_get (i32.const 256) (i32.const 8))) {}",
        Guest::any()
    ));
    let refusal = stage.refusal(&module.bare()).await;
    assert!(refusal.contains("imports wasi_snapshot_preview1"), "{refusal}");
    assert!(
        refusal.contains("set wasi = \"empty\" on the policy"),
        "{refusal}"
    );
    assert!(refusal.contains("(line "), "{refusal}");
    let wants = Wants {
        policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"1s\"\nwasi = \"empty\"",
        tenant: "deadline = \"1s\"",
        ..Wants::default()
    };
    Stage::want_bytes(&module.bare(), wants)
        .await
        .expect_good(100)
        .await;
}
