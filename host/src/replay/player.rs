//! One instance, to which happens again what happened to a recorded one.
//!
//! Owns the making of calls from events. It must not compare anything.
//!
//! Invariant: what fails is replaced by a new instance at the next pick, as on the data path, and without a pause.

use std::sync::Arc;

use crate::{
    http1::Head,
    policy::{
        self, Algorithm, Answer, BackendsEvent, Candidate, Facts, Fault, FaultKind, LoadEvent, OthersEvent,
        OutcomesEvent, PickEvent, Reads, StateEvent, Step, Trial, Tried,
    },
    pool::{Snapshot, State, View},
};

/// Plays a stream.
pub struct Player {
    candidate: Arc<Candidate>,
    drain: Arc<[String]>,
    fallback: Option<Algorithm>,
    /// As recorded, ...
    recorded: Arc<Snapshot>,
    /// ... and as the policy sees them.
    shown: Arc<Snapshot>,
    view: Arc<View>,
    /// For the next call.
    others: Vec<OthersEvent<'static>>,
    trial: Option<Trial>,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine,
    Failed(FaultKind),
}

/// A decision made again.
#[derive(Debug)]
pub struct Played {
    /// What the policy answered, unchecked.
    pub answer: Result<Answer, Fault>,
    /// What it said about it.
    pub note: Option<String>,
    /// The parts of the head that it asked for.
    pub reads: Reads,
    /// The head that it was shown.
    pub head: Head,
    /// What the host chooses instead, if it has to and is known: the backend, and the step of the fallback chain. The
    /// last good version is not in a log.
    pub host_choice: Option<(usize, Step)>,
}

impl Player {
    /// Plays with this version. The backends at these addresses are taken to drain. `fallback` is the pool's, if what
    /// the host chooses matters.
    pub fn new(candidate: Arc<Candidate>, drain: Arc<[String]>, fallback: Option<Algorithm>) -> Self {
        let nobody = Arc::new(Snapshot {
            generation: 0,
            members: Box::default(),
            usable: 0,
            in_panic: false,
        });
        Self {
            candidate,
            drain,
            fallback,
            view: Arc::new(View::without_load(&nobody)),
            others: Vec::new(),
            recorded: nobody.clone(),
            shown: nobody,
            trial: None,
        }
    }

    /// The backends as they were recorded.
    pub fn recorded(&self) -> &Arc<Snapshot> {
        &self.recorded
    }

    /// The backends as the policy sees them.
    pub fn shown(&self) -> &Arc<Snapshot> {
        &self.shown
    }

    /// The load as the policy sees it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What other nodes have in flight when the next call is made.
    pub(super) fn hear(&mut self, event: OthersEvent<'static>) {
        self.others.push(event);
    }

    pub(super) fn show(&mut self, event: &BackendsEvent<'_>) -> Outcome {
        self.recorded = Arc::new(event.snapshot());
        self.shown = if self.drain.is_empty() {
            self.recorded.clone()
        } else {
            Arc::new(without(event.snapshot(), &self.drain))
        };
        self.view = Arc::new(View::without_load(&self.shown));
        self.set_load(&event.load);
        let result = match &mut self.trial {
            Some(trial) => trial.update_with_load(&self.shown, self.view.clone()),
            None => self.build(),
        };
        self.outcome(result)
    }

    pub(super) fn observe(&mut self, event: &OutcomesEvent<'_>) -> Outcome {
        self.set_load(&event.load);
        let outcomes: Vec<policy::Outcome> = (0..event.index.len())
            .filter_map(|place| {
                Some(policy::Outcome {
                    index: *event.index.get(place)? as usize,
                    latency_us: *event.latency_us.get(place)?,
                    bytes: *event.bytes.get(place)?,
                    status: event.status.get(place).copied().filter(|status| *status > 0),
                })
            })
            .collect();
        let told = match &mut self.trial {
            Some(trial) => trial.observe(&outcomes, event.now_us),
            None => Ok(()),
        };
        self.outcome(told)
    }

    /// Gives the instance the state of another one.
    pub(super) fn import(&mut self, event: &StateEvent<'_>) -> Result<Outcome, String> {
        // One that failed begins without any, as in service.
        let Some(trial) = &mut self.trial else {
            return Ok(Outcome::Fine);
        };
        let taken = trial.take_over(&event.schema, &event.state);
        taken.map_err(|message| {
            format!("the policy does not take the state that it goes on with: {message}")
        })?;
        Ok(Outcome::Fine)
    }

    /// Asks for a decision.
    pub fn pick(&mut self, event: &PickEvent<'_>) -> Played {
        self.set_load(&event.load);
        let facts = Facts {
            key: event.key,
            random: event.random,
            client: event.client,
            now_us: event.now_us,
        };
        let tried = tried_of(event);
        let mut head = head_of(event);
        let built = match self.trial {
            Some(_) => Ok(()),
            // The host does not ask when there is nothing to choose from.
            None if self.shown.usable == 0 => Ok(()),
            None => self.build(),
        };
        let (answer, note, reads, host_choice) = match (built, &mut self.trial) {
            (Ok(()), Some(trial)) if self.shown.usable > 0 => {
                trial.take_note();
                trial.take_reads();
                let answer = trial.pick(&facts, &tried, &mut head);
                let is_good = match &answer {
                    Ok(Answer::Index(index)) => policy::check(&self.shown, *index, &tried).is_ok(),
                    Ok(Answer::Reject(_)) => true,
                    Ok(Answer::Abstain) | Err(_) => false,
                };
                let fallback = self.fallback.filter(|_| !is_good);
                let host_choice = fallback
                    .and_then(|fallback| trial.host_choice(fallback, &self.shown, (&facts, &tried, &head)));
                (answer, trial.take_note(), trial.take_reads(), host_choice)
            }
            (Err(fault), _) => (Err(fault), None, Reads::default(), None),
            (Ok(()), _) => (Ok(Answer::Abstain), None, Reads::default(), None),
        };
        if answer.is_err() {
            self.trial = None;
        }
        Played {
            answer,
            note,
            reads,
            head,
            host_choice,
        }
    }

    fn build(&mut self) -> Result<(), Fault> {
        let trial = Trial::of_recorded(&self.candidate, &self.shown, self.view.clone())?;
        self.trial = Some(trial);
        Ok(())
    }

    fn outcome(&mut self, result: Result<(), Fault>) -> Outcome {
        match result {
            Ok(()) => Outcome::Fine,
            Err(fault) => {
                self.trial = None;
                Outcome::Failed(fault.kind)
            }
        }
    }

    fn set_load(&mut self, load: &LoadEvent<'_>) {
        for others in self.others.drain(..) {
            others.apply(&self.view);
        }
        for (index, figures) in load.figures() {
            self.view.set(index, figures);
        }
        self.view.set_active_total(load.active_total);
    }
}

/// The same, with some backends draining. The tiers and the panic threshold stay as they were.
fn without(mut snapshot: Snapshot, drain: &[String]) -> Snapshot {
    for member in &mut snapshot.members {
        if drain.iter().any(|address| *address == *member.backend.address) {
            member.state = State::Draining;
            member.usable = false;
        }
    }
    snapshot.usable = snapshot.members.iter().filter(|member| member.usable).count();
    snapshot
}

/// The backends that were tried before a recorded pick.
pub(super) fn tried_of(event: &PickEvent<'_>) -> Tried {
    let mut tried = Tried::default();
    event.tried.iter().for_each(|id| tried.push(*id));
    tried
}

/// A head with what is recorded of it.
pub fn head_of(event: &PickEvent<'_>) -> Head {
    let cookies: Vec<String> = event
        .cookies
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
        .collect();
    let cookies = cookies.join("; ");
    let fields = event.fields.iter();
    let fields = fields.filter_map(|(name, value)| Some((&**name, &**value.as_ref()?)));
    let cookie = (!cookies.is_empty()).then_some(("cookie", cookies.as_bytes()));
    Head::of(
        &event.method,
        &event.authority,
        &event.target,
        fields.chain(cookie),
    )
}
