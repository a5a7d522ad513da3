//! The pool of a standby, which follows that of the node that serves.
//!
//! Owns what of it is believed. Whether a backend answers is seen from where one stands, so each node goes by its own checks; that
//! real requests failed, and what an operator said, only the node knows that served.

use std::time::{Duration, Instant};

use super::{Pool, Slot, Standing};

impl Pool {
    /// Goes on with what the node that serves knows now. True if this changed anything that picks see; then the pool's supervisor has
    /// to hear of it.
    pub fn follow(&self, standings: &[Standing], now: Instant) -> bool {
        let max_ejection = self.config.outlier.as_ref().map(|rule| rule.max_ejection);
        let mut slots = self.lock();
        let mut changed = false;
        for slot in slots.iter_mut() {
            if let Some(known) = standings.iter().find(|known| known.address == slot.spec.address) {
                changed |= slot.follow(known, max_ejection, now);
            }
        }
        if changed {
            self.publish(&slots, now);
        }
        changed
    }
}

impl Slot {
    /// An ejection is taken over once: that it ended here early, by good checks, is this node's own knowledge.
    fn follow(&mut self, known: &Standing, max_ejection: Option<Duration>, now: Instant) -> bool {
        let status = &mut self.status;
        let mut changed = std::mem::replace(&mut status.draining, known.draining) != known.draining;
        if self.spec.weight == known.configured_weight {
            changed |= std::mem::replace(&mut status.weight, known.weight) != known.weight;
        }
        let Some(max_ejection) = max_ejection else {
            return changed;
        };
        let is_news = status.ejections != known.ejections;
        status.ejections = known.ejections;
        if let Some(left_ms) = known.ejected_ms.filter(|left_ms| is_news && *left_ms > 0) {
            status.ejected_until = Some(now + Duration::from_millis(left_ms).min(max_ejection));
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{State, fixture},
        *,
    };

    fn pool(now: Instant) -> Pool {
        let config = fixture::config(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        fixture::pool(config, None, now)
    }

    fn id(pool: &Pool, index: usize) -> u64 {
        pool.snapshot().members[index].backend.id
    }

    #[test]
    fn what_is_ejected_drained_or_weighed_there_is_so_here() {
        let now = Instant::now();
        let (there, here) = (pool(now), pool(now));
        let time = there.eject(id(&there, 0), now).unwrap();
        there.set_draining(id(&there, 1), true, now);
        there.set_weight(id(&there, 2), 7, now);
        let later = now + time / 2;
        assert!(here.follow(&there.standings(later), later));
        let members = &here.snapshot().members;
        let State::Ejected { until } = members[0].state else {
            panic!("{:?}", members[0].state);
        };
        assert!(until <= now + time && until + Duration::from_millis(2) > now + time);
        assert_eq!(members[1].state, State::Draining);
        assert_eq!(members[2].configured, 7);
        assert!(!here.follow(&there.standings(later), later), "nothing new");
        // The next one lasts as much longer as it would have there.
        let end = now + time;
        here.advance(end);
        assert!(here.eject(id(&here, 0), end).unwrap() > time);
        // What an operator takes back is taken back.
        there.set_draining(id(&there, 1), false, end);
        assert!(here.follow(&there.standings(end), end));
        assert_eq!(here.snapshot().members[1].state, State::Ready);
    }

    #[test]
    fn an_ejection_that_ended_here_does_not_begin_again_by_old_news() {
        let now = Instant::now();
        let (there, here) = (pool(now), pool(now));
        there.eject(id(&there, 0), now).unwrap();
        assert!(here.follow(&there.standings(now), now));
        // Good checks put it back.
        here.set_down(id(&here, 0), false, now);
        assert!(!here.follow(&there.standings(now), now));
        assert_eq!(here.snapshot().members[0].state, State::Ready);
        // One that was forgiven, and is ejected anew, is news.
        let then = now + Duration::from_secs(3600);
        there.advance(then);
        there.forgive(id(&there, 0));
        here.follow(&there.standings(then), then);
        there.eject(id(&there, 0), then).unwrap();
        assert!(here.follow(&there.standings(then), then));
        assert!(matches!(here.snapshot().members[0].state, State::Ejected { .. }));
    }
}
