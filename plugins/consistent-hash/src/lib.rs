//! Sends equal keys (the pool's `hash_on`) to the same backend, without letting a popular key overload it.
//!
//! Consistent hashing with bounded loads: the key's backend takes the request unless it has `balance` times its fair
//! share of all requests in flight; then the next one clockwise is asked, and so on. A change of the pool moves only the
//! keys of the backend that came or went.
//!
//! Cost: constant; one or two load readings. Choose it for caches and sessions. Settings: `balance`, default 1.25: at
//! most 25 % above the fair share; 1 is the strictest and moves the most keys, 0 turns the bound off.
//! Sources: Karger et al., "Consistent hashing and random trees" (1997); Mirrokni, Thorup, Zadimoghaddam, "Consistent
//! hashing with bounded loads" (2018).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{hash::Ring, prelude::*};

/// The factor over the fair share that a backend takes.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    balance: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { balance: 1.25 }
    }
}

#[derive(Default)]
struct ConsistentHash {
    config: Config,
    ring: Ring,
    usable_weight: f64,
}

impl ConsistentHash {
    /// Whether one more request stays within `ceil(balance * (all in flight + 1) * weight / usable weight)`.
    fn has_room(&self, index: usize, pool: &Pool) -> bool {
        let active = pool.active(index);
        if self.config.balance == 0.0 || active == 0 {
            return true; // the bound is never below 1
        }
        let share = f64::from(pool.weights()[index]) / self.usable_weight;
        f64::from(active) < self.config.balance * (f64::from(pool.active_total()) + 1.0) * share
    }
}

impl Policy for ConsistentHash {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        let written = settings.written("balance");
        self.config = settings.read()?;
        let balance = self.config.balance;
        let known = balance == 0.0 || (1.0..=1000.0).contains(&balance);
        if known {
            Ok(())
        } else {
            Err(format!("`balance` is {written}, but must be 0 or 1 to 1000"))
        }
    }

    fn update(&mut self, pool: &Pool) {
        self.ring.follow(pool);
        self.usable_weight = pool
            .usable_indices()
            .iter()
            .map(|&i| f64::from(pool.weights()[i as usize]))
            .sum();
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let key = request.key();
        let roomy = self
            .ring
            .find(key, |index| pool.is_ready(index) && self.has_room(index, pool));
        // On a retry the untried may all be full.
        roomy
            .or_else(|| self.ring.find(key, |index| pool.is_ready(index)))
            .into()
    }
}

policy!(ConsistentHash);

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
    fn a_key_stays_with_its_backend() {
        let mut trial = Trial::new(native(), ten());
        for key in 0..100 {
            assert_eq!(keyed(&mut trial, key), keyed(&mut trial, key));
        }
    }

    #[test]
    fn removing_one_of_n_backends_moves_only_its_keys() {
        let mut trial = Trial::new(native(), ten());
        let before: Vec<_> = (0..5000).map(|key| keyed(&mut trial, key)).collect();
        trial.update(pool((0..9).map(|index| index.to_string())));
        let moved = (0..)
            .zip(&before)
            .filter(|&(key, was)| keyed(&mut trial, key) != *was)
            .count();
        let lost = before.iter().filter(|&was| was == "9").count();
        assert_eq!(moved, lost);
        assert!(
            (400..600).contains(&moved),
            "about 1 of 10 keys, not {moved} of 5000"
        );
    }

    #[test]
    fn one_popular_key_does_not_overload_its_backend() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c", "d"]));
        for _ in 0..400 {
            let name = keyed(&mut trial, 1);
            with_host(|host| {
                host.active.resize(4, 0);
                host.active[usize::from(name.as_bytes()[0] - b'a')] += 1;
            });
        }
        let active = with_host(|host| host.active.clone());
        assert!(active.iter().all(|&active| active <= 125), "{active:?}");
    }

    #[test]
    fn without_a_bound_a_key_never_moves() {
        let mut trial = Trial::configured(native(), r#"{"balance": 0}"#, ten());
        let first = keyed(&mut trial, 1);
        with_host(|host| host.active = vec![1000; 10]);
        with_host(|host| host.active[first.parse::<usize>().unwrap()] = 1_000_000);
        assert_eq!(keyed(&mut trial, 1), first);
    }

    #[test]
    fn keys_are_shared_by_weight() {
        let shares = Trial::new(native(), pool(["a", "b"]).weight("a", 3)).run(20_000);
        assert!((shares.share("a") - 0.75).abs() < 0.03, "{}", shares.share("a"));
    }

    #[test]
    fn a_retry_goes_to_an_untried_backend_even_if_full() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("c"));
        with_host(|host| (host.active, host.tried) = (vec![0, 1000], vec![true, false]));
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("b"));
    }

    #[test]
    fn an_impossible_balance_is_refused() {
        assert!(
            native()
                .configure(r#"{"balance": 0.5}"#)
                .unwrap_err()
                .contains("`balance` is 0.5")
        );
    }
}
