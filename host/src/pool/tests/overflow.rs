//! Tiers that share the load: how much each gets, and when none does.

use std::num::NonZeroU32;

use super::*;

/// Four backends in tier 0 and two in tier 1, of which so many are down.
fn with_down(first: usize, second: usize, threshold: u8) -> Pool {
    let now = Instant::now();
    let addresses: Vec<String> = (1..=6).map(|host| format!("10.0.0.{host}:80")).collect();
    let tiers: Vec<(&str, u8)> = addresses
        .iter()
        .enumerate()
        .map(|(at, address)| (address.as_str(), u8::from(at >= 4)))
        .collect();
    let mut config = with_tiers(&tiers);
    config.overflow = NonZeroU32::new(140);
    config.panic_threshold = threshold;
    // One counts twice.
    config.backends[3].weight = 2;
    let pool = pool(config, None, now);
    let down = (0..first).chain(4..4 + second);
    down.for_each(|at| {
        pool.set_down(id(&pool, &addresses[at]), true, now);
    });
    pool
}

/// Percent of the load by weights: of tier 0, and of the backend in it that counts twice.
fn shares(pool: &Pool) -> (f64, f64) {
    let snapshot = pool.snapshot();
    let weights = |keep: &dyn Fn(usize, u8) -> bool| -> f64 {
        let members = snapshot.members.iter().enumerate();
        let kept = members.filter(|(at, member)| member.usable && keep(*at, member.tier));
        kept.map(|(_, member)| f64::from(member.weight)).sum()
    };
    let all = weights(&|_, _| true);
    let share = |part: f64| (part / all * 1000.0).round() / 10.0;
    (
        share(weights(&|_, tier| tier == 0)),
        share(weights(&|at, _| at == 3)),
    )
}

#[test]
fn a_tier_that_is_healthy_enough_takes_all_and_weights_are_those_of_the_file() {
    for down in [0, 1] {
        let pool = with_down(down, 0, 50);
        let snapshot = pool.snapshot();
        let usable = snapshot.members.iter().filter(|member| member.usable);
        let weights: Vec<u32> = usable.map(|member| member.weight).collect();
        assert_eq!(weights, [vec![1; 3 - down], vec![2]].concat(), "{down}");
    }
}

#[test]
fn what_a_tier_cannot_take_goes_to_the_next_by_weight() {
    // Half of it, times 1.4; of that, two parts of three.
    assert_eq!(shares(&with_down(2, 0, 50)), (70.0, 46.7));
    assert_eq!(shares(&with_down(3, 0, 50)), (35.0, 35.0));
    let snapshot = with_down(2, 0, 50).snapshot();
    let told: Vec<u32> = snapshot.members.iter().map(|member| member.configured).collect();
    assert_eq!(told, [1, 1, 1, 2, 1, 1], "operators see what they have set");
    assert!(snapshot.members.iter().all(|member| member.weight <= 65_535));
}

#[test]
fn tiers_that_cannot_take_all_together_share_what_there_is() {
    // 35 and 70 percent are enough; 70 and 30 of 35 would be.
    assert_eq!(shares(&with_down(3, 1, 50)).0, 35.0);
    assert_eq!(shares(&with_down(4, 0, 50)).0, 0.0);
    assert_eq!(usable(&with_down(4, 0, 50)), ["10.0.0.5:80", "10.0.0.6:80"]);
}

#[test]
fn below_the_panic_threshold_it_is_as_without_overflow() {
    let pool = with_down(3, 2, 50);
    assert!(pool.snapshot().in_panic, "35 percent");
    assert_eq!(pool.snapshot().usable, 4);
    assert_eq!(pool.snapshot().members[3].weight, 2);
    let calm = with_down(3, 2, 0);
    assert!(!calm.snapshot().in_panic);
    assert_eq!(usable(&calm), ["10.0.0.4:80"]);
    assert_eq!(with_down(4, 2, 0).snapshot().usable, 0);
}
