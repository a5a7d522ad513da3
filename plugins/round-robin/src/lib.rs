//! Takes turns: each request goes to the next backend of the pool, whatever its weight and load.
//!
//! The first turn is random, or all workers (and all balancers after a common restart) would begin with the same
//! backend and move on in step.
//!
//! Cost: constant. Choose it when backends and requests are alike; with weights or slow start `weighted-round-robin`
//! does the same, with unequal requests `least-connections` is better.
//!
//! Settings: none. State: the turn. Source: Nagle, "On packet switches with infinite storage", RFC 970 (1985), took turns this way.
#![forbid(unsafe_code)]

use trimtab_policy::{Stateful, prelude::*, state};

#[derive(Default)]
struct RoundRobin {
    /// The next turn, of a count that never ends; `None` before the first pick.
    turn: Option<u64>,
}

impl Policy for RoundRobin {
    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let ready = pool.ready_indices();
        let turn = *self.turn.get_or_insert(request.random() >> 1);
        self.turn = Some(turn + 1);
        ready
            .get((turn % ready.len().max(1) as u64) as usize)
            .copied()
            .into()
    }
}

impl Stateful for RoundRobin {
    const SCHEMA: &'static str = "cursor/1";

    fn export_state(&self) -> Vec<u8> {
        state::write(self.turn)
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        match state::read(bytes)?[..] {
            [] => {} // it was never asked
            [turn] if turn < u64::MAX => self.turn = Some(turn),
            ref other => return Err(format!("{} numbers are no turn", other.len())),
        }
        Ok(())
    }
}

policy!(RoundRobin, stateful);

#[cfg(test)]
mod tests {
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn everybody_gets_a_turn_in_order() {
        let mut trial = Trial::new(super::native(), pool(["a", "b", "c"]));
        let picks = trial.sequence(6);
        assert!("a b c a b c a b c".contains(&picks), "{picks}");
    }

    #[test]
    fn nobody_who_is_down_gets_a_turn() {
        let mut trial = Trial::new(super::native(), pool(["a", "b", "c"]).down("b"));
        let shares = trial.run(1000);
        assert_eq!(
            (shares.count("a"), shares.count("b"), shares.count("c")),
            (500, 0, 500)
        );
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let mut trial = Trial::new(super::native(), pool(["a", "b"]));
        with_host(|host| host.tried = vec![true, false]);
        for _ in 0..10 {
            let mut facts = trial.facts();
            facts.attempt = 1;
            assert_eq!(trial.ask(facts), Some("b"));
        }
    }

    #[test]
    fn the_next_version_goes_on_where_the_last_one_was() {
        let mut old = Trial::new(super::native(), pool(["a", "b", "c"]));
        old.run(5);
        let mut new = Trial::new(super::native(), pool(["a", "b", "c"]));
        new.pick();
        new.take_over(&old).unwrap();
        assert_eq!(new.sequence(3), old.sequence(3));
    }

    #[test]
    fn what_is_no_turn_is_refused() {
        let mut policy = super::native();
        for bad in [&[1][..], &[0; 16], &[255; 8]] {
            assert!(policy.import_state(bad).is_err(), "{bad:?}");
        }
        assert_eq!(policy.import_state(&[]), Ok(()));
    }

    #[test]
    fn settings_are_refused() {
        assert!(
            super::native()
                .configure(r#"{"weight": 1}"#)
                .unwrap_err()
                .contains("`weight`")
        );
    }
}
