//! The change from one process to the next, without a moment in which nobody listens.
//!
//! Owns when the new process is started and what becomes of this one: it ends in order once the new one serves, and goes
//! on as if nothing had happened otherwise. How the two talk is in `handover.rs`; the place of a member of a cluster, in `place.rs`.
//!
//! Invariant: while a new process starts, no configuration goes into service here, so that both have the same listeners.

use std::{sync::atomic::Ordering, time::Instant};

use tokio::{sync::oneshot, task::JoinSet};

use super::Control;
use crate::{
    control::{PoolView, UpgradeStage, UpgradeView},
    handover::{ADMIN, Handover, Started, Successor, Taken},
};

pub(super) type Answer = oneshot::Sender<Result<u32, String>>;

/// The new process, if there is one.
#[derive(Default)]
pub(super) struct Upgrades {
    successor: Option<Successor>,
    pub(super) starting: JoinSet<Result<Taken, String>>,
    /// Who waits for the one that starts.
    answers: Vec<Answer>,
    /// It is to begin when the reload under way has ended.
    is_due: bool,
    /// That this process could not yet be the member again is in the log.
    pub(super) is_told: bool,
    /// It serves, and this process is to end.
    pub(super) taken: Option<Taken>,
}

impl Upgrades {
    pub(super) fn by(successor: Option<Successor>) -> Self {
        Self {
            successor,
            ..Self::default()
        }
    }

    /// Whether a new process starts, so that nothing else may change.
    pub(super) fn are_running(&self) -> bool {
        !self.starting.is_empty()
    }
}

impl Control {
    /// Starts the new process; after a reload that is under way.
    pub(super) fn begin_upgrade(&mut self, answer: Answer) {
        if self.upgrades.successor.is_none() {
            let refusal = "this process does not know how it was started, and cannot be replaced by another";
            let _ = answer.send(Err(refusal.to_owned()));
            return;
        }
        if self.stop_at.is_some() {
            let _ = answer.send(Err("the balancer is stopping".to_owned()));
            return;
        }
        // Whoever asks while it is under way gets the same answer.
        self.upgrades.answers.push(answer);
        if self.upgrades.are_running() {
            return;
        }
        self.upgrades.is_due = true;
        self.upgrade_if_due();
    }

    /// Starts the new process if it is wanted and nothing else is under way.
    pub(super) fn upgrade_if_due(&mut self) {
        let Some(successor) = self.upgrades.successor.clone() else {
            return;
        };
        if self.reload.is_some() || !std::mem::take(&mut self.upgrades.is_due) {
            return;
        }
        tracing::info!(program = %successor.program.display(), "starting the process that takes over");
        match self.handover() {
            Ok(handover) => {
                self.publish_upgrade(Some(UpgradeStage::Starting), None);
                self.upgrades.is_told = false;
                let place = self.place();
                self.upgrades.starting.spawn(async move {
                    match successor.start(handover).await? {
                        Started::Serves(taken) => Ok(taken),
                        Started::Waits(waiting) => {
                            let place =
                                place.ok_or("it asks for a place in a cluster, and there is none here")?;
                            place.give().await?;
                            waiting.admit().await
                        }
                    }
                });
            }
            Err(error) => self.refuse_upgrade(&format!("the sockets cannot be copied: {error}")),
        }
    }

    /// The new process serves, or does not. True if this one is to end.
    pub(super) fn end_upgrade(
        &mut self,
        started: Result<Result<Taken, String>, tokio::task::JoinError>,
    ) -> bool {
        match started.map_err(|error| error.to_string()).flatten() {
            Ok(taken) => {
                tracing::info!(
                    pid = taken.pid,
                    "another process has taken over; requests in flight may finish here"
                );
                // Before anybody is told: the answer may be the last thing that whoever restarts processes waits for.
                self.service_manager.is_now(taken.pid);
                for answer in self.upgrades.answers.drain(..) {
                    let _ = answer.send(Ok(taken.pid));
                }
                self.upgrades.taken = Some(taken);
                true
            }
            Err(reason) => {
                self.refuse_upgrade(&reason);
                self.next_reload();
                false
            }
        }
    }

    fn refuse_upgrade(&mut self, reason: &str) {
        let metrics = self.handle.metrics();
        metrics.upgrades_failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!("the new process does not serve; this one goes on");
        for line in reason.lines() {
            tracing::error!("{line}");
        }
        self.publish_upgrade(None, Some(reason.to_owned()));
        for answer in self.upgrades.answers.drain(..) {
            // Whoever asked may have gone.
            let _ = answer.send(Err(reason.to_owned()));
        }
    }

    fn publish_upgrade(&self, stage: Option<UpgradeStage>, last_error: Option<String>) {
        self.handle.set_upgrade(UpgradeView { stage, last_error });
    }

    fn handover(&self) -> std::io::Result<Handover> {
        let member = self.seat.as_ref().filter(|seat| !seat.link.has_ended());
        let mut sockets = match member {
            // As long as anybody has one, the next node cannot listen.
            Some(seat) if seat.binds() => Vec::new(),
            _ => self.service.copies()?,
        };
        if let Some(admin) = &self.admin_socket {
            sockets.push((ADMIN.to_owned(), admin.try_clone()?.into()));
        }
        let now = Instant::now();
        let views = self.service.views();
        let name = |view: &PoolView| view.pool.name().to_owned();
        let standings = views.iter().map(|view| (name(view), view.pool.standings(now)));
        let found = views.iter().filter_map(|view| {
            let found = view.discovery.as_ref()?.found()?;
            Some((name(view), found.to_vec()))
        });
        Ok(Handover {
            sockets,
            standings: standings.collect(),
            found: found.collect(),
            is_member: member.is_some(),
        })
    }
}
