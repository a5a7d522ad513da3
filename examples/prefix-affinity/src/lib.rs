//! Sends requests with the same prompt prefix, or of the same session, to the model server that has it in its cache, as
//! long as that one has a free slot: sticky until saturated.
//!
//! A prefix is worth its cache only while the server has room: a full one makes the request wait longer than computing the
//! prefix anew takes. So each key has its own order of all servers (rendezvous hashing), and the first with a free slot
//! serves. What overflows meets again at the second of the order. When no slot is free anywhere, the least full server
//! takes it. The key is the pool's `hash_on`: a header of the client or gateway, since a balancer reads no bodies.
//!
//! Cost: a hash for each backend, and one column. Settings: `slots`, default 16: requests that a server works on at a time
//! (vLLM's `max_num_seqs`); a backend's label `slots` goes before. Weights are not looked at: slots are the sizes.
//! Sources: Gateway API inference extension, proposal 005 (pull request 602: prefix hashing, and why it needs load); llm-d
//! blog "Sticky until saturated" (pull request 462); llm-d issue 1029 on hot servers.
#![forbid(unsafe_code)]

use std::cmp::Reverse;

use serde::Deserialize;
use trimtab_policy::{hash, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    slots: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { slots: 16 }
    }
}

#[derive(Default)]
struct PrefixAffinity {
    config: Config,
    /// Of each backend.
    slots: Vec<u32>,
}

impl Policy for PrefixAffinity {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        if self.config.slots == 0 {
            return Err("`slots` is 0, but must be at least 1".into());
        }
        Ok(())
    }

    fn update(&mut self, pool: &Pool) {
        let labelled = |backend: Backend<'_>| backend.label("slots")?.parse().ok().filter(|&slots| slots > 0);
        self.slots = pool
            .iter()
            .map(|backend| labelled(backend).unwrap_or(self.config.slots))
            .collect();
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let active = pool.active_all();
        let rank = |backend: &Backend<'_>| hash::pair(request.key(), backend.id());
        let has_room = |backend: &Backend<'_>| active[backend.index()] < self.slots[backend.index()];
        if let Some(home) = pool.ready().filter(has_room).max_by_key(rank) {
            return home.into();
        }
        let fullness = |backend: &Backend<'_>| {
            let (active, slots) = (
                u64::from(active[backend.index()]),
                u64::from(self.slots[backend.index()]),
            );
            ((active << 16) / slots, Reverse(rank(backend)))
        };
        pool.ready().min_by_key(fullness).into()
    }
}

policy!(PrefixAffinity);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn ten() -> PoolBuilder {
        pool((0..10).map(|index| index.to_string()))
    }

    fn keyed(trial: &mut Trial, key: u64) -> String {
        let mut facts = trial.facts();
        facts.key = key;
        trial.ask(facts).unwrap().to_owned()
    }

    #[test]
    fn a_prefix_stays_where_it_is_cached() {
        let mut trial = Trial::new(native(), ten());
        let homes: Vec<_> = (0..200).map(|key| keyed(&mut trial, key)).collect();
        with_host(|host| host.active = vec![15, 0, 3, 15, 2, 0, 0, 1, 9, 15]);
        assert_eq!(
            homes,
            (0..200).map(|key| keyed(&mut trial, key)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_full_server_overflows_to_the_same_second_one_each_time() {
        let mut trial = Trial::new(native(), ten());
        let home = keyed(&mut trial, 7);
        let set = |active: u32| {
            with_host(|host| {
                host.active = vec![0; 10]
                    .into_iter()
                    .collect::<Vec<u32>>()
                    .iter()
                    .enumerate()
                    .map(|(index, _)| if index.to_string() == home { active } else { 0 })
                    .collect()
            })
        };
        set(16);
        let second = keyed(&mut trial, 7);
        assert_ne!(second, home);
        assert_eq!(keyed(&mut trial, 7), second);
        set(15);
        assert_eq!(keyed(&mut trial, 7), home);
    }

    #[test]
    fn when_all_are_full_the_least_full_takes_it() {
        let labelled = pool(["a", "b", "c"]).label("b", "slots", "40");
        let mut trial = Trial::new(native(), labelled);
        with_host(|host| host.active = vec![20, 44, 21]);
        assert!((0..50).all(|key| keyed(&mut trial, key) == "b"));
    }

    #[test]
    fn a_server_that_leaves_takes_only_its_own_prefixes_along() {
        let mut trial = Trial::new(native(), ten());
        let before: Vec<_> = (0..500).map(|key| keyed(&mut trial, key)).collect();
        trial.update(ten().down("3"));
        for (key, home) in before.iter().enumerate() {
            assert!(home == "3" || keyed(&mut trial, key as u64) == *home);
        }
    }

    #[test]
    fn no_slots_are_refused() {
        assert!(
            native()
                .configure(r#"{"slots": 0}"#)
                .unwrap_err()
                .contains("`slots`")
        );
    }
}
