//! A million seconds of bad luck: the protocol under loss, duplication, delay, reordering, drift, freezes and restarts.
//!
//! A run is a row of episodes, each with a seed of its own. An episode begins with a cluster that just started, goes through a
//! storm of faults, and ends in a calm. At every instant of it at most one gate may be open, and only with a majority's votes; in
//! the calm there has to be an active node within two leases, and then it stays. At last all members are to begin anew at once, as in an
//! upgrade in place: they have to do it one after the other, and no lease may lapse meanwhile. Whoever fails is told with its seed.

mod clock;
mod network;
mod storm;
mod world;

use trimtab_cluster::{Mutation, Role, WhenAlone};
use world::{Shape, World};

/// Of simulated time, for each of the four runs below: together a million.
const SECONDS: u64 = 250_000;
/// Where a mutation must have been found: a fifth of a run.
const SECONDS_TO_CATCH: u64 = SECONDS / 5;

const PAIR: Shape = Shape {
    roles: &[Role::Node, Role::Node, Role::Witness],
    when_alone: WhenAlone::Stop,
    mutation: None,
};
const THREE: Shape = Shape {
    roles: &[Role::Node, Role::Node, Role::Node],
    ..PAIR
};
const TWO: Shape = Shape {
    roles: &[Role::Node, Role::Node],
    ..PAIR
};
const FIVE: Shape = Shape {
    roles: &[Role::Node, Role::Node, Role::Node, Role::Witness, Role::Witness],
    ..PAIR
};

/// Runs episodes until so much time has been simulated.
fn run(shape: Shape, first_seed: u64, seconds: u64) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut seed = first_seed;
    while tally.simulated_us < seconds * 1_000_000 {
        let mut world = World::new(shape, seed);
        let outcome = world.episode();
        outcome.map_err(|wrong| format!("seed {seed}: {wrong}"))?;
        tally.simulated_us += world.now_us();
        tally.leases += world.leases;
        tally.steps += world.steps;
        seed += 1;
    }
    eprintln!(
        "{shape:?}: {} s, {} leases, {} steps",
        tally.simulated_us / 1_000_000,
        tally.leases,
        tally.steps
    );
    Ok(tally)
}

#[derive(Debug, Default)]
struct Tally {
    simulated_us: u64,
    leases: u64,
    steps: u64,
}

fn holds(shape: Shape, first_seed: u64) {
    let tally = run(shape, first_seed, SECONDS).unwrap_or_else(|wrong| panic!("{wrong}"));
    // A storm in which nobody ever took over would prove nothing.
    assert!(tally.leases > SECONDS / 20, "{tally:?}");
}

#[test]
fn a_pair_with_a_witness_never_has_two_open_gates() {
    holds(PAIR, 1);
}

#[test]
fn three_nodes_never_have_two_open_gates() {
    holds(THREE, 1 << 20);
}

#[test]
fn two_nodes_that_prefer_safety_never_have_two_open_gates() {
    holds(TWO, 2 << 20);
}

#[test]
fn five_members_never_have_two_open_gates() {
    holds(FIVE, 3 << 20);
}

/// The judge itself: with this bug in the protocol the very same run fails, and says one of these.
fn catches(mutation: Mutation, told: &[&str]) {
    let mutation = Some(mutation);
    let mutant = Shape { mutation, ..PAIR };
    let found = run(mutant, 1, SECONDS_TO_CATCH).expect_err("the simulation sees it");
    eprintln!("{mutation:?}: {found}");
    assert!(told.iter().any(|told| found.contains(told)), "{found}");
}

const DUAL: [&str; 2] = ["open gate", "majority"];

#[test]
fn a_voter_without_silence_is_caught() {
    catches(Mutation::NoSilence, &DUAL);
}

#[test]
fn a_lease_that_counts_from_receipt_is_caught() {
    catches(Mutation::FromReceipt, &DUAL);
}

#[test]
fn a_member_that_begins_anew_when_it_is_needed_is_caught() {
    catches(
        Mutation::PartsAtOnce,
        &["lapsed while members began anew", "nobody was active"],
    );
}

#[test]
fn two_nodes_that_prefer_availability_have_one_again_when_the_network_heals() {
    let shape = Shape {
        when_alone: WhenAlone::Serve,
        ..TWO
    };
    run(shape, 4 << 20, SECONDS_TO_CATCH).unwrap_or_else(|wrong| panic!("{wrong}"));
}
