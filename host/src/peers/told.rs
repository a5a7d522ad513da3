//! What the peers told, and what of it counts.
//!
//! Owns one table for each peer. Pure: callers pass the time. Memory is bounded, since only backends that are known here are kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::digest::Entry;
use crate::pool::Elsewhere;

/// All that was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    peers: BTreeMap<u64, Word>,
}

/// What one peer told.
#[derive(Debug, Default)]
struct Word {
    /// When it told anything last: what it did not mention it has nothing of since then.
    told_ms: u64,
    figures: HashMap<u64, Figure>,
}

#[derive(Clone, Copy, Debug)]
struct Figure {
    active: u32,
    rate: u32,
    told_ms: u64,
}

impl Told {
    /// One peer's word. What nobody here knows is passed over, and counted in the answer.
    pub(super) fn hear(&mut self, peer: u64, entries: &[Entry], known: &HashSet<u64>, now_ms: u64) -> usize {
        let Word { told_ms, figures } = self.peers.entry(peer).or_default();
        *told_ms = now_ms;
        let mut strange = 0;
        for Entry { key, active, rate } in entries {
            match (known.contains(key), active | rate) {
                (false, _) => strange += 1,
                (true, 0) => drop(figures.remove(key)),
                (true, _) => {
                    let figure = Figure {
                        active: *active,
                        rate: *rate,
                        told_ms: now_ms,
                    };
                    figures.insert(*key, figure);
                }
            }
        }
        strange
    }

    /// Forgets what is older than this, who is no peer any more, and backends that are gone.
    pub(super) fn forget(&mut self, before_ms: u64, is_peer: impl Fn(u64) -> bool, known: &HashSet<u64>) {
        self.peers
            .retain(|peer, word| is_peer(*peer) && word.told_ms >= before_ms);
        for word in self.peers.values_mut() {
            word.figures
                .retain(|key, figure| figure.told_ms >= before_ms && known.contains(key));
        }
    }

    /// All peers' figures of a backend; `None` if no peer tells anything.
    pub(super) fn of(&self, key: u64) -> Option<Elsewhere> {
        let of_peer = |word: &Word| match word.figures.get(&key) {
            Some(figure) => Elsewhere {
                active: figure.active,
                rate: figure.rate,
                told_ms: figure.told_ms,
            },
            None => Elsewhere {
                told_ms: word.told_ms,
                ..Elsewhere::default()
            },
        };
        self.peers.values().map(of_peer).reduce(|sum, one| Elsewhere {
            active: sum.active.saturating_add(one.active),
            rate: sum.rate.saturating_add(one.rate),
            told_ms: sum.told_ms.min(one.told_ms),
        })
    }

    /// When a peer told something last; 0 if none did.
    pub(super) fn latest_ms(&self) -> u64 {
        let told = self.peers.values().map(|word| word.told_ms);
        told.max().unwrap_or(0)
    }

    /// What a peer has in flight, and at how many backends.
    pub(super) fn by(&self, peer: u64) -> (u64, usize) {
        let figures = self.peers.get(&peer).map(|word| &word.figures);
        let active = figures.map_or(0, |figures| {
            figures.values().map(|figure| u64::from(figure.active)).sum()
        });
        (active, figures.map_or(0, HashMap::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u64, active: u32) -> Entry {
        Entry { key, active, rate: 1 }
    }

    fn known() -> HashSet<u64> {
        HashSet::from([1, 2])
    }

    #[test]
    fn what_several_peers_have_in_flight_is_added_and_as_old_as_its_oldest_part() {
        let mut told = Told::default();
        assert_eq!(told.of(1), None);
        told.hear(7, &[entry(1, 3), entry(2, 1)], &known(), 100);
        told.hear(8, &[entry(1, 5)], &known(), 130);
        let sum = Elsewhere {
            active: 8,
            rate: 2,
            told_ms: 100,
        };
        assert_eq!(told.of(1), Some(sum));
        told.hear(7, &[entry(1, 4)], &known(), 140);
        let sum = Elsewhere {
            active: 9,
            rate: 2,
            told_ms: 130,
        };
        assert_eq!(told.of(1), Some(sum));
        assert_eq!(told.by(7), (5, 2));
    }

    #[test]
    fn what_a_peer_does_not_mention_it_does_not_do_and_that_has_its_age_too() {
        let mut told = Told::default();
        let idle_since = |told_ms| Elsewhere {
            told_ms,
            ..Elsewhere::default()
        };
        told.hear(7, &[], &known(), 100);
        assert_eq!(told.of(1), Some(idle_since(100)));
        told.hear(8, &[entry(1, 5)], &known(), 130);
        assert_eq!(told.of(2), Some(idle_since(100)));
        let sum = told.of(1).unwrap();
        assert_eq!((sum.active, sum.told_ms), (5, 100), "one of both may know better");
        told.hear(7, &[], &known(), 140);
        assert_eq!(told.of(2), Some(idle_since(130)));
        assert_eq!(told.latest_ms(), 140);
        told.forget(131, |_| true, &known());
        assert_eq!(
            told.of(1),
            Some(idle_since(140)),
            "the other was silent for too long"
        );
        told.forget(141, |_| true, &known());
        assert_eq!(told.of(1), None);
    }

    #[test]
    fn what_is_old_gone_or_of_nobody_is_forgotten() {
        let mut told = Told::default();
        told.hear(7, &[entry(1, 3)], &known(), 100);
        told.hear(8, &[entry(1, 5), entry(2, 6)], &known(), 200);
        told.forget(101, |_| true, &known());
        assert_eq!(told.of(1).unwrap().active, 5);
        told.forget(101, |_| true, &HashSet::from([1]));
        assert_eq!(told.by(8), (5, 1));
        told.forget(101, |peer| peer != 8, &known());
        assert_eq!(told.of(1), None);
        assert!(told.peers.is_empty());
    }

    #[test]
    fn a_backend_that_is_idle_again_takes_no_room_and_a_strange_one_none_ever() {
        let mut told = Told::default();
        assert_eq!(told.hear(7, &[entry(1, 3), entry(9, 3)], &known(), 100), 1);
        let idle = Entry {
            key: 1,
            active: 0,
            rate: 0,
        };
        told.hear(7, &[idle], &known(), 101);
        assert_eq!(told.by(7), (0, 0));
    }
}
