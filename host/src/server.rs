//! The wiring: configurations become running workers, and changes reach them.
//!
//! Owns the control task, which is the only one that changes anything: it has configurations loaded and components
//! compiled, builds instances off the workers, binds sockets, and hands each worker a complete plan. It must not serve
//! requests.
//!
//! Invariants: a configuration goes into service as a whole or not at all, and everything that can be refused is refused
//! before the first worker hears of it. The control task never waits for a compile.
//! Read next: `server/loading.rs` (from files to code), `server/prepare.rs` (from configuration to plans),
//! `server/rollout.rs` (versions), `server/watch.rs` (files that change).

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    admin::Admin,
    config::{Config, PolicySource, Shared as SharedTables},
    control::{Command, Handle, ReloadReport},
    discovery::Update,
    fleet::Fleet,
    handover::{Inheritance, Successor},
    metrics::Metrics,
    peers::Peers,
    policy::{Compiler, Loader, Rebuild},
    proxy::{AccessWriter, Message, Plan, Shared},
    registry::Store,
    systemd::ServiceManager,
};

mod access;
mod archive;
mod beginning;
mod canary;
mod check;
mod cluster;
mod discovery;
mod error;
mod fleet;
mod listeners;
mod loading;
mod peers;
mod place;
mod prepare;
mod rebuild;
mod recording;
mod reload;
mod rollout;
mod secrets;
mod shadow;
mod sockets;
mod stopping;
mod tls;
mod upgrade;
mod warm;
mod watch;
mod workers;

pub use beginning::Surroundings;
pub use check::check;
pub use error::StartError;
pub use stopping::End;

use archive::Bytes;
use beginning::{open, open_admin, take_over};
use canary::Canaries;
use cluster::Seat;
use discovery::Discovery;
use loading::Loaded;
use prepare::{Prepared, Service};
use recording::Sampler;
use reload::{Answer, Reload, Wanted};
use rollout::{Rollout, Step};
use shadow::Shadows;
use stopping::AdminTask;
use upgrade::Upgrades;
use warm::Warmth;
use workers::{WorkerHandle, start_workers};

/// What messages call a text that is in no file.
const ORIGIN: &str = "configuration";
/// Threads that compile and build. Few, because they compete with the workers for cores.
pub const BLOCKING_THREADS: usize = 4;

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, watched together with the components it names.
    File(PathBuf),
    /// A text, with the directory that its paths are relative to.
    Text {
        /// TOML.
        text: String,
        /// For relative paths.
        directory: PathBuf,
    },
    /// One of those, with what a fleet adds to it.
    Joined {
        /// This node's own.
        own: Box<Self>,
        /// The fleet's.
        shared: Arc<SharedTables>,
    },
}

impl Source {
    /// Reads and checks the configuration as it is now.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(&self) -> Result<Config, StartError> {
        let config = match self {
            Self::File(path) => Config::load(path),
            Self::Text { text, directory } => Config::parse(text, ORIGIN, directory),
            Self::Joined { own, shared } => match &**own {
                Self::File(path) => Config::load_shared(path, shared),
                Self::Text { text, directory } => Config::parse_shared(text, ORIGIN, directory, shared),
                Self::Joined { own, .. } => return own.with(Some(shared.clone())).load(),
            },
        };
        config.map_err(StartError::Mistakes)
    }

    /// This node's own.
    fn own(&self) -> &Self {
        match self {
            Self::Joined { own, .. } => own.own(),
            own => own,
        }
    }

    /// The same with other tables of the fleet, or without any.
    fn with(&self, shared: Option<Arc<SharedTables>>) -> Self {
        let own = self.own().clone();
        match shared {
            Some(shared) => Self::Joined {
                own: Box::new(own),
                shared,
            },
            None => own,
        }
    }
}

/// A running balancer. Dropping it without [`Server::join`] leaves the workers running until the process ends.
pub struct Server {
    handle: Handle,
    control: tokio::task::JoinHandle<End>,
}

impl Server {
    /// Starts workers and puts the configuration into service. Returns when requests are accepted. Has to be called on a
    /// tokio runtime, which then runs health checks, reloads and the admin listener. Components are compiled by
    /// `compiler`: a program that is not trimtab's own has to compile them itself.
    ///
    /// # Errors
    /// What is wrong with the configuration, its policies, or its addresses. Nothing is left running.
    pub async fn start(source: Source, compiler: Compiler) -> Result<Self, StartError> {
        Self::start_from(source, compiler, Surroundings::default()).await
    }

    /// The same, with what other processes have to do with it. If one leaves its sockets, it is told when this one serves,
    /// or why it does not; before that nobody is answered here.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(
        source: Source,
        compiler: Compiler,
        around: Surroundings,
    ) -> Result<Self, StartError> {
        let Surroundings {
            mut inheritance,
            successor,
            service_manager,
        } = around;
        let started = Self::begin(source, compiler, &mut inheritance, (successor, service_manager)).await;
        if let Err(error) = &started {
            inheritance.refuse(&error.to_string());
        }
        started
    }

    async fn begin(
        source: Source,
        compiler: Compiler,
        inheritance: &mut Inheritance,
        (successor, service_manager): (Option<Successor>, ServiceManager),
    ) -> Result<Self, StartError> {
        let (source, config) = fleet::load(source)?;
        // First of all, so that a second balancer started by mistake ends here.
        let admin = config.admin.as_ref().map(|admin| open_admin(admin, inheritance));
        let admin = admin.transpose()?;
        let admin_socket = admin.as_ref().and_then(|admin| admin.copy().ok());
        let (loader, registry, archive) = open(&config, compiler)?;
        let rollout = Rollout::restore(archive, &loader, &config.compile).await;
        let metrics = Arc::new(Metrics::new(config.workers.get()));
        let (rebuild_sender, rebuilds) = mpsc::unbounded_channel();
        let shared = Shared {
            metrics: metrics.clone(),
            rebuilds: rebuild_sender,
        };
        let (commands, orders) = mpsc::channel(16);
        let handle = Handle::new(
            metrics.clone(),
            commands.clone(),
            admin.as_ref().map(Admin::address),
            recording::recordings(&config.record),
        );
        let (found, discovered) = mpsc::unbounded_channel();
        let discovery = Discovery::new(found, std::mem::take(&mut inheritance.found));
        let mut control = Control {
            source,
            loader: Arc::new(loader),
            registry: Arc::new(registry),
            rollout,
            reload: None,
            waiting: VecDeque::new(),
            steps: JoinSet::new(),
            canaries: Canaries::default(),
            shadows: Shadows::default(),
            workers: start_workers(config.workers.get(), &shared)?,
            handle: handle.clone(),
            service: Service::empty(&config, inheritance, discovery),
            sampler: Sampler::default(),
            access_writer: None,
            components: loading::named_files(&config),
            admin: None,
            admin_socket,
            upgrades: Upgrades::by(successor),
            service_manager,
            stop_at: None,
            seat: None,
            fleet: None,
            follower: None,
            peers: None,
            warmth: None,
        };
        let (at_once, later) = match inheritance.has_predecessor() {
            true => (None, admin),
            // It answers while policies compile, if only that nothing is ready.
            false => (admin, None),
        };
        control.admin = at_once.map(|admin| AdminTask::start(admin, handle.clone()));
        if let Err(error) = control.start(config, inheritance).await {
            control.stop(Duration::ZERO).await;
            return Err(error);
        }
        take_over(inheritance).await;
        handle.set_ready(true);
        if let Some(admin) = later {
            control.admin = Some(AdminTask::start(admin, handle.clone()));
        }
        control.service_manager.ready();
        let watcher = watch::Watcher::start(&control.watched(), commands);
        let control = tokio::spawn(control.run(orders, rebuilds, (watcher, discovered)));
        Ok(Self { handle, control })
    }

    /// For asking and telling.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the balancer has stopped.
    pub async fn join(self) -> End {
        self.control.await.unwrap_or(End::Failed)
    }
}

/// The control task's state.
struct Control {
    source: Source,
    loader: Arc<Loader>,
    registry: Arc<Store>,
    rollout: Rollout,
    /// The reload whose components are being compiled. One at a time, so that the last one asked for is the last one
    /// in service.
    reload: Option<Reload>,
    /// Reloads that came meanwhile.
    waiting: VecDeque<(Wanted, Answer)>,
    /// Uploads and promotions that are being compiled.
    steps: JoinSet<Step>,
    canaries: Canaries,
    shadows: Shadows,
    workers: Vec<WorkerHandle>,
    handle: Handle,
    service: Service,
    sampler: Sampler,
    access_writer: Option<AccessWriter>,
    admin: Option<AdminTask>,
    /// A copy for the process that takes over.
    admin_socket: Option<std::net::TcpListener>,
    upgrades: Upgrades,
    service_manager: ServiceManager,
    /// When listeners close, once the stop has begun.
    stop_at: Option<std::time::Instant>,
    /// This node's place in the cluster, if it has one.
    seat: Option<Seat>,
    /// This node's place in the fleet, if it has one, and what takes the configuration that the fleet says.
    fleet: Option<Fleet>,
    follower: Option<tokio::task::JoinHandle<()>>,
    /// This node's part in the exchange of load, if it has peers.
    peers: Option<Peers>,
    /// What is asked of the active node of the cluster, and told.
    warmth: Option<Warmth>,
    /// The components and certificates that the last readable configuration names, refused or not: correcting the file that a
    /// refusal was about is enough to have it tried again.
    components: Vec<PathBuf>,
}

impl Control {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut rebuilds: mpsc::UnboundedReceiver<Rebuild>,
        (watcher, mut discovered): (watch::Watcher, mpsc::UnboundedReceiver<Update>),
    ) -> End {
        let mut judging = tokio::time::interval(canary::JUDGE_EVERY);
        judging.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sampling = tokio::time::interval(recording::LOOK_EVERY);
        sampling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = judging.tick(), if !self.canaries.is_empty() => self.judge_canaries().await,
                order = orders.recv() => match order {
                    Some(Command::Reload(answer)) => self.begin_reload(Wanted::Again, answer),
                    Some(Command::Replace(text, answer)) => self.begin_reload(Wanted::Text(text), answer),
                    Some(Command::Share(shared, answer)) => self.begin_reload(Wanted::Shared(shared), answer),
                    Some(Command::Upload(component, done)) => self.upload(component, done),
                    Some(Command::Promote(promotion, done)) => self.promote(promotion, done),
                    Some(Command::Shadow(order, done)) => self.find_shadow(order, done),
                    Some(Command::EndShadow(pool, done)) => drop(done.send(self.end_shadow(&pool))),
                    Some(Command::Canary(order, done)) => self.find_canary(order, done),
                    // Whoever asked may have gone.
                    Some(Command::CancelCanary(pool, done)) => drop(done.send(self.cancel_canary(&pool))),
                    Some(Command::Record(pool, picks, done)) => self.record(&pool, picks, done),
                    Some(Command::Upgrade(done)) => self.begin_upgrade(done),
                    Some(Command::Stop) if !self.begin_stop() => {}
                    Some(Command::Stop) | None => break,
                },
                loaded = Reload::loaded(&mut self.reload) => {
                    self.end_reload(loaded).await;
                    watcher.set(&self.watched());
                }
                Some(started) = self.upgrades.starting.join_next() => {
                    if self.end_upgrade(started) {
                        break;
                    }
                }
                () = stopping::at(self.stop_at) => break,
                Some(step) = self.steps.join_next() => match step {
                    Ok(step) => self.carry_out(step).await,
                    Err(error) => tracing::error!(%error, "bug: loading a version panicked"),
                },
                Some(update) = discovered.recv() => self.discovered(&update).await,
                _ = sampling.tick() => self.sample(),
                turn = Seat::next(&mut self.seat) => self.take_turn(turn).await,
                () = tokio::time::sleep(place::AGAIN), if self.has_lost_its_place() => self.sit_down_again(),
                Some(rebuild) = rebuilds.recv() => self.rebuild(rebuild),
            }
        }
        drop(watcher);
        // Ends a process that has not taken over yet, before anything is handed over to somebody else.
        self.upgrades.starting.shutdown().await;
        self.hand_over().await;
        self.leave_fleet().await;
        // The process that follows wants the address.
        self.peers = None;
        let drain = self.service.config.drain;
        self.stop(drain).await
    }

    fn watched(&self) -> Vec<PathBuf> {
        let Source::File(path) = self.source.own() else {
            return Vec::new();
        };
        std::iter::once(path.clone())
            .chain(self.components.iter().cloned())
            .collect()
    }

    /// The first configuration. Versions that were promoted before the restart are no reason not to start.
    async fn start(&mut self, config: Config, inheritance: &mut Inheritance) -> Result<(), StartError> {
        let loaded = loading::load_policies(config.clone(), self.supply(), Vec::new()).await?;
        let mut result = self.put_into_service(loaded).await;
        if let Err(error) = &result
            && self.rollout.has_restored()
        {
            tracing::error!(%error, "trying without the versions that were promoted");
            self.rollout.unpin_all();
            let loaded = loading::load_policies(config, self.supply(), Vec::new()).await?;
            result = self.put_into_service(loaded).await;
        }
        result.map(|report| reload::warn(&report))?;
        // Not before there is something to serve.
        self.wait_for_place(inheritance).await?;
        self.sit_down()?;
        self.listen_at_last().await?;
        self.join_fleet()?;
        self.join_peers()
    }

    /// Prepares everything, then tells the workers.
    async fn put_into_service(&mut self, loaded: Loaded) -> Result<ReloadReport, StartError> {
        let chosen = self.rollout.choose(&loaded, &self.service, &self.loader)?;
        let Loaded { config, policies } = loaded;
        let candidates: BTreeMap<_, _> = chosen
            .iter()
            .map(|(pool, chosen)| (pool.clone(), chosen.candidate.clone()))
            .collect();
        let mut prepared = self
            .service
            .prepare(config, &candidates, self.workers.len())
            .await?;
        prepared.report.warnings.extend(self.rollout.overruled(&chosen));
        let report = self.install(prepared).await?;
        let components = policies.into_values().filter_map(|candidate| {
            let digest = candidate.digest.to_string();
            match &candidate.spec.source {
                PolicySource::File(path) => Some((digest, Bytes::File(path.clone()))),
                PolicySource::Registry(_) => Some((digest, Bytes::Pulled(self.registry.clone()))),
                PolicySource::Builtin(_) => None,
            }
        });
        let versions_max = self.service.config.versions_kept;
        self.rollout
            .record(chosen, components.collect(), versions_max)
            .await;
        self.publish_versions();
        Ok(report)
    }

    /// Tells the workers.
    async fn install(&mut self, prepared: Prepared) -> Result<ReloadReport, StartError> {
        let Prepared {
            mut service,
            instances,
            sockets,
            report,
        } = prepared;
        let access_log = self.open_access_log(&mut service)?;
        // Before the workers hear of it: a policy that fails at once is looked up here to be rebuilt.
        self.handle.set_service(service.views(), service.listener_views());
        self.handle.set_config(service.config.clone());
        self.handle
            .recordings()
            .set_storage(recording::storage(&service.config.record));
        let mut waiting = Vec::new();
        let plans = service.plans(instances, sockets, self.workers.len());
        for (worker, (listeners, pools)) in self.workers.iter().zip(plans) {
            let (done, applied) = oneshot::channel();
            let plan = Plan {
                listeners,
                pools,
                access_log: access_log.clone(),
            };
            // A worker that is gone has logged why.
            let _ = worker.messages.send(Message::Apply(Box::new(plan), done));
            waiting.push(applied);
        }
        for applied in waiting {
            let _ = applied.await;
        }
        self.service = service;
        self.service.settle();
        self.tell_what_serves();
        let metrics = self.handle.metrics();
        metrics
            .reloads
            .fetch_add(u64::from(report.changed), Ordering::Relaxed);
        metrics
            .swaps
            .fetch_add(report.policies.len() as u64, Ordering::Relaxed);
        Ok(report)
    }
}
