//! From a configuration to what each worker needs of it.
//!
//! Owns the comparison with what is in service, so that only what differs is made anew, and everything that can be
//! refused. It must not change anything that serves: a refusal leaves no trace but closed sockets.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Instant,
};

use super::{
    StartError,
    discovery::Discovery,
    loading::refused,
    secrets::Secrets,
    sockets::{self, Held, Sockets},
    tls,
};
use crate::{
    config::{self, Config},
    control::{ListenerView, PoolView, ReloadReport},
    handover::Inheritance,
    health::Supervisor,
    metrics,
    policy::{Candidate, Deployment, Instance},
    pool::{Pool, Standing},
    proxy::{AccessLog, ListenerPlan, PoolPlan},
    rate,
    sticky::Sticky,
    tenant::Tenant,
    tls::Originator,
};

/// What is in service.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) config: Arc<Config>,
    pub(super) access_log: Option<AccessLog>,
    /// Whether listeners are bound; a standby's may not be, nor a process' that is no member yet.
    pub(super) is_listening: bool,
    pub(super) listeners: Vec<Arc<config::Listener>>,
    /// Where each listener really listens, by its key; differs from what is configured for port 0.
    pub(super) addresses: BTreeMap<String, SocketAddr>,
    /// By their keys, too.
    pub(super) counters: BTreeMap<String, Arc<metrics::Listener>>,
    pub(super) rates: BTreeMap<String, Arc<rate::Shared>>,
    secrets: Secrets,
    /// Copies of the sockets, for a process that takes over.
    pub(super) held: Held,
    tls: tls::Loaded,
    pub(super) discovery: Discovery,
    pools: BTreeMap<String, PoolView>,
    tenants: BTreeMap<String, Arc<Tenant>>,
    /// What a process before knew of the backends of pools that this one has not made yet.
    standings: BTreeMap<String, Vec<Standing>>,
}

/// A configuration that can go into service.
pub(super) struct Prepared {
    pub(super) service: Service,
    pub(super) instances: Instances,
    pub(super) sockets: Sockets,
    pub(super) report: ReloadReport,
}

/// New instances, one for each worker, of the pools whose policy changes.
type Instances = BTreeMap<String, Vec<Instance>>;

impl Prepared {
    /// Only pools have changed, and none has another policy.
    pub(super) fn of_pools(service: Service) -> Self {
        Self {
            service,
            instances: Instances::new(),
            sockets: Sockets::new(),
            report: ReloadReport::default(),
        }
    }
}

/// What a pool has of others: whose it is, how TLS begins with its backends, and its sticky sessions.
type Company<'a> = (
    Option<&'a Arc<Tenant>>,
    Option<&'a Arc<Originator>>,
    Option<Arc<Sticky>>,
);

impl Service {
    /// Nothing yet, but what another process leaves.
    pub(super) fn empty(config: &Config, inheritance: &mut Inheritance, discovery: Discovery) -> Self {
        let binds_when_active = config
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.takeover == config::Takeover::Bind);
        let waits = config.cluster.is_some() && inheritance.has_place();
        let held = match binds_when_active {
            true => Held::new(),
            false => sockets::inherited(config, inheritance),
        };
        let config = Config {
            listeners: Vec::new(),
            pools: BTreeMap::new(),
            ..config.clone()
        };
        Self {
            is_listening: !binds_when_active && !waits,
            config: Arc::new(config),
            access_log: None,
            listeners: Vec::new(),
            addresses: BTreeMap::new(),
            counters: BTreeMap::new(),
            rates: BTreeMap::new(),
            secrets: Secrets::default(),
            held,
            tls: tls::Loaded::default(),
            discovery,
            pools: BTreeMap::new(),
            tenants: BTreeMap::new(),
            standings: std::mem::take(&mut inheritance.standings),
        }
    }

    pub(super) fn views(&self) -> Vec<PoolView> {
        self.pools.values().cloned().collect()
    }

    /// Makes everything that the configuration needs and is not there yet. Each pool has a candidate.
    ///
    /// # Errors
    /// The first thing that cannot be made.
    pub(super) async fn prepare(
        &self,
        config: Config,
        candidates: &BTreeMap<String, Arc<Candidate>>,
        workers: usize,
    ) -> Result<Prepared, StartError> {
        let mut report = ReloadReport::default();
        self.note_what_needs_a_restart(&config, workers, &mut report);
        report
            .warnings
            .extend(config.warnings().iter().map(ToString::to_string));
        let tenants = self.tenants(&config, workers);
        let (config, tls) = self.load_tls(config).await?;
        let (config, secrets) = self.secrets.load(config).await?;
        let discovery = self.discovery.follow(&config, &mut report).await;
        let mut pools = BTreeMap::new();
        let mut instances = BTreeMap::new();
        for (name, pool_config) in &config.pools {
            let candidate = candidates[name].clone();
            let tenant = pool_config.tenant.as_ref().and_then(|name| tenants.get(name));
            let sticky = secrets.sticky(pool_config, self.pools.get(name), workers);
            let company = (tenant, tls.originators.get(name), sticky);
            let pool_config = &discovery.merged(pool_config);
            let made = self.pool(pool_config, (candidate, company), workers, &mut report);
            let (mut view, built) = made.await?;
            view.discovery = discovery.finder(name).cloned();
            if let Some(built) = built {
                instances.insert(name.clone(), built);
            }
            pools.insert(name.clone(), view);
        }
        report.pools.extend(
            self.pools
                .keys()
                .filter(|name| !pools.contains_key(*name))
                .cloned(),
        );
        let (sockets, held) = self.sockets(&config, workers)?;
        let listeners: Vec<_> = config.listeners.iter().cloned().map(Arc::new).collect();
        report.changed = !report.pools.is_empty()
            || !report.policies.is_empty()
            || listeners != self.listeners
            || !tls::are_same(&tls.terminators, &self.tls.terminators)
            || config.log != self.config.log
            || (config.drain, config.drain_delay) != (self.config.drain, self.config.drain_delay)
            || config.tenants != self.config.tenants;
        let mut service = Self {
            config: Arc::new(config),
            access_log: None,
            is_listening: self.is_listening,
            counters: self.counters(&listeners, workers),
            rates: self.rates(&listeners, workers),
            listeners,
            addresses: self.addresses.clone(),
            secrets,
            held,
            tls,
            discovery,
            pools,
            tenants,
            standings: BTreeMap::new(),
        };
        service.note_addresses(&sockets);
        Ok(Prepared {
            service,
            instances,
            sockets,
            report,
        })
    }

    fn note_what_needs_a_restart(&self, config: &Config, workers: usize, report: &mut ReloadReport) {
        if config.workers.get() != workers {
            report.warnings.push(format!(
                "workers = {} takes a restart; {workers} are running",
                config.workers
            ));
        }
        if config.admin != self.config.admin {
            report.warnings.push("admin.listen takes a restart".to_owned());
        }
        if (config.log.level, config.log.format) != (self.config.log.level, self.config.log.format) {
            report
                .warnings
                .push("log.level and log.format take a restart".to_owned());
        }
        if config.cluster != self.config.cluster {
            report.warnings.push("[cluster] takes a restart".to_owned());
        }
        if config.fleet != self.config.fleet {
            report
                .warnings
                .push("[fleet] and [etcd] take a restart".to_owned());
        }
        if config.peers != self.config.peers {
            report.warnings.push("[peers] takes a restart".to_owned());
        }
        if (&config.state, config.compile.processes) != (&self.config.state, self.config.compile.processes) {
            report
                .warnings
                .push("state and compile.processes take a restart".to_owned());
        }
    }

    /// The same with another version of one pool's policy; `None` without that pool.
    ///
    /// # Errors
    /// When no instance can be built.
    pub(super) async fn with_policy(
        &self,
        pool: &str,
        candidate: Arc<Candidate>,
        workers: usize,
    ) -> Result<Option<Prepared>, StartError> {
        let mut service = self.clone();
        let Some(view) = service.pools.get_mut(pool) else {
            return Ok(None);
        };
        let built = build(&view.pool, &candidate, workers).await?;
        let follows = candidate.check_follows(&view.deployment.candidate);
        follows.map_err(|refusal| refused(&candidate.spec, refusal))?;
        view.deployment = Arc::new(Deployment::new(candidate, pool, workers));
        Ok(Some(Prepared {
            service,
            instances: Instances::from([(pool.to_owned(), built)]),
            sockets: Sockets::new(),
            report: ReloadReport {
                policies: vec![pool.to_owned()],
                ..ReloadReport::default()
            },
        }))
    }

    pub(super) fn view(&self, pool: &str) -> Option<&PoolView> {
        self.pools.get(pool)
    }

    pub(super) fn set_view(&mut self, view: PoolView) {
        self.pools.insert(view.pool.name().to_owned(), view);
    }

    /// What serves the pool.
    pub(super) fn candidate(&self, pool: &str) -> Option<&Arc<Candidate>> {
        self.pools.get(pool).map(|view| &view.deployment.candidate)
    }

    /// All that serve some pool.
    pub(super) fn candidates(&self) -> Vec<Arc<Candidate>> {
        let serving = self.pools.values();
        serving.map(|view| view.deployment.candidate.clone()).collect()
    }

    /// The tenants; those in service go on with their accounts. The budgets of those are not in force before
    /// [`Self::settle`].
    fn tenants(&self, config: &Config, workers: usize) -> BTreeMap<String, Arc<Tenant>> {
        let tenant = |(name, budgets): (&String, &Arc<config::Tenant>)| {
            let known = self.tenants.get(name).cloned();
            let tenant = known.unwrap_or_else(|| Arc::new(Tenant::new(budgets.clone(), workers)));
            tenant.make_room(budgets);
            (name.clone(), tenant)
        };
        config.tenants.iter().map(tenant).collect()
    }

    /// Puts the tenants' budgets of this configuration into force: a new one's, or again those of the old one when the
    /// new one was refused.
    pub(super) fn settle(&self) {
        for (name, tenant) in &self.tenants {
            if let Some(budgets) = self.config.tenants.get(name) {
                tenant.set(budgets.clone());
            }
        }
    }

    /// A pool, taken over from the one in service as far as it goes, and instances if its policy changes.
    async fn pool(
        &self,
        pool_config: &Arc<config::Pool>,
        (candidate, (tenant, tls, sticky)): (Arc<Candidate>, Company<'_>),
        workers: usize,
        report: &mut ReloadReport,
    ) -> Result<(PoolView, Option<Vec<Instance>>), StartError> {
        let known = self.pools.get(&pool_config.name);
        let addresses = pool_config.backends.iter();
        let addresses = addresses.map(|backend| backend.address.clone()).collect();
        let sockets = resolve(&pool_config.name, addresses).await?;
        let is_unchanged = |view: &&PoolView| {
            let snapshot = view.pool.snapshot();
            *view.pool.config == **pool_config
                && Originator::is_same(view.pool.tls(), tls)
                && view.pool.sticky().map(Arc::as_ptr) == sticky.as_ref().map(Arc::as_ptr)
                && snapshot
                    .members
                    .iter()
                    .map(|member| member.backend.socket)
                    .eq(sockets.iter().copied())
        };
        let (pool, supervisor) = match known.filter(is_unchanged) {
            Some(view) => (view.pool.clone(), view.supervisor.clone()),
            None => {
                report.pools.push(pool_config.name.clone());
                let previous = known.map(|view| &*view.pool);
                let now = Instant::now();
                let pool = Pool::new(pool_config.clone(), &sockets, workers, previous, now);
                if let (None, Some(standings)) = (previous, self.standings.get(&pool_config.name)) {
                    pool.restore(standings, now);
                }
                let pool = Arc::new(
                    pool.of_tenant(tenant.cloned())
                        .with_tls(tls.cloned())
                        .with_sticky(sticky),
                );
                (pool.clone(), Arc::new(Supervisor::spawn(pool)))
            }
        };
        let in_service = known.map(|view| &view.deployment);
        // What an instance holds is on the account of the tenant that it was built for.
        let is_moved = known.is_some_and(|known| known.pool.config.tenant != pool_config.tenant);
        let is_same = |old: &&Arc<Deployment>| !is_moved && Arc::ptr_eq(&old.candidate, &candidate);
        if let Some(deployment) = in_service.filter(is_same) {
            return Ok((
                PoolView {
                    pool,
                    deployment: deployment.clone(),
                    supervisor,
                    discovery: None,
                },
                None,
            ));
        }
        if known.is_some() {
            report.policies.push(pool_config.name.clone());
        }
        let instances = build(&pool, &candidate, workers).await?;
        if let Some(old) = in_service {
            let follows = candidate.check_follows(&old.candidate);
            follows.map_err(|refusal| refused(&candidate.spec, refusal))?;
        }
        let deployment = Arc::new(Deployment::new(candidate, &pool_config.name, workers));
        Ok((
            PoolView {
                pool,
                deployment,
                supervisor,
                discovery: None,
            },
            Some(instances),
        ))
    }

    /// What listeners and pools with TLS need; those whose files and settings are the same go on with what they have.
    async fn load_tls(&self, config: Config) -> Result<(Config, tls::Loaded), StartError> {
        let known = self.tls.clone();
        let load = move || tls::load_all(&config, &known).map(|loaded| (config, loaded));
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.map_err(|error| StartError::Engine(error.to_string()))?
    }

    pub(super) fn has_listener(&self, key: &str) -> bool {
        self.listeners.iter().any(|listener| listener.key() == key)
    }

    /// Binds all listeners, or takes what another process has left: when a standby becomes active, or a new process is the member. Answers with what each worker gets.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub(super) fn listen(&mut self, workers: usize) -> Result<Vec<Vec<ListenerPlan>>, StartError> {
        self.is_listening = true;
        let opened = self.open(&self.config, workers, |_| false);
        self.is_listening = opened.is_ok();
        let (mut sockets, held) = opened?;
        self.held = held;
        self.note_addresses(&sockets);
        Ok((0..workers).map(|_| self.listener_plans(&mut sockets)).collect())
    }

    fn note_addresses(&mut self, sockets: &Sockets) {
        for (key, sockets) in sockets {
            let first = sockets.iter().flatten().next();
            if let Some(real) = first.and_then(|socket| socket.local_addr().ok()) {
                self.addresses.insert(key.clone(), real);
            }
        }
    }

    /// What one worker gets of the listeners.
    fn listener_plans(&self, sockets: &mut Sockets) -> Vec<ListenerPlan> {
        if !self.is_listening {
            return Vec::new();
        }
        let listener = |view: ListenerView| {
            let key = view.config.key();
            ListenerPlan {
                config: view.config,
                tls: self.tls.terminators.get(&key).cloned(),
                rates: self.rates.get(&key).cloned(),
                counters: view.counters,
                sockets: sockets.get_mut(&key).and_then(Vec::pop).unwrap_or_default(),
            }
        };
        self.listener_views().into_iter().map(listener).collect()
    }

    /// What each worker gets.
    pub(super) fn plans(
        &self,
        mut instances: Instances,
        mut sockets: Sockets,
        workers: usize,
    ) -> Vec<(Vec<ListenerPlan>, Vec<PoolPlan>)> {
        (0..workers)
            .map(|_| {
                let listeners = self.listener_plans(&mut sockets);
                let pool = |(name, view): (&String, &PoolView)| {
                    let instance = instances.get_mut(name).and_then(Vec::pop);
                    PoolPlan {
                        pool: view.pool.clone(),
                        reporter: view.supervisor.reporter(),
                        policy: instance.map(|instance| (view.deployment.clone(), Box::new(instance))),
                    }
                };
                (listeners, self.pools.iter().map(pool).collect())
            })
            .collect()
    }
}

/// One instance for each worker. All are tried before any serves.
pub(super) async fn build(
    pool: &Arc<Pool>,
    candidate: &Arc<Candidate>,
    workers: usize,
) -> Result<Vec<Instance>, StartError> {
    let (pool, spec, candidate) = (pool.clone(), candidate.spec.clone(), candidate.clone());
    let built = tokio::task::spawn_blocking(move || {
        let built = (0..workers)
            .map(|_| Instance::build(&candidate, &pool))
            .collect::<Result<Vec<_>, _>>();
        candidate.code.forget_pages();
        built
    });
    let built = built
        .await
        .map_err(|error| StartError::Engine(error.to_string()))?;
    built.map_err(|fault| refused(&spec, fault.into()))
}

/// Addresses of the backends, in order. Names are asked for each time, since that is what a reload is for.
pub(super) async fn resolve(pool: &str, addresses: Vec<String>) -> Result<Vec<SocketAddr>, StartError> {
    let resolve_all = move || {
        let resolve_one = |address: String| match address.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(socket)) => Ok(socket),
            Ok(None) => Err((address, std::io::ErrorKind::NotFound.into())),
            Err(error) => Err((address, error)),
        };
        addresses
            .into_iter()
            .map(resolve_one)
            .collect::<Result<Vec<_>, _>>()
    };
    let resolved = tokio::task::spawn_blocking(resolve_all).await;
    let resolved = resolved.map_err(|error| StartError::Engine(error.to_string()))?;
    resolved.map_err(|(address, error)| StartError::Resolve {
        pool: pool.to_owned(),
        address,
        error,
    })
}
