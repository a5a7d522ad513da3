//! Sends a session to the same backend, unless that has `slack` requests more in flight than the session's second one.
//!
//! Each key has two backends (the first two of rendezvous hashing). Being sticky has a bound, as in consistent hashing with
//! bounded loads; but a session is never in more than two places, so caches stay small, and two readings decide. The
//! built-in `consistent-hash` bounds the load more strictly, and spreads a popular key as far as it must.
//!
//! Cost: a hash for each backend, and two readings. Settings: `slack`, default 8; 0 makes it two choices by key. The session
//! is the pool's `hash_on`. Weights are not looked at.
//! Sources: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads" (2018); Nasir et al., "The power of
//! both choices" (2015), for keys with two places; skipper issue 1769 on hot keys.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{hash, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    slack: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { slack: 8 }
    }
}

#[derive(Default)]
struct StickyBounded {
    config: Config,
}

impl Policy for StickyBounded {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        Ok(())
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let (mut first, mut second) = (None, None);
        for backend in pool.ready() {
            let ranked = Some((hash::pair(request.key(), backend.id()), backend.index()));
            if ranked > first {
                (first, second) = (ranked, first);
            } else if ranked > second {
                second = ranked;
            }
        }
        let (Some((_, first)), Some((_, second))) = (first, second) else {
            return first.map(|(_, index)| index).into();
        };
        let bound = pool.active(second).saturating_add(self.config.slack);
        if pool.active(first) <= bound {
            first
        } else {
            second
        }
        .into()
    }
}

policy!(StickyBounded);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::native;
    use trimtab_policy::testing::{Dice, PoolBuilder, Trial, pool, with_host};

    fn ten() -> PoolBuilder {
        pool((0..10).map(|index| index.to_string()))
    }

    fn keyed(trial: &mut Trial, key: u64) -> String {
        let mut facts = trial.facts();
        facts.key = key;
        trial.ask(facts).unwrap().to_owned()
    }

    #[test]
    fn a_session_stays_within_the_slack() {
        let mut trial = Trial::new(native(), ten());
        let home = keyed(&mut trial, 5);
        let index: usize = home.parse().unwrap();
        with_host(|host| host.active = vec![3; 10]);
        with_host(|host| host.active[index] = 11);
        assert_eq!(keyed(&mut trial, 5), home);
        with_host(|host| host.active[index] = 12);
        assert_ne!(keyed(&mut trial, 5), home);
    }

    #[test]
    fn a_session_is_in_two_places_at_most() {
        let mut trial = Trial::new(native(), ten());
        let mut dice = Dice::new(1);
        let mut places = BTreeSet::new();
        for _ in 0..1000 {
            with_host(|host| host.active = (0..10).map(|_| (dice.roll() % 100) as u32).collect());
            places.insert(keyed(&mut trial, 5));
        }
        assert_eq!(places.len(), 2);
    }

    #[test]
    fn a_backend_that_leaves_moves_only_its_own_sessions() {
        let mut trial = Trial::new(native(), ten());
        let before: Vec<_> = (0..500).map(|key| keyed(&mut trial, key)).collect();
        trial.update(ten().down("3"));
        for (key, home) in before.iter().enumerate() {
            assert!(home == "3" || keyed(&mut trial, key as u64) == *home);
        }
    }

    #[test]
    fn the_last_backend_serves_all() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).down("a"));
        with_host(|host| host.active = vec![0, 1000]);
        assert_eq!(keyed(&mut trial, 5), "b");
    }
}
