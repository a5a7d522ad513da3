//! Backends in the balancer's own zone come first: how much stays, and what goes where.

use super::*;
use crate::pool::Member;

/// A pool whose backends are in these zones, seen from zone `a`. Those at `down` are ill.
fn from_a(zones: &[&str], down: &[usize]) -> Pool {
    seen(zones, down, |_| {})
}

fn seen(zones: &[&str], down: &[usize], change: impl FnOnce(&mut config::Pool)) -> Pool {
    let now = Instant::now();
    let addresses: Vec<String> = (1..=zones.len())
        .map(|host| format!("10.0.0.{host}:80"))
        .collect();
    let tiers: Vec<(&str, u8)> = addresses.iter().map(|address| (address.as_str(), 0)).collect();
    let mut config = with_tiers(&tiers);
    config.zone = Some("a".to_owned());
    config.panic_threshold = 30;
    for (backend, zone) in config.backends.iter_mut().zip(zones) {
        backend.zone = (!zone.is_empty()).then(|| (*zone).to_owned());
    }
    change(&mut config);
    let pool = pool(config, None, now);
    for at in down {
        pool.set_down(id(&pool, &addresses[*at]), true, now);
    }
    pool
}

/// Percent of the load by weights, of each backend.
fn shares(pool: &Pool) -> Vec<f64> {
    let snapshot = pool.snapshot();
    let weight = |member: &Member| f64::from(member.usable) * f64::from(member.weight);
    let all: f64 = snapshot.members.iter().map(weight).sum();
    let share = |member| (weight(member) / all * 1000.0).round() / 10.0;
    snapshot.members.iter().map(share).collect()
}

#[test]
fn a_zone_with_its_part_of_the_backends_serves_itself() {
    assert_eq!(shares(&from_a(&["a", "b"], &[])), [100.0, 0.0]);
    assert_eq!(shares(&from_a(&["a", "a", "b"], &[])), [50.0, 50.0, 0.0]);
    assert_eq!(shares(&from_a(&["b", "a", "c"], &[])), [0.0, 100.0, 0.0]);
    let pool = from_a(&["a", "b"], &[]);
    let snapshot = pool.snapshot();
    assert_eq!(
        (
            snapshot.usable,
            snapshot.members[1].weight,
            snapshot.members[1].configured
        ),
        (2, 1, 1),
        "an attempt that failed in the zone has somewhere to go"
    );
    let choice = from_a(&["a", "a", "b"], &[]);
    assert_eq!(usable(&choice), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(choice.snapshot().members[2].weight, 1);
}

#[test]
fn what_a_zone_lacks_goes_to_those_that_have_more_so_that_all_backends_get_the_same() {
    // A third of what serves, of two zones: two thirds of what comes here.
    assert_eq!(shares(&from_a(&["a", "b", "b"], &[])), [66.7, 16.7, 16.7]);
    assert_eq!(
        shares(&from_a(&["a", "a", "b", "b"], &[1])),
        [66.7, 0.0, 16.7, 16.7]
    );
    // A sixth each would be the part of c, which has none to spare.
    assert_eq!(
        shares(&from_a(&["a", "b", "b", "b", "c", "c"], &[])),
        [50.0, 16.7, 16.7, 16.7, 0.0, 0.0]
    );
    // Weights are capacity.
    let heavy = seen(&["a", "b"], &[], |config| config.backends[1].weight = 3);
    assert_eq!(shares(&heavy), [50.0, 50.0]);
}

#[test]
fn a_zone_that_is_ill_is_still_one_that_clients_come_to() {
    // Three zones, one of them dead: a has a half of what serves and needs a third.
    assert_eq!(shares(&from_a(&["a", "b", "c"], &[2])), [100.0, 0.0, 0.0]);
    // Of four backends in three zones, two are left.
    assert_eq!(
        shares(&from_a(&["a", "b", "b", "b", "c"], &[4])),
        [75.0, 8.3, 8.3, 8.3, 0.0]
    );
}

#[test]
fn without_a_backend_in_the_zone_or_anything_known_of_it_weights_are_those_of_the_file() {
    for (zones, down) in [
        (&["a", "b", "b"][..], &[0][..]),
        (&["b", "c"], &[]),
        (&["", ""], &[]),
        (&["a", "a"], &[]),
        // So few are left that health is ignored, and nobody knows who can serve.
        (&["a", "b", "b", "b"], &[1, 2, 3]),
    ] {
        let pool = from_a(zones, down);
        let snapshot = pool.snapshot();
        assert!(
            snapshot.members.iter().all(|member| member.weight == 1),
            "{zones:?} {down:?}"
        );
    }
    let unaware = seen(&["a", "b"], &[], |config| config.zone = None);
    assert_eq!(shares(&unaware), [50.0, 50.0]);
}

#[test]
fn tiers_that_share_keep_their_shares() {
    let tiered = |down: &[usize]| {
        seen(&["a", "b", "a", "b"], down, |config| {
            config.overflow = std::num::NonZeroU32::new(140);
            config.backends[2].tier = 1;
            config.backends[3].tier = 1;
        })
    };
    assert_eq!(shares(&tiered(&[])), [100.0, 0.0, 0.0, 0.0]);
    // Seventy percent are for the first tier, where only b is left.
    assert_eq!(shares(&tiered(&[0])), [0.0, 70.0, 30.0, 0.0]);
}
