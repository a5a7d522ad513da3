//! Hashing without a table: each backend draws a distance to the key, the nearest has it (Thaler and Ravishankar,
//! "Using name-based mappings to increase hit rates", 1998; weighted as by Schindelhauer and Schomaker, 2005).
//!
//! It must give the same answer on every machine, so the logarithm is made of operations that IEEE 754 fixes to the bit.

use super::Ground;

/// The backend that has the key. Only the keys of a backend that leaves move, to all others by weight. Slow start does
/// not count, or keys would move.
pub(super) fn nearest(ground: &Ground<'_>, key: u64) -> Option<usize> {
    let distance = |index: usize| {
        let member = ground.member(index);
        let hash = mix(mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ member.backend.id);
        // 53 random bits as a fraction above 0 and up to 1.
        let fraction = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        minus_ln(fraction) / f64::from(member.weight.max(1))
    };
    let drawn = ground.indices().map(|index| (distance(index), index));
    drawn
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, index)| index)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `-ln(x)` for a normal number of 0 to 1, within 10^-6: the exponent's share, and the series of atanh for the rest.
fn minus_ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];
    let sum = series.iter().fold(0.0, |sum, term| sum * square + term);
    -(f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * t * sum)
}

#[cfg(test)]
mod tests {
    use super::minus_ln;

    #[test]
    fn the_logarithm_is_that_of_the_books() {
        for x in [1.0, 0.999, 0.75, 0.5, 0.1, 1e-9] {
            assert!((minus_ln(x) + f64::ln(x)).abs() < 1e-6, "{x}: {}", minus_ln(x));
        }
    }
}
