//! Takes turns by weight, smoothly: a backend of weight 3 gets three turns in each round, spread over it.
//!
//! Every backend is due at regular intervals of `1/capacity` (weight times slow start) on a virtual clock, beginning at
//! a place of its own in the interval; the earliest is next. Shares are exact over a round, as in nginx's smooth
//! weighted round robin, at `O(log n)` a pick instead of `O(n)`. A change of the pool keeps everybody's place in the
//! interval, so nothing starts over and nobody who joins gets a burst.
//!
//! Cost: one heap sift. Choose it for unequal backends and similar requests. Settings: none. State: everybody's place.
//! Sources: earliest due first as in Liu and Layland (1973); places by the golden ratio (Knuth, TAOCP 3, 6.4).
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use trimtab_policy::{PerBackend, Stateful, hash, prelude::*, state};

/// The interval of capacity 1. Capacities stay below 2^23, so every interval has 19 bits or more.
const ROUND: u64 = 1 << 42;

/// Where the clock starts again, long before due times could overflow.
const CLOCK_MAX: u64 = 1 << 62;

#[derive(Default)]
struct WeightedRoundRobin {
    /// Who is due when, as (time, index): the usable backends.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
    turns: PerBackend<Turn>,
    clock: u64,
    /// How many backends were ever given a place.
    joined: u64,
    started: bool,
}

/// A backend's interval (0 while it is not in the queue), and in `update` what it still has to wait of it.
#[derive(Clone, Copy, Default)]
struct Turn {
    interval: u64,
    wait: u64,
}

/// The same part of another interval.
fn scaled(wait: u64, interval: u64, of: u64) -> u64 {
    (u128::from(wait) * u128::from(interval) / u128::from(of)) as u64
}

impl WeightedRoundRobin {
    fn next(&mut self) -> Option<usize> {
        if self.clock > CLOCK_MAX {
            let clock = std::mem::take(&mut self.clock);
            self.queue = self
                .queue
                .drain()
                .map(|Reverse((due, index))| Reverse((due - clock, index)))
                .collect();
        }
        let mut top = self.queue.peek_mut()?;
        let Reverse((due, index)) = *top;
        *top = Reverse((due + self.turns[index].interval, index));
        self.clock = due;
        Some(index)
    }
}

impl Policy for WeightedRoundRobin {
    fn update(&mut self, pool: &Pool) {
        for Reverse((due, index)) in self.queue.drain() {
            self.turns[index].wait = due - self.clock;
        }
        self.turns.follow(pool);
        self.clock = 0;
        for (index, (turn, &capacity)) in self.turns.iter_mut().zip(pool.capacities()).enumerate() {
            let interval = ROUND.checked_div(capacity.into()).unwrap_or(0);
            let (wait, of) = if turn.interval > 0 {
                (turn.wait, turn.interval)
            } else {
                self.joined += u64::from(interval > 0);
                (self.joined.wrapping_mul(hash::GOLDEN) >> 32, 1 << 32)
            };
            let wait = scaled(wait, interval, of);
            *turn = Turn { interval, wait };
            if interval > 0 {
                self.queue.push(Reverse((wait, index)));
            }
        }
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        if request.attempt() > 0 {
            // A retry goes to whoever is due next among those not tried, and costs it no turn.
            return self
                .queue
                .iter()
                .filter(|entry| pool.is_ready(entry.0.1))
                .max()
                .map(|entry| entry.0.1)
                .into();
        }
        if !std::mem::replace(&mut self.started, true) {
            // Workers begin at different turns, or they would all favour the same backends after a start.
            for _ in 0..request.random() % self.queue.len().max(1) as u64 {
                self.next();
            }
        }
        self.next().into()
    }
}

impl Stateful for WeightedRoundRobin {
    const SCHEMA: &'static str = "weighted-turns/1";

    /// How many joined, whether anybody was picked, then for each backend in the queue its id, interval and wait.
    fn export_state(&self) -> Vec<u8> {
        let ids: Vec<u64> = self.turns.by_id().map(|(id, _)| id).collect();
        let queued = self.queue.iter().flat_map(|&Reverse((due, index))| {
            let interval = self.turns[index].interval;
            [ids[index], interval, due - self.clock]
        });
        state::write([self.joined, u64::from(self.started)].into_iter().chain(queued))
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        let numbers = state::read(bytes)?;
        let (&[joined, started], turns) = numbers.split_first_chunk().ok_or("too short")?;
        let (turns, rest) = turns.as_chunks();
        if !rest.is_empty() || turns.iter().any(|&[_, of, wait]| wait > of) {
            return Err("these are no turns".into());
        }
        for &[id, of, wait] in turns {
            if let Some(turn) = self.turns.of_id(id)
                && of > 0
            {
                turn.wait = scaled(wait, turn.interval, of);
            }
        }
        (self.joined, self.started, self.clock) = (joined, started > 0, 0);
        let turns = self.turns.iter().enumerate();
        let queued = turns.filter(|(_, turn)| turn.interval > 0);
        self.queue = queued.map(|(index, turn)| Reverse((turn.wait, index))).collect();
        Ok(())
    }
}

policy!(WeightedRoundRobin, stateful);

#[cfg(test)]
mod tests {
    use super::*;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn shares_are_exact_over_every_round() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).weight("a", 5).weight("b", 2));
        for _ in 0..20 {
            let round = trial.run(8);
            assert_eq!((round.count("a"), round.count("b"), round.count("c")), (5, 2, 1));
        }
    }

    #[test]
    fn turns_are_interleaved() {
        let names = || (0..11).map(|index| index.to_string());
        let mut trial = Trial::new(native(), pool(names()).weight("0", 10));
        let shares = trial.run(2000);
        assert_eq!(shares.share("0"), 0.5);
        assert!(shares.longest_run("0") <= 2, "{}", shares.longest_run("0"));
    }

    #[test]
    fn slow_start_scales_the_share() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).ramp("b", 25));
        assert_eq!(trial.run(1000).share("b"), 0.2);
    }

    #[test]
    fn a_change_of_health_starts_nothing_over() {
        let all = || pool(["a", "b", "c", "d"]).weight("a", 2);
        let mut trial = Trial::new(native(), all());
        let mut counts = [0; 2];
        for flap in 0..1000 {
            trial.update(if flap % 2 == 0 { all() } else { all().down("d") });
            let shares = trial.run(1);
            counts[0] += shares.count("a");
            counts[1] += shares.count("b");
        }
        assert!(
            (1.7..2.3).contains(&(f64::from(counts[0] as u32) / f64::from(counts[1] as u32))),
            "{counts:?}"
        );
    }

    #[test]
    fn a_joining_backend_gets_no_burst() {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        trial.run(1001);
        trial.update(pool(["a", "b", "c"]));
        assert!(trial.run(300).longest_run("c") <= 2);
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("a", 1000));
        with_host(|host| host.tried = vec![true, false]);
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("b"));
    }

    #[test]
    fn the_next_version_goes_on_where_the_last_one_was() {
        let backends = || pool(["a", "b", "c", "d"]).weight("a", 5).weight("b", 2).down("d");
        let mut old = Trial::new(native(), backends());
        old.run(1003);
        // The next version may find the backends in another order.
        let mut new = Trial::new(
            native(),
            pool(["d", "c", "b", "a"]).weight("a", 5).weight("b", 2).down("d"),
        );
        new.pick();
        new.take_over(&old).unwrap();
        assert_eq!(new.sequence(40), old.sequence(40));
    }

    #[test]
    fn what_are_no_turns_is_refused() {
        let mut policy = native();
        policy.update(pool(["a"]).snapshot());
        for bad in [&[][..], &[0, 0, 1], &[0, 0, 1, 2, 3]] {
            let bytes = state::write(bad.iter().copied());
            assert!(policy.import_state(&bytes).is_err(), "{bad:?}");
        }
        assert!(policy.import_state(&[1, 2, 3]).is_err());
    }

    #[test]
    fn the_clock_starts_again_before_it_overflows() {
        let mut policy = WeightedRoundRobin {
            clock: CLOCK_MAX + 1,
            ..WeightedRoundRobin::default()
        };
        policy.turns.follow(&pool(["a"]).build());
        policy.queue.push(Reverse((CLOCK_MAX + 5, 0)));
        assert_eq!(policy.next(), Some(0));
        assert_eq!(policy.clock, 4);
    }
}
