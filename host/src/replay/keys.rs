//! Where keys are at home, before and after.
//!
//! Owns what "re-homed" means: a key's home is the backend that most of its first attempts went to (of several with as
//! many, the one with the smallest id), and a key is re-homed if its home is another one afterwards.

use std::collections::HashMap;

use serde::Serialize;

/// More keys than this are not looked at: where there are millions, they are no sessions.
const KEYS_MAX: usize = 1 << 20;
/// Re-homed keys that a report lists.
const LISTED_MAX: usize = 1000;

/// What became of the keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Keys {
    /// Keys that both policies sent somewhere.
    pub compared: u64,
    /// Those whose home has changed.
    pub rehomed: u64,
    /// Their part of all.
    pub disruption_percent: f64,
    /// Keys beyond the limit, which are not looked at.
    pub not_compared: u64,
    /// The re-homed keys, not more than a thousand.
    pub list: Vec<Rehomed>,
}

/// A key with another home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehomed {
    /// The pool.
    pub pool: String,
    /// The key, in hex.
    pub key: String,
    /// Its requests.
    pub picks: u64,
    /// The address of its home before.
    pub before: String,
    /// The address of its home after.
    pub after: String,
}

/// How often a key went to which backend.
#[derive(Debug, Default)]
struct Homes {
    before: Vec<(u64, u32)>,
    after: Vec<(u64, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct KeyTally {
    homes: HashMap<(usize, u64), Homes>,
    not_compared: u64,
}

impl KeyTally {
    /// Both policies sent a first attempt with this key somewhere.
    pub(super) fn count(&mut self, pool: usize, key: u64, before: u64, after: u64) {
        let is_full = self.homes.len() >= KEYS_MAX;
        if is_full && !self.homes.contains_key(&(pool, key)) {
            self.not_compared += 1;
            return;
        }
        let homes = self.homes.entry((pool, key)).or_default();
        add(&mut homes.before, before);
        add(&mut homes.after, after);
    }

    pub(super) fn report(&self, pools: &[String], address: impl Fn(u64) -> String) -> Keys {
        let mut list: Vec<Rehomed> = self
            .homes
            .iter()
            .filter_map(|((pool, key), homes)| {
                let (before, after) = (home(&homes.before)?, home(&homes.after)?);
                (before != after).then(|| Rehomed {
                    pool: pools.get(*pool).cloned().unwrap_or_default(),
                    key: format!("{key:016x}"),
                    picks: homes.before.iter().map(|(_, count)| u64::from(*count)).sum(),
                    before: address(before),
                    after: address(after),
                })
            })
            .collect();
        let (compared, rehomed) = (self.homes.len() as u64, list.len() as u64);
        list.sort_by(|one, other| {
            let order = other.picks.cmp(&one.picks);
            order.then_with(|| one.key.cmp(&other.key))
        });
        list.truncate(LISTED_MAX);
        Keys {
            compared,
            rehomed,
            disruption_percent: super::report::percent(rehomed, compared),
            not_compared: self.not_compared,
            list,
        }
    }
}

fn add(counts: &mut Vec<(u64, u32)>, id: u64) {
    match counts.iter_mut().find(|(known, _)| *known == id) {
        Some((_, count)) => *count += 1,
        None => counts.push((id, 1)),
    }
}

fn home(counts: &[(u64, u32)]) -> Option<u64> {
    let most = counts
        .iter()
        .max_by_key(|(id, count)| (*count, std::cmp::Reverse(*id)));
    most.map(|(id, _)| *id)
}
