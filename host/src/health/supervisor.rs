//! One task a pool that turns checks, reports and time into changes of its backends.
//!
//! Owns the probes of the pool's backends, the order of events, and the log line and the count of every transition. It
//! must not decide who is picked. Transitions are found by looking at the pool after each event, so that each is logged
//! once whoever caused it, operators included.
//!
//! Invariant: nothing runs on after the [`Supervisor`] is dropped: its task owns the probes and ends with it.
//! Read next: `pool.rs`.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, info, warn};

use super::{
    outlier::{Conduct, Report, Reporter},
    probe::{Check, CheckResult, Probe, Schedule},
    tally::{Past, Tally, Verdict},
};
use crate::pool::{Backend, Member, Pool, Snapshot, State};

/// Watches over a pool until it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    reporter: Reporter,
    task: AbortHandle,
}

/// How often backends of a pool entered each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// Began to serve: came up, was readmitted, or put back by an operator.
    pub ready: u64,
    /// Taken down by active checks.
    pub down: u64,
    /// Ejected because of real requests.
    pub ejected: u64,
    /// Taken out by an operator.
    pub draining: u64,
}

/// What the task and its owner both see.
#[derive(Debug)]
struct Shared {
    wake: Notify,
    /// The last result of each backend. Only the control plane locks it.
    checks: Mutex<Vec<(u64, Option<CheckResult>)>>,
    ready: AtomicU64,
    down: AtomicU64,
    ejected: AtomicU64,
    draining: AtomicU64,
}

impl Shared {
    fn new(snapshot: &Snapshot) -> Self {
        Self {
            wake: Notify::new(),
            checks: Mutex::new(
                snapshot
                    .members
                    .iter()
                    .map(|member| (member.backend.id, None))
                    .collect(),
            ),
            ready: AtomicU64::new(0),
            down: AtomicU64::new(0),
            ejected: AtomicU64::new(0),
            draining: AtomicU64::new(0),
        }
    }

    fn checks(&self) -> MutexGuard<'_, Vec<(u64, Option<CheckResult>)>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: State) {
        let counter = match state {
            State::Ready => &self.ready,
            State::Down => &self.down,
            State::Ejected { .. } => &self.ejected,
            State::Draining => &self.draining,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Supervisor {
    /// Starts to watch; must be called inside a tokio runtime. On a reload, drop the old pool's supervisor before the
    /// new pool is made: what it finds out after that would be lost.
    pub fn spawn(pool: Arc<Pool>) -> Self {
        let shared = Arc::new(Shared::new(&pool.snapshot()));
        let (reporter, reports) = Reporter::new(pool.config.outlier.as_ref());
        let task = tokio::spawn(Task::new(pool, shared.clone(), reports).run());
        Self {
            shared,
            reporter,
            task: task.abort_handle(),
        }
    }

    /// For a worker to report failures with.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// An operator changed something: what follows from it happens soon, and is logged.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The last check of every backend that was checked, by the backend's id, in the pool's order.
    pub fn checks(&self) -> Vec<(u64, CheckResult)> {
        let checks = self.shared.checks();
        checks
            .iter()
            .filter_map(|(id, result)| Some((*id, result.clone()?)))
            .collect()
    }

    /// Counts since this supervisor began.
    pub fn transitions(&self) -> Transitions {
        Transitions {
            ready: self.shared.ready.load(Relaxed),
            down: self.shared.down.load(Relaxed),
            ejected: self.shared.ejected.load(Relaxed),
            draining: self.shared.draining.load(Relaxed),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A backend as the task last saw it.
#[derive(Debug)]
struct Watched {
    backend: Arc<Backend>,
    state: State,
    since: Instant,
    /// `None` without active checks.
    tally: Option<Tally>,
    conduct: Conduct,
    ejected_at: Option<Instant>,
    /// Why active checks last took it down: it may show only later, when an operator's drain ends.
    down_reason: String,
}

/// Why a transition that comes next happened, when the event says so.
struct Cause {
    index: usize,
    reason: String,
}

#[derive(Debug)]
struct Task {
    pool: Arc<Pool>,
    watched: Vec<Watched>,
    shared: Arc<Shared>,
    reports: mpsc::Receiver<Report>,
    checks: mpsc::Receiver<Check>,
    /// The pool's generation at the last look.
    looked: u64,
    /// Aborted when dropped.
    _probes: JoinSet<()>,
}

impl Task {
    fn new(pool: Arc<Pool>, shared: Arc<Shared>, reports: mpsc::Receiver<Report>) -> Self {
        let now = now();
        let snapshot = pool.snapshot();
        let mut probes = JoinSet::new();
        // Probes wait for room, so a short queue delays checks and loses none.
        let (results, checks) = mpsc::channel(snapshot.members.len().max(1));
        let mut watched = Vec::with_capacity(snapshot.members.len());
        for (index, member) in snapshot.members.iter().enumerate() {
            let backend = member.backend.clone();
            let rule = pool.config.health.as_ref();
            if let Some(rule) = rule {
                let schedule = Schedule::new(rule.interval, backend.id);
                let probe = Probe::new(index, &backend, rule, &pool);
                probes.spawn(probe.run(schedule, results.clone()));
            }
            let past = if pool.is_proven(backend.id) {
                Past::Proven
            } else {
                Past::Unknown
            };
            watched.push(Watched::new(member, rule.map(|rule| Tally::new(rule, past)), now));
        }
        Self {
            pool,
            watched,
            shared,
            reports,
            checks,
            looked: snapshot.generation,
            _probes: probes,
        }
    }

    async fn run(mut self) {
        let mut next = self.look(None);
        loop {
            // A queue whose senders are all gone gives `None` and is skipped, as is a time that never comes.
            let (cause, is_due) = tokio::select! {
                Some(check) = self.checks.recv() => (self.weigh(check), false),
                Some(report) = self.reports.recv() => (self.judge(report), false),
                () = self.shared.wake.notified() => (None, true),
                () = wait(next) => (None, true),
            };
            if is_due || self.has_news() {
                next = self.look(cause);
            }
        }
    }

    /// Whether the pool has changed since the last look. If not, and nothing is due, another one would find what that found: in
    /// a pool of a thousand backends, whose checks each end well, looking at all of them each time.
    fn has_news(&self) -> bool {
        self.pool.generation() != self.looked
    }

    /// A check ended.
    fn weigh(&mut self, Check { index, result }: Check) -> Option<Cause> {
        let reason = result.reason.clone();
        let (ok, at) = (result.ok, result.at);
        if let Some((_, last)) = self.shared.checks().get_mut(index) {
            *last = Some(result);
        }
        let watched = self.watched.get_mut(index)?;
        let (id, tally) = (watched.backend.id, watched.tally.as_mut()?);
        // What was good before real requests failed does not speak against their failing.
        if ok && watched.ejected_at.is_some_and(|ejected| at < ejected) {
            return None;
        }
        if ok && tally.past() == Past::Unknown {
            self.pool.prove(id);
        }
        if !ok {
            debug!(
                pool = self.pool.name(),
                backend = &*watched.backend.address,
                reason,
                "check failed"
            );
        }
        let verdict = if ok { tally.good() } else { tally.bad() }?;
        if verdict == Verdict::Down {
            watched.down_reason.clone_from(&reason);
        }
        let changed = self.pool.set_down(id, verdict == Verdict::Down, now());
        changed.then_some(Cause { index, reason })
    }

    /// A worker saw a backend fail too often.
    fn judge(&mut self, report: Report) -> Option<Cause> {
        let index = self
            .watched
            .iter()
            .position(|watched| watched.backend.id == report.backend)?;
        let now = now();
        self.pool.eject(report.backend, now)?;
        let watched = self.watched.get_mut(index)?;
        watched.ejected_at = Some(now);
        if let Some(tally) = &mut watched.tally {
            tally.forget_good();
        }
        Some(Cause {
            index,
            reason: format!("{} failures in a row", report.in_a_row),
        })
    }

    /// Lets the pool do what is due, and notes what changed. Gives the time of the next look.
    fn look(&mut self, cause: Option<Cause>) -> Option<Instant> {
        let now = now();
        let mut next = self.pool.advance(now);
        let max_ejection = self.pool.config.outlier.as_ref().map(|rule| rule.max_ejection);
        let snapshot = self.pool.snapshot();
        self.looked = snapshot.generation;
        for (index, (watched, member)) in self.watched.iter_mut().zip(&snapshot.members).enumerate() {
            if watched.state != member.state {
                let cause = cause.as_ref().filter(|cause| cause.index == index);
                watched.log(self.pool.name(), member.state, cause, now);
                self.shared.count(member.state);
                watched.state = member.state;
                watched.since = now;
            }
            watched.conduct.observe(member.state, now);
            let forgiven_at = max_ejection.and_then(|time| watched.conduct.forgiven_at(time));
            if forgiven_at.is_some_and(|at| at <= now) {
                self.pool.forgive(watched.backend.id);
                watched.conduct = Conduct::Clean;
            } else {
                next = [next, forgiven_at].into_iter().flatten().min();
            }
        }
        next
    }
}

impl Watched {
    fn new(member: &Member, tally: Option<Tally>, now: Instant) -> Self {
        // The pool before this one may have ejected it; to forgive a backend that has nothing to forgive is harmless.
        let mut conduct = Conduct::Out;
        conduct.observe(member.state, now);
        Self {
            backend: member.backend.clone(),
            state: member.state,
            since: now,
            tally,
            conduct,
            ejected_at: None,
            down_reason: "checks failed before the reload".into(),
        }
    }

    /// The one log line of a transition to `state`.
    fn log(&self, pool: &str, state: State, cause: Option<&Cause>, now: Instant) {
        let reason = match (cause, self.state, state) {
            (_, _, State::Draining) => "drained by an operator",
            (Some(cause), ..) => &cause.reason,
            (None, _, State::Down) => &self.down_reason,
            (None, State::Draining, _) => "put back by an operator",
            (None, State::Ejected { .. }, State::Ready) => "the ejection's time is over",
            (None, ..) => "unknown",
        };
        let (backend, name, was) = (&*self.backend.address, state.name(), self.state.name());
        let was_ms = millis(now.saturating_duration_since(self.since));
        let for_ms = match state {
            State::Ejected { until } => Some(millis(until.saturating_duration_since(now))),
            _ => None,
        };
        // The level is part of a line's identity for tracing, so it cannot be an argument.
        match state {
            State::Ready | State::Draining => {
                info!(
                    pool,
                    backend,
                    state = name,
                    reason,
                    was,
                    was_ms,
                    "backend changed"
                );
            }
            State::Down | State::Ejected { .. } => {
                warn!(
                    pool,
                    backend,
                    state = name,
                    reason,
                    for_ms,
                    was,
                    was_ms,
                    "backend taken out"
                );
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, pool::fixture};

    /// A task that nobody drives, over one backend that one good check brings back.
    fn task() -> Task {
        let health = config::Health {
            rise: fixture::count(1),
            fall: fixture::count(1),
            ..fixture::health()
        };
        let config = config::Pool {
            health: Some(health),
            ..fixture::config(&["127.0.0.1:1"])
        };
        let pool = Arc::new(fixture::pool(config, None, now()));
        let shared = Arc::new(Shared::new(&pool.snapshot()));
        let (_, reports) = Reporter::new(None);
        Task::new(pool, shared, reports)
    }

    fn check(ok: bool, at: Instant) -> Check {
        let reason = if ok { "fine" } else { "broken" }.into();
        Check {
            index: 0,
            result: CheckResult {
                ok,
                reason,
                at,
                duration: Duration::ZERO,
            },
        }
    }

    #[tokio::test]
    async fn a_check_that_began_before_an_ejection_does_not_end_it() {
        let mut task = task();
        let backend = task.watched[0].backend.id;
        let before = now() - Duration::from_millis(1);
        assert!(task.judge(Report { backend, in_a_row: 5 }).is_some());
        assert!(task.weigh(check(true, before)).is_none());
        assert_eq!(task.pool.snapshot().members[0].state.name(), "ejected");
        assert!(task.weigh(check(true, now())).is_some());
        assert_eq!(task.pool.snapshot().members[0].state.name(), "ready");
    }

    #[tokio::test]
    async fn a_backend_that_died_while_it_drained_is_down_for_that_reason_when_put_back() {
        let mut task = task();
        let backend = task.watched[0].backend.id;
        task.pool.set_draining(backend, true, now());
        let cause = task.weigh(check(false, now()));
        task.look(cause);
        assert_eq!(task.watched[0].state, State::Draining);
        task.pool.set_draining(backend, false, now());
        task.look(None);
        assert_eq!(task.watched[0].state, State::Down);
        assert_eq!(task.watched[0].down_reason, "broken");
    }

    #[tokio::test]
    async fn only_a_check_that_changes_the_pool_is_news() {
        let mut task = task();
        task.look(None);
        assert!(task.weigh(check(true, now())).is_none());
        assert!(!task.has_news());
        let cause = task.weigh(check(false, now()));
        assert!(cause.is_some() && task.has_news());
        task.look(cause);
        assert!(!task.has_news());
        task.pool.set_draining(task.watched[0].backend.id, true, now());
        assert!(task.has_news());
    }
}
