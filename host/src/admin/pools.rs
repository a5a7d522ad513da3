//! Pools as JSON.
//!
//! Owns the shape of `/v1/pools`. Keys are only ever added; a golden file holds them. Counts start again when a policy or
//! a backend's socket is replaced.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde::Serialize;

use super::{
    Context,
    answer::{Refusal, refusal},
    reading::{BackendReading, PoolReading, read_all},
};
use crate::{
    control::PoolView,
    discovery::Finder,
    health::CheckResult,
    policy::{BreakerState, Deployment, FaultKind, Reason, Step},
    pool::State,
};

/// Names that an error lists; enough to see one's own mistake in.
const NAMES_MAX: usize = 20;
/// Counts by hundreds of the status; the index is that of the counters, where 0 is never used.
pub(super) const CLASSES: [(usize, &str); 5] = [(1, "1xx"), (2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")];

#[derive(Serialize)]
pub(super) struct Pools {
    pools: Vec<Pool>,
}

#[derive(Serialize)]
pub(super) struct Pool {
    name: String,
    tenant: Option<String>,
    policy: Policy,
    usable: usize,
    in_panic: bool,
    /// Where backends are found; null where all are listed.
    discovery: Option<Discovery>,
    retries: Retries,
    hedges: Hedges,
    queue: Queue,
    backends: Vec<Backend>,
}

#[derive(Serialize)]
struct Discovery {
    source: String,
    backends: usize,
    updates: u64,
    failures: u64,
    last_error: Option<String>,
    /// How long ago the last good answer was.
    good_s: Option<f64>,
}

#[derive(Serialize)]
struct Retries {
    made: u64,
    /// Beyond the budget.
    denied: u64,
}

#[derive(Serialize)]
struct Hedges {
    made: u64,
    won: u64,
}

#[derive(Serialize)]
struct Queue {
    waiting: u64,
    waited: u64,
    full: u64,
    timeouts: u64,
}

#[derive(Serialize)]
struct Policy {
    name: String,
    version: String,
    digest: String,
    decisions: u64,
    rejected: u64,
    rebuilds: u64,
    faults: BTreeMap<&'static str, u64>,
    /// Decisions that the policy did not make: why, and who made them.
    host_choices: BTreeMap<&'static str, u64>,
    chosen_by: BTreeMap<&'static str, u64>,
    fallback: String,
    /// Workers whose breaker is in this state.
    breaker: BTreeMap<&'static str, usize>,
    breaker_opens: u64,
    quarantined: u64,
    state_refusals: u64,
}

#[derive(Serialize)]
pub(super) struct Backend {
    address: String,
    /// In hex, because many readers of JSON round numbers of this size.
    id: String,
    state: &'static str,
    /// How much longer, if it is.
    ejected_s: Option<f64>,
    usable: bool,
    /// It drains, and nothing of it is in flight any more.
    drained: bool,
    weight: u32,
    ramp: u8,
    zone: Option<String>,
    tier: u8,
    active: u32,
    /// What other nodes have in flight there; null if none says so, or it is too old.
    others: Option<Others>,
    connections: u32,
    latency_us: u32,
    mbit_per_s: f64,
    picks: u64,
    failures: u64,
    responses: BTreeMap<&'static str, u64>,
    bytes_sent: u64,
    bytes_received: u64,
    last_check: Option<Check>,
}

#[derive(Serialize)]
struct Others {
    active: u32,
    requests_per_s: u32,
    age_ms: u64,
}

#[derive(Serialize)]
struct Check {
    ok: bool,
    reason: String,
    age_s: f64,
}

pub(super) fn all(context: &Context) -> Pools {
    let pools = read_all(context).iter().map(Pool::new).collect();
    Pools { pools }
}

pub(super) fn one(context: &Context, name: &str) -> Result<Pool, Refusal> {
    Ok(Pool::new(&PoolReading::read(find(context, name)?)))
}

/// One backend as it is now; `None` without it.
pub(super) fn backend(view: PoolView, id: u64) -> Option<Backend> {
    let checks = view.supervisor.checks();
    let check = checks
        .into_iter()
        .find_map(|(of, check)| (of == id).then_some(check));
    let reading = PoolReading::read(view);
    let found = reading
        .backends()
        .find(|backend| backend.member.backend.id == id)?;
    Some(Backend::new(&found, check.as_ref(), Instant::now()))
}

pub(super) fn find(context: &Context, name: &str) -> Result<PoolView, Refusal> {
    let pools = context.handle.pools();
    let found = pools.iter().find(|view| view.pool.name() == name);
    found.cloned().ok_or_else(|| {
        let names = list(pools.iter().map(|view| view.pool.name()));
        refusal(
            StatusCode::NOT_FOUND,
            format!("no pool is called {name:?}; there are: {names}"),
        )
    })
}

/// Names for an error, not too many of them.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.take(NAMES_MAX + 1).collect();
    if names.len() > NAMES_MAX {
        names[NAMES_MAX] = "...";
    }
    names.join(", ")
}

impl Pool {
    fn new(reading: &PoolReading) -> Self {
        let checks: BTreeMap<u64, CheckResult> = reading.view.supervisor.checks().into_iter().collect();
        let now = Instant::now();
        let pool = &reading.view.pool;
        let backend = |backend: BackendReading<'_>| {
            let check = checks.get(&backend.member.backend.id);
            Backend::new(&backend, check, now)
        };
        Self {
            name: reading.name().to_owned(),
            tenant: reading.view.pool.config.tenant.clone(),
            policy: Policy::new(&reading.view.deployment, &reading.view.pool.config.fallback),
            usable: reading.snapshot.usable,
            in_panic: reading.snapshot.in_panic,
            discovery: reading.view.discovery.as_deref().map(Discovery::new),
            retries: Retries {
                made: pool.total(|counts| &counts.retries),
                denied: pool.total(|counts| &counts.retries_denied),
            },
            hedges: Hedges {
                made: pool.total(|counts| &counts.hedges),
                won: pool.total(|counts| &counts.hedges_won),
            },
            queue: Queue {
                waiting: pool.waiting(),
                waited: pool.total(|counts| &counts.queued),
                full: pool.total(|counts| &counts.queue_full),
                timeouts: pool.total(|counts| &counts.queue_timeouts),
            },
            backends: reading.backends().map(backend).collect(),
        }
    }
}

impl Discovery {
    fn new(finder: &Finder) -> Self {
        let report = finder.report();
        Self {
            source: finder.discover.from.to_string(),
            backends: report.backends,
            updates: report.updates,
            failures: report.failures,
            last_error: report.error,
            good_s: report.good.map(seconds),
        }
    }
}

impl Policy {
    fn new(deployment: &Deployment, fallback: &str) -> Self {
        let faults = FaultKind::ALL.map(|kind| (kind.name(), deployment.total(|stats| stats.faults(kind))));
        let host = Reason::ALL.map(|reason| (reason.name(), deployment.total(|stats| stats.host(reason))));
        let steps = Step::ALL.map(|step| (step.name(), deployment.total(|stats| stats.step(step))));
        let breaker = BreakerState::ALL.map(|state| (state.name(), deployment.breakers(state)));
        Self {
            name: deployment.candidate.spec.name.clone(),
            version: deployment.candidate.version.to_string(),
            digest: deployment.candidate.digest.to_string(),
            decisions: deployment.total(|stats| &stats.decisions),
            rejected: deployment.total(|stats| &stats.rejected),
            rebuilds: deployment.total(|stats| &stats.rebuilds),
            faults: faults.into(),
            host_choices: host.into(),
            chosen_by: steps.into(),
            fallback: fallback.to_owned(),
            breaker: breaker.into(),
            breaker_opens: deployment.total(|stats| &stats.breaker_opens),
            quarantined: deployment.total(|stats| &stats.quarantined),
            state_refusals: deployment.total(|stats| &stats.state_refusals),
        }
    }
}

impl Backend {
    fn new(reading: &BackendReading<'_>, check: Option<&CheckResult>, now: Instant) -> Self {
        let member = reading.member;
        let ejected = match member.state {
            State::Ejected { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        };
        let check = check.map(|check| Check {
            ok: check.ok,
            reason: check.reason.clone(),
            age_s: seconds(now.saturating_duration_since(check.at)),
        });
        let responses = CLASSES.map(|(class, name)| (name, reading.total(|load| &load.responses[class])));
        Self {
            address: reading.address().to_owned(),
            id: format!("{:016x}", member.backend.id),
            state: member.state.name(),
            ejected_s: ejected.map(seconds),
            usable: member.usable,
            drained: member.state == State::Draining && reading.active == 0,
            weight: member.configured,
            ramp: member.ramp,
            zone: reading.spec.zone.clone(),
            tier: member.tier,
            active: reading.active,
            others: reading.others.map(|others| Others {
                active: others.active,
                requests_per_s: others.rate,
                age_ms: (crate::clock::now_us() / 1000).saturating_sub(others.told_ms),
            }),
            connections: member.backend.connections(),
            latency_us: reading.latency_us,
            mbit_per_s: reading.bytes_per_second as f64 * 8.0 / 1e6,
            picks: reading.total(|load| &load.picks),
            failures: reading.total(|load| &load.failures),
            responses: responses.into(),
            bytes_sent: reading.total(|load| &load.bytes_sent),
            bytes_received: reading.total(|load| &load.bytes_received),
            last_check: check,
        }
    }
}

/// To the millisecond: more digits would only be noise.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}
