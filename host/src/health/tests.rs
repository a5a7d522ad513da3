//! The rules of health: counting and times on a stopped clock, checks against real sockets on loopback.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use super::{
    Reporter,
    outlier::{Conduct, Report},
    probe::Schedule,
    tally::{Past, Tally, Verdict},
};
use crate::{
    config,
    pool::{State, fixture},
};

mod probing;
mod supervising;

const MS: Duration = Duration::from_millis(1);

/// How an [`Origin`] treats a connection.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// With this, as it is.
    Raw(&'static str),
    /// With this, and then it hangs up.
    Last(&'static str),
    /// It hangs up at once.
    HangUp,
    /// It reads and says nothing.
    Silence,
}

const OK: Answer = Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
const BUSY: Answer = Answer::Raw("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");

/// A server on loopback that keeps what it was asked.
struct Origin {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    asked: watch::Receiver<String>,
    open: Arc<AtomicUsize>,
    open_max: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Origin {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(answer);
        let (heard, asked) = watch::channel(String::new());
        let (open, open_max) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut task = JoinSet::new();
        let (counter, most) = (open.clone(), open_max.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                most.fetch_max(counter.fetch_add(1, Relaxed) + 1, Relaxed);
                let (answer, heard, counter) = (*answers.borrow(), heard.clone(), counter.clone());
                connections.spawn(async move {
                    serve(stream, answer, &heard).await;
                    counter.fetch_sub(1, Relaxed);
                });
            }
        });
        Self {
            address,
            answer,
            asked,
            open,
            open_max,
            _task: task,
        }
    }
}

async fn serve(mut stream: tokio::net::TcpStream, answer: Answer, heard: &watch::Sender<String>) {
    if matches!(answer, Answer::HangUp) {
        return;
    }
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    heard.send_replace(String::from_utf8(request).unwrap());
    if let Answer::Raw(text) | Answer::Last(text) = answer {
        let _ = stream.write_all(text.as_bytes()).await;
    }
    if matches!(answer, Answer::Last(_)) {
        return;
    }
    // Until the other side goes away.
    let _ = stream.read_u8().await;
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        tokio::time::sleep(MS).await;
    }
}

fn http(path: &str) -> config::HealthKind {
    config::HealthKind::Http {
        path: path.into(),
        host: None,
        expect: 200..=399,
    }
}

/// Replays checks, `+` good and `-` bad, and writes the verdict below each.
fn verdicts(rise: u32, fall: u32, past: Past, checks: &str) -> String {
    let rule = config::Health {
        rise: NonZeroU32::new(rise).unwrap(),
        fall: NonZeroU32::new(fall).unwrap(),
        ..fixture::health()
    };
    let mut tally = Tally::new(&rule, past);
    let verdict = |check| match if check == '+' { tally.good() } else { tally.bad() } {
        Some(Verdict::Up) => 'U',
        Some(Verdict::Down) => 'D',
        None => '.',
    };
    checks.chars().map(verdict).collect()
}

#[test]
fn it_takes_fall_bad_checks_in_a_row_to_go_down_and_rise_good_ones_to_return() {
    let table = [
        ("---", "..D"),
        ("--+--+---", "........D"),
        ("---+-++", "..D...U"),
        ("------", "..D..."),
        ("+++++", ".U..."),
    ];
    for (checks, expected) in table {
        assert_eq!(verdicts(2, 3, Past::Proven, checks), expected, "{checks}");
    }
    assert_eq!(verdicts(1, 1, Past::Proven, "+-+-"), "UDUD");
}

#[test]
fn before_its_first_good_check_one_bad_check_takes_a_backend_down() {
    let table = [
        ("-", "D"),
        ("-++---", "D.U..D"),
        ("-+-+---", "D.....D"),
        ("+--", "..."),
        ("+---", "...D"),
    ];
    for (checks, expected) in table {
        assert_eq!(verdicts(2, 3, Past::Unknown, checks), expected, "{checks}");
    }
}

#[test]
fn good_checks_from_before_an_ejection_do_not_end_it() {
    let mut tally = Tally::new(&fixture::health(), Past::Proven);
    tally.good();
    tally.forget_good();
    assert_eq!(tally.good(), None);
    assert_eq!(tally.good(), Some(Verdict::Up));
}

#[test]
fn only_multiples_of_the_threshold_are_reported() {
    let (reporter, mut reports) = Reporter::new(fixture::config(&[]).outlier.as_ref());
    for in_a_row in 0..=11 {
        reporter.failures(7, in_a_row);
    }
    assert_eq!(
        reports.try_recv(),
        Ok(Report {
            backend: 7,
            in_a_row: 5
        })
    );
    assert_eq!(
        reports.try_recv(),
        Ok(Report {
            backend: 7,
            in_a_row: 10
        })
    );
    assert!(reports.try_recv().is_err());
}

#[test]
fn without_outlier_detection_nothing_is_reported() {
    let (reporter, mut reports) = Reporter::new(None);
    reporter.failures(7, 5);
    assert!(reports.try_recv().is_err());
}

#[test]
fn a_report_that_finds_no_room_or_nobody_is_dropped() {
    let (reporter, mut reports) = Reporter::new(fixture::config(&[]).outlier.as_ref());
    for _ in 0..10_000 {
        reporter.failures(7, 5);
    }
    let kept = std::iter::from_fn(|| reports.try_recv().ok()).count();
    assert!((1..1_000).contains(&kept), "{kept}");
    drop(reports);
    reporter.failures(7, 5);
}

#[test]
fn ejections_are_forgiven_after_serving_without_a_break() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let max = Duration::from_secs(300);
    let mut conduct = Conduct::Clean;
    conduct.observe(State::Down, at(0));
    conduct.observe(State::Ready, at(1));
    assert_eq!(conduct.forgiven_at(max), None, "it was never ejected");
    conduct.observe(State::Ejected { until: at(10) }, at(2));
    assert_eq!(conduct.forgiven_at(max), None);
    conduct.observe(State::Ready, at(10));
    conduct.observe(State::Ready, at(20));
    assert_eq!(conduct.forgiven_at(max), Some(at(310)));
    for state in [State::Down, State::Draining, State::Ejected { until: at(90) }] {
        conduct.observe(state, at(50));
        assert_eq!(conduct.forgiven_at(max), None, "{state:?} is a break");
        conduct.observe(State::Ready, at(100));
        assert_eq!(conduct.forgiven_at(max), Some(at(400)));
    }
}

#[test]
fn first_checks_spread_over_the_interval_but_within_a_second() {
    for (interval, latest) in [(200 * MS, 200 * MS), (3_600_000 * MS, 1_000 * MS)] {
        let first: Vec<Duration> = (0..200).map(|id| Schedule::new(interval, id).first()).collect();
        assert!(first.iter().all(|time| *time <= latest));
        assert!(
            first.iter().any(|time| *time < latest / 4) && first.iter().any(|time| *time > latest * 3 / 4)
        );
    }
}

#[test]
fn pauses_vary_by_a_tenth_of_the_interval() {
    let schedule = Schedule::new(1_000 * MS, 1);
    let pauses: Vec<Duration> = (1..500).map(|round| schedule.pause(round)).collect();
    assert!(pauses.iter().all(|pause| (900 * MS..=1_100 * MS).contains(pause)));
    assert!(pauses.iter().any(|pause| *pause < 925 * MS) && pauses.iter().any(|pause| *pause > 1_075 * MS));
}
