//! The rules of [`Pool`], each on a clock that only the test moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Pool, State,
    fixture::{self, config, pool},
};
use crate::config;

mod overflow;
mod random;
mod zones;

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(pool: &Pool, address: &str) -> u64 {
    let snapshot = pool.snapshot();
    snapshot
        .members
        .iter()
        .find(|member| &*member.backend.address == address)
        .expect("configured")
        .backend
        .id
}

fn usable(pool: &Pool) -> Vec<String> {
    let snapshot = pool.snapshot();
    let usable = snapshot.members.iter().filter(|member| member.usable);
    usable.map(|member| member.backend.address.to_string()).collect()
}

fn state(pool: &Pool, address: &str) -> State {
    let snapshot = pool.snapshot();
    snapshot
        .members
        .iter()
        .find(|member| &*member.backend.address == address)
        .expect("configured")
        .state
}

fn with_tiers(tiers: &[(&str, u8)]) -> config::Pool {
    let addresses: Vec<&str> = tiers.iter().map(|(address, _)| *address).collect();
    let mut config = config(&addresses);
    for (backend, (_, tier)) in config.backends.iter_mut().zip(tiers) {
        backend.tier = *tier;
    }
    config
}

#[test]
fn health_is_ignored_only_when_fewer_than_the_threshold_are_ready() {
    let now = Instant::now();
    let pool = pool(config(&[A, B, C, D]), None, now);
    pool.set_down(id(&pool, A), true, now);
    pool.set_down(id(&pool, B), true, now);
    assert_eq!(usable(&pool), [C, D], "half of them is not fewer than 50 percent");
    assert!(!pool.snapshot().in_panic);
    pool.set_down(id(&pool, C), true, now);
    assert_eq!(usable(&pool), [A, B, C, D]);
    assert!(pool.snapshot().in_panic);
}

#[test]
fn a_threshold_of_zero_never_uses_a_backend_that_is_down() {
    let now = Instant::now();
    let pool = pool(
        config::Pool {
            panic_threshold: 0,
            ..config(&[A, B])
        },
        None,
        now,
    );
    pool.set_down(id(&pool, A), true, now);
    assert_eq!(usable(&pool), [B]);
    pool.set_down(id(&pool, B), true, now);
    assert_eq!(pool.snapshot().usable, 0);
    assert!(!pool.snapshot().in_panic);
}

#[test]
fn a_tier_serves_alone_until_too_few_of_it_are_ready() {
    let now = Instant::now();
    let pool = pool(with_tiers(&[(A, 0), (B, 0), (C, 1)]), None, now);
    assert_eq!(usable(&pool), [A, B]);
    pool.set_down(id(&pool, A), true, now);
    assert_eq!(usable(&pool), [B]);
    pool.set_down(id(&pool, B), true, now);
    assert_eq!(usable(&pool), [C]);
    pool.set_down(id(&pool, B), false, now);
    assert_eq!(usable(&pool), [B]);
}

#[test]
fn panic_prefers_a_tier_with_anything_alive() {
    let now = Instant::now();
    let pool = pool(with_tiers(&[(A, 0), (B, 1), (C, 1), (D, 1)]), None, now);
    for address in [A, B, C] {
        pool.set_down(id(&pool, address), true, now);
    }
    assert_eq!(usable(&pool), [B, C, D]);
    pool.set_down(id(&pool, D), true, now);
    assert_eq!(usable(&pool), [A], "with nothing alive anywhere, the first tier");
}

#[test]
fn weight_zero_receives_nothing_even_in_panic() {
    let now = Instant::now();
    let pool = pool(config(&[A, B]), None, now);
    assert_eq!(pool.set_weight(id(&pool, A), 0, now), Some(true));
    assert_eq!(usable(&pool), [B]);
    pool.set_down(id(&pool, B), true, now);
    assert_eq!(usable(&pool), [B], "in panic, but A is no candidate");
    assert_eq!(pool.set_weight(id(&pool, A), 3, now), Some(true));
    assert_eq!(usable(&pool), [A]);
    assert_eq!(pool.snapshot().members[0].weight, 3);
}

#[test]
fn a_draining_backend_receives_nothing_until_it_is_put_back() {
    let now = Instant::now();
    let pool = pool(config(&[A, B]), None, now);
    assert_eq!(pool.set_draining(id(&pool, A), true, now), Some(true));
    assert_eq!(pool.set_draining(id(&pool, A), true, now), Some(false));
    assert_eq!(state(&pool, A), State::Draining);
    pool.set_down(id(&pool, B), true, now);
    assert_eq!(usable(&pool), [B], "in panic, but A is no candidate");
    assert_eq!(pool.set_draining(id(&pool, A), false, now), Some(true));
    assert_eq!(usable(&pool), [A]);
    assert_eq!(pool.set_draining(1, true, now), None);
    assert_eq!(pool.set_weight(1, 1, now), None);
}

#[test]
fn each_ejection_lasts_longer_up_to_the_cap_until_forgiven() {
    let mut now = Instant::now();
    let mut config = config(&[A, B]);
    config.outlier.as_mut().expect("default").max_ejection = seconds(25);
    let pool = pool(config, None, now);
    let a = id(&pool, A);
    for expected in [10, 20, 25, 25] {
        assert_eq!(pool.eject(a, now), Some(seconds(expected)));
        assert_eq!(
            state(&pool, A),
            State::Ejected {
                until: now + seconds(expected)
            }
        );
        assert_eq!(pool.eject(a, now), None, "it is out already");
        assert_eq!(pool.advance(now), Some(now + seconds(expected)));
        now += seconds(expected);
        assert_eq!(pool.advance(now), None);
        assert_eq!(state(&pool, A), State::Ready);
    }
    pool.forgive(a);
    assert_eq!(pool.eject(a, now), Some(seconds(10)));
}

#[test]
fn no_more_are_ejected_than_allowed_but_one_always_may_be() {
    let now = Instant::now();
    let mut config = config(&[A, B, C, D]);
    let half = pool(config.clone(), None, now);
    assert!(half.eject(id(&half, A), now).is_some());
    assert!(half.eject(id(&half, B), now).is_some());
    assert_eq!(half.eject(id(&half, C), now), None);

    config.outlier.as_mut().expect("default").max_ejected = 0;
    let one = pool(config, None, now);
    assert!(one.eject(id(&one, A), now).is_some());
    assert_eq!(one.eject(id(&one, B), now), None);
}

#[test]
fn an_ejection_whose_time_is_over_leaves_room_for_another() {
    let now = Instant::now();
    let pool = pool(config(&[A, B]), None, now);
    assert!(pool.eject(id(&pool, A), now).is_some());
    assert_eq!(pool.eject(id(&pool, B), now), None);
    let later = now + seconds(10);
    assert!(
        pool.eject(id(&pool, B), later).is_some(),
        "although `advance` has not been called yet"
    );
}

#[test]
fn what_gets_nothing_new_is_not_ejected() {
    let now = Instant::now();
    let pool = pool(config(&[A, B]), None, now);
    let (a, b) = (id(&pool, A), id(&pool, B));
    pool.set_draining(a, true, now);
    assert_eq!(pool.eject(a, now), None);
    pool.set_draining(a, false, now);
    assert_eq!(state(&pool, A), State::Ready);
    pool.set_down(b, true, now);
    assert_eq!(pool.eject(b, now), None);
    assert_eq!(pool.eject(1, now), None);
}

#[test]
fn without_outlier_detection_nothing_is_ejected() {
    let now = Instant::now();
    let pool = pool(
        config::Pool {
            outlier: None,
            ..config(&[A, B])
        },
        None,
        now,
    );
    assert_eq!(pool.eject(id(&pool, A), now), None);
}

#[test]
fn good_checks_end_an_ejection_but_do_not_forgive_it() {
    let now = Instant::now();
    let pool = pool(config(&[A, B]), None, now);
    let a = id(&pool, A);
    pool.eject(a, now);
    assert!(pool.set_down(a, false, now));
    assert_eq!(state(&pool, A), State::Ready);
    assert!(!pool.set_down(a, false, now), "nothing left to change");
    assert_eq!(pool.eject(a, now), Some(seconds(20)));
}

#[test]
fn slow_start_ramps_in_ten_steps() {
    let now = Instant::now();
    let pool = pool(
        config::Pool {
            slow_start: seconds(20),
            ..config(&[A, B])
        },
        None,
        now,
    );
    let ramp = || pool.snapshot().members[0].ramp;
    assert_eq!(ramp(), 100, "a backend that never was out does not ramp");
    pool.set_down(id(&pool, A), true, now);
    pool.set_down(id(&pool, A), false, now);
    assert_eq!(ramp(), 10);
    for step in 1..=9 {
        let before = now + seconds(2 * step) - Duration::from_nanos(1);
        assert_eq!(pool.advance(before), Some(now + seconds(2 * step)));
        assert_eq!(u64::from(ramp()), step * 10);
        pool.advance(now + seconds(2 * step));
        assert_eq!(u64::from(ramp()), step * 10 + 10);
    }
    assert_eq!(pool.advance(now + seconds(18)), None);
}

#[test]
fn the_next_step_is_always_there_at_the_time_that_was_given_for_it() {
    for nanos in (1_000_000_001..).step_by(7_654_321).take(300) {
        let start = Instant::now();
        let config = config::Pool {
            slow_start: Duration::from_nanos(nanos),
            ..config(&[A, B])
        };
        let pool = pool(config, None, start);
        pool.set_down(id(&pool, A), true, start);
        pool.set_down(id(&pool, A), false, start);
        let mut now = start;
        while let Some(next) = pool.advance(now) {
            assert!(
                next > now,
                "slow start of {nanos} ns stands still at {:?}",
                now - start
            );
            now = next;
        }
    }
}

#[test]
fn a_reload_keeps_counters_and_condition() {
    let now = Instant::now();
    let config = config::Pool {
        health: Some(fixture::health()),
        ..config(&[A, B, C, D])
    };
    let old = pool(config.clone(), None, now);
    old.set_down(id(&old, A), true, now);
    old.eject(id(&old, B), now);
    old.set_draining(id(&old, C), true, now);
    let mut reloaded = config;
    reloaded.backends.reverse();
    let new = pool(reloaded, Some(&old), now);
    assert_eq!(state(&new, A), State::Down);
    assert_eq!(
        state(&new, B),
        State::Ejected {
            until: now + seconds(10)
        }
    );
    assert_eq!(state(&new, C), State::Draining);
    let same = |index: usize| Arc::as_ptr(&old.snapshot().members[index].backend);
    assert_eq!(same(0), Arc::as_ptr(&new.snapshot().members[3].backend));
}

#[test]
fn an_operators_weight_survives_a_reload_unless_the_file_changes_it() {
    let now = Instant::now();
    let mut config = config(&[A, B]);
    let first = pool(config.clone(), None, now);
    first.set_weight(id(&first, A), 7, now);
    first.set_weight(id(&first, B), 8, now);
    config.backends[1].weight = 2;
    let second = pool(config, Some(&first), now);
    let weights: Vec<u32> = second
        .snapshot()
        .members
        .iter()
        .map(|member| member.weight)
        .collect();
    assert_eq!(weights, [7, 2]);
}

#[test]
fn a_name_that_leads_elsewhere_keeps_only_what_an_operator_said() {
    let now = Instant::now();
    let config = config::Pool {
        health: Some(fixture::health()),
        ..config(&[A, B])
    };
    let old = pool(config.clone(), None, now);
    for address in [A, B] {
        old.set_down(id(&old, address), true, now);
    }
    old.set_draining(id(&old, A), true, now);
    let moved = [C.parse().expect("address"), D.parse().expect("address")];
    let new = Pool::new(config.into(), &moved, 1, Some(&old), now);
    assert_eq!(state(&new, A), State::Draining);
    assert_eq!(state(&new, B), State::Ready);
    assert_eq!(new.snapshot().members[0].backend.socket, moved[0]);
}

#[test]
fn another_number_of_workers_gets_counters_that_fit() {
    let now = Instant::now();
    let old = pool(config(&[A]), None, now);
    old.set_draining(id(&old, A), true, now);
    let new = Pool::new(
        old.config.clone(),
        &[A.parse().expect("address")],
        3,
        Some(&old),
        now,
    );
    assert_eq!(new.snapshot().members[0].backend.loads().count(), 3);
    assert_eq!(state(&new, A), State::Draining);
}

#[test]
fn a_reload_drops_conditions_that_nothing_would_end() {
    let now = Instant::now();
    let config = config::Pool {
        health: Some(fixture::health()),
        ..config(&[A, B])
    };
    let old = pool(config.clone(), None, now);
    old.eject(id(&old, A), now);
    old.set_down(id(&old, B), true, now);
    let new = pool(
        config::Pool {
            health: None,
            outlier: None,
            ..config
        },
        Some(&old),
        now,
    );
    assert_eq!(state(&new, A), State::Ready);
    assert_eq!(state(&new, B), State::Ready);
}

#[test]
fn a_backend_stays_proven_over_reloads() {
    let now = Instant::now();
    let checked = config::Pool {
        health: Some(fixture::health()),
        ..config(&[A, B])
    };
    let first = pool(checked.clone(), None, now);
    first.prove(id(&first, A));
    let second = pool(checked.clone(), Some(&first), now);
    assert!(second.is_proven(id(&second, A)));
    assert!(
        !second.is_proven(id(&second, B)),
        "never checked, in a pool with checks"
    );

    let unchecked = pool(config(&[A]), None, now);
    let later = pool(checked, Some(&unchecked), now);
    assert!(later.is_proven(id(&later, A)), "served while nothing checked it");
    assert!(!later.is_proven(id(&later, B)), "new");
}

#[test]
fn generations_grow_with_every_change_and_over_reloads() {
    let now = Instant::now();
    let first = pool(config(&[A, B]), None, now);
    let a = id(&first, A);
    let mut last = first.generation();
    let mut grew = |pool: &Pool| {
        let grew = pool.generation() > last;
        last = pool.generation();
        assert_eq!(pool.snapshot().generation, last);
        grew
    };
    first.set_weight(a, 5, now);
    assert!(grew(&first));
    first.set_weight(a, 5, now);
    first.forgive(a);
    first.prove(a);
    first.advance(now);
    assert!(!grew(&first), "nothing that a pick sees has changed");
    first.eject(a, now);
    assert!(grew(&first));
    let second = pool(config(&[A, B]), Some(&first), now);
    assert!(grew(&second));
}

#[test]
fn an_id_depends_on_the_address_alone() {
    let now = Instant::now();
    let first = pool(config(&[A, B]), None, now);
    let second = pool(config(&[B, C, A]), None, now);
    assert_eq!(id(&first, A), id(&second, A));
    assert_ne!(id(&first, A), id(&first, B));
    // Policies and other balancers remember it: it may not change with a release either.
    assert_eq!(id(&first, A), 854_217_024_314_646_280);
}

#[test]
fn zones_are_numbered_in_order_of_first_appearance() {
    let mut config = config(&[A, B, C, D]);
    for (backend, zone) in config
        .backends
        .iter_mut()
        .zip([Some("b"), None, Some("b"), Some("a")])
    {
        backend.zone = zone.map(str::to_owned);
    }
    let pool = pool(config, None, Instant::now());
    let zones: Vec<u16> = pool.snapshot().members.iter().map(|member| member.zone).collect();
    assert_eq!(zones, [0, 1, 0, 2]);
}
