//! The host's own version of a built-in decides what the built-in decides: a guest that delegates the choice among all
//! backends is compared with the component, where the algorithm leaves nothing to chance.

use trimtab::policy::{Answer, Candidate};
use trimtab_tests::guest::Guest;

use crate::{
    chance::Chance,
    run::seed,
    sides::{Side, candidate, compile, component},
    traffic::Ask,
    world::World,
};

const WORLDS: u64 = 20;
const STEPS: u64 = 2000;

/// The built-in, and a guest that leaves everything to the host's version of it.
struct Pair([Candidate; 2]);

impl Pair {
    fn new(name: &str) -> Self {
        let named = Guest {
            text: name.into(),
            ..Guest::default()
        };
        let delegating = Guest {
            pick: named.delegate_all(),
            ..named
        };
        Self([candidate(name), compile(name, &delegating.build())])
    }

    fn start(&self, world: &World) -> [Box<dyn Side>; 2] {
        let snapshot = world.snapshot();
        self.0.each_ref().map(|candidate| component(candidate, &snapshot))
    }
}

fn agree(sides: &mut [Box<dyn Side>; 2], ask: &Ask, told: &str) -> Answer {
    let [builtin, host] = sides.each_mut().map(|side| side.pick(ask).expect("no fault"));
    assert_eq!(builtin, host, "{told}, TRIMTAB_SEED={}, asked {ask:#?}", seed());
    builtin
}

/// Changes the pool and its load as in the comparison of builds; all sides are told.
fn turn(world: &mut World, sides: &mut [Box<dyn Side>; 2]) {
    if world.dice.one_in(30) {
        world.change();
        let snapshot = world.snapshot();
        for side in sides.iter_mut() {
            side.update(&snapshot).expect("no fault");
            for (index, figures) in world.loads().into_iter().enumerate() {
                side.set_load(index, figures);
            }
        }
    }
    for _ in 0..world.dice.below(4) {
        let (index, figures) = world.change_load();
        sides.iter_mut().for_each(|side| side.set_load(index, figures));
    }
}

/// Retries included, up to the one for which nobody is left: there a delegate has nothing to choose.
fn follow_load(name: &str) {
    let pair = Pair::new(name);
    for number in 0..WORLDS {
        let mut world = World::new(seed().wrapping_add(number));
        let mut sides = pair.start(&world);
        let mut ask = Ask::random(&mut world.dice, 0);
        for step in 0..STEPS {
            turn(&mut world, &mut sides);
            let snapshot = world.snapshot();
            let left = |ask: &Ask| {
                let mut members = snapshot.members.iter();
                members.any(|member| member.usable && !ask.tried.contains(member.backend.id))
            };
            if !left(&ask) || world.dice.one_in(2) {
                ask = Ask::random(&mut world.dice, 0);
            }
            if !left(&ask) {
                continue;
            }
            let told = format!("{name} in world {number} at step {step}");
            if let Answer::Index(index) = agree(&mut sides, &ask, &told) {
                ask.tried.push(snapshot.members[index as usize].backend.id);
            }
        }
    }
}

#[test]
fn least_connections_agree() {
    follow_load("least-connections");
}

#[test]
fn least_response_times_agree() {
    follow_load("least-response-time");
}

/// Over a change of the pool both go on taking turns, from another place each.
#[test]
fn round_robins_agree_while_the_pool_stays_the_same() {
    let pair = Pair::new("round-robin");
    for number in 0..WORLDS {
        let mut world = World::new(seed().wrapping_add(number));
        let mut sides = pair.start(&world);
        if world.snapshot().usable == 0 {
            continue;
        }
        for step in 0..STEPS {
            let ask = Ask::random(&mut world.dice, step);
            agree(
                &mut sides,
                &ask,
                &format!("round-robin in world {number} at step {step}"),
            );
        }
    }
}
