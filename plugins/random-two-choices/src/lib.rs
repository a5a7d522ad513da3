//! Draws two backends at random and sends the request to the less loaded of them.
//!
//! The second choice makes all the difference: the fullest of n backends gets `log log n` more than its share instead
//! of `log n`. Draws go by weight and slow start, loads are compared relative to them. Since every worker draws
//! otherwise, nobody herds onto one backend, however old the figures are.
//!
//! Cost: constant, two load readings. Choose it for large pools and for many balancers in front of the same backends.
//! Settings: none. Source: Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
#![forbid(unsafe_code)]

use trimtab_policy::{Lottery, prelude::*};

#[derive(Default)]
struct RandomTwoChoices {
    lottery: Lottery,
}

impl Policy for RandomTwoChoices {
    fn update(&mut self, pool: &Pool) {
        self.lottery = Lottery::new(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let Some((first, second)) = self.lottery.draw_two(request, pool) else {
            return Pick::NoOpinion;
        };
        let Some(second) = second else { return first.into() };
        let load = |index: usize, other: usize| {
            u64::from(pool.active(index)) * u64::from(pool.capacities()[other]) // active / capacity, without division
        };
        let (a, b) = (load(first, second), load(second, first));
        if a <= b { first.into() } else { second.into() }
    }
}

policy!(RandomTwoChoices);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        with_host(|host| host.active = vec![3, 2]);
        assert_eq!(trial.run(100).count("b"), 100);
    }

    #[test]
    fn the_most_loaded_backend_is_never_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c", "d"]));
        with_host(|host| host.active = vec![0, 5, 3, 9]);
        let shares = trial.run(10_000);
        assert_eq!(shares.count("d"), 0);
        assert!(shares.share("a") > shares.share("c") && shares.share("c") > shares.share("b"));
    }

    #[test]
    fn shares_follow_the_weights() {
        let backends = || pool(["a", "b", "c", "d"]).weight("a", 3);
        let idle = Trial::new(native(), backends()).run(20_000);
        assert!((idle.share("a") - 0.5).abs() < 0.02, "{}", idle.share("a"));
        let busy = Trial::new(native(), backends()).run_overlapping(20_000, 60);
        assert!((busy.share("a") - 0.5).abs() < 0.02, "{}", busy.share("a"));
    }

    #[test]
    fn neither_a_down_nor_a_tried_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("a").weight("b", 60_000));
        with_host(|host| host.tried = vec![false, true, false]);
        for _ in 0..100 {
            let mut facts = trial.facts();
            facts.attempt = 1;
            assert_eq!(trial.ask(facts), Some("c"));
        }
    }
}
