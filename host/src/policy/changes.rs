//! What a guest is told of requests in flight that changed, in place of all of them.
//!
//! Owns what is left to be told to one guest: the writes to its view since those that it knows of. Who writes, `View` knows.
//!
//! Invariant: a guest that has taken `active-all`, and every change since, has the column that `active-all` would give.

use crate::pool::View;

/// Nothing is told, and nothing is left.
pub(super) const NONE: u64 = 0;
/// The guest is to ask for everything.
const UNKNOWN: u64 = 3;
/// Beside how many are told: there are more.
const MORE: u64 = 1 << 2;
/// Where in the number the first and the second backend are.
const PLACES: [u32; 2] = [4, 34];
/// Of a backend's 30 bits, those of its index.
const INDEX_BITS: u32 = 16;
const ACTIVE_BITS: u32 = 14;
/// Pools of up to so many backends are told each of them once, however often it was written.
const MARKED_MAX: usize = u64::BITS as usize;

/// What a guest knows of the requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Up to which of the view's writes; `None` while it knows nothing.
    as_of: Option<u64>,
    /// In a small pool, the backends that it is still to be told of, a bit each.
    marked: u64,
}

impl Known {
    /// Everything, up to this write.
    pub(super) fn until(write: u64) -> Self {
        Self {
            as_of: Some(write),
            marked: 0,
        }
    }

    /// The next changes, as the contract packs them.
    #[inline]
    pub(super) fn next(&mut self, view: &View) -> u64 {
        let told = match self.as_of {
            None => None,
            Some(as_of) if view.len() <= MARKED_MAX => self.next_marked(as_of, view),
            Some(as_of) => self.next_written(as_of, view),
        };
        told.unwrap_or_else(|| {
            *self = Self::default();
            UNKNOWN
        })
    }

    /// `None` if what there is to tell is not remembered, or does not fit.
    #[inline]
    fn next_marked(&mut self, as_of: u64, view: &View) -> Option<u64> {
        let writes = view.writes();
        for write in as_of..writes {
            self.marked |= 1_u64.checked_shl(view.written(write)? as u32)?;
        }
        self.as_of = Some(writes);
        let mut told = 0;
        for place in PLACES {
            if self.marked == 0 {
                break;
            }
            told += 1;
            told |= packed(self.marked.trailing_zeros() as usize, view)? << place;
            self.marked &= self.marked - 1;
        }
        Some(if self.marked == 0 { told } else { told | MORE })
    }

    #[inline]
    fn next_written(&mut self, as_of: u64, view: &View) -> Option<u64> {
        let writes = view.writes();
        let end = writes.min(as_of + PLACES.len() as u64);
        let mut told = end - as_of;
        for (write, place) in (as_of..end).zip(PLACES) {
            told |= packed(view.written(write)?, view)? << place;
        }
        self.as_of = Some(end);
        Some(if end < writes { told | MORE } else { told })
    }
}

/// A backend in 30 bits, if it fits.
#[inline]
fn packed(index: usize, view: &View) -> Option<u64> {
    let (index, active) = (index as u64, u64::from(view.active(index)));
    let fits = index >> INDEX_BITS == 0 && active >> ACTIVE_BITS == 0;
    fits.then_some(active << INDEX_BITS | index)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::pool::{Figures, fixture};

    fn view(size: usize) -> View {
        let addresses: Vec<_> = (0..size)
            .map(|n| format!("10.0.{}.{}:80", n / 256, n % 256))
            .collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        View::without_load(&fixture::pool(fixture::config(&names), None, Instant::now()).snapshot())
    }

    #[test]
    fn changes_lead_to_the_same_column_as_all() {
        for size in [1, 3, 300] {
            let (view, mut dice) = (view(size), fastrand::Rng::with_seed(1));
            let (mut known, mut column, mut asked_for_all) = (Known::default(), Vec::new(), 0);
            for round in 0..400 {
                // At times more than is remembered.
                for _ in 0..dice.usize(..[3, 10, 400][round % 3]) {
                    let index = dice.usize(..size);
                    match dice.u8(..3) {
                        0 => view.begin(index),
                        1 if view.active(index) > 0 => view.end(index),
                        _ => view.set(
                            index,
                            Figures {
                                active: dice.u32(..9),
                                ..Figures::default()
                            },
                        ),
                    }
                }
                loop {
                    let told = known.next(&view);
                    if told & 3 == UNKNOWN {
                        (known, column) = (Known::until(view.writes()), view.active_column());
                        asked_for_all += 1;
                        break;
                    }
                    for place in PLACES.into_iter().take((told & 3) as usize) {
                        let backend = told >> place;
                        column[(backend & 0xffff) as usize] = (backend >> 16 & 0x3fff) as u32;
                    }
                    if told & MORE == 0 {
                        break;
                    }
                }
                assert_eq!(column, view.active_column(), "{size}, {round}");
            }
            // To begin with, and when there was more than is remembered.
            assert!((2..200).contains(&asked_for_all), "{size}: {asked_for_all}");
        }
    }

    #[test]
    fn what_does_not_fit_is_asked_for() {
        let view = view(2);
        let tell = |active| {
            view.set(
                1,
                Figures {
                    active,
                    ..Figures::default()
                },
            );
            Known::until(view.writes() - 1).next(&view)
        };
        assert_eq!(tell(16_383), 16_383 << 20 | 1 << 4 | 1);
        assert_eq!(tell(16_384), UNKNOWN);
    }

    #[test]
    fn a_small_pool_is_told_each_backend_once() {
        let view = view(3);
        let mut known = Known::until(view.writes());
        for _ in 0..20 {
            (0..3).for_each(|index| view.begin(index));
        }
        let of = |index: u64, active: u64| active << INDEX_BITS | index;
        let told = [known.next(&view), known.next(&view), known.next(&view)];
        let first = of(0, 20) << PLACES[0] | of(1, 20) << PLACES[1] | MORE | 2;
        assert_eq!(told, [first, of(2, 20) << PLACES[0] | 1, NONE]);
    }

    #[test]
    fn a_merge_tells_what_it_changed() {
        let addresses: Vec<_> = (0..9).map(|n| format!("10.0.0.{n}:80")).collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let snapshot = fixture::pool(fixture::config(&names), None, Instant::now()).snapshot();
        let view = View::new(&snapshot, 0);
        let mut known = Known::until(view.writes());
        snapshot.members[7].backend.load(0).begin();
        view.refresh(&snapshot, 10_000);
        assert_eq!(known.next(&view), 1 << 20 | 7 << 4 | 1);
        assert_eq!(known.next(&view), NONE);
    }
}
