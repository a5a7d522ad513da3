//! Hashing policies: a change of the pool moves the keys of the backend that changed, and no others. On both builds.

use std::{collections::BTreeMap, sync::Arc};

use trimtab::{
    config,
    policy::{Answer, Facts, Tried},
    pool::Snapshot,
};
use trimtab_policy::{
    hash::mix,
    testing::{Dice, Native},
};

use crate::{
    chance::Chance,
    run::seed,
    sides::{Builds, Side},
    traffic::{Ask, Head},
    world::World,
};

const KEYS: u64 = 1000;
const POOLS: u64 = 10;

#[test]
fn a_change_moves_only_the_keys_of_its_backend_consistent_hash() {
    every_pool("consistent-hash", consistent_hash::native);
}

#[test]
fn a_change_moves_only_the_keys_of_its_backend_content_hash() {
    every_pool("content-hash", content_hash::native);
}

#[test]
fn a_change_moves_only_the_keys_of_its_backend_ip_hash() {
    every_pool("ip-hash", ip_hash::native);
}

fn every_pool(name: &str, native: fn() -> Box<dyn Native>) {
    let mut builds = Builds::new(name, native);
    for number in 0..POOLS {
        let mut dice = Dice::new(seed().wrapping_add(number));
        let size = 2 + dice.below(62);
        let backends = backends(&mut dice, size);
        for side in builds.start("{}", &World::of(backends.clone()).snapshot()) {
            let side_name = side.name();
            let changing = 1 + dice.below(size - 1) as usize;
            let check = KeysOfOne { side, changing };
            if let Err(problem) = check.run(backends.clone()) {
                panic!(
                    "{name}, {side_name}, pool {number} of TRIMTAB_SEED={}: {problem}",
                    seed()
                );
            }
        }
    }
}

/// Weights 1 to 4. The first has 4 and stays, since the heaviest decides how many points all have.
fn backends(dice: &mut Dice, size: u64) -> Vec<config::Backend> {
    let backend = |number| config::Backend {
        address: format!("10.0.0.{number}:80"),
        weight: if number == 0 { 4 } else { 1 + dice.below(4) as u32 },
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    (0..size).map(backend).collect()
}

/// A request whose every part that could be a key depends on this number.
fn keyed(number: u64) -> Ask {
    Ask {
        facts: Facts {
            key: mix(number),
            random: number,
            client: 0xffff_0a00_0000 + u128::from(number),
            now_us: 1_000_000,
        },
        tried: Tried::default(),
        head: Head {
            method: "GET",
            path: format!("/{number}"),
            ..Head::default()
        },
    }
}

struct KeysOfOne {
    side: Box<dyn Side>,
    changing: usize,
}

impl KeysOfOne {
    /// The backend fails, returns, leaves for good and joins again.
    fn run(mut self, backends: Vec<config::Backend>) -> Result<(), String> {
        let mut world = World::of(backends.clone());
        let home = self.owners(&world.snapshot())?;
        let its_id = world.snapshot().members[self.changing].backend.id;

        world.set_down(self.changing, true);
        let failed = self.owners(&world.snapshot())?;
        Self::compare(&home, &failed, its_id).map_err(|problem| format!("after a failure {problem}"))?;
        world.set_down(self.changing, false);
        if self.owners(&world.snapshot())? != home {
            return Err("keys stay away after the return".into());
        }

        let mut without = backends.clone();
        without.remove(self.changing);
        without.reverse();
        world.set_backends(without);
        let left = self.owners(&world.snapshot())?;
        Self::compare(&home, &left, its_id).map_err(|problem| format!("after a removal {problem}"))?;
        world.set_backends(backends);
        if self.owners(&world.snapshot())? != home {
            return Err("keys stay away after the backend joined again".into());
        }
        Ok(())
    }

    /// Each key's backend, by id.
    fn owners(&mut self, snapshot: &Arc<Snapshot>) -> Result<Vec<u64>, String> {
        self.side.update(snapshot)?;
        let mut owner = |number| match self.side.pick(&keyed(number))? {
            Answer::Index(index) => Ok(snapshot.members[index as usize].backend.id),
            other => Err(format!("key {number}: {other:?}")),
        };
        (0..KEYS).map(&mut owner).collect()
    }

    fn compare(before: &[u64], after: &[u64], its_id: u64) -> Result<(), String> {
        let strays = before
            .iter()
            .zip(after)
            .filter(|(was, is)| was != is && **was != its_id);
        match strays.count() {
            0 if after.contains(&its_id) => Err("it still has keys".into()),
            0 => Ok(()),
            count => Err(format!("{count} keys of others move")),
        }
    }
}
