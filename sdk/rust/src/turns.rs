//! The scan that least connections, least response time and least bandwidth share: the smallest cost per capacity,
//! ties dealt out by weight.
//!
//! Invariant: plain loops over blocks of [`LANES`] numbers, which compilers turn into vector instructions, and whose
//! comparisons wait for nothing that an earlier backend decided. Only multiplications, conversions and minima, which
//! IEEE 754 fixes to the bit, so native and component decide alike.

use crate::host;
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
    /// Requests in flight to each backend, as the host told them last.
    active: Vec<u32>,
    /// What is known of each block by them. Without any, `active` means nothing.
    known: Known,
}

/// What a pick by requests in flight has to know of each block, in columns.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The smallest score.
    lowest: Vec<u32>,
    /// When the first of those that tie at it is due, whatever the clock says.
    earliest: Vec<u32>,
    /// Blocks to be looked at again.
    stale: Vec<usize>,
}

/// Pools of up to so many are looked at one by one: to begin and to end a vector's loop costs more than they do.
const FEW: usize = 8;

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

/// The score of a block that is to be looked at again: bits of no number that a processor makes.
const DOUBTED: u32 = u32::MAX - 1;

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

    /// Its smallest score, and when the first of those that tie at it is due, whatever the clock says.
    #[inline]
    fn best(&self, costs: &[u32]) -> (u32, u32) {
        let lowest = self.lowest(costs);
        (lowest, self.earliest(costs, bound(lowest), 0))
    }

    /// The earliest due time of those that score at most `bound`.
    #[inline]
    fn earliest<C: Cost>(&self, costs: &[C], bound: u32, clock: u32) -> u32 {
        let mut earliest = u32::MAX;
        for ((cost, scale), due) in costs.iter().zip(&self.scales).zip(&self.dues) {
            let is_above = score(*cost, *scale) > bound;
            earliest = earliest.min(unless(is_above, (*due).max(clock)));
        }
        earliest
    }

    /// The first that scores at most `bound` and is due no later than `due`.
    #[inline]
    fn find<C: Cost>(&self, costs: &[C], bound: u32, due: u32) -> usize {
        let mut first = u32::MAX;
        for (lane, ((cost, scale), own)) in (0..).zip(costs.iter().zip(&self.scales).zip(&self.dues)) {
            let is_other = (score(*cost, *scale) > bound) | (*own > due);
            first = first.min(unless(is_other, lane));
        }
        first as usize
    }
}

/// Bounds a tie at this score.
#[inline]
fn bound(lowest: u32) -> u32 {
    lowest.saturating_add(TOLERANCE).min(NEVER - 1)
}

/// The number, or what is above all numbers. Without a branch in it: compilers would move loads behind that, and then make no
/// vector instructions of the loop.
#[inline]
fn unless(is_out: bool, number: u32) -> u32 {
    number | u32::from(is_out).wrapping_neg()
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

impl Known {
    /// Nothing of so many blocks.
    fn begin(&mut self, blocks: usize) {
        self.forget();
        self.lowest.resize(blocks, DOUBTED);
        self.earliest.resize(blocks, u32::MAX);
        self.stale.extend(0..blocks);
    }

    fn forget(&mut self) {
        self.lowest.clear();
        self.earliest.clear();
        self.stale.clear();
    }

    /// A block is not what it was.
    #[inline]
    fn doubt(&mut self, row: usize) {
        if let Some(lowest) = self.lowest.get_mut(row).filter(|lowest| **lowest != DOUBTED) {
            *lowest = DOUBTED;
            self.stale.push(row);
        }
    }
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
        self.known.forget();
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

    /// [`least`](Turns::least) by requests in flight. These are asked for here, and only where they changed since the last
    /// time; so it takes a time that hardly grows with the pool.
    pub fn least_active(&mut self, pool: &Pool) -> Option<usize> {
        self.ask_active();
        let (index, due) = if pool.attempt() > 0 {
            self.find_among(pool.ready_indices(), &self.active)?
        } else if self.active.len() <= FEW {
            self.find_few()?
        } else {
            self.find_active()?
        };
        self.take(index, due);
        Some(index)
    }

    /// The best of a few by requests in flight, and when it was due: what [`find`](Turns::find) finds among these costs.
    fn find_few(&self) -> Option<(usize, u32)> {
        let block = self.blocks.first()?;
        let (mut scores, mut lowest) = ([NEVER; FEW], NEVER);
        for ((own, cost), scale) in scores.iter_mut().zip(&self.active).zip(&block.scales) {
            *own = score(*cost, *scale);
            lowest = lowest.min(*own);
        }
        if lowest >= NEVER {
            return None;
        }
        let bound = bound(lowest);
        let mut best = (0, u32::MAX);
        for (lane, (own, due)) in scores.into_iter().zip(&block.dues).enumerate() {
            let due = (*due).max(self.clock);
            if own <= bound && due < best.1 {
                best = (lane, due);
            }
        }
        Some(best)
    }

    /// Learns what changed of the requests in flight.
    fn ask_active(&mut self) {
        while !self.known.lowest.is_empty() {
            let told = host::pool::active_changes();
            match told & 3 {
                0 => {}
                1 => self.learn(told >> 4),
                2 => {
                    self.learn(told >> 4);
                    self.learn(told >> 34);
                }
                _ => break,
            }
            if told & 4 == 0 {
                return;
            }
        }
        self.active = host::pool::active_all();
        self.known.begin(self.blocks.len());
    }

    /// The lower 30 bits are a backend's index and its requests in flight.
    #[inline]
    fn learn(&mut self, packed: u64) {
        let (index, active) = ((packed & 0xffff) as usize, (packed >> 16 & 0x3fff) as u32);
        if let Some(own) = self.active.get_mut(index)
            && *own != active
        {
            *own = active;
            self.known.doubt(index / LANES);
        }
    }

    /// The best by requests in flight, and when it was due: what [`find`](Turns::find) finds among these costs.
    fn find_active(&mut self) -> Option<(usize, u32)> {
        let (whole, rest) = self.active.as_chunks::<LANES>();
        while let Some(row) = self.known.stale.pop() {
            let Some(block) = self.blocks.get(row) else {
                continue;
            };
            let (lowest, earliest) = match whole.get(row) {
                Some(costs) => block.best(costs),
                None => block.best(rest),
            };
            (self.known.lowest[row], self.known.earliest[row]) = (lowest, earliest);
        }
        let Known { lowest, earliest, .. } = &self.known;
        let least = lowest.iter().fold(u32::MAX, |least, own| least.min(*own));
        let bound = bound(least);
        if least >= NEVER {
            return None;
        }
        let near = |own: &u32| u32::from((*own > least) & (*own <= bound));
        if lowest.iter().map(near).fold(0, |any, near| any | near) != 0 {
            // Not all that tie in a block tie with the lowest of all.
            let active = std::mem::take(&mut self.active);
            let best = self.find(&active);
            self.active = active;
            return best;
        }
        let of_least = || {
            lowest
                .iter()
                .zip(earliest)
                .map(|(own, due)| unless(*own > least, *due))
        };
        let due = of_least().fold(u32::MAX, u32::min).max(self.clock);
        let row = (0..)
            .zip(of_least())
            .fold(u32::MAX, |first, (row, own)| first.min(unless(own > due, row))) as usize;
        let block = self.blocks.get(row)?;
        let lane = match whole.get(row) {
            Some(costs) => block.find(costs, bound, due),
            None => block.find(rest, bound, due),
        };
        Some((row * LANES + lane, due))
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
        let bound = bound(lowest);
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
        let bound = bound(lowest);
        let tied = scored().filter(|&(score, ..)| score <= bound);
        tied.min_by_key(|&(.., due)| due)
            .map(|(_, index, due)| (index, due))
    }

    fn take(&mut self, index: usize, due: u32) {
        let (block, lane) = (&mut self.blocks[index / LANES], index % LANES);
        block.dues[lane] = due + block.strides[lane];
        self.clock = due;
        self.known.doubt(index / LANES);
        if due > CLOCK_MAX {
            self.known.begin(self.known.lowest.len());
            for block in &mut self.blocks {
                block.dues = block.dues.map(|own| own.saturating_sub(due));
            }
            self.clock = 0;
        }
    }
}

#[cfg(test)]
mod tests;
