//! The clients' connections of a worker, by their keys.
//!
//! Owns how they are kept, and what is counted of them. It must not know what happens on one.

use std::{
    cell::Ref,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use super::WorkerState;
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

impl WorkerState {
    /// Watches a new connection until [`Self::forget`].
    pub(in crate::proxy) fn register(&self, listener: &Rc<ListenerState>) -> (u64, Rc<Watch>) {
        self.metrics().count(|metrics| &metrics.connections);
        let (key, watch) = self.register_stream(listener);
        if self.finishes.get() > 0 {
            watch.stop_with_an_answer();
        }
        (key, watch)
    }

    /// Watches one of many requests on a connection until [`Self::forget_stream`].
    pub(in crate::proxy) fn register_stream(&self, listener: &Rc<ListenerState>) -> (u64, Rc<Watch>) {
        let watch = Rc::new(Watch::new(self.clock.clone()));
        (self.watch(watch.clone(), listener), watch)
    }

    /// The same of one whose watch is there. Gives its key.
    pub(in crate::proxy) fn watch(&self, watch: Rc<Watch>, listener: &Rc<ListenerState>) -> u64 {
        let key = self.next_connection.get();
        self.next_connection.set(key + 1);
        self.connections
            .borrow_mut()
            .insert(key, (watch, listener.clone()));
        key
    }

    pub(in crate::proxy) fn forget_stream(&self, stream: u64) {
        self.connections.borrow_mut().remove(&stream);
    }

    pub(in crate::proxy) fn forget(&self, connection: u64) {
        self.forget_stream(connection);
        self.metrics().count(|metrics| &metrics.connections_closed);
    }

    /// Everything that is watched, by its key.
    pub(in crate::proxy) fn connections(&self) -> Ref<'_, Connections> {
        self.connections.borrow()
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
