//! What this node has to tell: its own load, and which of it is worth a word.
//!
//! Owns the memory of what was told last, and whose turn it is when there is too much for one round. Pure: callers pass the time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::digest::{ENTRIES_MAX, Entry, key};
use crate::{
    config::LoadView,
    pool::{Backend, Pool},
};

/// Datagrams to a peer in one round; what is left has its turn in the next.
const DATAGRAMS_MAX: usize = 8;
/// That a backend is idle again is said so often: datagrams get lost.
const SAID_IDLE: u8 = 4;
/// Weight of a round in the average of requests a second falls to 1/e in this time.
const RATE_DECAY_S: f64 = 1.0;

/// A backend that nodes tell each other of.
pub(super) struct Shared {
    pub(super) key: u64,
    pub(super) backend: Arc<Backend>,
}

/// All of them in these pools.
pub(super) fn shared(pools: &[Arc<Pool>]) -> Vec<Shared> {
    let mut found = Vec::new();
    for pool in pools {
        if pool.config.load_view != LoadView::Cluster {
            continue;
        }
        for member in &pool.snapshot().members {
            found.push(Shared {
                key: key(pool.name(), member.backend.id),
                backend: member.backend.clone(),
            });
        }
    }
    found
}

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Own {
    last: HashMap<u64, Last>,
    last_us: u64,
    turn: usize,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    picks: u64,
    rate: f64,
    /// How often it still has to be said that it is idle.
    idle_left: u8,
}

impl Own {
    /// What is to be told in this round.
    pub(super) fn entries(&mut self, backends: &[Shared], now_us: u64) -> Vec<Entry> {
        let passed_s = now_us.saturating_sub(self.last_us) as f64 / 1e6;
        let is_first = std::mem::replace(&mut self.last_us, now_us) == 0;
        let keep = (-passed_s / RATE_DECAY_S).exp();
        let mut entries = Vec::new();
        for Shared { key, backend } in backends {
            let active = backend.active();
            let picks = backend.loads().map(|load| load.picks.load(Relaxed)).sum();
            let last = self.last.entry(*key).or_insert(Last {
                picks,
                rate: 0.0,
                idle_left: 0,
            });
            // After a reload its counters may begin anew.
            let more = f64::from(u32::try_from(picks.saturating_sub(last.picks)).unwrap_or(u32::MAX));
            last.picks = picks;
            if !is_first && passed_s > 0.0 {
                last.rate = last.rate * keep + more / passed_s * (1.0 - keep);
            }
            let rate = last.rate.round() as u32;
            if active | rate > 0 {
                last.idle_left = SAID_IDLE;
            } else if last.idle_left == 0 {
                continue;
            } else {
                last.idle_left -= 1;
            }
            entries.push(Entry {
                key: *key,
                active,
                rate,
            });
        }
        if self.last.len() > backends.len() {
            let known: HashSet<u64> = backends.iter().map(|shared| shared.key).collect();
            self.last.retain(|key, _| known.contains(key));
        }
        self.take_turns(entries)
    }

    fn take_turns(&mut self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let most = DATAGRAMS_MAX * ENTRIES_MAX;
        if entries.len() <= most {
            self.turn = 0;
            return entries;
        }
        let from = self.turn % entries.len();
        self.turn = from + most;
        entries.rotate_left(from);
        entries.truncate(most);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: u64) -> Vec<Shared> {
        let shared = |number: u64| Shared {
            key: number,
            backend: Arc::new(Backend::new("b", ([127, 0, 0, 1], 1).into(), 2)),
        };
        (0..count).map(shared).collect()
    }

    #[test]
    fn load_of_all_workers_is_told_and_the_end_of_it_several_times() {
        let backends = backends(2);
        let mut own = Own::default();
        assert_eq!(own.entries(&backends, 1_000_000), []);
        backends[1].backend.load(0).begin();
        backends[1].backend.load(1).begin();
        let told = own.entries(&backends, 2_000_000);
        assert_eq!((told.len(), told[0].key, told[0].active), (1, 1, 2));
        backends[1].backend.load(0).end();
        backends[1].backend.load(1).end();
        // The rate fades within seconds, and is then as idle as the rest.
        let told: Vec<_> = (3..20)
            .map(|second| own.entries(&backends, second * 1_000_000))
            .collect();
        let said = told.iter().filter(|told| !told.is_empty());
        assert!(said.clone().count() >= usize::from(SAID_IDLE), "{told:?}");
        assert!(said.flatten().all(|entry| entry.active == 0 && entry.key == 1));
        assert_eq!(told.last().unwrap(), &[]);
    }

    #[test]
    fn the_rate_is_in_requests_a_second() {
        let backends = backends(1);
        let mut own = Own::default();
        let mut told = Vec::new();
        for round in 0..200 {
            for _ in 0..5 {
                backends[0].backend.load(0).begin();
                backends[0].backend.load(0).end();
            }
            told = own.entries(&backends, 1_000_000 + round * 50_000);
        }
        assert!((95..=105).contains(&told[0].rate), "{told:?}");
    }

    #[test]
    fn more_than_a_round_takes_has_its_turn_in_the_next() {
        let backends = backends(1000);
        for shared in &backends {
            shared.backend.load(0).begin();
        }
        let mut own = Own::default();
        let mut seen = HashSet::new();
        for round in 1..=2 {
            let told = own.entries(&backends, round * 1_000_000);
            assert_eq!(told.len(), DATAGRAMS_MAX * ENTRIES_MAX);
            seen.extend(told.iter().map(|entry| entry.key));
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn a_backend_that_is_gone_is_forgotten() {
        let mut own = Own::default();
        own.entries(&backends(3), 1_000_000);
        own.entries(&backends(1), 2_000_000);
        assert_eq!(own.last.len(), 1);
    }
}
