//! Sends each request to the backend that moves the fewest bytes per second (times 8 / 10^6: Mbit/s) for its weight.
//!
//! The host's figure covers 4 seconds, so it shows a pick late, and following it blindly would send everything to one
//! backend until it does. Therefore each recent pick is charged to its backend at once: the pool's whole traffic of
//! half a second, shared out by who got the recent picks (their count halves every 350 ms, a mean age of half a second).
//! Requests in flight count as a byte each, which decides between equals; then turns by weight.
//!
//! Cost: two columns and a scan, linear. Choose it for downloads and streams. Settings: none.
//! Source: Dahlin, "Interpreting stale load information" (1999): add to old figures what must have arrived since.
#![forbid(unsafe_code)]

use trimtab_policy::{PerBackend, Turns, prelude::*};

/// How often the counts of recent picks are halved. `350 ms / ln 2` is half a second, ...
const HALVING_US: u64 = 350_000;

/// ... which is this part of the host's window.
const WINDOW_SHARE: u64 = 8;

/// What one pick adds to a count: enough that some halvings lose nothing.
const PICK: u32 = 1 << 10;

#[derive(Default)]
struct LeastBandwidth {
    turns: Turns,
    recent: PerBackend<u32>,
    /// Kept to be filled again by each pick.
    costs: Vec<f32>,
    halved_us: u64,
}

impl LeastBandwidth {
    fn forget(&mut self, now_us: u64) {
        let halvings = now_us.saturating_sub(self.halved_us) / HALVING_US;
        if halvings > 0 {
            self.halved_us += halvings * HALVING_US;
            self.recent
                .iter_mut()
                .for_each(|count| *count = count.checked_shr(halvings as u32).unwrap_or(0));
        }
    }
}

impl Policy for LeastBandwidth {
    fn update(&mut self, pool: &Pool) {
        self.turns.follow(pool);
        self.recent.follow(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        self.forget(request.now_us());
        let rates = pool.throughput_all();
        let in_window = rates.iter().sum::<u64>() / WINDOW_SHARE;
        let counts = self.recent.iter().copied().map(u64::from).sum::<u64>();
        let per_count = in_window as f32 / counts.max(PICK.into()) as f32;
        let loads = rates.into_iter().zip(pool.active_all()).zip(self.recent.iter());
        let costs = loads.map(|((rate, active), &recent)| {
            // Conversions from signed integers are one instruction; neither comes near 2^63.
            (rate as i64 + i64::from(active)) as f32 + recent as f32 * per_count
        });
        self.costs.clear();
        self.costs.extend(costs);
        let picked = self.turns.least(pool, &self.costs);
        picked
            .inspect(|&index| self.recent[index] = self.recent[index].saturating_add(PICK))
            .into()
    }
}

policy!(LeastBandwidth);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn the_least_busy_line_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]));
        with_host(|host| host.throughput = vec![9_000_000, 1_000_000, 5_000_000]);
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn the_rate_is_relative_to_the_weight() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("a", 10));
        with_host(|host| host.throughput = vec![9_000_000, 1_000_000]);
        assert_eq!(trial.pick(), Some("a"));
    }

    #[test]
    fn between_two_readings_picks_do_not_herd() {
        let names = || (0..20).map(|index| index.to_string());
        let mut trial = Trial::new(native(), pool(names()));
        with_host(|host| host.throughput = (0..20).map(|index| 1_000_000 + index * 100_000).collect());
        let shares = trial.run(1000);
        assert!(shares.longest_run("0") <= 10, "{}", shares.longest_run("0"));
        assert!(shares.share("0") < 0.25 && shares.share("0") > shares.share("19"));
    }

    #[test]
    fn without_traffic_the_least_active_is_picked_then_turns() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]));
        assert_eq!(trial.run(300).count("a"), 100);
        with_host(|host| host.active = vec![2, 1, 2]);
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn neither_a_down_nor_a_tried_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("a"));
        with_host(|host| (host.throughput, host.tried) = (vec![1, 1, 9], vec![false, true, false]));
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("c"));
    }
}
