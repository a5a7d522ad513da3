//! What the demo has shown, as numbers and as text.
//!
//! Owns the summary of each act and of the whole. It must not decide what follows from it but the one thing that counts:
//! whether anything failed.

use super::{
    acts::Act,
    backends::{CAST, COUNT},
    sample::{Span, shares},
};

/// The whole walk-through, as far as it went.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    pub(super) acts: Vec<ActSummary>,
    /// Since the start, between the acts included.
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// What the trial pick said about the policy that always traps.
    pub(super) refusal: Option<String>,
    /// Picks of the dead backend after it was seen to be out of the rotation.
    pub(super) picks_while_out: Option<u64>,
}

/// One act.
#[derive(Clone, Debug)]
pub(super) struct ActSummary {
    pub(super) act: Act,
    pub(super) requests: u64,
    pub(super) rate: f64,
    /// Median and 99th percentile in microseconds.
    pub(super) percentiles: [Option<u64>; 2],
    /// By the balancer's own counters, retries included.
    pub(super) picks: [u64; COUNT],
    /// By what the clients saw.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare the two counts"))]
    pub(super) answers: [u64; COUNT],
    pub(super) failed: u64,
    /// Of the policy that was in service at its end.
    pub(super) faults: u64,
}

impl ActSummary {
    pub(super) fn new(act: Act, span: Span<'_>) -> Self {
        Self {
            act,
            requests: span.requests(),
            rate: span.per_second(span.requests()),
            percentiles: span.percentiles(),
            picks: span.picks(),
            answers: span.answers(),
            failed: span.failed(),
            faults: span.to.faults,
        }
    }

    fn line(&self) -> String {
        let milliseconds = |us: u64| format!("{:.1}", us as f64 / 1000.0);
        let [p50, p99] = self.percentiles.map(|us| us.map_or("-".to_owned(), milliseconds));
        let shares: String = shares(self.picks)
            .iter()
            .map(|share| format!("{share:>6.0}"))
            .collect();
        format!(
            "  {} {:<17} {:>7} {:>5.0} {p50:>6} {p99:>6} {:>6}{shares}",
            self.act.number(),
            self.act.title(),
            self.requests,
            self.rate,
            self.failed
        )
    }
}

impl Summary {
    /// The text, in at most 80 columns.
    pub(super) fn text(&self) -> String {
        let names: String = CAST.iter().map(|role| format!("{:>6}", role.name)).collect();
        let mut text = format!(
            "  {:<19} {:>7} {:>5} {:>6} {:>6} {:>6}{names}\n",
            "act", "reqs", "req/s", "p50 ms", "p99 ms", "failed"
        );
        for act in &self.acts {
            text += &act.line();
            text += "\n";
        }
        let faults: u64 = self.acts.iter().map(|act| act.faults).sum();
        text += &format!(
            "\n  {} requests, {} failed. Policy faults survived: {faults}.",
            self.requests, self.failed
        );
        text
    }
}

/// What a newcomer can do now.
pub(super) const WHAT_NEXT: &str =
    "  Next: put the configuration above into trimtab.toml, with your own backends:
    trimtab check trimtab.toml
    trimtab run trimtab.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_fits_the_terminal_and_says_what_failed() {
        let act = |act| ActSummary {
            act,
            requests: 7_200_000,
            rate: 1_999.6,
            percentiles: [Some(4_321), Some(999_949)],
            picks: [1, 1, 1, 1],
            answers: [1, 1, 1, 1],
            failed: 12,
            faults: 3,
        };
        let summary = Summary {
            acts: Act::ALL.map(act).into(),
            requests: 43_200_000,
            failed: 72,
            ..Summary::default()
        };
        let text = summary.text();
        assert!(text.contains("43200000 requests, 72 failed. Policy faults survived: 18."));
        for line in text.lines().chain(WHAT_NEXT.lines()) {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
        let expected = "  2 swap under load   7200000  2000    4.3  999.9     12    25    25    25    25";
        assert_eq!(text.lines().nth(2), Some(expected));
    }
}
