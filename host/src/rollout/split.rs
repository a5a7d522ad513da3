//! Which requests are a canary's.
//!
//! Owns the share and the choice by hash: the same key is on the same side as long as the share stays, and a larger share
//! keeps all keys of a smaller one.

use super::Arm;

/// The two arms of a canary.
#[derive(Debug)]
pub struct Split {
    /// In thousandths.
    share: u64,
    /// The version in service, while the canary is on trial.
    pub active: Arm,
    /// The canary.
    pub canary: Arm,
}

impl Split {
    /// A canary with this share of the requests (in thousandths), in a pool of so many backends.
    pub fn new(share: u64, workers: usize, backends: usize) -> Self {
        Self {
            share,
            active: Arm::new(workers, backends),
            canary: Arm::new(workers, backends),
        }
    }

    /// The share in thousandths.
    pub fn share(&self) -> u64 {
        self.share
    }

    /// Whether a request with this hash key is the canary's.
    #[inline]
    pub fn takes(&self, key: u64) -> bool {
        // Hash policies take the key as it is, so the split must not be by the same bits.
        let mixed = (key ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (u128::from(mixed) * 1000) >> 64 < u128::from(self.share)
    }
}

/// Whether fresh random bits fall within a share, in thousandths.
#[inline]
pub(super) fn is_sampled(random: u64, share: u64) -> bool {
    (u128::from(random) * 1000) >> 64 < u128::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_grows_without_moving_keys() {
        let splits = [1, 50, 500, 1000].map(|share| Split::new(share, 1, 1));
        let mut taken = [0; 4];
        for key in 0..100_000 {
            let key = xxhash_rust::xxh3::xxh3_64(&u64::to_le_bytes(key));
            let sides = splits.each_ref().map(|split| split.takes(key));
            assert!(sides.is_sorted(), "a larger share has all keys of a smaller one");
            for (count, side) in taken.iter_mut().zip(sides) {
                *count += u32::from(side);
            }
        }
        for (count, expected) in taken.into_iter().zip([100, 5_000, 50_000, 100_000]) {
            assert!(
                count.abs_diff(expected) <= expected / 10 + 30,
                "{count} for {expected}"
            );
        }
    }
}
