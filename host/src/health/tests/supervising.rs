//! What a supervisor makes of checks, reports and time.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing_subscriber::fmt::MakeWriter;

use super::{Answer, BUSY, MS, OK, Origin, http, wait_until};
use crate::{
    config,
    health::{Supervisor, Transitions},
    pool::{Pool, State, fixture},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

/// A pool on the runtime's clock, without checks.
fn unchecked(previous: Option<&Pool>) -> Arc<Pool> {
    let now = tokio::time::Instant::now().into_std();
    Arc::new(fixture::pool(fixture::config(&[A, B]), previous, now))
}

fn checked(config: config::Pool, previous: Option<&Pool>) -> Arc<Pool> {
    Arc::new(fixture::pool(config, previous, Instant::now()))
}

/// Fast checks of these origins.
fn fast_checks(origins: &[&Origin]) -> config::Pool {
    let addresses: Vec<String> = origins.iter().map(|origin| origin.address.to_string()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let health = config::Health {
        kind: http("/"),
        interval: 10 * MS,
        timeout: Duration::from_secs(5),
        ..fixture::health()
    };
    config::Pool {
        health: Some(health),
        ..fixture::config(&addresses)
    }
}

fn state(pool: &Pool, index: usize) -> State {
    pool.snapshot().members[index].state
}

fn id(pool: &Pool, index: usize) -> u64 {
    pool.snapshot().members[index].backend.id
}

fn is_ejected(pool: &Pool) -> bool {
    matches!(state(pool, 0), State::Ejected { .. })
}

/// Lets tasks run, without moving a stopped clock by more than a moment.
async fn settle() {
    sleep(MS).await;
}

/// Reports a streak, and gives how long the backend was ejected for.
async fn eject(pool: &Pool, supervisor: &Supervisor) -> u64 {
    supervisor.reporter().failures(id(pool, 0), 5);
    let start = tokio::time::Instant::now();
    settle().await;
    assert!(is_ejected(pool));
    while is_ejected(pool) {
        sleep(100 * MS).await;
    }
    start.elapsed().as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn reported_failures_eject_a_backend_and_time_brings_it_back() {
    let pool = unchecked(None);
    let supervisor = Supervisor::spawn(pool.clone());
    supervisor.reporter().failures(id(&pool, 0), 4);
    supervisor.reporter().failures(1, 5);
    settle().await;
    assert_eq!(supervisor.transitions(), Transitions::default());
    assert_eq!(eject(&pool, &supervisor).await, 10);
    assert_eq!(state(&pool, 1), State::Ready);
    assert_eq!(
        supervisor.transitions(),
        Transitions {
            ejected: 1,
            ready: 1,
            ..Transitions::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_until_a_backend_served_long_enough() {
    let pool = unchecked(None);
    let supervisor = Supervisor::spawn(pool.clone());
    assert_eq!(eject(&pool, &supervisor).await, 10);
    assert_eq!(eject(&pool, &supervisor).await, 20);
    sleep(Duration::from_secs(290)).await;
    assert_eq!(eject(&pool, &supervisor).await, 30);
    sleep(Duration::from_secs(310)).await;
    assert_eq!(eject(&pool, &supervisor).await, 10);
}

#[tokio::test(start_paused = true)]
async fn ejections_from_before_a_reload_are_forgiven_too() {
    let old = unchecked(None);
    let supervisor = Supervisor::spawn(old.clone());
    assert_eq!(eject(&old, &supervisor).await, 10);
    drop(supervisor);
    let new = unchecked(Some(&old));
    let supervisor = Supervisor::spawn(new.clone());
    assert_eq!(
        eject(&new, &supervisor).await,
        20,
        "a reload alone forgives nothing"
    );
    drop(supervisor);
    let newer = unchecked(Some(&new));
    let supervisor = Supervisor::spawn(newer.clone());
    sleep(Duration::from_secs(310)).await;
    assert_eq!(eject(&newer, &supervisor).await, 10);
}

#[tokio::test(start_paused = true)]
async fn slow_start_goes_on_by_itself() {
    let now = tokio::time::Instant::now().into_std();
    let config = config::Pool {
        slow_start: Duration::from_secs(10),
        ..fixture::config(&[A, B])
    };
    let pool = Arc::new(fixture::pool(config, None, now));
    let supervisor = Supervisor::spawn(pool.clone());
    eject(&pool, &supervisor).await;
    assert_eq!(pool.snapshot().members[0].ramp, 10);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(pool.snapshot().members[0].ramp, 100);
}

#[tokio::test(start_paused = true)]
async fn an_operators_change_is_noticed_when_woken() {
    let pool = unchecked(None);
    let supervisor = Supervisor::spawn(pool.clone());
    settle().await;
    let now = tokio::time::Instant::now().into_std();
    pool.set_draining(id(&pool, 0), true, now);
    settle().await;
    assert_eq!(supervisor.transitions().draining, 0);
    supervisor.wake();
    settle().await;
    assert_eq!(supervisor.transitions().draining, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_on_after_the_supervisor_is_dropped() {
    let pool = unchecked(None);
    let supervisor = Supervisor::spawn(pool.clone());
    let reporter = supervisor.reporter();
    settle().await;
    drop(supervisor);
    settle().await;
    assert_eq!(Arc::strong_count(&pool), 1, "its task holds the pool");
    reporter.failures(id(&pool, 0), 5);
    settle().await;
    assert_eq!(state(&pool, 0), State::Ready);
}

#[tokio::test]
async fn probes_end_with_their_supervisor() {
    let origin = Origin::start(OK).await;
    let supervisor = Supervisor::spawn(checked(fast_checks(&[&origin]), None));
    wait_until("checked", || !supervisor.checks().is_empty()).await;
    drop(supervisor);
    let mut asked = origin.asked.clone();
    settle().await;
    asked.mark_unchanged();
    let again = tokio::time::timeout(100 * MS, asked.changed()).await;
    assert!(again.is_err(), "asked after the end");
}

#[tokio::test]
async fn a_backend_that_dies_goes_down_and_returns_when_it_does() {
    let (one, two) = (Origin::start(OK).await, Origin::start(OK).await);
    let pool = checked(fast_checks(&[&one, &two]), None);
    let supervisor = Supervisor::spawn(pool.clone());
    wait_until("both checked", || supervisor.checks().len() == 2).await;
    assert!(
        supervisor
            .checks()
            .iter()
            .all(|(_, check)| check.ok && check.reason == "status 200")
    );

    one.answer.send_replace(Answer::HangUp);
    wait_until("down", || state(&pool, 0) == State::Down).await;
    assert!(!pool.snapshot().members[0].usable && pool.snapshot().members[1].usable);
    let (checked, check) = supervisor.checks().swap_remove(0);
    assert_eq!(checked, id(&pool, 0));
    assert!(
        !check.ok && check.reason.starts_with("broken answer"),
        "{check:?}"
    );

    one.answer.send_replace(OK);
    wait_until("back", || state(&pool, 0) == State::Ready).await;
    let counted = || supervisor.transitions();
    let expected = Transitions {
        down: 1,
        ready: 1,
        ..Transitions::default()
    };
    wait_until("counted", || counted() == expected).await;
}

#[tokio::test]
async fn good_checks_after_an_ejection_end_it_early() {
    let (one, two) = (Origin::start(OK).await, Origin::start(OK).await);
    let pool = checked(fast_checks(&[&one, &two]), None);
    let supervisor = Supervisor::spawn(pool.clone());
    wait_until("checked", || supervisor.checks().len() == 2).await;
    supervisor.reporter().failures(id(&pool, 0), 5);
    wait_until("ejected", || supervisor.transitions().ejected == 1).await;
    wait_until("back before its 10 s", || state(&pool, 0) == State::Ready).await;
}

/// The first result of a failing check, with all that follows kept away by a long interval.
async fn after_one_bad_check(config: config::Pool, previous: Option<&Pool>) -> State {
    let pool = checked(config, previous);
    let supervisor = Supervisor::spawn(pool.clone());
    wait_until("checked", || !supervisor.checks().is_empty()).await;
    // The result is shown just before it is weighed, in the same step of the task.
    settle().await;
    assert!(!supervisor.checks()[0].1.ok);
    state(&pool, 0)
}

#[tokio::test]
async fn one_bad_check_takes_down_a_new_backend_but_not_one_that_worked_before_a_reload() {
    let origin = Origin::start(OK).await;
    let mut config = fast_checks(&[&origin]);
    let old = checked(config.clone(), None);
    let supervisor = Supervisor::spawn(old.clone());
    wait_until("proven", || old.is_proven(id(&old, 0))).await;
    drop(supervisor);
    origin.answer.send_replace(BUSY);
    config.health.as_mut().unwrap().interval = Duration::from_secs(600);
    assert_eq!(
        after_one_bad_check(config.clone(), Some(&old)).await,
        State::Ready
    );
    assert_eq!(after_one_bad_check(config, None).await, State::Down);
}

/// Log lines of one thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_logged_once_with_its_cause() {
    // A log statement that another test reaches for the first time just as the logger is set can stay off for good
    // (tracing caches who is interested). Reaching them all before that avoids it.
    let first = unchecked(None);
    eject(&first, &Supervisor::spawn(first.clone())).await;
    let lines = Lines::default();
    let logger = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(logger);
    let pool = unchecked(None);
    let supervisor = Supervisor::spawn(pool.clone());
    eject(&pool, &supervisor).await;
    pool.set_draining(id(&pool, 1), true, tokio::time::Instant::now().into_std());
    for _ in 0..3 {
        supervisor.wake();
        settle().await;
    }
    let text = lines.text();
    let lines: Vec<&str> = text.lines().collect();
    let [ejected, readmitted, drained] = lines[..] else {
        panic!("three transitions, but: {text}")
    };
    let ejected_as = r#"state="ejected" reason="5 failures in a row" for_ms=10000 was="ready""#;
    let readmitted_as = r#"state="ready" reason="the ejection's time is over" was="ejected" was_ms=10000"#;
    let drained_as = r#"state="draining" reason="drained by an operator" was="ready""#;
    for (line, level, backend, rest) in [
        (ejected, "WARN", A, ejected_as),
        (readmitted, "INFO", A, readmitted_as),
        (drained, "INFO", B, drained_as),
    ] {
        let fields = format!(r#"pool="shop" backend="{backend}" {rest}"#);
        assert!(
            line.contains(level) && line.contains(&fields),
            "{fields} in {line}"
        );
    }
}
