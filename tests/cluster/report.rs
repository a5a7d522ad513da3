//! What was seen, by scenario: takeovers, failures, moves, and answers of two nodes at once.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    lab::{Hold, Lab, SHARED_V6},
    probe::{Probe, Sample, anew, at, dual, keeping, moves},
    scenarios::{CLIENT_PACE, JUDGE_PACE, LONG, SHORT, rest},
};

/// Hosts take no other Ethernet address within a second of the last (Linux: `locktime`). A fault so soon after another would
/// measure that.
const SETTLED: Duration = Duration::from_millis(1200);
/// Whoever has handed over rests for two leases, which is more where they are long.
const SETTLED_LONG: Duration = Duration::from_secs(6);

/// All rows, in the order in which their scenarios ran.
#[derive(Default)]
pub(crate) struct Report {
    title: &'static str,
    rows: Vec<(&'static str, Row)>,
}

/// A scenario, over its runs.
#[derive(Default)]
pub(crate) struct Row {
    runs: usize,
    takeovers_ms: Vec<u64>,
    requests: usize,
    failed: usize,
    /// As the client saw them, of more than were expected.
    needless: usize,
    /// As the judges saw them.
    moves: usize,
    expected: usize,
    dual: usize,
    may_fail: bool,
}

impl Report {
    pub(crate) fn of(title: &'static str) -> Self {
        Self {
            title,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, name: &'static str) -> &mut Row {
        let known = self.rows.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or_else(|| {
            self.rows.push((name, Row::default()));
            self.rows.len() - 1
        });
        &mut self.rows[at].1
    }

    pub(crate) fn judge(&self) {
        for (name, row) in &self.rows {
            assert_eq!(row.dual, 0, "{name}: two nodes answered at once\n{self}");
            assert_eq!(
                row.moves, row.expected,
                "{name}: the address changed hands\n{self}"
            );
            let is_good = row.may_fail || row.failed == 0;
            assert!(is_good, "{name}: {} requests failed\n{self}", row.failed);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:28}   n   p50   p99   max ms   failed/requests   dual-active   needless moves",
            self.title
        )?;
        for (name, row) in &self.rows {
            let mut sorted = row.takeovers_ms.clone();
            sorted.sort_unstable();
            let at = |part: f64| {
                let place = (sorted.len() as f64 * part).ceil() as usize;
                let found = sorted.get(place.saturating_sub(1));
                found.map_or("-".to_owned(), |ms| ms.to_string())
            };
            writeln!(
                f,
                "{name:28} {:>3} {:>5} {:>5} {:>5}      {:>6}/{:<7} {:>11} {:>16}",
                row.runs,
                at(0.5),
                at(0.99),
                at(1.0),
                row.failed,
                row.requests,
                row.dual,
                row.needless,
            )?;
        }
        Ok(())
    }
}

/// What is expected of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The address stays, and no request fails.
    Stay,
    /// The other node takes over. What the old one had fails.
    Takeover,
    /// The other node takes over, and no request fails.
    Handover,
    /// The same, and it may give back later.
    HandoverOrTwo,
}

/// Clients and judges around one fault.
pub(crate) struct Watch {
    clients: Vec<Probe>,
    judges: [Probe; 2],
    /// The same, at the IPv6 address; where a judge of the IPv4 address alone could miss it.
    judges_v6: Vec<Probe>,
    expected: Expected,
}

impl Watch {
    pub(crate) fn start(lab: &Lab, expected: Expected) -> Self {
        let judge = |host| Probe::start(lab, host, JUDGE_PACE, anew(SHORT));
        let shared_v6 = SHARED_V6.parse().unwrap();
        let judge_v6 = |host| Probe::start(lab, host, JUDGE_PACE, at(shared_v6, SHORT));
        let patience = match expected {
            Expected::Takeover => SHORT,
            Expected::Stay | Expected::Handover | Expected::HandoverOrTwo => LONG,
        };
        let mut clients = vec![Probe::start(lab, "c", CLIENT_PACE, anew(patience))];
        if matches!(expected, Expected::Handover | Expected::HandoverOrTwo) {
            clients.extend((0..4).map(|_| Probe::start(lab, "c", CLIENT_PACE, keeping(patience))));
        }
        let watch = Self {
            clients,
            judges: [judge("d"), judge("e")],
            judges_v6: match lab.hold {
                Hold::Table => Vec::new(),
                Hold::Lifetimes => vec![judge_v6("d"), judge_v6("e")],
            },
            expected,
        };
        watch.clients.iter().for_each(|client| client.wait(lab));
        watch.judges[0].wait(lab);
        watch.judges_v6.iter().take(1).for_each(|judge| judge.wait(lab));
        if expected != Expected::Stay {
            rest(match lab.hold {
                Hold::Table => SETTLED,
                Hold::Lifetimes => SETTLED_LONG,
            });
        }
        watch
    }

    /// Waits until the other node answers.
    pub(crate) fn wait_for_takeover(&self, lab: &Lab) {
        self.judges[1].wait(lab);
        self.judges_v6.iter().skip(1).for_each(|judge| judge.wait(lab));
    }

    /// What became of it. Takeover is from the fault to the first answer of the other node that a client on a new connection got.
    pub(crate) fn end(self, row: &mut Row, fault: Instant) {
        let clients: Vec<_> = self.clients.into_iter().map(Probe::stop).collect();
        let [one, two] = self.judges.map(Probe::stop);
        let expected = match self.expected {
            Expected::Stay => 0,
            Expected::Takeover | Expected::Handover => 1,
            Expected::HandoverOrTwo => moves(&[&one, &two]).clamp(1, 2),
        };
        row.runs += 1;
        row.requests += clients.iter().map(Vec::len).sum::<usize>();
        let failed = |samples: &Vec<Sample>| samples.iter().filter(|sample| sample.by.is_none()).count();
        row.failed += clients.iter().map(failed).sum::<usize>();
        row.needless += moves(&[&clients[0]]).saturating_sub(expected);
        row.moves += moves(&[&one, &two]);
        row.expected += expected;
        row.dual += dual([&one, &two]);
        let v6: Vec<_> = self.judges_v6.into_iter().map(Probe::stop).collect();
        if let [one, two] = v6.as_slice() {
            row.moves += moves(&[one, two]);
            row.expected += expected;
            row.dual += dual([one, two]);
        }
        row.may_fail = self.expected == Expected::Takeover;
        if expected > 0 {
            let first = |sample: &&Sample| sample.by == Some('b') && sample.ended > fault;
            let first = clients[0].iter().find(first);
            let took = first.map(|first| (first.ended - fault).as_millis() as u64);
            row.takeovers_ms.extend(took);
        }
    }
}
