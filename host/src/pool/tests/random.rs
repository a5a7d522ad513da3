//! Random sequences of changes; the seed of a failing one is in its message.

use std::time::{Duration, Instant};

use super::{A, B, C, D, fixture, seconds, with_tiers};
use crate::{
    config,
    pool::{Member, Pool, Snapshot, State},
};

/// SplitMix64: a few lines, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Down,
    Up,
    Eject,
    Drain,
    PutBack,
    Weight,
    Reload,
    Forgive,
    Advance,
}

use Action::{Advance, Down, Drain, Eject, Forgive, PutBack, Reload, Up, Weight};

const ACTIONS: [Action; 10] = [
    Down, Up, Eject, Drain, PutBack, Weight, Reload, Forgive, Advance, Advance,
];

struct World {
    chance: Chance,
    now: Instant,
    pool: Pool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let now = Instant::now();
        let mut config = with_tiers(&[A, B, C, D].map(|address| (address, chance.below(2) as u8)));
        config.panic_threshold = chance.any(&[0, 1, 50, 100]);
        config.slow_start = chance.any(&[seconds(0), seconds(7)]);
        config.health = Some(fixture::health());
        config.outlier.as_mut().expect("default").max_ejected = chance.any(&[0, 50, 100]);
        Self {
            chance,
            now,
            pool: fixture::pool(config, None, now),
        }
    }

    /// Does something to any backend; true if the pool says that this changed something.
    fn act(&mut self, action: Action) -> bool {
        let Self { chance, now, pool } = self;
        let id = pool.snapshot().members[chance.below(4) as usize].backend.id;
        match action {
            Down => pool.set_down(id, true, *now),
            Up => pool.set_down(id, false, *now),
            Eject => pool.eject(id, *now).is_some(),
            Drain => pool.set_draining(id, true, *now).expect("known"),
            PutBack => pool.set_draining(id, false, *now).expect("known"),
            Weight => pool.set_weight(id, chance.below(3) as u32, *now).expect("known"),
            Reload => {
                *pool = fixture::pool(config::Pool::clone(&pool.config), Some(pool), *now);
                true
            }
            Forgive => {
                pool.forgive(id);
                false
            }
            Advance => {
                *now += Duration::from_millis(chance.below(8_000));
                let next = pool.advance(*now);
                assert!(next.is_none_or(|next| next > *now), "a timer in the past");
                false
            }
        }
    }

    /// True if an ejection that has just been made was within the limit.
    fn may_be_ejected(&self) -> bool {
        let snapshot = self.pool.snapshot();
        let out = |member: &&Member| matches!(member.state, State::Ejected { until } if until > self.now);
        let out = snapshot.members.iter().filter(out).count();
        let rule = self.pool.config.outlier.as_ref().expect("default");
        out <= 1 || out * 100 <= usize::from(rule.max_ejected) * 4
    }
}

/// What a pick sees.
fn seen(snapshot: &Snapshot) -> Vec<(State, u32, u8, bool)> {
    let members = snapshot.members.iter();
    members
        .map(|member| (member.state, member.weight, member.ramp, member.usable))
        .collect()
}

fn check_invariants(snapshot: &Snapshot, threshold: u8, context: &str) {
    let candidate = |member: &&Member| member.weight > 0 && member.state != State::Draining;
    let usable: Vec<_> = snapshot.members.iter().filter(|member| member.usable).collect();
    assert_eq!(snapshot.usable, usable.len(), "{context}");
    assert!(
        usable.iter().all(candidate),
        "usable, but no candidate: {context}"
    );
    assert!(
        usable.windows(2).all(|two| two[0].tier == two[1].tier),
        "two tiers serve: {context}"
    );
    let candidates = snapshot.members.iter().filter(candidate).count();
    assert!(
        candidates == 0 || threshold == 0 || !usable.is_empty(),
        "nobody serves: {context}"
    );
    let healthy = usable.iter().all(|member| member.state == State::Ready);
    assert!(
        snapshot.in_panic || healthy,
        "unhealthy backends serve without panic: {context}"
    );
}

#[test]
fn random_changes_keep_the_invariants() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for step in 0..100 {
            let before = world.pool.snapshot();
            let action = world.chance.any(&ACTIONS);
            let changed = world.act(action);
            let after = world.pool.snapshot();
            let context = format!("seed {seed}, step {step}, {action:?}: {after:?}");
            check_invariants(&after, world.pool.config.panic_threshold, &context);
            assert!(
                !matches!(action, Eject) || !changed || world.may_be_ejected(),
                "{context}"
            );
            assert!(after.generation >= before.generation, "{context}");
            let differs = changed || seen(&before) != seen(&after);
            assert!(!differs || after.generation > before.generation, "{context}");
            assert_eq!(after.generation, world.pool.generation(), "{context}");
        }
    }
}
