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

/// The next changes for a guest that knows what was written up to `known`, as the contract packs them.
#[inline]
pub(super) fn since(known: &mut Option<u64>, view: &View) -> u64 {
    let Some(first) = *known else { return UNKNOWN };
    let writes = view.writes();
    let end = writes.min(first + PLACES.len() as u64);
    let mut told = end - first;
    for (write, place) in (first..end).zip(PLACES) {
        let Some(backend) = view.written(write).and_then(|index| packed(index, view)) else {
            *known = None;
            return UNKNOWN;
        };
        told |= backend << place;
    }
    *known = Some(end);
    if end < writes { told | MORE } else { told }
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
            let (mut known, mut column, mut asked_for_all) = (None, Vec::new(), 0);
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
                    let told = since(&mut known, &view);
                    if told & 3 == UNKNOWN {
                        (known, column) = (Some(view.writes()), view.active_column());
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
            since(&mut Some(view.writes() - 1), &view)
        };
        assert_eq!(tell(16_383), 16_383 << 20 | 1 << 4 | 1);
        assert_eq!(tell(16_384), UNKNOWN);
    }

    #[test]
    fn a_merge_tells_what_it_changed() {
        let addresses: Vec<_> = (0..9).map(|n| format!("10.0.0.{n}:80")).collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let snapshot = fixture::pool(fixture::config(&names), None, Instant::now()).snapshot();
        let view = View::new(&snapshot, 0);
        let mut known = Some(view.writes());
        snapshot.members[7].backend.load(0).begin();
        view.refresh(&snapshot, 10_000);
        assert_eq!(since(&mut known, &view), 1 << 20 | 7 << 4 | 1);
        assert_eq!(since(&mut known, &view), NONE);
    }
}
