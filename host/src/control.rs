//! What the rest of the process may see and ask of a running balancer.
//!
//! Owns the handle that the admin listener, the signals and the demo use, and the words of what can be asked. It must
//! not do any of it: `server.rs` does.
//!
//! Invariant: reading never waits, neither for a reload nor for a worker.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    health::Supervisor,
    metrics::Metrics,
    policy::{Deployment, Recordings},
    pool::Pool,
};

/// A pool in service.
#[derive(Clone)]
pub struct PoolView {
    /// Its backends.
    pub pool: Arc<Pool>,
    /// Its policy.
    pub deployment: Arc<Deployment>,
    /// Its checks.
    pub supervisor: Arc<Supervisor>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    /// Whether anything was different.
    pub changed: bool,
    /// Pools that got another policy or another version of theirs.
    pub policies: Vec<String>,
    /// Pools whose backends or settings are different, new ones included.
    pub pools: Vec<String>,
    /// Things that take a restart, and so did not change.
    pub warnings: Vec<String>,
}

/// Decisions that are being recorded from now on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RecordReport {
    /// Of which pool.
    pub pool: String,
    /// So many in each worker.
    pub picks: u32,
    /// A stream for each worker, by its number in hex.
    pub streams: Vec<String>,
    /// Where they are written; `None` in memory only.
    pub file: Option<PathBuf>,
}

/// Something to be done by the control task.
pub enum Command {
    /// Read the configuration again and put it into service; with the text of every mistake if it cannot be.
    Reload(oneshot::Sender<Result<ReloadReport, String>>),
    /// Put this text into service in place of the configuration file.
    Replace(String, oneshot::Sender<Result<ReloadReport, String>>),
    /// Record the next decisions of this pool, so many in each worker or as many as its configuration says.
    Record(
        String,
        Option<NonZeroU32>,
        oneshot::Sender<Result<RecordReport, String>>,
    ),
    /// Finish what is under way and end.
    Stop,
}

/// A running balancer, as seen from outside. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Arc<Metrics>,
    pools: ArcSwap<Vec<PoolView>>,
    listeners: ArcSwap<Vec<(String, SocketAddr)>>,
    config: ArcSwapOption<Config>,
    recordings: Recordings,
    commands: mpsc::Sender<Command>,
    is_ready: AtomicBool,
    admin: Option<SocketAddr>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        commands: mpsc::Sender<Command>,
        admin: Option<SocketAddr>,
        recordings: Recordings,
    ) -> Self {
        let inner = Inner {
            metrics,
            pools: ArcSwap::default(),
            listeners: ArcSwap::default(),
            config: ArcSwapOption::empty(),
            recordings,
            commands,
            is_ready: AtomicBool::new(false),
            admin,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// The pools in service, by name.
    pub fn pools(&self) -> Arc<Vec<PoolView>> {
        self.inner.pools.load_full()
    }

    /// The listeners in service: name, and the address where it really listens, which matters for port 0.
    pub fn listeners(&self) -> Arc<Vec<(String, SocketAddr)>> {
        self.inner.listeners.load_full()
    }

    /// The configuration in service; `None` before the first.
    pub fn config(&self) -> Option<Arc<Config>> {
        self.inner.config.load_full()
    }

    /// What has been recorded.
    pub fn recordings(&self) -> &Recordings {
        &self.inner.recordings
    }

    /// Records the next decisions of a pool, so many in each worker or as many as its configuration says. Answers when
    /// every worker has been told.
    ///
    /// # Errors
    /// Why they cannot be recorded.
    pub async fn record(&self, pool: String, picks: Option<NonZeroU32>) -> Result<RecordReport, String> {
        let (done, answer) = oneshot::channel();
        let stopped = |_| "the balancer is stopping".to_owned();
        let sent = self.inner.commands.send(Command::Record(pool, picks, done)).await;
        sent.map_err(|_| stopped(()))?;
        answer.await.map_err(|_| stopped(()))?
    }

    /// Where the admin listener really listens; `None` if it is off.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.inner.admin
    }

    /// Whether requests are accepted: from the first configuration in service to the beginning of the stop.
    pub fn is_ready(&self) -> bool {
        self.inner.is_ready.load(Ordering::Acquire)
    }

    /// Reads the configuration again. What serves goes on serving if it is refused.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub async fn reload(&self) -> Result<ReloadReport, String> {
        self.ask(Command::Reload).await
    }

    /// Puts another configuration into service, for callers without a file.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub async fn replace(&self, text: String) -> Result<ReloadReport, String> {
        self.ask(|done| Command::Replace(text, done)).await
    }

    /// Begins a graceful stop.
    pub async fn stop(&self) {
        // If nobody receives it, the balancer has already stopped.
        let _ = self.inner.commands.send(Command::Stop).await;
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<ReloadReport, String>>) -> Command,
    ) -> Result<ReloadReport, String> {
        let (done, answer) = oneshot::channel();
        let stopped = || "the balancer is stopping".to_owned();
        self.inner
            .commands
            .send(command(done))
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    pub(crate) fn set_service(&self, pools: Vec<PoolView>, listeners: Vec<(String, SocketAddr)>) {
        self.inner.pools.store(Arc::new(pools));
        self.inner.listeners.store(Arc::new(listeners));
    }

    pub(crate) fn set_config(&self, config: Arc<Config>) {
        self.inner.config.store(Some(config));
    }

    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.inner.is_ready.store(is_ready, Ordering::Release);
    }
}
