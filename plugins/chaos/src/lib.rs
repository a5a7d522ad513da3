//! Misbehaves on purpose: for drills that show how the balancer takes it, and for its tests. Never for real traffic.
//!
//! Every Nth pick commits the fault; the others take turns like `round-robin`.
//!
//! Cost: what the fault costs. Settings: `every` (N, default 1: always) and `fault`:
//! - `none`, the default: none at all.
//! - `trap`: panics.
//! - `spin`: never returns.
//! - `memory`: allocates until the limit stops it.
//! - `bad-index`: picks a backend that does not exist.
//! - `unusable`: picks a backend that is not usable, or one that does not exist while all are.
//!
//! Source: Basiri et al., "Chaos engineering" (2016).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    fault: Fault,
    every: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fault: Fault::None,
            every: 1,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    None,
    Trap,
    Spin,
    Memory,
    BadIndex,
    Unusable,
}

#[derive(Default)]
struct Chaos {
    config: Config,
    picks: u64,
}

impl Fault {
    fn commit(self, honest: Pick, pool: &Pool) -> Pick {
        match self {
            Self::None => honest,
            Self::Trap => panic!("chaos was told to trap"),
            Self::Spin => loop {
                std::hint::spin_loop();
            },
            Self::Memory => hog(),
            Self::BadIndex => pool.len().into(),
            Self::Unusable => pool
                .iter()
                .find(|backend| !backend.is_usable())
                .map_or(pool.len().into(), Pick::from),
        }
    }
}

/// Takes memory until there is no more, which ends the instance.
fn hog() -> Pick {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

impl Policy for Chaos {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        if self.config.every == 0 {
            Err("`every` is 0, but must be at least 1".into())
        } else {
            Ok(())
        }
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        let ready = pool.ready_indices();
        let honest = ready
            .get((self.picks % ready.len().max(1) as u64) as usize)
            .copied()
            .into();
        self.picks += 1;
        let is_due = self.picks.is_multiple_of(self.config.every);
        if is_due {
            self.config.fault.commit(honest, pool)
        } else {
            honest
        }
    }
}

policy!(Chaos);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Dice, Trial, pool};

    fn picks(settings: &str, down: bool) -> Vec<Option<u32>> {
        let mut chaos = native();
        chaos.configure(settings).unwrap();
        let backends = pool(["a", "b"]);
        chaos.update(if down { backends.down("a") } else { backends }.snapshot());
        let mut dice = Dice::new(1);
        (0..4).map(|_| chaos.pick(dice.facts())).collect()
    }

    #[test]
    fn without_a_fault_it_takes_turns() {
        assert_eq!(picks("{}", false), [Some(0), Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn every_nth_pick_is_bad() {
        assert_eq!(
            picks(r#"{"fault": "bad-index", "every": 2}"#, false),
            [Some(0), Some(2), Some(0), Some(2)]
        );
    }

    #[test]
    fn an_unusable_backend_is_picked() {
        assert_eq!(picks(r#"{"fault": "unusable"}"#, true), [Some(0); 4]);
        assert_eq!(picks(r#"{"fault": "unusable"}"#, false), [Some(2); 4]);
    }

    #[test]
    #[should_panic(expected = "chaos was told to trap")]
    fn a_trap_is_a_panic() {
        Trial::configured(native(), r#"{"fault": "trap"}"#, pool(["a"])).pick();
    }

    #[test]
    fn an_unknown_fault_is_refused() {
        assert!(
            native()
                .configure(r#"{"fault": "crash"}"#)
                .unwrap_err()
                .starts_with("`fault`: unknown variant")
        );
        assert!(
            native()
                .configure(r#"{"every": 0}"#)
                .unwrap_err()
                .contains("`every`")
        );
    }
}
