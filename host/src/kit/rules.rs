//! The rules that a policy is held to, each with the situations that it is tried in.
//!
//! Owns the list. A rule is metamorphic: it knows no algorithm, but how the answers to related questions must be related.
//! It must not know how a situation that breaks it is made smaller; `shrink.rs` does.
//!
//! Invariant: whether a scene breaks a rule depends on the scene alone.

mod always;
mod bounds;
mod load;
mod random;
mod shares;
mod sticky;

use fastrand::Rng;

use super::{lab::Lab, scene::Scene};
use crate::config::author::{Claims, Fair};

/// A rule.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// What it says, for a person.
    pub(super) says: &'static str,
    pub(super) applies: fn(&Claims) -> bool,
    /// In how many situations it is tried.
    pub(super) scenes: u64,
    /// The situation of this number.
    pub(super) scene: fn(&mut Rng, u64) -> Scene,
    /// What is wrong, if the scene breaks the rule.
    pub(super) check: fn(&Lab, &Claims, &Scene) -> Result<(), String>,
    /// Weights, loads and the first backend are what makes the rule hold, so they must stay as they are.
    pub(super) is_delicate: bool,
}

/// All rules, the simplest first.
pub(super) const RULES: [Rule; 12] = [
    Rule {
        name: "any-pool",
        says: "it survives 0, 1 and 1000 backends, extreme weights and loads, and pools in panic",
        applies: |_| true,
        scenes: always::EXTREMES,
        scene: always::extreme,
        check: always::check,
        is_delicate: false,
    },
    Rule {
        name: "usable",
        says: "it picks backends that are usable, of a weight above 0, and untried while there is one",
        applies: |_| true,
        scenes: 80,
        scene: |dice, _| random::scene(dice),
        check: always::check,
        is_delicate: false,
    },
    Rule {
        name: "repeatable",
        says: "two instances answer the same calls alike",
        applies: |_| true,
        scenes: 10,
        scene: |dice, _| random::scene(dice),
        check: always::repeats,
        is_delicate: false,
    },
    Rule {
        name: "bounded-memory",
        says: "its memory does not grow with the number of requests",
        applies: |_| true,
        scenes: 1,
        scene: bounds::scene,
        check: bounds::memory,
        is_delicate: true,
    },
    Rule {
        name: "bounded-cost",
        says: "ten times the backends cost at most thirty times the instructions",
        applies: |_| true,
        scenes: 1,
        scene: bounds::scene,
        check: bounds::cost,
        is_delicate: true,
    },
    Rule {
        name: "state",
        says: "the next version takes the state that it exports",
        applies: |_| true,
        scenes: 10,
        scene: |dice, _| random::scene(dice),
        check: always::hands_over,
        is_delicate: false,
    },
    Rule {
        name: "order-blind",
        says: "the order of the pool does not matter",
        applies: |claims| claims.order_blind,
        scenes: 40,
        scene: load::untied,
        check: load::order_does_not_matter,
        is_delicate: true,
    },
    Rule {
        name: "follows-load",
        says: "more load never means more requests, and the most loaded gets less than the others",
        applies: |claims| claims.follows_load,
        scenes: 40,
        scene: load::loaded,
        check: load::more_load_is_not_more_picks,
        is_delicate: true,
    },
    Rule {
        name: "sticky",
        says: "requests with equal keys meet, on every balancer",
        applies: |claims| claims.sticky.is_some(),
        scenes: 20,
        scene: sticky::users,
        check: sticky::equal_keys_meet,
        is_delicate: false,
    },
    Rule {
        name: "few-move",
        says: "a backend that leaves, fails or returns moves its own keys only",
        applies: |claims| claims.sticky.is_some(),
        scenes: 15,
        scene: sticky::change,
        check: sticky::only_its_keys_move,
        is_delicate: true,
    },
    Rule {
        name: "fair",
        says: "every backend gets its share of an otherwise idle pool",
        applies: |claims| claims.fair.is_some(),
        scenes: 8,
        scene: shares::weighted,
        check: shares::are_fair,
        is_delicate: true,
    },
    Rule {
        name: "slow-start",
        says: "a backend that came back gets its ramp's part of its share",
        applies: |claims| claims.slow_start && claims.fair == Some(Fair::Weights),
        scenes: 6,
        scene: shares::ramped,
        check: shares::are_fair,
        is_delicate: true,
    },
];

/// A situation of the kind that most rules are tried in.
pub(super) fn corpus(seed: u64) -> Scene {
    random::scene(&mut Rng::with_seed(seed))
}
