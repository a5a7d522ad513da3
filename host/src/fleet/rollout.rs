//! How another configuration goes through the fleet: first to the canaries, then to everybody, or back.
//!
//! Owns the decisions, as functions of what the nodes say. It must not know etcd, a clock, or what a configuration is.
//!
//! Invariant: a node that is no canary is only ever told to serve a generation that every canary has called good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{Member, Verdict};

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The canaries serve it; all others serve the last good one. Ends as one of the others.
    Canary,
    /// Everybody is to serve it. Ends with the next generation.
    Everywhere,
    /// It is no good: everybody is to serve the last good one. Ends with the next generation.
    Halted,
}

/// The newest generation, and how far it is. There is one in a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Counted from 1; never the same number twice.
    pub generation: u64,
    /// How far.
    pub phase: Phase,
    /// The last that was called good; 0 if none ever was, and then nodes have what is in their files.
    pub good: u64,
    /// The good one before that.
    #[serde(default)]
    pub previous: u64,
    /// The nodes that take it first.
    pub canaries: Vec<String>,
    /// Why it is halted.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Rollout {
    /// Which generation this node is to serve.
    pub fn target(&self, node: &str) -> u64 {
        let is_canary = self.canaries.iter().any(|canary| canary == node);
        match self.phase {
            Phase::Everywhere => self.generation,
            Phase::Canary if is_canary => self.generation,
            Phase::Canary | Phase::Halted => self.good,
        }
    }

    /// The next one, for a generation after this one.
    pub fn next(this: Option<&Self>, canaries: Vec<String>) -> Self {
        Self {
            generation: this.map_or(0, |this| this.generation) + 1,
            phase: Phase::Canary,
            good: this.map_or(0, |this| this.good),
            previous: this.map_or(0, |this| this.previous),
            canaries,
            reason: None,
        }
    }

    /// The same, ended for this reason.
    #[must_use]
    pub fn halted(&self, reason: String) -> Self {
        Self {
            phase: Phase::Halted,
            reason: Some(reason),
            ..self.clone()
        }
    }

    /// What it becomes by what the nodes say; `None` while it stays as it is.
    pub fn decide(&self, members: &BTreeMap<String, Member>) -> Option<Self> {
        if self.phase != Phase::Canary {
            return None;
        }
        let mut is_good = true;
        for name in &self.canaries {
            let Some(member) = members.get(name) else {
                return Some(self.halted(format!("{name}, a canary, is gone")));
            };
            let attempt = member.attempt.as_ref();
            match attempt.filter(|attempt| attempt.generation == self.generation) {
                Some(attempt) if attempt.verdict == Verdict::Good => {}
                Some(attempt) if attempt.verdict == Verdict::Trying => is_good = false,
                Some(attempt) => {
                    let reason = attempt.reason.as_deref().unwrap_or("no reason given");
                    return Some(self.halted(format!("{name}: {reason}")));
                }
                None => is_good = false,
            }
        }
        is_good.then(|| Self {
            phase: Phase::Everywhere,
            good: self.generation,
            previous: self.good,
            ..self.clone()
        })
    }
}

/// Who takes a generation first: whoever says so, or else the first by name. Nobody in a fleet without members.
pub(super) fn canaries(members: &BTreeMap<String, Member>) -> Vec<String> {
    let willing: Vec<String> = members
        .iter()
        .filter(|(_, member)| member.canary)
        .map(|(name, _)| name.clone())
        .collect();
    match willing.is_empty() {
        true => members.keys().next().cloned().into_iter().collect(),
        false => willing,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Attempt, *};

    /// Its name, whether it is willing, and what it makes of which generation.
    type Node<'a> = (&'a str, bool, Option<(u64, Verdict)>);

    fn members(all: &[Node<'_>]) -> BTreeMap<String, Member> {
        let member = |(name, canary, attempt): &Node<'_>| {
            let attempt = attempt.map(|(generation, verdict)| Attempt {
                generation,
                verdict,
                reason: Some("because".to_owned()),
            });
            let member = Member {
                canary: *canary,
                attempt,
                ..Member::default()
            };
            ((*name).to_owned(), member)
        };
        all.iter().map(member).collect()
    }

    fn rollout() -> Rollout {
        let good = Rollout {
            generation: 7,
            phase: Phase::Everywhere,
            good: 7,
            previous: 5,
            canaries: vec!["a".to_owned()],
            reason: None,
        };
        Rollout::next(Some(&good), vec!["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn only_canaries_serve_what_is_not_yet_called_good() {
        let rollout = rollout();
        assert_eq!(["a", "b", "c"].map(|node| rollout.target(node)), [8, 8, 7]);
        let halted = rollout.halted("no".to_owned());
        assert_eq!(["a", "b", "c"].map(|node| halted.target(node)), [7, 7, 7]);
        assert_eq!(
            Rollout::next(None, Vec::new()).target("a"),
            0,
            "what is in its file"
        );
    }

    #[test]
    fn every_canary_has_to_call_it_good() {
        use Verdict::{Bad, Good, Refused, Trying};
        let rollout = rollout();
        let after = |a, b| {
            let all = members(&[("a", true, a), ("b", true, b), ("c", false, Some((8, Refused)))]);
            rollout
                .decide(&all)
                .map(|next| (next.phase, next.good, next.previous))
        };
        let everywhere = Some((Phase::Everywhere, 8, 7));
        let halted = Some((Phase::Halted, 7, 5));
        assert_eq!(after(Some((8, Good)), Some((8, Good))), everywhere);
        assert_eq!(after(Some((8, Good)), Some((8, Trying))), None);
        assert_eq!(after(Some((8, Good)), None), None);
        // What one says of another generation says nothing of this one.
        assert_eq!(after(Some((8, Good)), Some((7, Good))), None);
        assert_eq!(after(Some((7, Refused)), Some((8, Good))), None);
        for bad in [Bad, Refused] {
            assert_eq!(after(Some((8, Good)), Some((8, bad))), halted);
            assert_eq!(after(Some((8, bad)), None), halted);
        }
        let gone = members(&[("a", true, Some((8, Good)))]);
        let reason = rollout.decide(&gone).unwrap().reason.unwrap();
        assert_eq!(reason, "b, a canary, is gone");
    }

    #[test]
    fn what_is_decided_stays_decided() {
        let bad = members(&[("a", true, Some((8, Verdict::Bad))), ("b", true, None)]);
        let halted = rollout().decide(&bad).unwrap();
        assert_eq!(halted.reason.as_deref(), Some("a: because"));
        let good = members(&[
            ("a", true, Some((8, Verdict::Good))),
            ("b", true, Some((8, Verdict::Good))),
        ]);
        assert_eq!(halted.decide(&good), None);
        let next = Rollout::next(Some(&halted), vec!["a".to_owned()]);
        assert_eq!((next.generation, next.good, next.previous), (9, 7, 5));
    }

    #[test]
    fn the_first_by_name_is_the_canary_if_nobody_says_that_it_is() {
        assert_eq!(
            canaries(&members(&[("b", false, None), ("c", false, None)])),
            ["b"]
        );
        assert_eq!(
            canaries(&members(&[
                ("b", false, None),
                ("c", true, None),
                ("d", true, None)
            ])),
            ["c", "d"]
        );
        assert!(canaries(&BTreeMap::new()).is_empty());
    }
}
