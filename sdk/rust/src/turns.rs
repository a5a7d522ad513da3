//! The scan that least connections, least response time and least bandwidth share: the smallest cost per capacity,
//! ties dealt out by weight.
//!
//! Invariant: plain loops over blocks of [`LANES`] numbers, which compilers turn into vector instructions, and whose
//! comparisons wait for nothing that an earlier backend decided. Only multiplications, conversions and minima, which
//! IEEE 754 fixes to the bit, so native and component decide alike.

use crate::per_backend::PerBackend;
use crate::pool::Pool;

/// Finds the backend with the smallest cost for its capacity. Backends that tie take turns in proportion to their
/// capacity (as nginx's `least_conn` does), so an idle pool is shared by weight instead of drowning its first backend.
///
/// The turns are start-time fair queueing (Goyal, Vin, Cheng, 1996): each backend has a due time, a turn moves it on by
/// its stride, which is in proportion to `1/capacity`, the earliest goes first, and nobody is due before the clock, so
/// a backend that was not in a tie for long does not collect a burst.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    blocks: Vec<Block>,
    clock: u32,
    /// The smallest capacity that a stride was computed for: what due times are measured by.
    lightest: u32,
    /// How much later than the clock each backend is due: only valid inside `follow`.
    leads: PerBackend<u32>,
}

/// Backends in a block: long enough that the end of a loop costs little, short enough for pools of three.
const LANES: usize = 32;

/// The stride of the lightest backend. A heavier one's is rounded, by less than 1 % up to 300 000 times its capacity.
const STRIDE_MAX: u32 = 1 << 24;

/// Where due times are moved back to 0, long before they could overflow.
const CLOCK_MAX: u32 = 1 << 31;

/// Two scores are a tie if they differ by no more units in the last place: 3/300 must tie with 1/100.
const TOLERANCE: u32 = 4;

/// No score: that of infinity and above it of what is not a number. The bits of positive floats order as they do.
const NEVER: u32 = f32::INFINITY.to_bits();

/// A row of backends.
#[derive(Clone, Debug)]
struct Block {
    /// `1/capacity`; not a number for those never to be picked.
    scales: [f32; LANES],
    dues: [u32; LANES],
    strides: [u32; LANES],
    /// The smallest score in the block at the current pick.
    lowest: u32,
}

impl Block {
    const EMPTY: Self = Self {
        scales: [f32::NAN; LANES],
        dues: [0; LANES],
        strides: [0; LANES],
        lowest: NEVER,
    };

    #[inline]
    fn lowest<C: Cost>(&self, costs: &[C]) -> u32 {
        let scores = costs
            .iter()
            .zip(&self.scales)
            .map(|(cost, scale)| score(*cost, *scale));
        scores.fold(u32::MAX, u32::min)
    }

    /// The earliest due time of those that score at most `bound`.
    #[inline]
    fn earliest<C: Cost>(&self, costs: &[C], bound: u32, clock: u32) -> u32 {
        let mut earliest = u32::MAX;
        for ((cost, scale), due) in costs.iter().zip(&self.scales).zip(&self.dues) {
            let due = if score(*cost, *scale) <= bound {
                (*due).max(clock)
            } else {
                u32::MAX
            };
            earliest = earliest.min(due);
        }
        earliest
    }

    /// The first that scores at most `bound` and is due no later than `due`.
    #[inline]
    fn find<C: Cost>(&self, costs: &[C], bound: u32, due: u32) -> usize {
        let mut first = u32::MAX;
        for (lane, ((cost, scale), own)) in (0..).zip(costs.iter().zip(&self.scales).zip(&self.dues)) {
            let found = (score(*cost, *scale) <= bound) & (*own <= due);
            first = first.min(if found { lane } else { u32::MAX });
        }
        first as usize
    }
}

/// What a cost may be: a number of 0 to 2^31.
pub trait Cost: Copy + Default {
    /// Its value as a float, rounded.
    fn to_f32(self) -> f32;
}

impl Cost for u32 {
    /// Through `i32`, since machines convert that in one instruction. From 2^31 on it is negative, whose bits are above
    /// any score: never picked.
    #[inline]
    fn to_f32(self) -> f32 {
        self as i32 as f32
    }
}

impl Cost for f32 {
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
}

#[inline]
fn score<C: Cost>(cost: C, scale: f32) -> u32 {
    (cost.to_f32() * scale).to_bits()
}

impl Turns {
    /// Follows the pool; call it from `update`.
    pub fn follow(&mut self, pool: &Pool) {
        let dues = self.blocks.iter().flat_map(|block| &block.dues);
        for (lead, due) in self.leads.iter_mut().zip(dues) {
            *lead = due.saturating_sub(self.clock);
        }
        self.leads.follow(pool);
        self.clock = 0;
        let capacities = pool.capacities();
        let usable = capacities.iter().copied().filter(|&capacity| capacity > 0);
        let Some(lightest) = usable.min() else {
            self.blocks.clear();
            return;
        };
        // Due times are in strides of the lightest, which may be another than before.
        let change = f64::from(lightest) / f64::from(self.lightest.max(1));
        self.lightest = lightest;
        self.blocks.clear();
        self.blocks.resize(capacities.len().div_ceil(LANES), Block::EMPTY);
        for (index, (&capacity, &lead)) in capacities.iter().zip(self.leads.iter()).enumerate() {
            let (block, lane) = (&mut self.blocks[index / LANES], index % LANES);
            block.dues[lane] = ((f64::from(lead) * change) as u32).min(STRIDE_MAX);
            if capacity > 0 {
                block.scales[lane] = 1.0 / capacity as f32;
                let stride = f64::from(STRIDE_MAX) * f64::from(lightest) / f64::from(capacity);
                block.strides[lane] = (stride as u32).max(1);
            }
        }
    }

    /// The ready backend with the smallest `cost / capacity`, and takes its turn. `costs` has one entry per backend of
    /// the pool, each from 0 to 2^31, of which 24 bits count. Two passes, the second only over blocks that hold one of
    /// the best.
    pub fn least<C: Cost>(&mut self, pool: &Pool, costs: &[C]) -> Option<usize> {
        let (index, due) = if pool.attempt() == 0 {
            self.find(costs)?
        } else {
            self.find_among(pool.ready_indices(), costs)?
        };
        self.take(index, due);
        Some(index)
    }

    /// The best of all, and when it was due.
    fn find<C: Cost>(&mut self, costs: &[C]) -> Option<(usize, u32)> {
        // Of whole rows the compiler knows the length. The last is as long as it is: most pools are only that, and small.
        let (whole, rest) = costs.as_chunks::<LANES>();
        let rows = whole.len();
        let mut lowest = u32::MAX;
        for (block, costs) in self.blocks.iter_mut().zip(whole) {
            block.lowest = block.lowest(costs);
            lowest = lowest.min(block.lowest);
        }
        if let Some(block) = self.blocks.get_mut(rows) {
            block.lowest = block.lowest(rest);
            lowest = lowest.min(block.lowest);
        }
        if lowest >= NEVER {
            return None;
        }
        let bound = (lowest + TOLERANCE).min(NEVER - 1);
        let (mut found, mut earliest) = (0, u32::MAX);
        for (row, (block, costs)) in self.blocks.iter().zip(whole).enumerate() {
            if block.lowest <= bound {
                let due = block.earliest(costs, bound, self.clock);
                if due < earliest {
                    (found, earliest) = (row, due);
                }
            }
        }
        if let Some(block) = self.blocks.get(rows).filter(|block| block.lowest <= bound) {
            let due = block.earliest(rest, bound, self.clock);
            if due < earliest {
                (found, earliest) = (rows, due);
            }
        }
        let block = self.blocks.get(found)?;
        let lane = match whole.get(found) {
            Some(costs) => block.find(costs, bound, earliest),
            None => block.find(rest, bound, earliest),
        };
        Some((found * LANES + lane, earliest))
    }

    /// The same among some of them, one by one: for retries, which are rare.
    fn find_among<C: Cost>(&self, indices: &[u32], costs: &[C]) -> Option<(usize, u32)> {
        let scored = || {
            indices.iter().map(|&index| {
                let index = index as usize;
                let (block, lane) = (&self.blocks[index / LANES], index % LANES);
                let due = block.dues[lane].max(self.clock);
                (score(costs[index], block.scales[lane]), index, due)
            })
        };
        let lowest = scored()
            .map(|(score, ..)| score)
            .min()
            .filter(|&score| score < NEVER)?;
        let bound = (lowest + TOLERANCE).min(NEVER - 1);
        let tied = scored().filter(|&(score, ..)| score <= bound);
        tied.min_by_key(|&(.., due)| due)
            .map(|(_, index, due)| (index, due))
    }

    fn take(&mut self, index: usize, due: u32) {
        let (block, lane) = (&mut self.blocks[index / LANES], index % LANES);
        block.dues[lane] = due + block.strides[lane];
        self.clock = due;
        if due > CLOCK_MAX {
            for block in &mut self.blocks {
                block.dues = block.dues.map(|own| own.saturating_sub(due));
            }
            self.clock = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLOCK_MAX, LANES, Turns};
    use crate::testing::{self, Dice};

    #[test]
    fn ties_are_dealt_out_by_weight() {
        let pool = testing::pool(["a", "b"]).weight("a", 3).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        let picks: Vec<_> = (0..400).filter_map(|_| turns.least(&pool, &[0, 0])).collect();
        assert_eq!(picks.iter().filter(|&&index| index == 0).count(), 300);
    }

    #[test]
    fn the_smallest_cost_for_its_capacity_wins() {
        let pool = testing::pool(["a", "b", "c"]).weight("b", 4).down("c").build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        assert_eq!(turns.least(&pool, &[2, 7, 0]), Some(1));
        assert_eq!(turns.least(&pool, &[2, 9, 0]), Some(0));
    }

    #[test]
    fn equal_ratios_of_unequal_numbers_tie() {
        for weight in 2..1000 {
            let pool = testing::pool(["a", "b"]).weight("b", weight).build();
            let mut turns = Turns::default();
            turns.follow(&pool);
            let costs = [7, 7 * weight];
            assert_eq!(turns.least(&pool, &costs), Some(0), "{weight}");
            assert_eq!(turns.least(&pool, &costs), Some(1), "{weight}");
        }
    }

    #[test]
    fn an_absence_earns_no_burst_of_turns() {
        let pool = testing::pool(["a", "b"]).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        for _ in 0..100 {
            assert_eq!(turns.least(&pool, &[0, 1]), Some(0));
        }
        let b = (0..10).filter(|_| turns.least(&pool, &[0, 0]) == Some(1)).count();
        assert!((5..=6).contains(&b), "{b}");
    }

    #[test]
    fn the_clock_starts_again_before_it_overflows() {
        let pool = testing::pool(["a", "b"]).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        turns.clock = CLOCK_MAX + 1;
        let picks: Vec<_> = (0..4).filter_map(|_| turns.least(&pool, &[0, 0])).collect();
        assert_eq!(picks, [0, 1, 0, 1]);
        assert!(turns.clock < CLOCK_MAX);
    }

    #[test]
    fn turns_go_on_when_the_lightest_backend_changes() {
        let names = || testing::pool(["a", "b", "c"]).weight("a", 3).weight("b", 3);
        let mut turns = Turns::default();
        turns.follow(&names().build());
        let first = turns.least(&names().build(), &[0, 0, 9]);
        let ramped = names().ramp("c", 1).build();
        turns.follow(&ramped);
        let picks: Vec<_> = (0..4).filter_map(|_| turns.least(&ramped, &[0, 0, 9])).collect();
        assert_eq!((first, picks), (Some(0), vec![1, 0, 1, 0]));
    }

    #[test]
    fn blocks_decide_as_one_by_one() {
        let mut dice = Dice::new(1);
        for size in [1, LANES - 1, LANES, LANES + 1, 5 * LANES + 3] {
            let names: Vec<_> = (0..size).map(|index| index.to_string()).collect();
            let mut pool = testing::pool(names.clone());
            for name in &names {
                pool = match dice.roll() % 4 {
                    0 => pool.down(name),
                    1 => pool.weight(name, 1 + (dice.roll() % 5) as u32),
                    _ => pool,
                };
            }
            let pool = pool.build();
            let mut turns = Turns::default();
            turns.follow(&pool);
            for round in 0..2000 {
                let spread = [1, 3, 200][round % 3];
                let costs: Vec<_> = (0..size).map(|_| (dice.roll() % spread) as u32).collect();
                let expected = turns.find_among(pool.usable_indices(), &costs);
                assert_eq!(turns.find(&costs), expected);
                assert_eq!(turns.least(&pool, &costs), expected.map(|(index, _)| index));
            }
        }
    }
}
