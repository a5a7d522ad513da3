//! What the host's own algorithms choose, and that they always choose.

use std::time::Instant;

use super::*;
use crate::{config::FALLBACKS, pool::Figures, pool::fixture};

struct Stage {
    snapshot: std::sync::Arc<Snapshot>,
    view: View,
    native: Native,
    random: fastrand::Rng,
}

impl Stage {
    /// Backends of these weights.
    fn new(weights: &[u32]) -> Self {
        let addresses: Vec<_> = (1..=weights.len()).map(|n| format!("10.0.0.{n}:80")).collect();
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut config = fixture::config(&names);
        for (backend, weight) in config.backends.iter_mut().zip(weights) {
            backend.weight = *weight;
        }
        let snapshot = fixture::pool(config, None, Instant::now()).snapshot();
        Self {
            view: View::without_load(&snapshot),
            snapshot,
            native: Native::default(),
            random: fastrand::Rng::with_seed(1),
        }
    }

    fn load(&self, index: usize, active: u32, latency_us: u32, throughput: u64) {
        let figures = Figures {
            active,
            latency_us,
            throughput,
        };
        self.view.set(index, figures);
    }

    fn choose(
        &mut self,
        algorithm: Algorithm,
        key: u64,
        tried: &[usize],
        among: Option<&[u32]>,
    ) -> Option<usize> {
        let mut ids = Tried::default();
        tried
            .iter()
            .for_each(|index| ids.push(self.snapshot.members[*index].backend.id));
        let facts = Facts {
            key,
            random: self.random.u64(..),
            client: key.into(),
            now_us: 0,
        };
        let ground = Ground {
            snapshot: &self.snapshot,
            view: &self.view,
            tried: &ids,
            facts: &facts,
            head: &Head::default(),
            among,
        };
        self.native.choose(algorithm, &ground)
    }

    fn counts(&mut self, algorithm: Algorithm, picks: u64) -> Vec<u32> {
        let mut counts = vec![0; self.snapshot.members.len()];
        for key in 0..picks {
            counts[self.choose(algorithm, key, &[], None).unwrap()] += 1;
        }
        counts
    }
}

fn all() -> impl Iterator<Item = Algorithm> {
    FALLBACKS
        .iter()
        .map(|name| Algorithm::named(name).unwrap_or_else(|| panic!("{name} is a fallback and no algorithm")))
}

#[test]
fn somebody_is_chosen_exactly_if_somebody_may_be() {
    for algorithm in all() {
        let mut stage = Stage::new(&[1, 0, 1, 1]);
        for among in [None, Some(&[9, 1, 2, 2, u32::MAX][..])] {
            let chosen = stage.choose(algorithm, 7, &[0, 3], among);
            assert_eq!(chosen, Some(2), "{algorithm:?} among {among:?}");
        }
        for (tried, among) in [
            (&[0, 2, 3][..], None),
            (&[][..], Some(&[1_u32, 9][..])),
            (&[], Some(&[])),
        ] {
            let chosen = stage.choose(algorithm, 7, tried, among);
            assert_eq!(chosen, None, "{algorithm:?} among {among:?}");
        }
    }
}

#[test]
fn chaos_is_no_fallback() {
    assert_eq!(Algorithm::named("chaos"), None);
    assert_eq!(
        FALLBACKS.len() + 1,
        crate::config::BUILTIN_POLICIES.len(),
        "every other built-in is one"
    );
}

#[test]
fn turns_are_taken_by_all_alike_or_by_weight() {
    let mut stage = Stage::new(&[2, 1, 1]);
    let counts = stage.counts(Algorithm::RoundRobin, 300);
    assert_eq!(counts, [100, 100, 100]);
    let counts = Stage::new(&[2, 1, 1]).counts(Algorithm::WeightedRoundRobin, 400);
    assert!(
        counts
            .iter()
            .zip([200_u32, 100, 100])
            .all(|(count, due)| count.abs_diff(due) <= 1),
        "{counts:?}"
    );
}

#[test]
fn turns_within_two_subsets_do_not_disturb_each_other() {
    let mut stage = Stage::new(&[1; 4]);
    let mut counts = [0; 4];
    for pick in 0..100 {
        let among: &[u32] = if pick % 2 == 0 { &[0, 1] } else { &[2, 3] };
        counts[stage.choose(Algorithm::RoundRobin, 0, &[], Some(among)).unwrap()] += 1;
    }
    assert_eq!(counts, [25; 4]);
}

#[test]
fn load_is_followed_relative_to_weight() {
    let mut stage = Stage::new(&[4, 1]);
    stage.load(0, 7, 1000, 7_000_000);
    stage.load(1, 2, 1000, 2_000_000);
    let picks = |stage: &mut Stage, algorithm| stage.counts(algorithm, 200);
    assert_eq!(picks(&mut stage, Algorithm::LeastConnections), [200, 0]);
    assert_eq!(picks(&mut stage, Algorithm::LeastResponseTime), [200, 0]);
    // Of two random draws both may be the same backend.
    for algorithm in [
        Algorithm::RandomTwoChoices,
        Algorithm::PeakEwma,
        Algorithm::LeastBandwidth,
    ] {
        let counts = picks(&mut stage, algorithm);
        assert!(counts[0] > 2 * counts[1], "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn idle_backends_are_shared_by_weight() {
    let counts = Stage::new(&[3, 1]).counts(Algorithm::LeastConnections, 400);
    assert_eq!(counts, [300, 100]);
}

#[test]
fn equal_keys_meet_again_and_only_those_of_a_missing_backend_move() {
    let mut stage = Stage::new(&[1, 1, 2]);
    let all: Vec<_> = (0..4000)
        .map(|key| stage.choose(Algorithm::ConsistentHash, key, &[], None).unwrap())
        .collect();
    let counts: Vec<_> = (0..3)
        .map(|index| all.iter().filter(|own| **own == index).count())
        .collect();
    for (count, due) in counts.iter().zip([1000_usize, 1000, 2000]) {
        assert!(count.abs_diff(due) < 150, "{counts:?}");
    }
    for (key, before) in all.iter().enumerate() {
        let after = stage
            .choose(Algorithm::ConsistentHash, key as u64, &[], Some(&[0, 2]))
            .unwrap();
        assert!(after == *before || *before == 1, "key {key} moved without need");
    }
}
