//! Random draws by weight in constant time: the alias method of Walker (1977), tables built as by Vose ("A linear
//! algorithm for generating random numbers with a given distribution", 1991), in integers so that every platform
//! draws the same.

use crate::pool::Pool;
use crate::request::Request;

/// Draws backends at random, each as often as its [capacity](Pool::capacities) says. Build it in `update`.
#[derive(Clone, Debug, Default)]
pub struct Lottery {
    tickets: Vec<Ticket>,
}

/// One column of the alias table: `own` wins when the coin (32 bits) falls below `odds`, else `other`.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    odds: u64,
    own: u32,
    other: u32,
}

/// How often a draw that hit an unready backend is repeated before the caller is told to look otherwise. With half of
/// the capacity tried already, eight in a row miss once in 256.
const DRAWS_MAX: u32 = 8;

impl Lottery {
    /// A lottery over the usable backends. `O(n)`.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        let capacities = pool.capacities();
        let total: u64 = capacities.iter().map(|&capacity| u64::from(capacity)).sum();
        let count = pool.usable_indices().len() as u64;
        // What a column holds is scaled so that the mean is `total`: a column below it has room for another backend.
        let (mut small, mut large) = (Vec::new(), Vec::new());
        let mut tickets = Vec::with_capacity(count as usize);
        for &index in pool.usable_indices() {
            let share = u64::from(capacities[index as usize]) * count;
            if share < total { &mut small } else { &mut large }.push((index, share));
        }
        while let (Some(&(own, share)), Some((other, rest))) = (small.last(), large.last_mut()) {
            small.pop();
            tickets.push(Ticket {
                odds: odds(share, total),
                own,
                other: *other,
            });
            *rest -= total - share;
            if *rest < total {
                small.extend(large.pop());
            }
        }
        tickets.extend(large.iter().chain(&small).map(|&(own, _)| Ticket {
            odds: 1 << 32,
            own,
            other: own,
        }));
        Self { tickets }
    }

    /// One draw over all usable backends, whether tried or not; `None` while none is usable.
    #[must_use]
    pub fn draw(&self, request: &Request) -> Option<usize> {
        let random = request.roll();
        let column = ((random >> 32) * self.tickets.len() as u64) >> 32;
        let ticket = self.tickets.get(column as usize)?;
        let wins = random & u64::from(u32::MAX) < ticket.odds;
        Some(if wins { ticket.own } else { ticket.other } as usize)
    }

    /// A backend that is ready for this attempt, and not `other`; `None` when a few draws found none.
    #[must_use]
    pub fn draw_ready(&self, request: &Request, pool: &Pool, other: Option<usize>) -> Option<usize> {
        (0..DRAWS_MAX)
            .map_while(|_| self.draw(request))
            .find(|&index| Some(index) != other && pool.is_ready(index))
    }

    /// Two different backends that are ready for this attempt; the second is `None` when there is no other one, or it
    /// is so light that it was not drawn.
    #[must_use]
    pub fn draw_two(&self, request: &Request, pool: &Pool) -> Option<(usize, Option<usize>)> {
        let ready = pool.ready_indices();
        if let &[a, b] = ready {
            // Two are always the two: drawing would only waste the lighter one.
            return Some((a as usize, Some(b as usize)));
        }
        let first = self
            .draw_ready(request, pool, None)
            .or_else(|| ready.first().map(|&index| index as usize))?;
        Some((first, self.draw_ready(request, pool, Some(first))))
    }
}

/// `share / total` as a 32-bit fraction.
fn odds(share: u64, total: u64) -> u64 {
    ((u128::from(share) << 32) / u128::from(total.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::Lottery;
    use crate::testing::{self, Dice};

    #[test]
    fn draws_follow_the_capacities() {
        let pool = testing::pool(["a", "b", "c", "d"])
            .weight("a", 1)
            .weight("b", 3)
            .weight("c", 6)
            .down("d")
            .build();
        let lottery = Lottery::new(&pool);
        let mut dice = Dice::new(1);
        let mut hits = [0_u32; 4];
        for _ in 0..100_000 {
            hits[lottery.draw(&dice.request()).unwrap()] += 1;
        }
        assert_eq!(hits[3], 0);
        for (hit, want) in hits.iter().zip([10_000, 30_000, 60_000]) {
            assert!(hit.abs_diff(want) < 600, "{hits:?}");
        }
    }

    #[test]
    fn an_empty_pool_draws_nobody() {
        let pool = testing::pool(["a"]).down("a").build();
        assert_eq!(Lottery::new(&pool).draw(&Dice::new(1).request()), None);
    }

    #[test]
    fn two_draws_are_two_backends() {
        let pool = testing::pool(["a", "b", "c"]).build();
        let lottery = Lottery::new(&pool);
        let mut dice = Dice::new(1);
        for _ in 0..1000 {
            let (first, second) = lottery.draw_two(&dice.request(), &pool).unwrap();
            assert_ne!(Some(first), second);
        }
    }
}
