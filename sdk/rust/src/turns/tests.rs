//! Whose turn it is: by cost, by capacity, among equals; and that it is the same by blocks and by changes.

use super::{CLOCK_MAX, FEW, LANES, Turns};
use crate::testing::{self, Dice, with_host};

#[test]
fn ties_are_dealt_out_by_weight() {
    let pool = testing::pool(["a", "b"]).weight("a", 3).build();
    let mut turns = Turns::default();
    turns.follow(&pool);
    let picks: Vec<_> = (0..400).filter_map(|_| turns.least(&pool, &[0, 0])).collect();
    assert_eq!(picks.iter().filter(|&&index| index == 0).count(), 300);
}

#[test]
fn the_smallest_cost_for_its_capacity_wins() {
    let pool = testing::pool(["a", "b", "c"]).weight("b", 4).down("c").build();
    let mut turns = Turns::default();
    turns.follow(&pool);
    assert_eq!(turns.least(&pool, &[2, 7, 0]), Some(1));
    assert_eq!(turns.least(&pool, &[2, 9, 0]), Some(0));
}

#[test]
fn equal_ratios_of_unequal_numbers_tie() {
    for weight in 2..1000 {
        let pool = testing::pool(["a", "b"]).weight("b", weight).build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        let costs = [7, 7 * weight];
        assert_eq!(turns.least(&pool, &costs), Some(0), "{weight}");
        assert_eq!(turns.least(&pool, &costs), Some(1), "{weight}");
    }
}

#[test]
fn an_absence_earns_no_burst_of_turns() {
    let pool = testing::pool(["a", "b"]).build();
    let mut turns = Turns::default();
    turns.follow(&pool);
    for _ in 0..100 {
        assert_eq!(turns.least(&pool, &[0, 1]), Some(0));
    }
    let b = (0..10).filter(|_| turns.least(&pool, &[0, 0]) == Some(1)).count();
    assert!((5..=6).contains(&b), "{b}");
}

#[test]
fn the_clock_starts_again_before_it_overflows() {
    let pool = testing::pool(["a", "b"]).build();
    let mut turns = Turns::default();
    turns.follow(&pool);
    turns.clock = CLOCK_MAX + 1;
    let picks: Vec<_> = (0..4).filter_map(|_| turns.least(&pool, &[0, 0])).collect();
    assert_eq!(picks, [0, 1, 0, 1]);
    assert!(turns.clock < CLOCK_MAX);
}

#[test]
fn turns_go_on_when_the_lightest_backend_changes() {
    let names = || testing::pool(["a", "b", "c"]).weight("a", 3).weight("b", 3);
    let mut turns = Turns::default();
    turns.follow(&names().build());
    let first = turns.least(&names().build(), &[0, 0, 9]);
    let ramped = names().ramp("c", 1).build();
    turns.follow(&ramped);
    let picks: Vec<_> = (0..4).filter_map(|_| turns.least(&ramped, &[0, 0, 9])).collect();
    assert_eq!((first, picks), (Some(0), vec![1, 0, 1, 0]));
}

#[test]
fn changes_decide_as_the_whole_column() {
    let mut dice = Dice::new(1);
    for size in [1, 3, FEW, FEW + 1, LANES, LANES + 1, 5 * LANES + 3] {
        let names: Vec<_> = (0..size).map(|index| index.to_string()).collect();
        let (mut by_changes, mut by_column) = (Turns::default(), Turns::default());
        let mut active = vec![0; size];
        with_host(|host| (host.len, host.tells_changes) = (size, true));
        let any = testing::pool(names.clone()).build();
        for round in 0..3000 {
            if round % 300 == 0 {
                let mut pool = testing::pool(names.clone());
                for name in &names {
                    pool = match dice.roll() % 4 {
                        0 => pool.down(name),
                        1 => pool.weight(name, 1 + (dice.roll() % 5) as u32),
                        _ => pool,
                    };
                }
                let pool = pool.build();
                by_changes.follow(&pool);
                by_column.follow(&pool);
            }
            for _ in 0..dice.roll() % [1, 3, 20][round / 100 % 3] {
                active[dice.roll() as usize % size] = (dice.roll() % 3) as u32;
            }
            with_host(|host| host.active.clone_from(&active));
            // Of the pool that is passed, only the attempt counts.
            let (pick, expected) = (by_changes.least_active(&any), by_column.least(&any, &active));
            assert_eq!(pick, expected, "{size}, {round}");
        }
    }
}

#[test]
fn blocks_decide_as_one_by_one() {
    let mut dice = Dice::new(1);
    for size in [1, LANES - 1, LANES, LANES + 1, 5 * LANES + 3] {
        let names: Vec<_> = (0..size).map(|index| index.to_string()).collect();
        let mut pool = testing::pool(names.clone());
        for name in &names {
            pool = match dice.roll() % 4 {
                0 => pool.down(name),
                1 => pool.weight(name, 1 + (dice.roll() % 5) as u32),
                _ => pool,
            };
        }
        let pool = pool.build();
        let mut turns = Turns::default();
        turns.follow(&pool);
        for round in 0..2000 {
            let spread = [1, 3, 200][round % 3];
            let costs: Vec<_> = (0..size).map(|_| (dice.roll() % spread) as u32).collect();
            let expected = turns.find_among(pool.usable_indices(), &costs);
            assert_eq!(turns.find(&costs), expected);
            assert_eq!(turns.least(&pool, &costs), expected.map(|(index, _)| index));
        }
    }
}
