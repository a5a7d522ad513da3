//! The walk-through: plays the acts in front of a running balancer.
//!
//! Owns the order of what is done and shown. Every change goes the way that a user's would: another configuration through
//! [`Handle::replace`], a server that dies. It must not reach into the balancer by any other way.
//!
//! Invariant: dropping [`Stage::play`] at any point, as an interrupt does, leaves a stage that can be summed up.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Error,
    acts::Act,
    backends::{Backends, CAST, MORTAL},
    load::Load,
    sample::{Sample, Span},
    screen::{Kind, Screen},
    settings::{Choice, Settings},
    summary::{ActSummary, Summary},
    table::{self, Colour},
};
use crate::control::Handle;

/// Five pictures a second are lively and can still be read.
const TICK: Duration = Duration::from_millis(200);
/// The table shows the last second.
const WINDOW: usize = 5;
/// How long an act waits, beyond its time, for what it is about. On any machine that keeps up it does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything on stage.
pub(super) struct Stage<'a> {
    handle: &'a Handle,
    backends: &'a Backends,
    load: &'a Load,
    screen: &'a mut Screen,
    colour: Colour,
    settings: Settings,
    opened: Sample,
    /// The last samples, at most a window and one.
    samples: VecDeque<Sample>,
    ticks: usize,
    current: Option<(Act, Sample)>,
    summary: Summary,
    /// Picks of the dead backend when it was first seen out of the rotation.
    picks_when_out: Option<u64>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        handle: &'a Handle,
        backends: &'a Backends,
        load: &'a Load,
        screen: &'a mut Screen,
        colour: Colour,
        settings: Settings,
    ) -> Result<Self, Error> {
        let opened = Sample::take(handle, load).ok_or(Error::NoPool)?;
        Ok(Self {
            handle,
            backends,
            load,
            screen,
            colour,
            settings,
            samples: VecDeque::from([opened.clone()]),
            opened,
            ticks: 0,
            current: None,
            summary: Summary::default(),
            picks_when_out: None,
        })
    }

    /// All acts.
    pub(super) async fn play(&mut self, total: Duration) -> Result<(), Error> {
        for act in Act::ALL {
            self.play_act(act, act.lasts(total)).await?;
        }
        Ok(())
    }

    /// Goes on showing what there is until it is interrupted.
    pub(super) async fn stay_up(&mut self, listener: SocketAddr) -> Result<(), Error> {
        self.screen.say(&format!(
            "\n  The walk-through is over; everything stays up until Ctrl-C.\n  Try: curl -i http://{listener}/\n"
        ));
        self.watch(Duration::MAX, |_| true).await
    }

    /// What was shown, an unfinished act included.
    pub(super) fn sum_up(&mut self) -> Result<Summary, Error> {
        let now = self.sample()?;
        self.end_act(&now);
        let whole = Span {
            from: &self.opened,
            to: &now,
        };
        self.summary.requests = whole.requests();
        self.summary.failed = whole.failed();
        Ok(self.summary.clone())
    }

    async fn play_act(&mut self, act: Act, lasts: Duration) -> Result<(), Error> {
        self.screen.say(&format!(
            "\n  {}  {}\n  {}\n",
            act.number(),
            act.title().to_uppercase(),
            act.sentence()
        ));
        let from = self.sample()?;
        self.current = Some((act, from.clone()));
        let is_shown = |to: &Sample| act.is_shown(Span { from: &from, to });
        match act {
            Act::RoundRobin => self.watch(lasts, is_shown).await?,
            Act::Swap => {
                self.swap(Choice::LeastResponseTime).await?;
                self.watch(lasts / 2, |_| true).await?;
                self.let_the_spare_join().await?;
                self.watch(lasts / 2, is_shown).await?;
            }
            Act::Death => {
                self.backends.turn_over(MORTAL).await?;
                // A machine that stood still for a second may have taken it out before.
                self.picks_when_out = None;
                self.note(&format!("`{}` is dead.", CAST[MORTAL].name));
                self.watch(lasts, is_shown).await?;
                self.see_that_it_got_nothing()?;
            }
            Act::Return => {
                self.backends.turn_over(MORTAL).await?;
                self.note(&format!("`{}` listens again.", CAST[MORTAL].name));
                self.watch(lasts, is_shown).await?;
            }
            Act::Trap => {
                self.see_a_refusal().await?;
                self.swap(Choice::Trapping { every: 50 }).await?;
                self.watch(lasts, is_shown).await?;
            }
            Act::Calm => {
                self.swap(Choice::LeastConnections).await?;
                self.watch(lasts, is_shown).await?;
            }
        }
        let now = self.sample()?;
        self.end_act(&now);
        Ok(())
    }

    fn end_act(&mut self, to: &Sample) {
        if let Some((act, from)) = self.current.take() {
            let summary = ActSummary::new(act, Span { from: &from, to });
            self.summary.acts.push(summary);
        }
    }

    /// Another policy, while requests are under way.
    async fn swap(&mut self, policy: Choice) -> Result<(), Error> {
        let before = self.sample()?;
        self.settings.policy = policy;
        let began = Instant::now();
        let replaced = self.handle.replace(self.settings.text()).await;
        let took = began.elapsed();
        replaced.map_err(Error::Refused)?;
        let after = self.sample()?;
        let failed = Span {
            from: &before,
            to: &after,
        }
        .failed();
        self.note(&format!(
            "{}@{} -> {}@{}\n         in service after {} ms, {failed} requests failed meanwhile.",
            before.policy,
            before.version,
            after.policy,
            after.version,
            took.as_millis()
        ));
        Ok(())
    }

    async fn let_the_spare_join(&mut self) -> Result<(), Error> {
        self.settings.spare_weight = 1;
        let replaced = self.handle.replace(self.settings.text()).await;
        replaced.map_err(Error::Refused)?;
        self.note("`spare` has weight 1 now: it joins.");
        Ok(())
    }

    /// A policy that never works does not get as far as serving.
    async fn see_a_refusal(&mut self) -> Result<(), Error> {
        let settings = Settings {
            policy: Choice::Trapping { every: 1 },
            ..self.settings.clone()
        };
        let Err(refusal) = self.handle.replace(settings.text()).await else {
            return Err(Error::NotRefused);
        };
        self.note("One that always traps is refused, the old one keeps serving:");
        let (what, why) = without_backtrace(&refusal);
        self.screen.say(&format!("         {what}\n         {why}"));
        self.summary.refusal = Some(refusal);
        Ok(())
    }

    /// Counted from the first sample that showed it out, since what was picked before that is just what a death means.
    fn see_that_it_got_nothing(&mut self) -> Result<(), Error> {
        let mortal = self.sample()?.backends[MORTAL];
        let picks = self
            .picks_when_out
            .map(|before| mortal.picks.saturating_sub(before));
        self.summary.picks_while_out = picks;
        Ok(())
    }

    /// Shows what happens for a time, and beyond it, with patience, until `is_shown`.
    async fn watch(&mut self, lasts: Duration, is_shown: impl Fn(&Sample) -> bool) -> Result<(), Error> {
        let began = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let left = lasts.saturating_sub(began.elapsed());
            if left < TICK {
                // The rest of the act is shorter than a tick, but not nothing, or acts would end early.
                tokio::time::sleep(left).await;
            } else {
                ticks.tick().await;
            }
            let sample = self.sample()?;
            let has_shown = is_shown(&sample);
            self.show(sample);
            let elapsed = began.elapsed();
            if elapsed >= lasts && (has_shown || elapsed >= lasts.saturating_add(PATIENCE)) {
                return Ok(());
            }
        }
    }

    fn show(&mut self, sample: Sample) {
        self.note_changes(&sample);
        self.samples.push_back(sample);
        if self.samples.len() > WINDOW + 1 {
            self.samples.pop_front();
        }
        self.ticks += 1;
        let (Some(from), Some(to)) = (self.samples.front(), self.samples.back()) else {
            return;
        };
        let span = Span { from, to };
        match self.screen.kind() {
            Kind::Terminal => self.screen.draw(table::table(span, self.colour)),
            Kind::Plain if self.ticks.is_multiple_of(WINDOW) => {
                let line = table::line(self.seconds(), span);
                self.screen.say(&line);
            }
            Kind::Plain => {}
        }
    }

    /// Says which backends changed their state since the last look.
    fn note_changes(&mut self, sample: &Sample) {
        let Some(last) = self.samples.back() else { return };
        let pairs = last.backends.iter().zip(&sample.backends).zip(&CAST);
        let changes: Vec<String> = pairs
            .filter(|((old, new), _)| old.state.name() != new.state.name())
            .map(|((_, new), role)| format!("`{}` is {}.", role.name, new.state.name()))
            .collect();
        let mortal = &sample.backends[MORTAL];
        if !mortal.is_ready() {
            self.picks_when_out.get_or_insert(mortal.picks);
        }
        for change in changes {
            self.note(&change);
        }
    }

    fn note(&mut self, text: &str) {
        let seconds = self.seconds();
        self.screen.say(&format!("{seconds:>6.1} s {text}"));
    }

    fn seconds(&self) -> f64 {
        self.opened.at.elapsed().as_secs_f64()
    }

    fn sample(&self) -> Result<Sample, Error> {
        Sample::take(self.handle, self.load).ok_or(Error::NoPool)
    }
}

/// What was refused, and why. The frames in between mean nothing to whoever did not build the component.
fn without_backtrace(refusal: &str) -> (&str, &str) {
    let (what, rest) = refusal
        .split_once(" error while executing")
        .unwrap_or((refusal, ""));
    (what, rest.find("wasm trap").map_or("", |at| &rest[at..]))
}
