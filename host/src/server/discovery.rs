//! Backends that are found: which sources are asked, and what a new set makes of a pool.
//!
//! Owns the finders of the pools in service, and the change of one pool without a reload of the rest. How sets are found is in
//! `discovery.rs`. A new set goes the way of a reload: what stays of a pool keeps its counters, its condition and its
//! connections, and what leaves finishes its requests.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    Control, StartError,
    prepare::{Prepared, Service, resolve},
};
use crate::{
    config::{self, Config},
    control::{PoolView, ReloadReport},
    discovery::{Finder, Update},
    health::Supervisor,
    pool::Pool,
};

/// For the first answers of sources that are new. A pool whose source says nothing by then begins without.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// Sets that were found, by their pools.
pub(super) type Found = BTreeMap<String, Vec<config::Backend>>;

/// The sources of the pools.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    finders: BTreeMap<String, Arc<Finder>>,
    updates: UnboundedSender<Update>,
    /// What a process before had found, for those that this one has not asked yet.
    left: Arc<Found>,
}

impl Discovery {
    pub(super) fn new(updates: UnboundedSender<Update>, left: Found) -> Self {
        Self {
            finders: BTreeMap::new(),
            updates,
            left: Arc::new(left),
        }
    }

    pub(super) fn finder(&self, pool: &str) -> Option<&Arc<Finder>> {
        self.finders.get(pool)
    }

    /// The sources of another configuration. Those that are the same go on; new ones are waited for, but not for ever. One
    /// in place of another begins with its set, so that a mistake in a name takes nothing away.
    pub(super) async fn follow(&self, config: &Config, report: &mut ReloadReport) -> Self {
        let mut finders = BTreeMap::new();
        let mut new = Vec::new();
        for (name, pool) in &config.pools {
            let Some(discover) = &pool.discover else {
                continue;
            };
            let known = self.finders.get(name);
            if let Some(known) = known.filter(|known| known.discover == *discover) {
                finders.insert(name.clone(), known.clone());
                continue;
            }
            let left = || self.left.get(name).cloned().map(Arc::new);
            let seed = known.and_then(|known| known.found()).or_else(left);
            let finder = Arc::new(Finder::spawn(name, discover, seed, self.updates.clone()));
            new.push((name, finder.clone()));
            finders.insert(name.clone(), finder);
        }
        let deadline = Instant::now() + FIRST_WITHIN;
        for (name, finder) in new {
            let left = deadline.saturating_duration_since(Instant::now());
            finder.first_answer(left).await;
            let told = finder.report();
            let silent = || told.good.is_none().then(|| "no answer yet".to_owned());
            if let Some(error) = told.error.clone().or_else(silent) {
                let first = error.lines().next().unwrap_or_default();
                let kept = told.backends;
                report.warnings.push(format!(
                    "pool.{name}.discover: {first}; {kept} backends are known"
                ));
            }
        }
        Self {
            finders,
            updates: self.updates.clone(),
            left: Arc::default(),
        }
    }

    /// The pool with what was found for it. What is listed too is as it is listed.
    pub(super) fn merged(&self, pool: &Arc<config::Pool>) -> Arc<config::Pool> {
        let found = self.finder(&pool.name).and_then(|finder| finder.found());
        let Some(found) = found else {
            return pool.clone();
        };
        let is_listed = |backend: &&config::Backend| {
            pool.backends
                .iter()
                .any(|listed| listed.address == backend.address)
        };
        let more = found.iter().filter(|backend| !is_listed(backend)).cloned();
        let backends = pool.backends.iter().cloned().chain(more).collect();
        Arc::new(config::Pool {
            backends,
            ..(**pool).clone()
        })
    }
}

impl Service {
    /// Whether a tenant's pools keep within its series, with this one of them as it would be.
    fn check_series(&self, changed: &config::Pool) -> Result<(), StartError> {
        let tenant = changed
            .tenant
            .as_ref()
            .and_then(|name| self.config.tenants.get_key_value(name));
        let Some((tenant, budgets)) = tenant else {
            return Ok(());
        };
        let views = self.views();
        let others = views.iter().map(|view| &*view.pool.config);
        let others = others.filter(|pool| pool.tenant == changed.tenant && pool.name != changed.name);
        let series = others.fold(changed.series(), |sum, pool| sum.saturating_add(pool.series()));
        match series <= budgets.series {
            true => Ok(()),
            false => Err(StartError::Series {
                tenant: tenant.clone(),
                series,
                series_max: budgets.series,
            }),
        }
    }

    /// The same with what was found for this pool; `None` if that changes nothing.
    async fn with_found(&self, name: &str, workers: usize) -> Result<Option<Prepared>, StartError> {
        let (Some(known), Some(config)) = (self.view(name), self.config.pools.get(name)) else {
            return Ok(None);
        };
        let config = self.discovery.merged(config);
        if *known.pool.config == *config {
            return Ok(None);
        }
        self.check_series(&config)?;
        let members = known.pool.snapshot();
        let sockets: BTreeMap<&str, _> = members
            .members
            .iter()
            .map(|member| (&*member.backend.address, member.backend.socket))
            .collect();
        // What is there already was resolved when it came.
        let is_new = |backend: &&config::Backend| !sockets.contains_key(backend.address.as_str());
        let new: Vec<String> = config
            .backends
            .iter()
            .filter(is_new)
            .map(|backend| backend.address.clone())
            .collect();
        let mut resolved = resolve(name, new).await?.into_iter();
        let all = config.backends.iter().filter_map(|backend| {
            let known = sockets.get(backend.address.as_str()).copied();
            known.or_else(|| resolved.next())
        });
        let all: Vec<_> = all.collect();
        let pool = Pool::new(config, &all, workers, Some(&known.pool), Instant::now())
            .of_tenant(known.pool.tenant().cloned())
            .with_tls(known.pool.tls().cloned())
            .with_sticky(known.pool.sticky().cloned());
        let pool = Arc::new(pool);
        let mut service = self.clone();
        service.set_view(PoolView {
            supervisor: Arc::new(Supervisor::spawn(pool.clone())),
            pool,
            ..known.clone()
        });
        Ok(Some(Prepared::of_pools(service)))
    }
}

impl Control {
    /// A source has another set.
    pub(super) async fn discovered(&mut self, update: &Update) {
        let changed = match self.service.with_found(&update.pool, self.workers.len()).await {
            Ok(Some(prepared)) => {
                let view = prepared.service.view(&update.pool);
                let backends = view.map_or(0, |view| view.pool.config.backends.len());
                self.install(prepared).await.map(|_| backends)
            }
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match (changed, self.service.discovery.finder(&update.pool)) {
            (Ok(backends), _) => {
                tracing::info!(pool = update.pool, backends, "the pool has other backends");
            }
            (Err(error), Some(finder)) => finder.refuse(&error.to_string()),
            (Err(_), None) => {}
        }
    }
}
