//! The shorter way into `pick`, of components that have one (`compile/shortcut.rs`).
//!
//! Owns what goes along and what comes back in one number. Which way is taken makes no difference to what a guest sees: it
//! is told the same changes, by the host or on the way.

use wasmtime::{
    Store, bail,
    component::{Component, ComponentExportIndex, Instance, TypedFunc},
};

use super::{
    super::{Facts, Tried, bindings::trimtab::policy::pool::Host as _, compile},
    Guest,
};

/// Of the answer's bits: where it is said whether there is an index, and whether the guest took what it was told.
const TAG: u32 = 32;
const TAKEN: u64 = 1 << 40;

/// Where a component has its shorter way.
#[derive(Clone, Copy)]
pub(in crate::policy) struct ShortcutExport {
    index: ComponentExportIndex,
    /// What changed goes along.
    is_told: bool,
}

impl ShortcutExport {
    pub(in crate::policy) fn find(component: &Component) -> Option<Self> {
        let find = |name, is_told| {
            let index = component.get_export_index(None, name)?;
            Some(Self { index, is_told })
        };
        find(compile::SHORTCUT_TOLD, true).or_else(|| find(compile::SHORTCUT, false))
    }
}

/// The arguments of `pick`, and what changed.
type Arguments = (u64, u64, u64, u64, u32, u64, u64);

/// The same of one instance.
pub(super) struct Shortcut {
    function: TypedFunc<Arguments, (u64,)>,
    is_told: bool,
}

impl Shortcut {
    /// An export of the name and another type is the guest's own.
    pub(super) fn of(
        export: Option<ShortcutExport>,
        instance: &Instance,
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Option<Self>> {
        let find = |export: ShortcutExport| {
            Ok(Self {
                function: instance.get_typed_func(store, export.index)?,
                is_told: export.is_told,
            })
        };
        export.map(find).transpose()
    }

    #[inline]
    pub(super) fn pick(
        &self,
        store: &mut Store<Guest>,
        facts: &Facts,
        tried: &Tried,
    ) -> wasmtime::Result<Option<u32>> {
        let guest = store.data_mut();
        let before = guest.known;
        let told = if self.is_told { guest.active_changes() } else { 0 };
        let after = guest.known;
        let (high, low) = ((facts.client >> 64) as u64, facts.client as u64);
        let arguments = (
            facts.key,
            facts.random,
            high,
            low,
            tried.attempts(),
            facts.now_us,
            told,
        );
        let (answer,) = self.function.call(&mut *store, arguments)?;
        let guest = store.data_mut();
        if answer & TAKEN == 0 && guest.known == after {
            guest.known = before;
        }
        match (answer >> TAG) as u8 {
            0 => Ok(None),
            1 => Ok(Some(answer as u32)),
            tag => bail!("`pick` answered an option of kind {tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use trimtab_tests::guest::Guest as Module;

    use super::*;
    use crate::{
        config,
        http1::Head,
        policy::{
            Candidate, Engine, Instance,
            fixture::{builtin, candidate},
        },
        pool::{Figures, View, fixture},
    };

    /// Two instances under the same load, one of which has no shortcut. So many of its answers are the same.
    fn compare(candidate: &Candidate, backends: usize, picks: u64) {
        let addresses: Vec<_> = (0..backends)
            .map(|n| format!("10.0.{}.{}:80", n / 256, n % 256))
            .collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let pool = fixture::pool(fixture::config(&names), None, Instant::now());
        let snapshot = pool.snapshot();
        let start = || {
            let view = Arc::new(View::without_load(&snapshot));
            let owner = super::super::Owner::of(&pool);
            let instance = Instance::start(candidate, &owner, &snapshot, &view).unwrap();
            (instance, view)
        };
        let ((mut short, short_view), (mut long, long_view)) = (start(), start());
        assert!(short.shortcut.is_some(), "{}", candidate.spec.name);
        long.shortcut = None;
        let mut dice = fastrand::Rng::with_seed(backends as u64);
        for number in 0..picks {
            for _ in 0..dice.usize(..[3, 9, 200][number as usize % 3]) {
                let (index, act, active) = (dice.usize(..backends), dice.u8(..9), dice.u32(..9));
                for view in [&short_view, &long_view] {
                    match act {
                        0..4 => view.begin(index),
                        4..8 if view.active(index) > 0 => view.end(index),
                        _ => view.set(
                            index,
                            Figures {
                                active,
                                latency_us: active,
                                throughput: active.into(),
                            },
                        ),
                    }
                }
            }
            let facts = Facts {
                key: dice.u64(..),
                random: dice.u64(..),
                client: dice.u64(..).into(),
                now_us: number,
            };
            let mut head = Head::of("GET", "a", "/x?y=1", [("x-extra", &b"1"[..])]);
            let mut tried = Tried::default();
            if dice.u8(..8) == 0 {
                tried.push(snapshot.members[dice.usize(..backends)].backend.id);
            }
            let mut ask = |instance: &mut Instance| instance.pick(&facts, &tried, &mut head).unwrap();
            assert_eq!(
                ask(&mut short),
                ask(&mut long),
                "{} of {backends}, {number}",
                candidate.spec.name
            );
        }
    }

    #[test]
    fn every_built_in_picks_the_same_by_either_way() {
        let engine = Engine::new().unwrap();
        for name in config::BUILTIN_POLICIES {
            let candidate = builtin(&engine, name);
            for (backends, picks) in [(1, 20), (3, 400), (64, 100), (100, 300)] {
                compare(&candidate, backends, picks);
            }
        }
    }

    #[test]
    fn least_connections_is_told_what_changed_on_the_way() {
        let engine = Engine::new().unwrap();
        let told = |name| builtin(&engine, name).shortcut.unwrap().is_told;
        assert!(told("least-connections"));
        assert!(!told("round-robin"));
    }

    /// Says what it was told last: nothing, as long as it does not ask.
    fn asks_at_times(post: &str) -> Module {
        Module {
            imports: "(import \"trimtab:policy/pool@0.1.1\" \"active-changes\" (func $changes (result i64)))"
                .into(),
            more: format!(
                "(global $told (mut i64) (i64.const 0))
                 (func $ask (result i64) (local $changes i64)
                   (local.set $changes (call $changes))
                   (if (i64.eq (i64.and (local.get $changes) (i64.const 3)) (i64.const 3))
                     (then (call $active_all (i32.const 128))))
                   (local.get $changes))
                 {post}"
            ),
            pick: "(if (i64.eqz (i64.and (local.get $random) (i64.const 3)))
                     (then (global.set $told (call $ask))))
                   (if (i64.eqz (i64.and (local.get $random) (i64.const 12)))
                     (then (global.set $told (i64.xor (global.get $told) (call $ask)))))
                   (call $some (i32.wrap_i64 (i64.xor (global.get $told)
                     (i64.shr_u (global.get $told) (i64.const 32)))))"
                .into(),
            pages: 64,
            ..Module::default()
        }
    }

    #[test]
    fn what_a_guest_did_not_ask_for_it_is_told_the_next_time() {
        let engine = Engine::new().unwrap();
        let candidate = candidate(&engine, "at-times", &asks_at_times("").bare());
        assert!(candidate.shortcut.unwrap().is_told);
        for backends in [3, 90] {
            compare(&candidate, backends, 2000);
        }
    }

    #[test]
    fn what_a_guest_wants_called_after_a_pick_is_called() {
        let engine = Engine::new().unwrap();
        let post = "(func (export \"cabi_post_trimtab:policy/picker@0.1.1#pick\") (param i32)
                      (global.set $told (i64.add (global.get $told) (i64.const 1))))";
        let candidate = candidate(&engine, "post", &asks_at_times(post).bare());
        compare(&candidate, 3, 200);
    }

    #[test]
    fn an_answer_that_is_no_option_is_a_fault() {
        let engine = Engine::new().unwrap();
        for (pick, expected) in [
            (
                "(i32.store8 (i32.const 0) (i32.const 7)) (i32.const 0)",
                "of kind 7",
            ),
            ("(i32.const 2)", "unreachable"),
            ("(i32.const -4)", "out of bounds"),
        ] {
            let module = Module {
                pick: pick.into(),
                ..Module::default()
            };
            let candidate = candidate(&engine, "odd", &module.bare());
            assert!(candidate.shortcut.is_some());
            let pool = fixture::pool(fixture::config(&["127.0.0.1:1"]), None, Instant::now());
            let fault = Instance::build(&candidate, &pool).err().unwrap();
            assert!(fault.message.contains(expected), "{fault}");
        }
    }
}
