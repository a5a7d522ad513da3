//! What the rest of the process may see and ask of a running balancer.
//!
//! Owns the handle that the admin listener, the signals and the demo use, and the words of what can be asked. It must
//! not do any of it: `server.rs` does.
//!
//! Invariant: reading never waits, neither for a reload nor for a worker.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cluster::Link,
    config::{Config, Shared},
    fleet,
    metrics::Metrics,
    peers,
    policy::{Deployment, Recordings, Report, Sought, Versions},
    rollout::{Canary, Outcome, Report as CanaryReport, Rules, Shadow, ShadowReport},
};

mod member;
mod views;

pub use views::{ListenerView, PoolView, UpgradeStage, UpgradeView};

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

/// A component for pools to be promoted to.
#[derive(Clone, Debug)]
pub struct NewComponent {
    /// Its bytes.
    pub wasm: Arc<[u8]>,
    /// The pool whose limits, settings and backends it is tried with; none leaves that to its promotion.
    pub pool: Option<String>,
}

/// What is known of a component that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Uploaded {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The first 12 digits of it.
    pub version: String,
    /// Its size.
    pub bytes: usize,
    /// Size of its machine code.
    pub code_bytes: usize,
    /// How long compiling took, or loading what was compiled before.
    pub compile_ms: u64,
    /// `compiler` or `cache`.
    pub compiled_by: &'static str,
    /// Whether it was kept already.
    pub known: bool,
    /// The pool that it was tried with.
    pub fits_pool: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub report: Report,
}

/// Which version is to serve a pool, in place of the file's.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The pool.
    pub pool: String,
    /// Which.
    pub sought: Sought,
    /// Its settings as JSON; those that it served with, or else the file's, if there are none.
    pub config_json: Option<String>,
}

/// Which version is to decide for a part of a pool's requests, and what it is judged by.
#[derive(Clone, Debug)]
pub struct CanaryOrder {
    /// The pool.
    pub pool: String,
    /// Which.
    pub sought: Sought,
    /// Its settings, as in a [`Promotion`].
    pub config_json: Option<String>,
    /// Its share of the requests in thousandths, 1 to 1000.
    pub share: u64,
    /// What it is judged by.
    pub rules: Rules,
}

/// Which version is to decide beside the one in service.
#[derive(Clone, Debug)]
pub struct ShadowOrder {
    /// The pool.
    pub pool: String,
    /// Which.
    pub sought: Sought,
    /// Its settings, as in a [`Promotion`].
    pub config_json: Option<String>,
    /// Its share of the decisions in thousandths, 1 to 1000.
    pub share: u64,
}

/// What a promotion did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Promoted {
    /// The pool.
    pub pool: String,
    /// The digest of what serves it now.
    pub digest: String,
    /// The first 12 digits of it.
    pub version: String,
    /// The digest of what served it before.
    pub previous: String,
    /// Whether anything changed.
    pub changed: bool,
    /// Whether it serves in place of what the file says.
    pub pinned: bool,
}

/// Why something that an operator asked for is not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no such pool or version.
    #[error("{0}")]
    Unknown(String),
    /// The component or its settings are refused.
    #[error("{0}")]
    Refused(String),
    /// The balancer is starting or stopping.
    #[error("the balancer is starting or stopping")]
    Stopping,
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
    /// Add these tables of the fleet to what this node has itself, or none.
    Share(Option<Arc<Shared>>, oneshot::Sender<Result<ReloadReport, String>>),
    /// Compile a component, try it and keep it.
    Upload(NewComponent, oneshot::Sender<Result<Uploaded, Denial>>),
    /// Put a kept version into the service of a pool.
    Promote(Promotion, oneshot::Sender<Result<Promoted, Denial>>),
    /// Have a version decide beside the one in service.
    Shadow(ShadowOrder, oneshot::Sender<Result<ShadowReport, Denial>>),
    /// End that in this pool.
    EndShadow(String, oneshot::Sender<Result<ShadowReport, Denial>>),
    /// Put a version on trial.
    Canary(CanaryOrder, oneshot::Sender<Result<CanaryReport, Denial>>),
    /// End the trial in this pool.
    CancelCanary(String, oneshot::Sender<Result<CanaryReport, Denial>>),
    /// Record the next decisions of this pool, so many in each worker or as many as its configuration says.
    Record(
        String,
        Option<NonZeroU32>,
        oneshot::Sender<Result<RecordReport, String>>,
    ),
    /// Have another process take over; answered with its id when it serves.
    Upgrade(oneshot::Sender<Result<u32, String>>),
    /// Finish what is under way and end.
    Stop,
}

/// The canaries, as the control task last left them.
#[derive(Default)]
struct Canaries {
    running: Vec<Arc<Canary>>,
    over: Vec<CanaryReport>,
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
    listener_views: ArcSwap<Vec<ListenerView>>,
    versions: ArcSwap<Versions>,
    cluster: ArcSwapOption<Link>,
    fleet: ArcSwapOption<fleet::Link>,
    peers: ArcSwapOption<peers::Link>,
    canaries: ArcSwap<Canaries>,
    shadows: ArcSwap<BTreeMap<String, Arc<Shadow>>>,
    component_bytes_max: AtomicUsize,
    config: ArcSwapOption<Config>,
    recordings: Recordings,
    upgrade: ArcSwap<UpgradeView>,
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
            listener_views: ArcSwap::default(),
            versions: ArcSwap::default(),
            cluster: ArcSwapOption::empty(),
            fleet: ArcSwapOption::empty(),
            peers: ArcSwapOption::empty(),
            canaries: ArcSwap::default(),
            shadows: ArcSwap::default(),
            component_bytes_max: AtomicUsize::new(0),
            config: ArcSwapOption::empty(),
            recordings,
            upgrade: ArcSwap::default(),
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

    /// The same with what they are, and what is counted of them.
    pub fn listener_views(&self) -> Arc<Vec<ListenerView>> {
        self.inner.listener_views.load_full()
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
        self.ask(Command::Reload).await.unwrap_or_else(stopped)
    }

    /// Puts another configuration into service, for callers without a file.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub async fn replace(&self, text: String) -> Result<ReloadReport, String> {
        let answer = self.ask(|done| Command::Replace(text, done)).await;
        answer.unwrap_or_else(stopped)
    }

    /// The versions that pools can go back to.
    pub fn versions(&self) -> Arc<Versions> {
        self.inner.versions.load_full()
    }

    /// Larger components are refused.
    pub fn component_bytes_max(&self) -> usize {
        self.inner.component_bytes_max.load(Ordering::Relaxed)
    }

    /// Compiles a component, tries it and keeps it. It serves nobody yet.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn upload(&self, component: NewComponent) -> Result<Uploaded, Denial> {
        let answer = self.ask(|done| Command::Upload(component, done)).await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// Puts a kept version into the service of a pool.
    ///
    /// # Errors
    /// Why that cannot be; what served goes on serving.
    pub async fn promote(&self, promotion: Promotion) -> Result<Promoted, Denial> {
        let answer = self.ask(|done| Command::Promote(promotion, done)).await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// Puts a version on trial with a share of a pool's requests.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn canary(&self, order: CanaryOrder) -> Result<CanaryReport, Denial> {
        let answer = self.ask(|done| Command::Canary(order, done)).await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// Ends the trial in a pool.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cancel_canary(&self, pool: &str) -> Result<CanaryReport, Denial> {
        let answer = self
            .ask(|done| Command::CancelCanary(pool.to_owned(), done))
            .await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// Has a version decide beside the one in service.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn shadow(&self, order: ShadowOrder) -> Result<ShadowReport, Denial> {
        let answer = self.ask(|done| Command::Shadow(order, done)).await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// Ends that.
    ///
    /// # Errors
    /// When there is none.
    pub async fn end_shadow(&self, pool: &str) -> Result<ShadowReport, Denial> {
        let answer = self.ask(|done| Command::EndShadow(pool.to_owned(), done)).await;
        answer.unwrap_or(Err(Denial::Stopping))
    }

    /// How the shadow in a pool compares.
    pub fn shadow_report(&self, pool: &str) -> Option<ShadowReport> {
        let shadows = self.inner.shadows.load();
        shadows.get(pool).map(|shadow| shadow.report())
    }

    /// All canaries with their evidence up to now: those on trial, then those that are over, the newest first.
    pub fn canaries(&self) -> Vec<CanaryReport> {
        let canaries = self.inner.canaries.load();
        let running = canaries.running.iter();
        let running = running.map(|canary| canary.report(Outcome::Running, None, None));
        running.chain(canaries.over.iter().cloned()).collect()
    }

    /// Whether this version is on trial somewhere.
    pub(crate) fn is_on_trial(&self, deployment: &Arc<Deployment>) -> bool {
        let canaries = self.inner.canaries.load();
        canaries
            .running
            .iter()
            .any(|canary| Arc::ptr_eq(&canary.deployment, deployment))
    }

    pub(crate) fn set_canaries(&self, running: Vec<Arc<Canary>>, over: Vec<CanaryReport>) {
        self.inner.canaries.store(Arc::new(Canaries { running, over }));
    }

    /// Has another process take over. Answers with its id when it serves; this one then ends in order.
    ///
    /// # Errors
    /// Why the other one does not serve. This one goes on.
    pub async fn upgrade(&self) -> Result<u32, String> {
        self.ask(Command::Upgrade).await.unwrap_or_else(stopped)
    }

    /// What became of the last try of that.
    pub fn last_upgrade(&self) -> Arc<UpgradeView> {
        self.inner.upgrade.load_full()
    }

    pub(crate) fn set_upgrade(&self, upgrade: UpgradeView) {
        self.inner.upgrade.store(Arc::new(upgrade));
    }

    /// Begins a graceful stop.
    pub async fn stop(&self) {
        // If nobody receives it, the balancer has already stopped.
        let _ = self.inner.commands.send(Command::Stop).await;
    }

    /// `None` if nobody is there any more to answer.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.inner.commands.send(command(done)).await.ok()?;
        answer.await.ok()
    }

    pub(crate) fn set_service(&self, pools: Vec<PoolView>, listeners: Vec<ListenerView>) {
        let addresses = listeners
            .iter()
            .map(|view| (view.config.name.clone(), view.address));
        self.inner.listeners.store(Arc::new(addresses.collect()));
        self.inner.pools.store(Arc::new(pools));
        self.inner.listener_views.store(Arc::new(listeners));
    }

    pub(crate) fn set_versions(&self, versions: Versions, component_bytes_max: usize) {
        self.inner.versions.store(Arc::new(versions));
        self.inner
            .component_bytes_max
            .store(component_bytes_max, Ordering::Relaxed);
    }

    pub(crate) fn set_config(&self, config: Arc<Config>) {
        self.inner.config.store(Some(config));
    }

    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.inner.is_ready.store(is_ready, Ordering::Release);
    }
}

fn stopped<T>() -> Result<T, String> {
    Err("the balancer is stopping".to_owned())
}
