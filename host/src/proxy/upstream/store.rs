//! Unused connections to one backend.
//!
//! Owns their order and their number. It must not know what they speak.
//!
//! Invariant: a connection that began with a word about a client is only ever given out for that client's connection.

use std::{collections::VecDeque, rc::Rc};

use crate::proxy_header::Endpoints;

/// The most recently used at the back, which is taken first, so that surplus ones age at the front.
pub(super) struct Store<C>(VecDeque<Idle<C>>);

struct Idle<C> {
    connection: C,
    /// Elsewhere because it is large and rare: most stores would be several times as long for nothing.
    told: Option<Rc<Endpoints>>,
    since_ms: u64,
}

impl<C> Default for Store<C> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<C> Store<C> {
    #[inline]
    pub(super) fn take(&mut self, told: Option<&Endpoints>) -> Option<C> {
        // Usually nobody is told anything, and the first one looked at fits.
        let at = self.0.iter().rposition(|idle| idle.told.as_deref() == told)?;
        self.0.remove(at).map(|idle| idle.connection)
    }

    /// Keeps a connection, if there are fewer than `keep`.
    #[inline]
    pub(super) fn put(&mut self, connection: C, told: Option<Rc<Endpoints>>, (keep, now_ms): (usize, u64)) {
        if self.0.len() >= keep {
            // Those for clients that have gone would otherwise keep the others out.
            if told.is_none() || keep == 0 {
                return;
            }
            self.0.pop_front();
        }
        self.0.push_back(Idle {
            connection,
            told,
            since_ms: now_ms,
        });
    }

    /// Closes those that are unused since before `oldest_ms`, and those that are not good any more.
    pub(super) fn retain(&mut self, oldest_ms: u64, mut is_good: impl FnMut(&mut C) -> bool) {
        self.0
            .retain_mut(|idle| idle.since_ms >= oldest_ms && is_good(&mut idle.connection));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Closes the one that is unused for the longest time. False if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        self.0.pop_front().is_some()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> Option<Rc<Endpoints>> {
        Some(Rc::new(Endpoints {
            source: ([127, 0, 0, 1], port).into(),
            destination: ([127, 0, 0, 1], 80).into(),
        }))
    }

    #[test]
    fn a_connection_about_a_client_is_for_that_client_only() {
        let mut store = Store::default();
        store.put("of 1", client(1), (8, 0));
        store.put("of 2", client(2), (8, 0));
        store.put("of nobody", None, (8, 0));
        assert_eq!(store.take(client(3).as_deref()), None);
        assert_eq!(store.take(client(1).as_deref()), Some("of 1"));
        assert_eq!(store.take(client(1).as_deref()), None);
        assert_eq!(store.take(None), Some("of nobody"));
        assert_eq!(store.take(None), None);
    }

    #[test]
    fn the_last_one_put_is_the_first_one_taken_and_the_bound_holds() {
        let mut store = Store::default();
        for number in 0..4 {
            store.put(number, None, (2, 0));
        }
        assert_eq!(
            [store.take(None), store.take(None), store.take(None)],
            [Some(1), Some(0), None]
        );
        // Clients come and go, so there the oldest makes room.
        for port in 0..4 {
            store.put(u64::from(port), client(port), (2, 0));
        }
        assert_eq!(store.take(client(0).as_deref()), None);
        assert_eq!(store.take(client(3).as_deref()), Some(3));
        store.put(9, client(9), (0, 0));
        assert_eq!(store.take(client(9).as_deref()), None);
    }

    #[test]
    fn old_and_bad_ones_are_let_go() {
        let mut store = Store::default();
        (0..4).for_each(|number| store.put(number, None, (8, number)));
        store.retain(2, |number| *number != 3);
        assert_eq!([store.take(None), store.take(None)], [Some(2), None]);
    }
}
