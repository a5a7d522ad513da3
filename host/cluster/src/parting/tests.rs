//! The rules of parting, one by one, with messages carried by hand. That they keep a lease alive, `tests/simulation` shows.

use crate::*;

const H: u64 = 100_000;
const L: u64 = 400_000;
/// When all members may vote, and the first node is active.
const LATER: u64 = 1_000_000;
const TOLD: u64 = 3 * H;

fn member(me: MemberId) -> Core {
    let member = |role, priority| Member { role, priority };
    let settings = Settings {
        me,
        members: vec![
            member(Role::Node, 200),
            member(Role::Node, 100),
            member(Role::Witness, 0),
        ],
        heartbeat_us: H,
        lease_us: L,
        margin_us: 50_000,
        when_alone: WhenAlone::Stop,
        unlike: Unlike::Last,
        epoch_floor: 0,
        mutation: None,
    };
    Core::new(settings, 0)
}

fn beat(presence: Presence) -> Message {
    Message::Beat(Beat {
        active: false,
        fit: presence == Presence::Here,
        presence,
        epoch: 1,
    })
}

/// The first node goes on with its lease, and the other member says this.
fn is_told(core: &mut Core, now_us: u64, (other, presence): (MemberId, Presence)) -> Vec<Action> {
    let ask = Ask {
        epoch: 1,
        round: now_us,
        holds: true,
        lease_us: L,
    };
    // The question first: its sign of life says that it is active as well.
    let mut actions = core.step(now_us, Event::Received(0, Message::Ask(ask)));
    actions.extend(core.step(now_us, Event::Received(other, beat(presence))));
    actions
}

/// What it told of itself last.
fn told(actions: &[Action]) -> Option<Presence> {
    let mut beats = actions.iter().rev().filter_map(|action| match action {
        Action::Send(_, Message::Beat(beat)) => Some(beat.presence),
        _ => None,
    });
    beats.next()
}

/// A member that was told to part while the first node is active and all are there, and what it said.
fn parting(me: MemberId, other: MemberId) -> Core {
    let mut core = member(me);
    is_told(&mut core, LATER, (other, Presence::Here));
    let actions = core.step(LATER, Event::Part(true));
    assert_eq!(told(&actions), Some(Presence::Parting));
    assert!(!actions.contains(&Action::Part), "nobody can have heard of it");
    core
}

#[test]
fn a_member_that_is_not_needed_tells_it_and_is_silent_for_ever() {
    for (me, other) in [(1, 2), (2, 1)] {
        let mut core = parting(me, other);
        for heartbeat in 1..3 {
            let now_us = LATER + heartbeat * H;
            let actions = is_told(&mut core, now_us, (other, Presence::Here));
            let granted = |action: &Action| matches!(action, Action::Send(0, Message::Grant { .. }));
            assert!(actions.iter().any(granted), "it still votes");
        }
        assert!(core.step(LATER + TOLD, Event::Tick).contains(&Action::Part));
        assert_eq!(is_told(&mut core, LATER + TOLD, (other, Presence::Here)), []);
        assert_eq!(core.wake_us(), u64::MAX);
    }
}

#[test]
fn a_member_that_the_majority_needs_stays() {
    for presence in [Presence::Silent, Presence::Parting] {
        let mut core = member(2);
        is_told(&mut core, LATER, (1, presence));
        core.step(LATER, Event::Part(true));
        for heartbeat in 1..50 {
            let actions = is_told(&mut core, LATER + heartbeat * H, (1, presence));
            assert!(!actions.contains(&Action::Part));
            assert_ne!(told(&actions), Some(Presence::Parting));
        }
        // The other is there again.
        let mut actions = Vec::new();
        for heartbeat in 50..55 {
            actions.extend(is_told(&mut core, LATER + heartbeat * H, (1, Presence::Here)));
        }
        assert!(actions.contains(&Action::Part));
    }
}

#[test]
fn of_two_that_tell_it_at_once_the_second_steps_back_and_the_first_waits_for_that() {
    let (mut first, mut second) = (parting(1, 2), parting(2, 1));
    let at_us = LATER + H / 2;
    let stepped_back = is_told(&mut second, at_us, (1, Presence::Parting));
    assert_eq!(told(&stepped_back), Some(Presence::Here));
    is_told(&mut first, at_us, (2, Presence::Parting));
    let waits = is_told(&mut first, LATER + TOLD, (2, Presence::Parting));
    assert!(!waits.contains(&Action::Part));
    let goes = is_told(&mut first, LATER + TOLD + 1, (2, Presence::Here));
    assert!(goes.contains(&Action::Part));
}

#[test]
fn a_node_that_was_to_part_takes_a_lease_that_is_given_to_it() {
    let mut core = parting(1, 2);
    is_told(&mut core, LATER + H, (2, Presence::Here));
    let release = Message::Release {
        epoch: 1,
        round: LATER + H,
        to: Some(1),
    };
    let actions = core.step(LATER + H + 1, Event::Received(0, release));
    let asks = |action: &Action| matches!(action, Action::Send(_, Message::Ask(ask)) if !ask.holds);
    assert!(actions.iter().any(asks), "{actions:?}");
    assert_eq!(told(&actions), Some(Presence::Here));
    let round = core_round(&actions);
    let actions = core.step(LATER + H + 2, Event::Received(2, Message::Grant { round }));
    assert!(actions.iter().any(|action| matches!(action, Action::Open { .. })));
    // And does not give it back before whoever gave it can have told why.
    is_told_by_others(&mut core, LATER + 2 * H);
    let kept = core.step(LATER + 2 * H, Event::Transfer(None));
    assert!(kept.contains(&Action::NoSuccessor), "{kept:?}");
}

fn core_round(actions: &[Action]) -> u64 {
    let asked = actions.iter().find_map(|action| match action {
        Action::Send(_, Message::Ask(ask)) => Some(ask.round),
        _ => None,
    });
    asked.expect("it asks")
}

fn is_told_by_others(core: &mut Core, now_us: u64) {
    for other in [0, 2] {
        core.step(now_us, Event::Received(other, beat(Presence::Here)));
    }
}

#[test]
fn where_nobody_has_been_active_for_long_there_is_nothing_to_lose() {
    let mut core = member(2);
    let started = core.step(LATER, Event::Part(true));
    assert_eq!(told(&started), Some(Presence::Here));
    let waits = core.step(LATER + 4 * L - 1, Event::Tick);
    assert_ne!(told(&waits), Some(Presence::Parting));
    assert_eq!(
        told(&core.step(LATER + 4 * L, Event::Tick)),
        Some(Presence::Parting)
    );
    assert!(
        core.step(LATER + 4 * L + TOLD, Event::Tick)
            .contains(&Action::Part)
    );
}

#[test]
fn a_member_that_is_told_to_stay_is_as_before() {
    let mut core = parting(1, 2);
    let actions = core.step(LATER + H, Event::Part(false));
    assert_eq!(told(&actions), Some(Presence::Here));
    let actions = is_told(&mut core, LATER + 2 * TOLD, (2, Presence::Here));
    assert!(!actions.contains(&Action::Part));
}

#[test]
fn nothing_is_handed_over_to_a_node_that_has_just_started() {
    let mut core = member(1);
    let silent = core.step(0, Event::Tick);
    assert_eq!(told(&silent), Some(Presence::Silent));
    let says_fit = |action: &Action| matches!(action, Action::Send(_, Message::Beat(beat)) if beat.fit);
    assert!(!silent.iter().any(says_fit));
    // The moment it can ask, it says so.
    assert_eq!(core.wake_us(), L + 50_000);
    assert!(core.step(L + 50_000, Event::Tick).iter().any(says_fit));
}
