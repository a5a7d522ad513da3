//! The scan that least connections, least response time and least bandwidth share: the smallest cost per capacity,
//! ties dealt out by weight.

use crate::per_backend::PerBackend;
use crate::pool::Pool;

/// Finds the backend with the smallest cost for its capacity. Backends that tie take turns in proportion to their
/// capacity (as nginx's `least_conn` does), so an idle pool is shared by weight instead of drowning its first backend.
///
/// The turns are start-time fair queueing (Goyal, Vin, Cheng, 1996): each backend has a due time, a turn moves it on by
/// `1/capacity`, the earliest goes first, and nobody is due before the clock, so a backend that was not in a tie for
/// long does not collect a burst.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    due: PerBackend<u64>,
    clock: u64,
}

/// What one turn of a backend of capacity 1 moves its due time by: far above any capacity (2^23), so that strides keep
/// 17 bits.
const STRIDE: u64 = 1 << 40;

/// Where due times are moved back to 0, long before they could overflow.
const CLOCK_MAX: u64 = 1 << 62;

/// The best backend of a scan so far. Capacity 0 stands for none.
#[derive(Clone, Copy, Default)]
struct Best {
    index: usize,
    cost: u64,
    capacity: u64,
    due: u64,
}

impl Turns {
    /// Costs above this are not allowed: a product with a capacity must fit 64 bits.
    pub const COST_MAX: u64 = 1 << 40;

    /// Follows the pool; call it from `update`.
    pub fn follow(&mut self, pool: &Pool) {
        self.due.follow(pool);
    }

    /// The ready backend with the smallest `cost / capacity`, and takes its turn. `costs` has one entry per backend of
    /// the pool, none above [`COST_MAX`](Turns::COST_MAX). One pass, two multiplications a backend, no division.
    pub fn least(&mut self, pool: &Pool, costs: impl Iterator<Item = u64>) -> Option<usize> {
        let clock = self.clock;
        let mut best = Best::default();
        for (index, ((cost, &capacity), &due)) in
            costs.zip(pool.capacities()).zip(self.due.iter()).enumerate()
        {
            debug_assert!(cost <= Self::COST_MAX, "a cost of {cost} may overflow");
            let capacity = u64::from(capacity);
            let (own, other) = (cost * best.capacity, best.cost * capacity);
            if capacity == 0 || own > other {
                continue;
            }
            let due = due.max(clock);
            let better = best.capacity == 0 || own < other || due < best.due;
            if better && (pool.attempt() == 0 || pool.is_ready(index)) {
                best = Best {
                    index,
                    cost,
                    capacity,
                    due,
                };
            }
        }
        if best.capacity == 0 {
            return None;
        }
        self.take(best);
        Some(best.index)
    }

    fn take(&mut self, best: Best) {
        self.clock = best.due;
        self.due[best.index] = best.due + STRIDE / best.capacity;
        if self.clock > CLOCK_MAX {
            for due in self.due.iter_mut() {
                *due = due.saturating_sub(self.clock);
            }
            self.clock = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLOCK_MAX, Turns};
    use crate::testing;

    #[test]
    fn ties_are_dealt_out_by_weight() {
        let pool = testing::pool(["a", "b"]).weight("a", 3).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        let picks: Vec<_> = (0..400)
            .filter_map(|_| turns.least(&pool, [0, 0].into_iter()))
            .collect();
        assert_eq!(picks.iter().filter(|&&index| index == 0).count(), 300);
    }

    #[test]
    fn the_smallest_cost_for_its_capacity_wins() {
        let pool = testing::pool(["a", "b", "c"]).weight("b", 4).down("c").build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        assert_eq!(turns.least(&pool, [2, 7, 0].into_iter()), Some(1));
        assert_eq!(turns.least(&pool, [2, 9, 0].into_iter()), Some(0));
    }

    #[test]
    fn an_absence_earns_no_burst_of_turns() {
        let pool = testing::pool(["a", "b"]).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        for _ in 0..100 {
            assert_eq!(turns.least(&pool, [0, 1].into_iter()), Some(0));
        }
        let b = (0..10)
            .filter(|_| turns.least(&pool, [0, 0].into_iter()) == Some(1))
            .count();
        assert!((5..=6).contains(&b), "{b}");
    }

    #[test]
    fn the_clock_starts_again_before_it_overflows() {
        let pool = testing::pool(["a", "b"]).build();
        let mut turns = Turns {
            clock: CLOCK_MAX + 1,
            ..Turns::default()
        };
        turns.follow(&pool);
        let picks: Vec<_> = (0..4)
            .filter_map(|_| turns.least(&pool, [0, 0].into_iter()))
            .collect();
        assert_eq!(picks, [0, 1, 0, 1]);
        assert!(turns.clock < CLOCK_MAX);
    }
}
