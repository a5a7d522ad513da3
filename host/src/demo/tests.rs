//! The demo from start to end, without a terminal.

use std::{future::pending, time::Duration};

use super::{
    Kind, Options, Screen,
    acts::Act,
    backends::{COUNT, MORTAL, SPARE},
    perform,
    sample::shares,
    screen::tests::Paper,
};

const SLOW: usize = 2;

#[test]
fn every_act_of_a_six_second_demo_shows_its_effect_and_nothing_fails() {
    let paper = Paper::default();
    let mut screen = Screen::new(Box::new(paper.clone()), Kind::Plain);
    let options = Options {
        seconds: Some(6),
        keep: false,
        colour: true,
    };
    let summary = perform(options, &mut screen, pending()).unwrap();
    let text = paper.text();
    println!("{text}");
    assert_eq!(summary.failed, 0);
    let acts: Vec<Act> = summary.acts.iter().map(|act| act.act).collect();
    assert_eq!(acts, Act::ALL);
    let [turns, swap, death, back, trap, calm] = &summary.acts[..] else {
        panic!("six acts");
    };
    assert_eq!(turns.picks[SPARE], 0, "weight 0 gets nothing");
    assert!(
        (30.0..37.0).contains(&shares(turns.picks)[SLOW]),
        "turns are equal"
    );
    assert!(
        shares(swap.picks)[SLOW] + 5.0 < shares(turns.picks)[SLOW],
        "the slow one gets less"
    );
    assert!(swap.picks[SPARE] > 0, "the spare one joins");
    assert_eq!(summary.picks_while_out, Some(0), "the dead one gets nothing");
    assert!(death.picks[MORTAL] < back.picks[MORTAL], "the dead one returns");
    assert!(trap.faults > 0, "the trapping policy traps");
    let refusal = summary.refusal.unwrap();
    assert!(
        refusal.contains("policy.trapping") && refusal.contains("wasm trap"),
        "{refusal}"
    );
    for act in &summary.acts {
        let (answers, picks): (u64, u64) = (act.answers.iter().sum(), act.picks.iter().sum());
        assert_eq!(answers + act.failed, act.requests);
        assert!(picks > 0, "{:?}", act.act);
    }
    for index in (0..COUNT).filter(|index| *index != MORTAL) {
        // Both are read within a tick, and what is under way at either end is in one of the two only.
        let under_way = 64;
        assert!(
            calm.answers[index].abs_diff(calm.picks[index]) <= under_way,
            "{calm:?}"
        );
    }
    assert!(!text.contains('\x1b'), "no escape codes without a terminal");
    for act in Act::ALL {
        assert!(text.contains(&act.title().to_uppercase()), "{}", act.title());
    }
}

#[test]
fn an_interrupted_demo_sums_up_what_it_has_shown() {
    let mut screen = Screen::new(Box::new(Paper::default()), Kind::Plain);
    // Made on the demo's runtime, which has the clock.
    let interrupt = async { tokio::time::sleep(Duration::from_millis(300)).await };
    let keep = Options {
        seconds: None,
        keep: true,
        colour: false,
    };
    let summary = perform(keep, &mut screen, interrupt).unwrap();
    let acts: Vec<Act> = summary.acts.iter().map(|act| act.act).collect();
    assert_eq!((acts, summary.failed), (vec![Act::RoundRobin], 0));
}
