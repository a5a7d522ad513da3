//! Requests that a policy cannot stand, and that are not shown to it any more.
//!
//! Owns the memory of which requests the policy failed on, by their fingerprints: the request's method, authority and
//! path, and the same with its query. A fingerprint that failed some times, and not once succeeded in between, is held:
//! its requests skip the policy, all others do not. It must not know what serves the held ones.
//!
//! Invariant: a bounded number of fingerprints; those that are not seen to fail again are forgotten.

use xxhash_rust::xxh3::Xxh3;

use crate::http1::Head;

/// Faults without a success in between that hold a fingerprint. One may be chance, and each costs an instance.
pub(super) const FAULTS_HELD: u32 = 3;
/// Fingerprints remembered by one seat. A decision looks at all of them, while there is one at all.
const SUSPECTS_MAX: usize = 64;
/// How long a fingerprint is held the first time; doubled with every further time, up to the maximum.
const HELD_MIN_US: u64 = 30_000_000;
const HELD_MAX_US: u64 = 600_000_000;
/// A suspect that does not fail again for this long is forgotten.
const SUSPECTED_US: u64 = 10_000_000;

/// What makes two requests alike: not the client, nor header fields, which are other ones each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Method, authority and path.
    path: u64,
    /// And the query; the same as `path` without one.
    query: u64,
}

impl Fingerprint {
    pub(super) fn of(head: &Head) -> Self {
        let mut hash = Xxh3::new();
        for part in [head.method(), head.authority(), head.path()] {
            hash.update(part.as_bytes());
            // No part contains it, so that parts cannot run into each other.
            hash.update(b"\0");
        }
        let path = hash.digest();
        let query = head.query().map_or(path, |query| {
            hash.update(query.as_bytes());
            hash.digest()
        });
        Self { path, query }
    }

    /// The narrow one first.
    fn prints(self) -> [u64; 2] {
        [self.query, self.path]
    }
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    print: u64,
    /// In a row.
    faults: u32,
    /// How often it was held.
    times: u32,
    held_until_us: u64,
    forgotten_us: u64,
}

/// The suspects of one seat.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    suspects: Vec<Suspect>,
}

impl Quarantine {
    /// Whether there is nobody to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// How many fingerprints are held.
    pub(super) fn held(&self, now_us: u64) -> usize {
        let held = self.suspects.iter().filter(|suspect| suspect.is_held(now_us));
        held.count()
    }

    /// Whether such requests are not shown to the policy.
    pub(super) fn holds(&self, fingerprint: Fingerprint, now_us: u64) -> bool {
        let prints = fingerprint.prints();
        self.suspects
            .iter()
            .any(|suspect| prints.contains(&suspect.print) && suspect.is_held(now_us))
    }

    /// The policy failed on such a request. True if it is held from now on. The narrow fingerprint is held if it failed
    /// often enough by itself, otherwise the wide one if that did (with another query each time).
    pub(super) fn blame(&mut self, fingerprint: Fingerprint, now_us: u64) -> bool {
        let [query, path] = fingerprint.prints();
        let is_narrow_held = self.charge(query, now_us);
        if query == path {
            return is_narrow_held;
        }
        if is_narrow_held {
            // That explains the faults of the wide one.
            self.suspects
                .retain(|suspect| suspect.print != path || suspect.times > 0);
            return true;
        }
        self.charge(path, now_us)
    }

    /// One more fault of a fingerprint. One that was held before is held again at once.
    fn charge(&mut self, print: u64, now_us: u64) -> bool {
        let suspect = self.suspect(print, now_us);
        suspect.faults += 1;
        suspect.forgotten_us = suspect.forgotten_us.max(now_us + SUSPECTED_US);
        if suspect.faults < FAULTS_HELD && suspect.times == 0 {
            return false;
        }
        let held_us = (HELD_MIN_US << suspect.times.min(16)).min(HELD_MAX_US);
        suspect.times += 1;
        suspect.faults = 0;
        suspect.held_until_us = now_us + held_us;
        // For as long again, its first fault is one too many.
        suspect.forgotten_us = now_us + 2 * held_us;
        true
    }

    fn suspect(&mut self, print: u64, now_us: u64) -> &mut Suspect {
        let known = self.suspects.iter().position(|suspect| suspect.print == print);
        let place = known.unwrap_or_else(|| {
            let fresh = Suspect {
                print,
                faults: 0,
                times: 0,
                held_until_us: 0,
                forgotten_us: now_us,
            };
            let soonest = (0..self.suspects.len()).min_by_key(|place| self.suspects[*place].forgotten_us);
            match soonest.filter(|_| self.suspects.len() >= SUSPECTS_MAX) {
                Some(place) => {
                    self.suspects[place] = fresh;
                    place
                }
                None => {
                    self.suspects.push(fresh);
                    self.suspects.len() - 1
                }
            }
        });
        &mut self.suspects[place]
    }

    /// The policy answered such a request well. True if it was under suspicion.
    pub(super) fn acquit(&mut self, fingerprint: Fingerprint) -> bool {
        let (prints, before) = (fingerprint.prints(), self.suspects.len());
        self.suspects.retain(|suspect| !prints.contains(&suspect.print));
        self.suspects.len() < before
    }

    /// Forgets what is long ago.
    pub(super) fn sweep(&mut self, now_us: u64) {
        self.suspects.retain(|suspect| suspect.forgotten_us > now_us);
    }
}

impl Suspect {
    fn is_held(&self, now_us: u64) -> bool {
        now_us < self.held_until_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn print(method: &str, target: &str) -> Fingerprint {
        let request = http::Request::builder().method(method).uri(target);
        Fingerprint::of(&Head::from_parts(&request.body(()).unwrap().into_parts().0))
    }

    fn fail_thrice(quarantine: &mut Quarantine, print: Fingerprint, now_us: u64) {
        let held: Vec<_> = (0..3).map(|_| quarantine.blame(print, now_us)).collect();
        assert_eq!(held, [false, false, true]);
    }

    #[test]
    fn a_request_is_held_at_its_third_fault_in_a_row_and_others_are_not() {
        let mut quarantine = Quarantine::default();
        let (death, other) = (print("GET", "/death"), print("POST", "/death"));
        assert!(!quarantine.blame(death, SECOND) && !quarantine.blame(death, SECOND));
        assert!(quarantine.acquit(death));
        assert!(quarantine.is_empty());
        assert!(!quarantine.blame(death, SECOND) && !quarantine.blame(death, SECOND));
        assert!(!quarantine.holds(death, SECOND));
        assert!(quarantine.blame(death, SECOND));
        assert!(quarantine.holds(death, SECOND) && !quarantine.holds(other, SECOND));
        assert_eq!(quarantine.held(SECOND), 1);
    }

    #[test]
    fn the_query_is_to_blame_if_it_is_always_the_same_and_else_the_path() {
        let mut quarantine = Quarantine::default();
        let (death, life) = (print("GET", "/a?death"), print("GET", "/a?life"));
        fail_thrice(&mut quarantine, death, SECOND);
        assert!(quarantine.holds(death, SECOND) && !quarantine.holds(life, SECOND));
        let mut quarantine = Quarantine::default();
        for number in 0..3 {
            quarantine.blame(print("GET", &format!("/a?{number}")), SECOND);
        }
        assert!(quarantine.holds(print("GET", "/a?4"), SECOND));
        assert!(!quarantine.holds(print("GET", "/b?4"), SECOND));
    }

    #[test]
    fn one_that_was_held_is_held_again_at_its_first_fault_and_for_longer() {
        let mut quarantine = Quarantine::default();
        let death = print("GET", "/death");
        fail_thrice(&mut quarantine, death, 0);
        quarantine.sweep(31 * SECOND);
        assert!(quarantine.holds(death, 29 * SECOND) && !quarantine.holds(death, 31 * SECOND));
        assert!(quarantine.blame(death, 31 * SECOND));
        assert!(quarantine.holds(death, 90 * SECOND) && !quarantine.holds(death, 92 * SECOND));
        quarantine.sweep(152 * SECOND);
        assert!(quarantine.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_those_that_are_held_stay_longest() {
        let mut quarantine = Quarantine::default();
        let death = print("GET", "/death");
        fail_thrice(&mut quarantine, death, SECOND);
        for number in 0..1000 {
            quarantine.blame(print("GET", &format!("/{number}")), SECOND + number);
        }
        assert_eq!(quarantine.suspects.len(), SUSPECTS_MAX);
        assert!(quarantine.holds(death, 2 * SECOND));
    }
}
