//! The end of a balancer: it says so first, then accepts nothing more, and finishes what is under way.
//!
//! Owns the order of the end, and who is told when. It must not know what a request is.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Control, WorkerHandle};
use crate::{
    admin::Admin,
    control::Handle,
    proxy::{Idle, Message},
};

/// For the admin listener's last answers, when another process has its socket.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// For the last lines of the access log.
const LOG_WITHIN: Duration = Duration::from_secs(2);

/// How a balancer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Stopped,
    /// Another process has taken over.
    Replaced,
    /// The control task panicked; its message is in the log.
    Failed,
}

/// The admin listener's task.
pub(super) struct AdminTask {
    task: tokio::task::JoinHandle<()>,
    leaving: watch::Sender<bool>,
}

impl AdminTask {
    pub(super) fn start(admin: Admin, handle: Handle) -> Self {
        let (leaving, left) = watch::channel(false);
        Self {
            task: tokio::spawn(admin.serve(handle, left)),
            leaving,
        }
    }

    /// Accepts nothing more.
    fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Waits for its last answers, and closes its socket.
    async fn end(mut self, within: Duration) {
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

/// Waits for this moment; for ever without one.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

impl Control {
    /// From now on nothing is ready; listeners still accept for the time that those who ask need to hear of it. True if
    /// that is over.
    pub(super) fn begin_stop(&mut self) -> bool {
        self.handle.set_ready(false);
        self.service_manager.stopping();
        let delay = self.service.config.drain_delay;
        if delay.is_zero() {
            return true;
        }
        if self.stop_at.is_none() {
            tracing::info!(?delay, "not ready any more; listeners close after the delay");
            self.stop_at = Some(Instant::now() + delay);
        }
        false
    }

    /// Finishes what is under way, for so long at most.
    pub(super) async fn stop(mut self, drain: Duration) -> End {
        self.handle.set_ready(false);
        self.steps.abort_all();
        let (end, idle) = match self.upgrades.taken {
            Some(_) => (End::Replaced, Idle::Answer),
            None => (End::Stopped, Idle::Close),
        };
        // The workers' are the last then.
        self.service.held.clear();
        for worker in &self.workers {
            let _ = worker.messages.send(Message::Stop(drain, idle));
        }
        let admin_within = match (self.upgrades.taken.take(), &self.admin) {
            (Some(taken), admin) => {
                admin.iter().for_each(AdminTask::leave);
                taken.leave();
                LAST_ANSWERS_WITHIN
            }
            (None, _) => Duration::ZERO,
        };
        let Self {
            workers,
            service,
            access_writer,
            admin,
            handle,
            reload,
            ..
        } = self;
        if let Some(reload) = reload {
            reload.give_up();
        }
        drop(service);
        let recordings = handle.recordings().clone();
        let ended = tokio::task::spawn_blocking(move || {
            for WorkerHandle { messages, thread } in workers {
                drop(messages);
                // Its panic is in the log.
                let _ = thread.join();
            }
            recordings.finish();
            access_writer.inspect(|writer| writer.wait(LOG_WITHIN))
        });
        let _ = ended.await;
        // Last, since it tells how far the stop is.
        if let Some(admin) = admin {
            admin.end(admin_within).await;
        }
        end
    }
}
