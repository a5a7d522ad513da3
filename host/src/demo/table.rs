//! What the live table and the plain lines look like.
//!
//! Owns the layout: from an interval to lines of at most [`WIDTH`] columns. Pure; it must not know whether there is a
//! terminal, only whether there are colours.

use super::{
    backends::{CAST, COUNT},
    sample::{Sample, Span, shares},
};
use crate::pool::State;

/// The width of a terminal that nobody has resized.
#[cfg(test)]
const WIDTH: usize = 80;
/// The columns of a whole share.
const BAR: usize = 12;

/// Whether states have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    On,
    Off,
}

/// The live table.
pub(super) fn table(span: Span<'_>, colour: Colour) -> Vec<String> {
    let mut lines = vec![format!(
        "  {:<7}  {:>5}  {:<8}  {:>6}  {:>6}  {:>6}  {:<17}  {:>8}",
        "backend", "speed", "state", "weight", "active", "req/s", "share", "latency"
    )];
    lines.extend((0..COUNT).map(|index| row(span, index, colour)));
    lines.push(String::new());
    lines.push(totals(span));
    let Sample { policy, version, .. } = span.to;
    let (faults, by_host) = (span.to.faults, span.to.by_host);
    lines.push(format!(
        "  {policy}@{version}   faults {faults}   chosen by the host {by_host}"
    ));
    lines
}

fn row(span: Span<'_>, index: usize, colour: Colour) -> String {
    let (role, backend) = (&CAST[index], &span.to.backends[index]);
    let picks = span.picks();
    let share = shares(picks)[index];
    let filled = ((share * BAR as f64 / 100.0).round() as usize).min(BAR);
    let bar = "█".repeat(filled) + &"·".repeat(BAR - filled);
    // Padded before it is coloured: escape codes have no width.
    let state = coloured(&format!("{:<8}", backend.state.name()), backend.state, colour);
    let speed = format!("{} ms", role.pause.as_millis());
    let latency = milliseconds(Some(u64::from(backend.latency_us)).filter(|us| *us > 0));
    format!(
        "  {:<7}  {speed:>5}  {state}  {:>6}  {:>6}  {:>6.0}  {bar} {share:>3.0}%  {latency:>8}",
        role.name,
        backend.weight,
        backend.active,
        span.per_second(picks[index]),
    )
}

fn totals(span: Span<'_>) -> String {
    let [p50, p99] = span.percentiles().map(milliseconds);
    let rate = span.per_second(span.requests());
    let failed = span.to.counts.failed;
    format!("  {rate:.0} req/s   p50 {p50}   p99 {p99}   failed {failed}")
}

/// The line of a second without a terminal. The shares are in the order of the cast.
pub(super) fn line(seconds: f64, span: Span<'_>) -> String {
    let [p50, p99] = span.percentiles().map(milliseconds);
    let rate = span.per_second(span.requests());
    let failed = span.to.counts.failed;
    let shares = shares(span.picks()).map(|share| format!("{share:.0}"));
    let shares = shares.join("/");
    format!("{seconds:>6.1} s  {rate:>5.0} req/s  p50 {p50}  p99 {p99}  failed {failed}  shares {shares} %")
}

/// `12.3 ms`, `1.2 s`, or a dash when nothing was measured.
fn milliseconds(us: Option<u64>) -> String {
    match us {
        Some(us) if us >= 1_000_000 => format!("{:.1} s", us as f64 / 1e6),
        Some(us) => format!("{:.1} ms", us as f64 / 1000.0),
        None => "-".to_owned(),
    }
}

/// Green serves, yellow will by itself, red does not.
fn coloured(text: &str, state: State, colour: Colour) -> String {
    let code = match state {
        _ if colour == Colour::Off => return text.to_owned(),
        State::Ready => 32,
        State::Ejected { .. } | State::Draining => 33,
        State::Down => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::demo::{load::Counts, sample::BackendSample};

    fn sample(at: Instant, picks: [u64; COUNT]) -> Sample {
        let backend = |picks| BackendSample {
            state: State::Ready,
            weight: 1,
            active: 3,
            picks,
            latency_us: 2_345,
        };
        Sample {
            at,
            counts: Counts::default(),
            backends: picks.map(backend),
            policy: "least-response-time".into(),
            version: "0123456789ab".into(),
            faults: 2,
            by_host: 7,
        }
    }

    fn one_second(picks: [u64; COUNT]) -> (Sample, Sample) {
        let now = Instant::now();
        let mut to = sample(now + Duration::from_secs(1), picks);
        to.counts.requests = picks.iter().sum();
        (0..100).for_each(|_| to.counts.latency.record(4_000));
        (sample(now, [0; COUNT]), to)
    }

    #[test]
    fn the_table_shows_each_backend_and_the_totals() {
        let (from, mut to) = one_second([600, 300, 100, 0]);
        to.backends[1].state = State::Down;
        to.backends[3].weight = 0;
        to.backends[3].latency_us = 0;
        let span = Span { from: &from, to: &to };
        let expected = "  \
  backend  speed  state     weight  active   req/s  share               latency
  swift     2 ms  ready          1       3     600  ███████·····  60%    2.3 ms
  brisk     4 ms  down           1       3     300  ████········  30%    2.3 ms
  slow      8 ms  ready          1       3     100  █···········  10%    2.3 ms
  spare     4 ms  ready          0       3       0  ············   0%         -

  1000 req/s   p50 4.1 ms   p99 4.1 ms   failed 0
  least-response-time@0123456789ab   faults 2   chosen by the host 7";
        assert_eq!(table(span, Colour::Off).join("\n"), expected);
        let line = line(3.04, span);
        assert_eq!(
            line,
            "   3.0 s   1000 req/s  p50 4.1 ms  p99 4.1 ms  failed 0  shares 60/30/10/0 %"
        );
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_however_large_the_numbers() {
        let (from, mut to) = one_second([9_999; COUNT]);
        to.backends[2].latency_us = 59_999_999;
        to.backends[2].weight = 65_535;
        to.counts.failed = 9_999;
        let span = Span { from: &from, to: &to };
        for line in table(span, Colour::Off).into_iter().chain([line(3_600.0, span)]) {
            assert!(line.chars().count() <= WIDTH, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn colours_are_for_states_only_and_only_when_on() {
        let (from, mut to) = one_second([1; COUNT]);
        to.backends[0].state = State::Down;
        let span = Span { from: &from, to: &to };
        let plain = table(span, Colour::Off);
        assert!(plain.iter().all(|line| !line.contains('\x1b')));
        let coloured = table(span, Colour::On);
        assert!(coloured[1].contains("\x1b[31mdown    \x1b[0m"));
        assert!(coloured[2].contains("\x1b[32mready   \x1b[0m"));
        assert_eq!(coloured.join("").matches('\x1b').count(), 2 * COUNT);
    }
}
