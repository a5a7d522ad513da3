//! The clients' connections of a worker, by their keys.
//!
//! Owns how they are kept. It must not know what happens on one.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use crate::proxy::{accept::ListenerState, client::Watch};

/// A client's connection, and whose limits it is under.
pub(in crate::proxy) type Connection = (Rc<Watch>, Rc<ListenerState>);

/// Connections by their keys.
pub(in crate::proxy) type Connections = HashMap<u64, Connection, BuildHasherDefault<ByCount>>;

/// Spreads keys that the worker has counted itself, so that nobody outside can choose them: one multiplication (Knuth, "The
/// Art of Computer Programming", volume 3, 6.4) for what costs two rounds of SipHash otherwise.
#[derive(Default)]
pub(in crate::proxy) struct ByCount(u64);

impl Hasher for ByCount {
    #[inline]
    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    #[test]
    fn keys_in_a_row_are_far_apart_at_both_ends_of_the_hash() {
        let spread = BuildHasherDefault::<ByCount>::default();
        let hashes = || (0..128_u64).map(|key| spread.hash_one(key));
        let low: HashSet<u64> = hashes().map(|hash| hash & 127).collect();
        let high: HashSet<u64> = hashes().map(|hash| hash >> 57).collect();
        assert_eq!(low.len(), 128);
        assert!(high.len() > 100, "{}", high.len());
    }
}
