//! The comparison: one random world, two builds, equal answers at every step.

use trimtab::policy::Answer;
use trimtab_policy::testing::Native;

use crate::{
    chance::Chance,
    rules,
    sides::{Builds, Side},
    traffic::{Ask, outcomes},
    world::World,
};

/// Picks compared for each policy, ...
const STEPS: u64 = 100_000;
/// ... in so many worlds, each with a fresh instance.
const WORLDS: u64 = 25;
/// The seed unless `TRIMTAB_SEED` names another: the same run every time.
const SEED: u64 = 0x7269_6d74_6162;

/// Whether a policy keeps the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Good,
    /// Breaks them on purpose, but on both sides alike.
    Bad,
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let named = std::env::var("TRIMTAB_SEED").ok();
    named.map_or(SEED, |seed| seed.parse().expect("TRIMTAB_SEED is a number"))
}

/// Compares the two builds of a policy.
///
/// # Panics
/// At the first step where they differ or break a rule.
pub(crate) fn conform(name: &str, native: fn() -> Box<dyn Native>, settings: &[(Conduct, &str)]) {
    let mut builds = Builds::new(name, native);
    for number in 0..WORLDS {
        let (conduct, settings) = settings[number as usize % settings.len()];
        let world = World::new(seed().wrapping_add(number));
        let mut sides = builds.start(settings, &world.snapshot());
        let mut run = Run {
            world,
            conduct,
            retry: None,
        };
        for step in 0..STEPS / WORLDS {
            if let Err(difference) = run.step(&mut sides) {
                let members = &run.world.snapshot().members;
                panic!(
                    "{name} with {settings}: {difference}\nat step {step} of world {number}, TRIMTAB_SEED={}; pool: {members:#?}",
                    seed()
                );
            }
        }
    }
}

struct Run {
    world: World,
    conduct: Conduct,
    /// The next question, if it is another attempt of the last one.
    retry: Option<Ask>,
}

impl Run {
    /// Perhaps a change of the pool, perhaps some outcomes, some new load, then a pick.
    fn step(&mut self, sides: &mut [Box<dyn Side>; 2]) -> Result<(), String> {
        self.world.pass_time();
        if self.world.dice.one_in(30) {
            self.update(sides)?;
        }
        if self.world.dice.one_in(20) {
            let now_us = self.world.now_us;
            let snapshot = self.world.snapshot();
            let outcomes = outcomes(&mut self.world.dice, &snapshot);
            for side in sides.iter_mut() {
                side.observe(&outcomes, now_us)?;
            }
        }
        for _ in 0..self.world.dice.below(4) {
            let (index, figures) = self.world.change_load();
            sides.iter_mut().for_each(|side| side.set_load(index, figures));
        }
        self.pick(sides)
    }

    fn update(&mut self, sides: &mut [Box<dyn Side>; 2]) -> Result<(), String> {
        let before = self.world.snapshot();
        self.world.change();
        let snapshot = self.world.snapshot();
        if snapshot.generation == before.generation {
            return Ok(());
        }
        for side in sides {
            side.update(&snapshot)
                .map_err(|fault| format!("{}: {fault}", side.name()))?;
            for (index, figures) in self.world.loads().into_iter().enumerate() {
                side.set_load(index, figures);
            }
        }
        Ok(())
    }

    fn pick(&mut self, sides: &mut [Box<dyn Side>; 2]) -> Result<(), String> {
        let snapshot = self.world.snapshot();
        let mut ask = match self.retry.take() {
            Some(ask) => ask,
            None => Ask::random(&mut self.world.dice, 0),
        };
        ask.facts.now_us = self.world.now_us;
        let mut answers = Vec::new();
        for side in sides.iter_mut() {
            let name = side.name();
            let wrong = |problem: String| format!("{name}: {problem}\nwhen asked {ask:#?}");
            let answer = side
                .pick(&ask)
                .map_err(|fault| format!("{fault}\nwhen asked {ask:#?}"))?;
            if self.conduct == Conduct::Good {
                rules::check(answer, &ask, &snapshot).map_err(wrong)?;
                if let Answer::Index(index) = answer {
                    side.accept(index, &ask)?;
                }
            }
            answers.push(answer);
        }
        if answers[0] != answers[1] {
            let [native, component] = [answers[0], answers[1]];
            return Err(format!(
                "native answers {native:?}, the component {component:?}\nwhen asked {ask:#?}"
            ));
        }
        self.plan_retry(ask, answers[0]);
        Ok(())
    }

    /// One attempt in four fails, and the request is asked about again.
    fn plan_retry(&mut self, mut ask: Ask, answer: Answer) {
        let snapshot = self.world.snapshot();
        let Answer::Index(index) = answer else { return };
        let Some(member) = snapshot.members.get(index as usize) else {
            return;
        };
        if ask.tried.attempts() < 9
            && self
                .world
                .dice
                .one_in(if ask.tried.attempts() > 0 { 2 } else { 4 })
        {
            ask.tried.push(member.backend.id);
            ask.facts.random = self.world.dice.roll();
            self.retry = Some(ask);
        }
    }
}
