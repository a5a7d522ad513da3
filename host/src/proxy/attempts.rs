//! The attempts to serve one request: which backend is next, and whether there is another attempt at all.
//!
//! Owns the rule of retries. It must not know how a request is sent.
//!
//! Invariant: a request of which anything was sent is sent again only if that does no harm.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    error::Error,
    forward::{Failed, Target},
    hedge::Outcome,
    journey::Journey,
    ledger::Ledger,
    pool::{Decided, PoolSettings, WorkerPool},
    queue::Place,
    serve::Client,
    session::Session,
};
use crate::{
    clock,
    http1::Head,
    policy::{self, Decision, Facts, Tried},
};

/// The attempts to serve one request.
pub(super) struct Attempts<'a> {
    client: &'a Rc<Client>,
    pub(super) pool: &'a Rc<WorkerPool>,
    pub(super) settings: Rc<PoolSettings>,
    key: u64,
    tried: Tried,
    /// When the attempt under way began.
    pub(super) now_us: u64,
    /// Sending it twice does no harm, and nothing of it is lost by sending it once.
    is_repeatable: bool,
    /// The backend to try again, on a new connection: a stored one was closed under the last attempt.
    again: Option<Target>,
    /// `None` until it was asked for, or where there are no sessions.
    session: Option<Session>,
    /// Where the request waits, because every backend is full.
    place: Option<Place>,
}

impl<'a> Attempts<'a> {
    /// `keeps_body`: the body, if there is one, can be sent more than once.
    #[inline]
    pub(super) fn new(
        client: &'a Rc<Client>,
        pool: &'a Rc<WorkerPool>,
        head: &Head,
        keeps_body: bool,
        now_us: u64,
    ) -> Self {
        let settings = pool.settings();
        pool.budget.earn();
        let random = client.worker.random();
        Self {
            client,
            pool,
            key: policy::key_of(&settings.config.hash_on, head, client.bits, random),
            settings,
            tried: Tried::default(),
            now_us,
            is_repeatable: keeps_body && is_idempotent(head),
            again: None,
            session: None,
            place: None,
        }
    }

    /// The value of a `Set-Cookie` field, if the client is to get one with an answer of this target.
    #[inline]
    pub(super) fn cookie(&self, target: &Target) -> Option<String> {
        let session = self.session.as_ref()?;
        session.cookie(
            self.settings.sticky.as_ref()?,
            target.upstream.backend.id,
            self.client,
        )
    }

    /// The backend that keeps the client's session.
    #[inline]
    fn wanted(&mut self, head: &Head) -> Option<u64> {
        let sticky = self.settings.sticky.as_ref()?;
        // Of a connection that is passed on as it is there is no head, and nobody to give a cookie to.
        if head.method().is_empty() {
            return None;
        }
        let session = self.session.get_or_insert_with(|| Session::read(sticky, head));
        session.wanted()
    }

    /// Which backend is next, and whether a stored connection to it will do. `None` while all are full: the request has to
    /// [`enqueue`](Self::enqueue), and to ask again when it is called.
    #[inline]
    pub(super) fn pick(
        &mut self,
        head: &mut Head,
        journey: &mut Journey,
    ) -> Result<Option<(Target, Freshness)>, Error> {
        if self.place.is_some() {
            self.now_us = clock::now_us();
        } else if self.tried.attempts() > 0 || self.again.is_some() {
            self.now_us = clock::now_us();
            self.client.worker.metrics().count(|metrics| &metrics.retries);
        }
        if let Some(again) = self.again.take() {
            return Ok(Some((again, Freshness::New)));
        }
        let random = self.client.worker.random();
        let facts = Facts {
            key: self.key,
            random,
            client: self.client.bits,
            now_us: self.now_us,
        };
        let wanted = self.wanted(head);
        let kept = wanted.and_then(|id| self.pool.keep(id, &self.tried, &facts));
        let decided = match self.settings.config.limits {
            _ if kept.is_some() => kept,
            None => Some(self.pool.decide(&facts, &self.tried, head)),
            Some(_) => self.decide_within_limits(&facts, head),
        };
        let Some((decision, decider, target)) = decided else {
            return Ok(None);
        };
        if let (Some(sticky), Some(session)) = (&self.settings.sticky, &mut self.session) {
            session.count(sticky, self.client.worker.id, target.as_ref());
        }
        journey.decided(self.pool, &decision, decider, target.as_ref());
        match decision {
            Decision::Reject(status) => Err(Error::Rejected(status)),
            Decision::NoBackend => Err(Error::NoBackend),
            Decision::Send(_) => target
                .map(|target| Some((target, Freshness::Any)))
                .ok_or(Error::NoBackend),
        }
    }

    fn decide_within_limits(&mut self, facts: &Facts, head: &mut Head) -> Option<Decided> {
        // Nobody that comes later overtakes.
        if self.place.is_none() && !self.pool.queue.is_empty() {
            return None;
        }
        let limits = self.settings.config.limits.as_ref()?;
        let worker = &self.client.worker;
        let decided = self
            .pool
            .decide_within((limits, worker.id), facts, &self.tried, head)?;
        if self.place.take().is_some() {
            self.client.watch.release_backend();
        }
        Some(decided)
    }

    /// Takes a place in the queue, if the request has none and there is one.
    pub(super) fn enqueue(&mut self) -> Result<(), Error> {
        let Some(limits) = self
            .settings
            .config
            .limits
            .as_ref()
            .filter(|_| self.place.is_none())
        else {
            return Ok(());
        };
        let worker = self.client.worker.id;
        if self.pool.is_queue_full(worker, limits.queue) {
            return Err(Error::Full("all backends are busy, and too many requests wait"));
        }
        self.place = Some(Place::last(self.pool, worker));
        let within = limits.queue_timeout.as_millis() as u64;
        self.client.watch.expect_backend(within);
        Ok(())
    }

    /// Waits to be called, for as long as a request may wait.
    pub(super) fn poll_turn(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if self
            .place
            .as_ref()
            .is_none_or(|place| place.is_called(cx.waker()))
        {
            return Poll::Ready(Ok(()));
        }
        let watch = &self.client.watch;
        if watch.request_expired() {
            return Poll::Ready(Err(Error::RequestTimeout));
        }
        if watch.backend_expired() {
            watch.release_backend();
            let worker = self.client.worker.id;
            self.pool.count(worker, |counts| &counts.queue_timeouts);
            return Poll::Ready(Err(Error::Full("all backends are busy")));
        }
        watch.remember(cx.waker());
        Poll::Pending
    }

    /// As [`Attempts::pick`], and waits as long as all backends are full. Dropping this future leaves the queue with it.
    pub(super) async fn pick_in_turn(
        &mut self,
        head: &mut Head,
        journey: &mut Journey,
    ) -> Result<(Target, Freshness), Error> {
        loop {
            if let Some(picked) = self.pick(head, journey)? {
                return Ok(picked);
            }
            self.enqueue()?;
            poll_fn(|cx| self.poll_turn(cx)).await?;
        }
    }

    /// Whether the request may be sent again, and what is remembered for it. Gives the error if it may not.
    pub(super) fn allow_another(
        &mut self,
        target: Target,
        failed: Failed,
        is_unsent: bool,
    ) -> Result<(), Error> {
        let Failed { error, was_stale } = failed;
        if matches!(error, Error::RequestTimeout) {
            return Err(error);
        }
        let may_repeat = self.is_repeatable && matches!(error, Error::Upstream(_) | Error::TryTimeout);
        if !is_unsent && !may_repeat {
            return Err(error);
        }
        if was_stale {
            self.again = Some(target);
            return Ok(());
        }
        let rule = &self.settings.config.retry;
        let is_allowed = self.has_attempts()
            && match &error {
                // What never got there costs the backends nothing, so the budget is not asked.
                Error::Connect(_) => rule.on.connect,
                // Paid for when the attempt was given up.
                Error::TryTimeout => true,
                _ => rule.on.reset && (is_unsent || self.pool.spend(self.client.worker.id, rule)),
            };
        if !is_allowed {
            return Err(error);
        }
        self.leave(&target);
        Ok(())
    }

    /// Whether the response with this status is given up, and another backend asked.
    #[inline]
    pub(super) fn give_up(&mut self, target: &Target, status: u16) -> bool {
        status >= 400 && self.gives_up_error(target, status)
    }

    fn gives_up_error(&mut self, target: &Target, status: u16) -> bool {
        let rule = &self.settings.config.retry;
        let may_follow = rule.on.statuses.contains(&status) && self.is_repeatable && self.has_another(target);
        if !may_follow || !self.pool.spend(self.client.worker.id, rule) {
            return false;
        }
        self.leave(target);
        true
    }

    /// How long the attempt at `target` has for the response's head, if another can be made after it.
    #[inline]
    pub(super) fn try_timeout(&self, target: &Target) -> Option<Duration> {
        let config = &self.settings.config;
        let within = config.retry.try_timeout?;
        (self.is_repeatable && self.has_another(target)).then_some(within.min(config.response_timeout))
    }

    /// The attempt at `target` begins.
    #[inline]
    pub(super) fn begin(&self, target: &Target) -> Ledger {
        Ledger::begin(self.client, self, target)
    }

    /// After which time a second attempt is made beside the one under way, if ever.
    #[inline]
    pub(super) fn hedge_after(&self) -> Option<Duration> {
        let after = self.settings.config.retry.hedge_after?;
        self.is_repeatable.then_some(after)
    }

    /// Where a second attempt goes, beside the one at `target`. `None` if there is none, or nothing to pay it with.
    pub(super) fn hedge(
        &mut self,
        target: &Target,
        head: &mut Head,
        journey: &mut Journey,
    ) -> Option<(Target, Freshness)> {
        let worker = self.client.worker.id;
        if !self.has_another(target) || !self.pool.spend(worker, &self.settings.config.retry) {
            return None;
        }
        self.tried.push(target.upstream.backend.id);
        // Nobody waits for room beside an attempt that is under way.
        let picked = self.pick(head, journey).ok().flatten()?;
        self.pool.count(worker, |counts| &counts.hedges);
        Some(picked)
    }

    /// Whether this is what a request is sent for: a response, and none that others are asked for a better one after.
    pub(super) fn is_good(&self, outcome: &Outcome) -> bool {
        let statuses = &self.settings.config.retry.on.statuses;
        outcome
            .as_ref()
            .is_ok_and(|response| !statuses.contains(&response.status().as_u16()))
    }

    /// The second attempt was quicker.
    pub(super) fn count_hedge_won(&self) {
        let worker = self.client.worker.id;
        self.pool.count(worker, |counts| &counts.hedges_won);
    }

    /// An attempt under way has the whole time for a response's head, from now on.
    pub(super) fn expect_answer(&self) {
        let within = self.settings.config.response_timeout;
        self.client.watch.release_backend();
        self.client.watch.expect_backend(within.as_millis() as u64);
    }

    /// Whether another backend may be asked after `target`.
    fn has_another(&self, target: &Target) -> bool {
        self.has_attempts() && self.pool.has_another(&self.tried, target.upstream.backend.id)
    }

    /// Whether another attempt may follow the one under way.
    fn has_attempts(&self) -> bool {
        self.tried.attempts() + 1 < self.settings.config.retry.attempts.get()
    }

    /// The next attempt goes to another backend.
    fn leave(&mut self, target: &Target) {
        self.tried.push(target.upstream.backend.id);
        let worker = self.client.worker.id;
        self.pool.count(worker, |counts| &counts.retries);
    }
}

/// Whether a stored connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Stored or new.
    Any,
    /// New: a stored one has just failed.
    New,
}

/// RFC 9110, 9.2.2. An unknown method may do anything.
#[inline]
fn is_idempotent(head: &Head) -> bool {
    ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
        .iter()
        .any(|method| head.is(method))
}
