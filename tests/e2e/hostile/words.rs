//! Guests that talk: too much, to a terminal, or to find out the time.

use std::time::Instant;

use trimtab_tests::{Lines, guest::Guest};

use super::{Stage, Wants};

const PATIENT: &str = "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"1s\"";

#[tokio::test]
async fn p14_a_million_log_lines_become_a_few() {
    let lines = Lines::keep();
    let flood = "(local $left i32) (local.set $left (i32.const 5000))
        (loop $on (call $log (i32.const 1) (i32.const 1024) (i32.const 12))
          (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $on (local.get $left)))";
    let guest = Guest {
        text: "p14 a flood".into(),
        pick: format!("{flood} {}", Guest::any()),
        ..Guest::default()
    };
    let wants = Wants {
        tenant: "log_lines = 5\ndeadline = \"1s\"",
        policy: PATIENT,
        ..Wants::default()
    };
    let began = Instant::now();
    let stage = Stage::want(&guest, wants).await;
    stage.expect_good(200).await;
    // A second more at both ends: seconds are counted from the start of the process.
    let seconds = began.elapsed().as_secs() as usize + 2;
    let written = lines.with("p14 a flood").len();
    assert!((1..=5 * seconds).contains(&written), "{written} in {seconds} s");
    let tenant = stage.main().pool.tenant().unwrap().clone();
    assert!(
        tenant.log_dropped() > 0,
        "the tenant's limit, not only an instance's"
    );
}

#[tokio::test]
async fn p14_a_guest_that_logs_much_at_every_pick_goes_on() {
    let guest = Guest {
        pick: format!(
            "(call $log (i32.const 0) (i32.const 1024) (i32.const 100000)) {}",
            Guest::any()
        ),
        ..Guest::default()
    };
    Stage::with(&guest).await.expect_good(400).await;
}

#[tokio::test]
async fn p14_a_guest_that_logs_without_end_is_stopped() {
    let guest = super::picking(
        "(loop $forever (call $log (i32.const 0) (i32.const 1024) (i32.const 100000)) (br $forever))",
    );
    let stage = Stage::with(&guest).await;
    // By its deadline or by the bound on what one call may copy, whichever comes first.
    stage
        .until("it is stopped", || stage.main().deployment.faults() >= 3)
        .await;
}

/// A line break and a forged line, a terminal's command, the other direction of writing. In UTF-8, as data.
const FORGED: &str = "p15 words\\0ap15 forged\\1b[2J\\c2\\9b\\e2\\80\\ae";
const TAMED: &str = "p15 words\\np15 forged\\u{1b}[2J\\u{9b}\\u{202e}";
const FORGED_BYTES: usize = 30;

#[tokio::test]
async fn p15_what_a_guest_logs_stays_on_its_line() {
    let lines = Lines::keep();
    let say = format!("(call $log (i32.const 1) (i32.const 1024) (i32.const {FORGED_BYTES}))");
    let guest = Guest {
        text: FORGED.into(),
        pick: Guest::after_admission(&format!("{say} unreachable")),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    stage
        .until("it has spoken", || !lines.with("p15 words").is_empty())
        .await;
    let spoken = lines.with("p15 ");
    assert!(
        spoken.iter().all(|line| line.contains("p15 words")),
        "a line was forged: {spoken:?}"
    );
    assert!(spoken.iter().any(|line| line.contains(TAMED)), "{spoken:?}");
    let controls = |line: &String| line.chars().any(|c| c.is_control() || c == '\u{202e}');
    assert!(!spoken.iter().any(controls), "{spoken:?}");
}

#[tokio::test]
async fn p15_last_words_and_refusals_stay_on_their_line() {
    let lines = Lines::keep();
    let dying = format!("(call $log (i32.const 0) (i32.const 1024) (i32.const {FORGED_BYTES})) unreachable");
    let guest = Guest {
        text: FORGED.replace("p15", "p15d"),
        pick: Guest::after_admission(&dying.replace("30)", "32)")),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    stage
        .until("it has died", || !lines.with("its last words: p15d").is_empty())
        .await;
    let told = lines.with("p15d ");
    assert!(told.iter().all(|line| line.contains("p15d words")), "{told:?}");

    let mut refuse = Guest {
        text: FORGED.into(),
        ..Guest::default()
    };
    let length = refuse.text.len().to_string();
    refuse.configure = refuse.refuse().replace(&length, &FORGED_BYTES.to_string());
    let refusal = Stage::with(&Guest::default())
        .await
        .refusal(&refuse.build())
        .await;
    assert!(refusal.contains(TAMED), "{refusal:?}");
    assert_eq!(refusal.lines().count(), 1, "{refusal:?}");
}

#[tokio::test]
async fn p21_a_tenant_cannot_make_more_series_than_its_own() {
    let stage = Stage::with(&Guest::default()).await;
    let many = (1..=100).fold(stage.setup.clone(), |setup, port| {
        setup.backend(format!("127.0.0.1:{port}"))
    });
    let text = many
        .text()
        .replace("[tenant.mallory]", "[tenant.mallory]\nseries = 1000");
    let refusal = stage.balancer.handle().replace(text.clone()).await.unwrap_err();
    assert!(
        refusal.contains("tenant.mallory.series = 1000: its pools (1) make 2082 metric series"),
        "{refusal}"
    );
    let text = text.replace("series = 1000", "series = 2082");
    stage.balancer.handle().replace(text).await.unwrap();
}

#[tokio::test]
async fn p29_a_tenants_guest_sees_the_time_in_whole_milliseconds() {
    let sees_more =
        "(if (i64.ne (i64.rem_u (local.get $now) (i64.const 1000)) (i64.const 0)) (then unreachable))";
    let guest = Guest {
        pick: Guest::after_admission(sees_more),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    stage.expect_good(300).await;
    // The same guest, of nobody, sees more than that.
    let text = stage.setup.text();
    let text = text
        .replace("tenant = \"mallory\"\n", "")
        .replace("[tenant.mallory]\nhosts = [\"test\", \"*.mallory\"]", "");
    stage.balancer.handle().replace(text).await.unwrap();
    let kind = trimtab::policy::FaultKind::Trap;
    stage
        .until("it sees microseconds", || stage.balancer.faults(kind) > 0)
        .await;
}
