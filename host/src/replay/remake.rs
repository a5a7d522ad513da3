//! One recorded decision, made again.
//!
//! Owns the search for it, and the replay of its stream up to it. It must not know how it is shown.

use std::sync::Arc;

use super::player::{Played, Player, tried_of};
use crate::{
    policy::{self, Algorithm, AnswerEvent, Event, PickEvent, Recorded, Tried, own_id},
    pool::{Figures, Snapshot, Told},
};

/// A decision, as it was and as it is when made again.
pub struct Remade {
    /// Its number in its stream.
    pub event: u64,
    /// As it was recorded.
    pub pick: PickEvent<'static>,
    /// As it was made again.
    pub played: Played,
    /// The backends, ...
    pub snapshot: Arc<Snapshot>,
    /// ... and their load, at that time.
    pub load: Vec<(Figures, Told)>,
    /// Whether both are the same, note included.
    pub is_same: bool,
}

impl Remade {
    /// The backends that were tried before.
    pub fn tried(&self) -> Tried {
        tried_of(&self.pick)
    }
}

/// Makes the decisions again that this request led to: one for each of its attempts. None, if the stream has none.
/// `fallback` is the pool's, if it is known.
///
/// # Errors
/// When the stream cannot be replayed.
pub fn remake(recorded: &Recorded, id: &str, fallback: Option<Algorithm>) -> Result<Vec<Remade>, String> {
    let mut left = (events(recorded).zip(0..))
        .filter(|(event, number)| is_sought(event, recorded.stream, *number, id))
        .count();
    let mut player = Player::new(recorded.candidate.clone(), Arc::default(), fallback);
    let mut remade = Vec::with_capacity(left);
    for (event, number) in events(recorded).zip(0..) {
        if left == 0 {
            break;
        }
        let is_sought = is_sought(&event, recorded.stream, number, id);
        match event? {
            Event::Backends(backends) => drop(player.show(&backends)),
            Event::State(state) => drop(player.import(&state)?),
            Event::Others(others) => player.hear(others),
            Event::Outcomes(outcomes) => drop(player.observe(&outcomes)),
            Event::Pick(pick) => {
                let played = player.pick(&pick);
                if is_sought {
                    left -= 1;
                    remade.push(compared(&player, number, pick, played));
                }
            }
            Event::Start(_) | Event::Fault(_) => {}
        }
    }
    Ok(remade)
}

fn compared(player: &Player, event: u64, pick: PickEvent<'static>, played: Played) -> Remade {
    let is_same =
        AnswerEvent::new(&played.answer) == pick.answer && pick.note.as_deref() == played.note.as_deref();
    let snapshot = player.shown().clone();
    let load = (0..snapshot.members.len()).map(|index| {
        let view = player.view();
        (view.figures(index), view.others(index))
    });
    Remade {
        event,
        load: load.collect(),
        snapshot,
        pick,
        played,
        is_same,
    }
}

fn events(recorded: &Recorded) -> impl Iterator<Item = Result<Event<'static>, String>> + '_ {
    let batches = recorded.batches.iter();
    batches
        .flat_map(|batch| policy::decode_events(batch))
        .map(|event| event.map_err(|error| error.to_string()))
}

fn is_sought(event: &Result<Event<'_>, String>, stream: u64, number: u64, id: &str) -> bool {
    let Ok(Event::Pick(pick)) = event else {
        return false;
    };
    match &pick.id {
        Some(known) => **known == *id,
        None => !pick.is_trial && own_id(stream, number) == id,
    }
}
