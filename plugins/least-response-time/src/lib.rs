//! Sends each request to the backend that is expected to answer first: the smallest
//! `(active + 1) * average latency / (weight * slow start)`, ties by turns.
//!
//! The average is the host's (time to the response head, over about 5 seconds). A backend without one counts as being
//! as fast as the fastest that has one: it is tried at once, and since its requests in flight count, it gets no more of
//! them than the fastest backend would until the first has answered.
//!
//! Cost: two columns and a scan, linear. Choose it when backends differ in speed or distance. Mind that a backend which
//! fails fast looks fast: keep health checks or outlier ejection on. Settings: none.
//! Source: shortest expected delay routing, Selen, Adan, Kapodistria, van Leeuwaarden (2016).
#![forbid(unsafe_code)]

use trimtab_policy::{Turns, prelude::*};

#[derive(Default)]
struct LeastResponseTime {
    turns: Turns,
    /// Kept to be filled again by each pick.
    costs: Vec<f32>,
}

impl Policy for LeastResponseTime {
    fn update(&mut self, pool: &Pool) {
        self.turns.follow(pool);
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        let latencies = pool.latency_us_all();
        // Without branches, so that it becomes vector instructions.
        let measured =
            latencies.iter().zip(pool.capacities()).map(
                |(&us, &capacity)| {
                    if us == 0 || capacity == 0 { u32::MAX } else { us }
                },
            );
        let fastest = match measured.fold(u32::MAX, u32::min) {
            u32::MAX => 1,
            us => us,
        };
        let costs = pool.active_all().into_iter().zip(latencies).map(|(active, us)| {
            let us = if us == 0 { fastest } else { us };
            (active as f32 + 1.0) * us as f32
        });
        self.costs.clear();
        self.costs.extend(costs);
        self.turns.least(pool, &self.costs).into()
    }
}

policy!(LeastResponseTime);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn the_fastest_backend_is_picked_until_it_is_busy() {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        with_host(|host| (host.latency_us, host.active) = (vec![1000, 3500], vec![2, 0]));
        assert_eq!(trial.pick(), Some("a"));
        with_host(|host| host.active = vec![3, 0]);
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn twice_the_weight_makes_up_for_twice_the_latency() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("b", 2));
        with_host(|host| host.latency_us = vec![1000, 2000]);
        let shares = trial.run(300);
        assert!(shares.count("a") > 0 && shares.count("b") > 0);
    }

    #[test]
    fn an_unmeasured_backend_is_tried_and_not_stampeded() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]));
        with_host(|host| host.latency_us = vec![1000, 2000, 0]);
        let shares = trial.run_overlapping(30, 30);
        assert!(shares.count("c") >= 1);
        assert!(shares.count("c") <= shares.count("a") + 1, "{shares:?}");
    }

    #[test]
    fn nothing_measured_is_shared_evenly() {
        let shares = Trial::new(native(), pool(["a", "b", "c", "d"])).run(1000);
        assert_eq!(shares.share("a"), 0.25);
    }

    #[test]
    fn extreme_latencies_and_loads_do_not_overflow() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("a", 65_535).weight("b", 65_535));
        with_host(|host| (host.latency_us, host.active) = (vec![u32::MAX, 1], vec![u32::MAX, 0]));
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn neither_a_down_nor_a_tried_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("a"));
        with_host(|host| (host.latency_us, host.tried) = (vec![1, 1, 9], vec![false, true, false]));
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("c"));
    }
}
