//! Random choices for a made-up world, all from one seeded sequence.

use trimtab_policy::testing::Dice;

/// What a world draws from its dice.
pub(crate) trait Chance {
    /// A number below `limit`, which is above 0.
    fn below(&mut self, limit: u64) -> u64;

    /// True once in so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

impl Chance for Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
}
