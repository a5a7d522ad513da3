//! Hashing that every balancer agrees on, and the [`Ring`] on which the hashing policies put keys and backends.

use crate::pool::Pool;

/// 2^64 divided by the golden ratio: the increment of SplitMix64, which spreads any counter over all bits.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes 64 bits so that each input bit changes each output bit about half the time: the finalizer of SplitMix64
/// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014; constants of Stafford's variant 13).
#[must_use]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes 128 bits.
#[must_use]
pub const fn pair(hi: u64, lo: u64) -> u64 {
    mix(mix(hi.wrapping_add(GOLDEN)) ^ lo)
}

/// Hashes bytes, eight at a time. Not for keys an attacker may choose in order to collide.
#[must_use]
pub fn bytes(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let seed = mix(GOLDEN ^ bytes.len() as u64);
    let hash = words.iter().fold(seed, |hash, word| {
        mix(hash ^ u64::from_le_bytes(*word)).wrapping_add(GOLDEN)
    });
    mix(hash ^ u64::from_le_bytes(last))
}

/// Most points on a ring: 512 KiB of memory, and about 1 ms to build.
const POINTS_MAX: u64 = 1 << 16;

/// Points of the heaviest backend. Shares then deviate from the weights by about `1/sqrt(512)`, 4 %, and up to 128
/// equal backends fit without scaling down.
const POINTS_EACH: u64 = 1 << 9;

/// Consistent hashing (Karger et al., "Consistent hashing and random trees", STOC 1997): backends own points on a
/// circle, a key belongs to the first point clockwise of it.
///
/// A backend's points depend on its id and weight only, so whoever joins or leaves moves only its own keys, and the
/// ring is the same on every balancer whatever the order of its configuration. A backend that is not usable keeps its
/// points and is walked past, so that a change of health moves only its keys and builds nothing.
///
/// There are `weight * 2^s` points, with the largest `s` that gives the heaviest backend at most 512 and all together
/// at most 65536. Equal backends change `s` only when their number passes 128, 256, 512, ...; at such a step (and when
/// the heaviest weight passes a power of two) the points are halved or doubled and up to half of all keys move.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The points' places in ascending order, and the backend at each.
    places: Vec<u32>,
    owners: Vec<u32>,
    /// Where the points of each bucket begin: a place's bucket is its top bits, and a bucket has one point on average,
    /// which makes the search constant.
    buckets: Vec<u32>,
    shift: u32,
    /// What it was built for.
    ids: Vec<u64>,
    weights: Vec<u32>,
}

impl Ring {
    /// Follows the pool; call it from `update`. Builds only when backends or weights changed: `O(points)`.
    pub fn follow(&mut self, pool: &Pool) {
        if self.ids != pool.ids() || self.weights != pool.weights() {
            *self = Self::build(pool.ids(), pool.weights());
        }
    }

    /// The first backend clockwise of `key` that `accept` takes. Backends come in an order that is fixed per key and
    /// random over keys, so the keys of a refused backend spread over all others; one may be offered more than once.
    /// Constant time while most are accepted.
    pub fn find(&self, key: u64, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        let place = place(key);
        let start = *self.buckets.get((place >> self.shift) as usize)? as usize;
        let first = start
            + self.places[start..]
                .iter()
                .take_while(|&&point| point < place)
                .count();
        let (before, after) = self.owners.split_at(first);
        let mut refused = u32::MAX;
        let owner = after.iter().chain(before).find(|&&owner| {
            let accepted = owner != refused && accept(owner as usize);
            refused = owner;
            accepted
        });
        owner.map(|&owner| owner as usize)
    }

    fn build(ids: &[u64], weights: &[u32]) -> Self {
        let points = scale(weights);
        let total: u64 = points.iter().sum();
        // At least two buckets, so that the shift stays below the width of a place.
        let bits = total.max(2).next_power_of_two().ilog2();
        let shift = u32::BITS - bits;
        let mut ring = Self {
            places: vec![0; total as usize],
            owners: vec![0; total as usize],
            buckets: vec![0; 1 << bits],
            shift,
            ids: ids.to_vec(),
            weights: weights.to_vec(),
        };
        let bucket = |place: u32| (place >> shift) as usize;
        // A counting sort by bucket: places are random, so it does nearly all of the work.
        for (place, _) in all_points(ids, &points) {
            ring.buckets[bucket(place)] += 1;
        }
        let mut ends = ring.buckets.clone();
        let mut sum = 0;
        for (start, end) in ring.buckets.iter_mut().zip(&mut ends) {
            (*start, sum) = (sum, sum + *end);
            *end = *start;
        }
        for (place, owner) in all_points(ids, &points) {
            let end = &mut ends[bucket(place)];
            let start = ring.buckets[bucket(place)] as usize;
            ring.insert(start, *end as usize, place, owner);
            *end += 1;
        }
        ring
    }

    /// Inserts into the sorted run `start..end`. Equal places are ordered by id, not by the order of configuration.
    fn insert(&mut self, start: usize, end: usize, place: u32, owner: u32) {
        let rank = |place: u32, owner: u32| (place, self.ids[owner as usize]);
        let mut at = end;
        while at > start && rank(self.places[at - 1], self.owners[at - 1]) > rank(place, owner) {
            self.places[at] = self.places[at - 1];
            self.owners[at] = self.owners[at - 1];
            at -= 1;
        }
        self.places[at] = place;
        self.owners[at] = owner;
    }
}

/// Where a key or a point lies on the circle. A key is mixed again, because some are hashes and some are addresses.
fn place(key: u64) -> u32 {
    (mix(key) >> 32) as u32
}

/// Each backend's points, as places with the backend's index.
fn all_points(ids: &[u64], points: &[u64]) -> impl Iterator<Item = (u32, u32)> {
    (0..)
        .zip(ids.iter().zip(points))
        .flat_map(|(owner, (&id, &count))| {
            let seed = mix(id);
            (1..=count).map(move |point| (place(seed.wrapping_add(point.wrapping_mul(GOLDEN))), owner))
        })
}

/// How many points each weight gives: none for weight 0, at least one otherwise.
fn scale(weights: &[u32]) -> Vec<u64> {
    let points = |shift: u32| {
        weights
            .iter()
            .map(move |&weight| match (u64::from(weight) * POINTS_EACH) >> shift {
                0 => u64::from(weight > 0),
                points => points,
            })
    };
    let fits = |&shift: &u32| {
        let heaviest = points(shift).max().unwrap_or(0);
        heaviest <= 1 || (heaviest <= POINTS_EACH && points(shift).sum::<u64>() <= POINTS_MAX)
    };
    let shift = (0..u32::BITS).find(fits).unwrap_or(u32::BITS);
    points(shift).collect()
}

#[cfg(test)]
mod tests {
    use super::{Ring, bytes, mix};
    use crate::testing;

    fn ring(names: &[String], weight: impl Fn(usize) -> u32) -> Ring {
        let ids: Vec<u64> = names.iter().map(|name| bytes(name.as_bytes())).collect();
        let weights: Vec<u32> = (0..names.len()).map(weight).collect();
        Ring::build(&ids, &weights)
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("10.0.0.{index}:80")).collect()
    }

    fn owner<'a>(ring: &Ring, names: &'a [String], key: u64) -> &'a str {
        &names[ring.find(mix(key), |_| true).unwrap()]
    }

    #[test]
    fn points_are_in_order_and_complete() {
        for count in [1, 2, 3, 100, 1000] {
            let ring = ring(&names(count), |index| index as u32 % 3);
            assert!(ring.places.is_sorted());
            assert!(ring.places.len() <= 1 << 16);
            assert_eq!(ring.places.len(), ring.owners.len());
        }
    }

    #[test]
    fn keys_are_shared_by_weight() {
        let names = names(10);
        let ring = ring(&names, |index| if index == 0 { 100 } else { 10 });
        let hits = (0..100_000)
            .filter(|&key| owner(&ring, &names, key) == names[0])
            .count();
        let share = hits as f64 / 100_000.0;
        assert!((share - 100.0 / 190.0).abs() < 0.05, "{share}");
    }

    #[test]
    fn a_leaving_backend_moves_only_its_own_keys() {
        let before = names(20);
        let after = before[1..].to_vec();
        let (old, new) = (ring(&before, |_| 1), ring(&after, |_| 1));
        let mut moved = 0;
        for key in 0..20_000 {
            let (was, is) = (owner(&old, &before, key), owner(&new, &after, key));
            assert!(was == is || was == before[0]);
            moved += usize::from(was != is);
        }
        assert!(
            (700..1300).contains(&moved),
            "about 1 of 20 keys moves, not {moved} of 20000"
        );
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter() {
        let forward = names(50);
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        let (a, b) = (ring(&forward, |_| 7), ring(&backward, |_| 7));
        assert!((0..10_000).all(|key| owner(&a, &forward, key) == owner(&b, &backward, key)));
    }

    #[test]
    fn a_refused_backend_is_walked_past() {
        let names = names(4);
        let ring = ring(&names, |_| 1);
        for key in 0..1000 {
            let first = ring.find(key, |_| true);
            let second = ring.find(key, |index| Some(index) != first);
            assert!(second.is_some() && second != first);
        }
        assert_eq!(ring.find(1, |_| false), None);
    }

    #[test]
    fn extreme_weights_and_empty_pools_fit() {
        assert_eq!(Ring::default().find(1, |_| true), None);
        assert_eq!(ring(&names(3), |_| 0).find(1, |_| true), None);
        let heavy = ring(&names(1000), |_| 65_535);
        assert!(heavy.places.len() <= 1 << 16);
        let skewed = ring(&names(2), |index| if index == 0 { 65_535 } else { 1 });
        assert!(skewed.owners.contains(&1), "every weight above 0 has a point");
    }

    #[test]
    fn health_does_not_rebuild_the_ring() {
        let mut ring = Ring::default();
        ring.follow(&testing::pool(["a", "b"]).build());
        let places = ring.places.as_ptr();
        ring.follow(&testing::pool(["a", "b"]).down("a").ramp("b", 10).build());
        assert_eq!(ring.places.as_ptr(), places);
        ring.follow(&testing::pool(["a", "b"]).weight("a", 2).build());
        assert_ne!(ring.places.len(), 1024);
    }

    #[test]
    fn bytes_hash_by_content_and_length() {
        assert_ne!(bytes(b""), bytes(b"\0"));
        assert_ne!(bytes(b"12345678"), bytes(b"12345678\0"));
        assert_eq!(bytes(b"a longer key"), bytes(b"a longer key"));
    }
}
