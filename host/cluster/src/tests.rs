//! The rules, one by one: a few members, and messages carried by hand.

use crate::*;

const H: u64 = 100_000;
const L: u64 = 400_000;
const MARGIN: u64 = 50_000;
/// When a member that started at 0 may first vote and ask.
const AWAKE: u64 = L + MARGIN;

fn settings(me: MemberId) -> Settings {
    let member = |role, priority| Member { role, priority };
    Settings {
        me,
        members: vec![
            member(Role::Node, 200),
            member(Role::Node, 100),
            member(Role::Witness, 0),
        ],
        heartbeat_us: H,
        lease_us: L,
        margin_us: MARGIN,
        when_alone: WhenAlone::Stop,
        unlike: Unlike::Last,
        epoch_floor: 0,
        mutation: None,
    }
}

fn member(me: MemberId) -> Core {
    Core::new(settings(me), 0)
}

fn ask(epoch: u64, round: u64, holds: bool) -> Message {
    Message::Ask(Ask {
        epoch,
        round,
        holds,
        lease_us: L,
    })
}

/// What a member says to another when it hears this.
fn hears(core: &mut Core, now_us: u64, from: MemberId, message: Message) -> Vec<Message> {
    let actions = core.step(now_us, Event::Received(from, message));
    let said = |action| match action {
        Action::Send(_, Message::Beat(_) | Message::Serves(_)) => None,
        Action::Send(to, message) if to == from => Some(message),
        _ => None,
    };
    actions.into_iter().filter_map(said).collect()
}

/// The first node's question, and its round.
fn asked(actions: &[Action]) -> Option<Ask> {
    actions.iter().find_map(|action| match action {
        Action::Send(_, Message::Ask(ask)) => Some(*ask),
        _ => None,
    })
}

/// A node that has the lease with the witness' vote since `AWAKE`.
fn holder() -> (Core, Ask) {
    let mut node = member(0);
    let question = asked(&node.step(AWAKE, Event::Tick)).expect("it asks");
    let round = question.round;
    let actions = node.step(AWAKE + 1_000, Event::Received(2, Message::Grant { round }));
    let until_us = AWAKE + L - MARGIN;
    assert!(
        actions.contains(&Action::Open { epoch: 1, until_us }),
        "counted from sending: {actions:?}"
    );
    (node, question)
}

#[test]
fn a_voter_votes_for_one_node_at_a_time_and_counts_from_receipt() {
    let mut witness = member(2);
    let now_us = AWAKE;
    assert_eq!(
        hears(&mut witness, now_us, 0, ask(1, 7, false)),
        [Message::Grant { round: 7 }]
    );
    assert_eq!(witness.vote(now_us), Some((0, now_us + L)));
    let busy = Refusal::Busy {
        holder: 0,
        wait_us: L - 10,
    };
    let refusal = Message::Refuse {
        round: 9,
        refusal: busy,
    };
    assert_eq!(hears(&mut witness, now_us + 10, 1, ask(2, 9, false)), [refusal]);
    let granted = hears(&mut witness, now_us + L, 1, ask(2, 10, false));
    assert_eq!(granted, [Message::Grant { round: 10 }]);
}

#[test]
fn a_voter_that_has_just_started_is_silent_for_a_lease_and_a_margin() {
    let mut witness = member(2);
    assert_eq!(hears(&mut witness, AWAKE - 1, 0, ask(1, 7, true)), []);
    // It does not vote for another either: the first may have the lease by the votes of others.
    let answer = hears(&mut witness, AWAKE, 1, ask(2, 8, false));
    assert!(matches!(
        answer[..],
        [Message::Refuse {
            refusal: Refusal::Busy { holder: 0, .. },
            ..
        }]
    ));
    assert_eq!(
        hears(&mut witness, AWAKE, 0, ask(1, 8, true)),
        [Message::Grant { round: 8 }]
    );
}

#[test]
fn an_epoch_is_used_once() {
    let mut witness = member(2);
    hears(&mut witness, AWAKE, 0, ask(5, 7, false));
    let stale = Message::Refuse {
        round: 9,
        refusal: Refusal::Stale { seen: 5 },
    };
    assert_eq!(hears(&mut witness, AWAKE + L, 1, ask(5, 9, false)), [stale]);
}

#[test]
fn a_question_that_was_overtaken_brings_no_old_lease_back() {
    let mut witness = member(2);
    hears(&mut witness, AWAKE, 0, ask(5, 7, true));
    hears(&mut witness, AWAKE + 1, 0, ask(6, 9, false));
    assert_eq!(hears(&mut witness, AWAKE + 2, 0, ask(5, 8, true)), []);
    // So the release of the old lease does not take the vote of the new one away.
    let release = Message::Release {
        epoch: 5,
        round: 8,
        to: None,
    };
    hears(&mut witness, AWAKE + 3, 0, release);
    assert_eq!(witness.vote(AWAKE + 3), Some((0, AWAKE + 1 + L)));
}

#[test]
fn the_same_question_twice_is_no_longer_vote() {
    let mut witness = member(2);
    hears(&mut witness, AWAKE, 0, ask(1, 7, true));
    hears(&mut witness, AWAKE + 300_000, 0, ask(1, 7, true));
    assert_eq!(witness.vote(AWAKE + 300_000), Some((0, AWAKE + L)));
}

#[test]
fn a_node_with_a_longer_lease_than_the_voter_gets_no_vote() {
    let mut witness = member(2);
    let longer = Ask {
        epoch: 1,
        round: 7,
        holds: false,
        lease_us: L + 1,
    };
    let refusal = Message::Refuse {
        round: 7,
        refusal: Refusal::Longer,
    };
    assert_eq!(hears(&mut witness, AWAKE, 0, Message::Ask(longer)), [refusal]);
}

#[test]
fn an_active_of_another_list_of_members_keeps_the_vote_from_all_others() {
    let mut node = member(1);
    let foreign = Ask {
        epoch: 1,
        round: 7,
        holds: true,
        lease_us: L,
    };
    node.step(AWAKE, Event::Foreign(0, foreign));
    assert_eq!(
        asked(&node.step(AWAKE + 20_000, Event::Tick)),
        None,
        "it would have asked now"
    );
    let later = asked(&node.step(AWAKE + L + 20_000, Event::Tick));
    assert!(later.is_some(), "nobody was heard for a lease");
}

#[test]
fn a_lease_that_nobody_renews_ends_by_itself_and_is_given_back_when_the_gate_is_closed() {
    let (mut node, _) = holder();
    let over_us = AWAKE + L - MARGIN;
    let actions = node.step(over_us, Event::Tick);
    assert!(actions.contains(&Action::Close(Closing::Lapsed)), "{actions:?}");
    assert_eq!(node.standing(), Standing::Leaving);
    let actions = node.step(over_us + 5, Event::Closed);
    let is_release = |action: &Action| matches!(action, Action::Send(_, Message::Release { epoch: 1, .. }));
    assert_eq!(actions.iter().filter(|action| is_release(action)).count(), 2);
}

#[test]
fn a_grant_that_waited_while_the_node_was_frozen_opens_nothing() {
    let (mut node, question) = holder();
    let thawed_us = AWAKE + 2_000_000;
    let grant = Message::Grant {
        round: question.round,
    };
    let actions = node.step(thawed_us, Event::Received(1, grant));
    assert!(actions.contains(&Action::Close(Closing::Lapsed)), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Open { .. })));
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_before_the_next_heartbeat() {
    let (mut node, first) = holder();
    assert_eq!(node.wake_us(), AWAKE + H);
    let second = asked(&node.step(AWAKE + H, Event::Tick)).expect("it asks");
    assert!(second.round > first.round && second.holds);
    assert_eq!(node.wake_us(), AWAKE + H + H / 4);
}

#[test]
fn the_first_in_rank_asks_first_and_no_higher_priority_takes_a_lease_away() {
    let mut second = member(1);
    assert_eq!(asked(&second.step(AWAKE, Event::Tick)), None);
    assert!(asked(&second.step(AWAKE + H / 5, Event::Tick)).is_some());
    let mut first = member(0);
    first.step(AWAKE - 10, Event::Received(1, ask(1, 7, true)));
    for now_us in [AWAKE, AWAKE + H, AWAKE + 2 * H] {
        assert_eq!(asked(&first.step(now_us, Event::Tick)), None);
        first.step(now_us, Event::Received(1, ask(1, now_us, true)));
    }
}

#[test]
fn a_voter_whose_vote_ends_a_little_later_is_asked_again_then() {
    let mut node = member(1);
    node.step(AWAKE, Event::Received(0, ask(1, 7, true)));
    let free_us = AWAKE + L;
    let question = asked(&node.step(free_us, Event::Tick)).expect("it asks");
    let busy = |wait_us| Message::Refuse {
        round: question.round,
        refusal: Refusal::Busy { holder: 0, wait_us },
    };
    node.step(free_us + 1_000, Event::Received(2, busy(3_000)));
    assert_eq!(node.wake_us(), free_us + 4_000);
    assert!(asked(&node.step(free_us + 4_000, Event::Tick)).is_some());
    // And no later than it would have, whatever it is told.
    let next_us = node.wake_us();
    node.step(free_us + 5_000, Event::Received(2, busy(300_000)));
    assert_eq!(node.wake_us(), next_us);
}

#[test]
fn a_transfer_closes_first_and_lets_the_other_ask_at_once() {
    let (mut node, _) = holder();
    let refused = node.step(AWAKE + 2_000, Event::Transfer(None));
    assert!(
        refused.contains(&Action::NoSuccessor),
        "nobody was heard yet: {refused:?}"
    );
    let fit = Message::Beat(Beat {
        active: false,
        fit: true,
        presence: Presence::Here,
        epoch: 1,
    });
    node.step(AWAKE + 3_000, Event::Received(1, fit));
    let actions = node.step(AWAKE + 4_000, Event::Transfer(None));
    assert_eq!(actions[..], [Action::Close(Closing::Transferred)]);
    let actions = node.step(AWAKE + 5_000, Event::Closed);
    let Some(Action::Send(1, release)) = actions.first().copied() else {
        panic!("{actions:?}")
    };
    // The other had voted for it; now it asks in the same step.
    let mut other = member(1);
    other.step(AWAKE + 1, Event::Received(0, ask(1, 1, false)));
    let Message::Release { to: Some(1), .. } = release else {
        panic!("{release:?}")
    };
    let said = hears(&mut other, AWAKE + 6_000, 0, release);
    assert!(
        matches!(said[..], [Message::Ask(Ask { epoch: 2, .. })]),
        "{said:?}"
    );
    assert!(
        node.wake_us() >= AWAKE + 5 * H,
        "the first rests, but for signs of life"
    );
}

#[test]
fn an_unfit_node_gives_up_and_does_not_ask() {
    let (mut node, _) = holder();
    let actions = node.step(AWAKE + 2_000, Event::Fit(false));
    assert!(actions.contains(&Action::Close(Closing::Unfit)));
    node.step(AWAKE + 3_000, Event::Closed);
    assert_eq!(asked(&node.step(AWAKE + 10 * L, Event::Tick)), None);
    assert!(asked(&node.step(AWAKE + 10 * L + 1, Event::Fit(true))).is_some());
}

#[test]
fn two_nodes_serve_alone_only_if_they_were_told_to() {
    for (when_alone, serves) in [(WhenAlone::Stop, false), (WhenAlone::Serve, true)] {
        let mut two = settings(0);
        two.members.truncate(2);
        two.when_alone = when_alone;
        let mut node = Core::new(two, 0);
        let mut now_us = 0;
        while now_us < 4 * L {
            now_us = node.wake_us();
            node.step(now_us, Event::Tick);
        }
        assert_eq!(
            matches!(node.standing(), Standing::Active { .. }),
            serves,
            "{when_alone:?}"
        );
    }
}

#[test]
fn of_two_that_both_serve_the_older_lease_gives_way() {
    let mut two = settings(0);
    two.members.truncate(2);
    two.when_alone = WhenAlone::Serve;
    let mut node = Core::new(two, 0);
    while !matches!(node.standing(), Standing::Active { .. }) {
        node.step(node.wake_us(), Event::Tick);
    }
    let now_us = node.wake_us() - 1;
    let actions = node.step(now_us, Event::Received(1, ask(9, 7, true)));
    assert!(
        actions.contains(&Action::Close(Closing::Superseded)),
        "{actions:?}"
    );
}

const OURS: Serves = Serves {
    config: 1,
    policies: 1,
};
const OTHERS: Serves = Serves {
    config: 1,
    policies: 2,
};

/// The second node, which has heard that the first is active and serves with `OURS`.
fn standby(unlike: Unlike, serves: Serves) -> Core {
    let settings = Settings {
        unlike,
        ..settings(1)
    };
    let mut node = Core::new(settings, 0);
    node.step(AWAKE - 10, Event::Serves(serves));
    node.step(AWAKE - 10, Event::Received(0, Message::Serves(OURS)));
    node.step(AWAKE, Event::Received(0, ask(1, 7, true)));
    node
}

/// When it asks for the lease, if the first node is not heard any more; and whether it does within ten leases.
fn follows_after_us(mut node: Core) -> Option<u64> {
    let mut now_us = AWAKE;
    while now_us < AWAKE + 10 * L {
        if asked(&node.step(now_us, Event::Tick)).is_some() {
            return Some(now_us - AWAKE);
        }
        now_us = node.wake_us();
    }
    None
}

#[test]
fn a_standby_with_other_policies_follows_later_or_not_at_all() {
    let after_us = |unlike, serves| follows_after_us(standby(unlike, serves));
    assert_eq!(after_us(Unlike::Last, OURS), Some(L));
    assert_eq!(after_us(Unlike::Last, OTHERS), Some(L + H));
    assert_eq!(after_us(Unlike::Never, OURS), Some(L));
    assert_eq!(after_us(Unlike::Never, OTHERS), None);
    assert_eq!(after_us(Unlike::Ignored, OTHERS), Some(L));
}

#[test]
fn a_standby_that_gets_the_same_policies_may_follow_again() {
    let mut node = standby(Unlike::Never, OTHERS);
    assert!(node.lags());
    node.step(AWAKE + 1, Event::Serves(OURS));
    assert!(!node.lags());
    assert!(follows_after_us(node).is_some());
}

#[test]
fn nothing_is_handed_over_to_a_node_with_other_policies_unless_it_is_named() {
    let fit = Message::Beat(Beat {
        active: false,
        fit: true,
        presence: Presence::Here,
        epoch: 1,
    });
    let hand_over = |unlike, to| {
        let (mut node, _) = holder();
        node.settings.unlike = unlike;
        node.step(AWAKE + 2_000, Event::Serves(OURS));
        node.step(AWAKE + 3_000, Event::Received(1, fit));
        node.step(AWAKE + 3_000, Event::Received(1, Message::Serves(OTHERS)));
        let actions = node.step(AWAKE + 4_000, Event::Transfer(to));
        assert_eq!(node.successor(AWAKE + 4_000).is_some(), unlike != Unlike::Never);
        actions.contains(&Action::Close(Closing::Transferred))
    };
    assert!(!hand_over(Unlike::Last, None));
    assert!(hand_over(Unlike::Last, Some(1)));
    assert!(!hand_over(Unlike::Never, Some(1)));
    assert!(hand_over(Unlike::Ignored, None));
}

#[test]
fn a_better_node_is_preferred_when_it_has_been_ready_for_long_enough() {
    let beat = |fit| {
        Message::Beat(Beat {
            active: false,
            fit,
            presence: Presence::Here,
            epoch: 1,
        })
    };
    let (mut node, _) = holder();
    node.settings.members[1].priority = 300;
    let mut hears = |at_us, fit| {
        node.step(AWAKE + at_us, Event::Received(1, beat(fit)));
        node.preferred(AWAKE + at_us, 250_000)
    };
    assert_eq!(hears(2_000, true), None);
    assert_eq!(hears(100_000, true), None);
    assert_eq!(hears(252_000, true), Some(1));
    assert_eq!(hears(253_000, false), None);
    assert_eq!(hears(254_000, true), None, "it begins anew");
    node.settings.members[1].priority = 200;
    assert_eq!(node.preferred(AWAKE + 300_000, 0), None, "it is no better");
}
