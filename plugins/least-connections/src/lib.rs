//! Sends each request to the backend with the fewest requests in flight for its weight.
//!
//! Compares `active / (weight * slow start)` over the whole pool; backends that tie, as all do while idle, take turns by
//! weight. The load is that of all workers, at most a millisecond old.
//!
//! Cost: what changed since the last pick, and a look at one number for each 32 backends. Choose it for requests of unequal
//! length; `random-two-choices` is nearly as even at constant cost. Settings: none.
//! Source: Azar, Broder, Karlin, Upfal, "Balanced allocations" (1994), for what looking at load gains.
#![forbid(unsafe_code)]

use trimtab_policy::{Turns, prelude::*};

#[derive(Default)]
struct LeastConnections {
    turns: Turns,
}

impl Policy for LeastConnections {
    fn update(&mut self, pool: &Pool) {
        self.turns.follow(pool);
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        self.turns.least_active(pool).into()
    }
}

policy!(LeastConnections);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn the_least_loaded_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]));
        with_host(|host| host.active = vec![3, 1, 2]);
        assert_eq!(trial.sequence(3), "b b b");
    }

    #[test]
    fn load_is_relative_to_weight_and_slow_start() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("a", 4));
        with_host(|host| host.active = vec![7, 2]);
        assert_eq!(trial.pick(), Some("a"));
        trial.update(pool(["a", "b"]).weight("a", 4).ramp("a", 50));
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn an_idle_pool_is_shared_by_weight() {
        let shares = Trial::new(native(), pool(["a", "b", "c"]).weight("a", 2)).run(1000);
        assert_eq!((shares.share("a"), shares.share("b")), (0.5, 0.25));
        assert_eq!(shares.longest_run("b"), 1);
    }

    #[test]
    fn a_busy_pool_is_shared_by_weight() {
        let shares = Trial::new(native(), pool(["a", "b", "c"]).weight("a", 2)).run_overlapping(4000, 40);
        assert!((shares.share("a") - 0.5).abs() < 0.01);
    }

    #[test]
    fn neither_a_down_nor_a_tried_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("a"));
        with_host(|host| (host.active, host.tried) = (vec![0, 0, 9], vec![false, true, false]));
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("c"));
    }
}
