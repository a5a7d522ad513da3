//! The faults, by the numbers of the project's list, and what has to come of each.

use std::{
    collections::BTreeMap,
    fmt,
    net::UdpSocket,
    time::{Duration, Instant},
};

use crate::{
    lab::{CONTROL_PORT, Lab, SHARED_V6, inside},
    probe::{Probe, Sample, ask, moves},
};

const JUDGE_PACE: Duration = Duration::from_millis(10);
const CLIENT_PACE: Duration = Duration::from_millis(5);
const SHORT: Duration = Duration::from_millis(40);
/// Longer than the second after which a client's kernel tries again.
const LONG: Duration = Duration::from_secs(4);
/// Twice what a takeover may take, in which nothing may happen.
const CALM: Duration = Duration::from_millis(1500);

pub(crate) struct Scenario {
    pub(crate) run: fn(&mut Lab, &mut Report),
}

/// Each begins and ends with `a` active and all members there.
pub(crate) const ALL: [Scenario; 12] = [
    Scenario { run: killed },
    Scenario { run: frozen },
    Scenario { run: unplugged },
    Scenario { run: silenced },
    Scenario { run: parted },
    Scenario { run: standby_deaf },
    Scenario { run: active_deaf },
    Scenario { run: witness_deaf },
    Scenario { run: witness_killed },
    Scenario { run: ordered },
    Scenario { run: power_cut },
    Scenario { run: flooded },
];

/// What was seen, by scenario.
#[derive(Default)]
pub(crate) struct Report {
    rows: BTreeMap<&'static str, Row>,
}

#[derive(Default)]
struct Row {
    runs: usize,
    takeovers_ms: Vec<u64>,
    requests: usize,
    failed: usize,
    moves: usize,
    expected: usize,
    failures_allowed: bool,
}

impl Report {
    pub(crate) fn judge(&self) {
        for (name, row) in &self.rows {
            assert_eq!(
                row.moves, row.expected,
                "{name}: the address changed hands\n{self}"
            );
            let is_good = row.failures_allowed || row.failed == 0;
            assert!(is_good, "{name}: {} requests failed\n{self}", row.failed);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scenario                    n   p50   p99   max ms   failed/requests   moves/expected"
        )?;
        for (name, row) in &self.rows {
            let mut sorted = row.takeovers_ms.clone();
            sorted.sort_unstable();
            let at = |part: f64| {
                let place = (sorted.len() as f64 * part) as usize;
                sorted
                    .get(place.min(sorted.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or(0)
            };
            writeln!(
                f,
                "{name:25} {:>3} {:>5} {:>5} {:>5}      {:>5}/{:<6}      {}/{}",
                row.runs,
                at(0.5),
                at(0.99),
                at(1.0),
                row.failed,
                row.requests,
                row.moves,
                row.expected
            )?;
        }
        Ok(())
    }
}

/// Clients and judges around one fault.
struct Watch {
    client: Probe,
    judges: [Probe; 2],
}

impl Watch {
    fn start(lab: &Lab, patience: Duration) -> Self {
        let judge = |host| Probe::start(lab, host, JUDGE_PACE, SHORT);
        let watch = Self {
            client: Probe::start(lab, "c", CLIENT_PACE, patience),
            judges: [judge("d"), judge("e")],
        };
        watch.client.wait(lab);
        watch.judges[0].wait(lab);
        watch
    }

    /// What became of it. Takeover is from the fault to the first answer of the other node that the client got.
    fn end(self, (lab, report): (&Lab, &mut Report), name: &'static str, fault: Instant, expected: usize) {
        if expected > 0 {
            self.judges[1].wait(lab);
        }
        let client = self.client.stop();
        let [one, two] = self.judges.map(Probe::stop);
        let row = report.rows.entry(name).or_default();
        row.runs += 1;
        row.requests += client.len();
        row.failed += client.iter().filter(|sample| sample.by.is_none()).count();
        row.moves += moves([&one, &two]);
        row.expected += expected;
        row.failures_allowed = expected > 0 && name != "F16 by order";
        if expected > 0 {
            let first = |sample: &&Sample| sample.by == Some('b') && sample.ended > fault;
            let first = client.iter().find(first).expect("the other node answers");
            row.takeovers_ms.push((first.ended - fault).as_millis() as u64);
        }
    }
}

fn rest(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Back to the beginning: `a` active, everybody there.
fn restore(lab: &mut Lab) {
    lab.wait_until("a is ready", |lab| lab.is_ready("b", "a"));
    lab.wait_until("b hands over", |lab| {
        lab.order("b", &["failover", "--to", "a"]).is_some()
    });
    lab.wait_for("a", "active");
    lab.wait_until("b is ready", |lab| {
        lab.is_ready("a", "b") && lab.view("b")["votes_for"] == "a"
    });
}

fn moved(
    lab: &mut Lab,
    report: &mut Report,
    name: &'static str,
    fault: impl FnOnce(&mut Lab),
    heal: impl FnOnce(&mut Lab),
) {
    let watch = Watch::start(lab, SHORT);
    let begun = Instant::now();
    fault(lab);
    lab.wait_for("b", "active");
    rest(Duration::from_millis(300));
    heal(lab);
    // The old node comes back, and takes nothing away.
    rest(CALM);
    watch.end((lab, report), name, begun, 1);
    restore(lab);
}

fn stays(
    lab: &mut Lab,
    report: &mut Report,
    name: &'static str,
    fault: impl FnOnce(&mut Lab),
    heal: impl FnOnce(&mut Lab),
) {
    let watch = Watch::start(lab, LONG);
    let begun = Instant::now();
    fault(lab);
    rest(CALM);
    heal(lab);
    rest(Duration::from_millis(600));
    watch.end((lab, report), name, begun, 0);
    lab.wait_until("b is ready", |lab| lab.is_ready("a", "b"));
}

fn killed(lab: &mut Lab, report: &mut Report) {
    moved(
        lab,
        report,
        "F1 F15 killed, restarted",
        |lab| lab.kill(0),
        |lab| lab.start(0),
    );
    let v6: std::net::IpAddr = SHARED_V6.parse().unwrap();
    let answered = inside(lab.space("c"), move || ask(v6, LONG)).join().unwrap();
    assert_eq!(answered, Some('a'), "IPv6 goes the same way");
}

fn frozen(lab: &mut Lab, report: &mut Report) {
    moved(
        lab,
        report,
        "F3 frozen, thawed",
        |lab| lab.signal(0, "-STOP"),
        |lab| lab.signal(0, "-CONT"),
    );
}

fn unplugged(lab: &mut Lab, report: &mut Report) {
    moved(
        lab,
        report,
        "F5 F9 unplugged, plugged",
        |lab| lab.plug("a", "down"),
        |lab| lab.plug("a", "up"),
    );
}

fn silenced(lab: &mut Lab, report: &mut Report) {
    let drop = format!("udp dport {CONTROL_PORT} drop");
    moved(
        lab,
        report,
        "F8 control cut",
        |lab| lab.cut("a", &drop, &drop),
        |lab| lab.heal("a"),
    );
}

fn parted(lab: &mut Lab, report: &mut Report) {
    let b = Lab::address("b");
    let (inward, outward) = (format!("ip saddr {b} drop"), format!("ip daddr {b} drop"));
    stays(
        lab,
        report,
        "F6 a and b parted",
        |lab| lab.cut("a", &inward, &outward),
        |lab| lab.heal("a"),
    );
}

fn deaf(lab: &mut Lab, report: &mut Report, name: &'static str, (who, to): (&'static str, &str)) {
    let rule = format!("ip saddr {} udp dport {CONTROL_PORT} drop", Lab::address(to));
    stays(
        lab,
        report,
        name,
        |lab| lab.cut(who, &rule, ""),
        |lab| lab.heal(who),
    );
}

fn standby_deaf(lab: &mut Lab, report: &mut Report) {
    deaf(lab, report, "F7 b deaf to a", ("b", "a"));
}

fn active_deaf(lab: &mut Lab, report: &mut Report) {
    deaf(lab, report, "F7 a deaf to b", ("a", "b"));
}

fn witness_deaf(lab: &mut Lab, report: &mut Report) {
    deaf(lab, report, "F7 w deaf to a", ("w", "a"));
}

fn witness_killed(lab: &mut Lab, report: &mut Report) {
    stays(
        lab,
        report,
        "F10 witness killed",
        |lab| lab.kill(2),
        |lab| lab.start(2),
    );
    lab.wait_until("the witness votes", |lab| lab.view("w")["votes_for"] == "a");
}

fn ordered(lab: &mut Lab, report: &mut Report) {
    let watch = Watch::start(lab, LONG);
    let begun = Instant::now();
    lab.order("a", &["failover"]).expect("a hands over");
    lab.wait_for("b", "active");
    rest(CALM);
    watch.end((lab, report), "F16 by order", begun, 1);
    restore(lab);
}

fn power_cut(lab: &mut Lab, report: &mut Report) {
    let watch = Watch::start(lab, SHORT);
    let begun = Instant::now();
    for member in [2, 0, 1] {
        lab.kill(member);
    }
    // Nobody of them knows who was active. The second alone comes first.
    for member in [1, 2] {
        lab.start(member);
    }
    lab.wait_for("b", "active");
    lab.start(0);
    rest(CALM);
    watch.end((lab, report), "F20 all killed", begun, 1);
    restore(lab);
}

/// Recordings, forgeries, noise.
fn flooded(lab: &mut Lab, report: &mut Report) {
    let before = lab.view("a");
    let address = (Lab::address("a"), CONTROL_PORT);
    let flood = |lab: &mut Lab| {
        let space = lab.space("c");
        let sent = inside(space, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut random = fastrand::Rng::with_seed(21);
            for count in 0..100_000 {
                let length = random.usize(..300);
                let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
                if count % 2 == 0 {
                    bytes.splice(0..0, *b"tt\x01\x01");
                }
                // A full queue is a part of the exercise.
                let _ = socket.send_to(&bytes, address);
            }
        });
        sent.join().unwrap();
    };
    stays(lab, report, "F21 flooded", flood, |_| {});
    let after = lab.view("a");
    assert_eq!(before["epoch"], after["epoch"], "no state has changed");
    assert_eq!(before["leases"], after["leases"], "no state has changed");
}
