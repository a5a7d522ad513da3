//! What the balancer counts, for Prometheus.
//!
//! Owns the names, units and labels of all metrics. Labels come from the configuration and from fixed lists, never from
//! clients, so the number of series is bounded by the configuration. `docs/admin.md` lists every name; a test compares.

mod listener;
mod policy;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    Context, cluster, fleet, peers,
    pools::CLASSES,
    reading::{BackendReading, PoolReading, read_all},
    tenants,
    text::{
        Family,
        Kind::{Counter, Gauge, Histogram},
        Text,
    },
};
use crate::{
    config::LoadView,
    discovery::Report,
    metrics::{DURATION_BOUNDS_US, Metrics, Worker},
    pool::Counts,
    sticky::Outcome,
    tenant::Tenant,
};

/// The words of `pool::State`.
const STATES: [&str; 4] = ["ready", "down", "ejected", "draining"];

/// Everything, as of now.
pub(super) fn render(context: &Context) -> String {
    let mut text = Text::default();
    let pools = read_all(context);
    process(&mut text, context);
    let metrics = context.handle.metrics();
    control(&mut text, metrics);
    traffic(&mut text, metrics);
    duration(&mut text, metrics);
    listener::families(&mut text, &context.handle.listener_views());
    pool_families(&mut text, &pools);
    sticky(&mut text, &pools);
    discovery_families(&mut text, &pools);
    backend_gauges(&mut text, &pools);
    backend_counters(&mut text, &pools);
    policy::families(&mut text, &pools);
    tenant_families(&mut text, context);
    cluster::families(&mut text, context);
    fleet::families(&mut text, context);
    peers::families(&mut text, context);
    text.finish()
}

fn process(text: &mut Text, context: &Context) {
    let handle = &context.handle;
    text.family("trimtab_info", Gauge, "Always 1; says which version runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("trimtab_workers", Gauge, "Worker threads.")
        .sample(&[], handle.metrics().workers.len());
    text.family("trimtab_uptime_seconds", Gauge, "Time since the start.")
        .sample(&[], context.started.elapsed().as_secs_f64());
    text.family("trimtab_ready", Gauge, "1 while requests are accepted.")
        .sample(&[], u8::from(handle.is_ready()));
}

fn control(text: &mut Text, metrics: &Metrics) {
    let mut counter = |name, help, value: &AtomicU64| {
        text.family(name, Counter, help).sample(&[], value.load(Relaxed));
    };
    counter(
        "trimtab_reloads_total",
        "Configurations put into service, the first included.",
        &metrics.reloads,
    );
    counter(
        "trimtab_reloads_refused_total",
        "Configurations or components refused while another was serving.",
        &metrics.reloads_refused,
    );
    counter(
        "trimtab_process_upgrades_failed_total",
        "Processes that were started to take over and do not serve.",
        &metrics.upgrades_failed,
    );
    counter(
        "trimtab_policy_swaps_total",
        "Policy versions put into service in place of another.",
        &metrics.swaps,
    );
    counter(
        "trimtab_access_log_dropped_total",
        "Access log lines dropped because the log's reader was too slow, or it could not be written.",
        &metrics.access_dropped,
    );
}

/// A counter that each worker has: its name, its help, and where it is.
type WorkerCounter = (&'static str, &'static str, fn(&Worker) -> &AtomicU64);

const WORKER_COUNTERS: [WorkerCounter; 15] = [
    ("trimtab_connections_total", "Client connections accepted.", |w| {
        &w.connections
    }),
    (
        "trimtab_connections_closed_total",
        "Client connections closed.",
        |w| &w.connections_closed,
    ),
    (
        "trimtab_connections_expired_total",
        "Client connections closed for being slow.",
        |w| &w.connections_expired,
    ),
    (
        "trimtab_proxy_header_failures_total",
        "Connections of trusted proxies closed for their PROXY protocol header, or the lack of one.",
        |w| &w.proxy_header_failures,
    ),
    (
        "trimtab_tcp_connections_total",
        "Connections passed on to a backend as bytes.",
        |w| &w.tcp_connections,
    ),
    (
        "trimtab_errors_total",
        "Responses that the balancer made itself because something failed.",
        |w| &w.errors,
    ),
    ("trimtab_retries_total", "Attempts after the first.", |w| {
        &w.retries
    }),
    (
        "trimtab_aborted_total",
        "Requests whose client went away before the end of the response.",
        |w| &w.aborted,
    ),
    (
        "trimtab_upstream_connects_total",
        "Upstream connections opened.",
        |w| &w.upstream_connects,
    ),
    (
        "trimtab_upstream_connect_failures_total",
        "Upstream connections that could not be opened.",
        |w| &w.upstream_connect_failures,
    ),
    (
        "trimtab_tls_handshakes_total",
        "TLS handshakes with clients that succeeded.",
        |w| &w.tls_handshakes,
    ),
    (
        "trimtab_tls_handshake_failures_total",
        "TLS handshakes with clients that failed or took too long.",
        |w| &w.tls_handshake_failures,
    ),
    (
        "trimtab_http2_connections_total",
        "HTTP/2 connections of clients.",
        |w| &w.http2_connections,
    ),
    (
        "trimtab_http2_floods_total",
        "HTTP/2 connections closed for frames that do nothing.",
        |w| &w.http2_floods,
    ),
    (
        "trimtab_upgrades_total",
        "Tunnels after a 101 or a CONNECT.",
        |w| &w.upgrades,
    ),
];

fn traffic(text: &mut Text, metrics: &Metrics) {
    for (name, help, read) in WORKER_COUNTERS {
        text.family(name, Counter, help).sample(&[], metrics.total(read));
    }
    let help = "Requests answered, by hundreds of the status.";
    let mut family = text.family("trimtab_responses_total", Counter, help);
    for (class, name) in CLASSES {
        let value = metrics.total(|worker| &worker.responses[class]);
        family.sample(&[("class", name)], value);
    }
}

/// Buckets are read once and their count is their sum, so that `+Inf` and `_count` agree while workers go on counting.
fn duration(text: &mut Text, metrics: &Metrics) {
    let help = "Time from a request's head to the end of its response.";
    let mut family = text.family("trimtab_request_duration_seconds", Histogram, help);
    let mut count = 0;
    for index in 0..=DURATION_BOUNDS_US.len() {
        count += metrics.total(|worker| &worker.duration.buckets[index]);
        let bound = DURATION_BOUNDS_US.get(index);
        let bound = bound.map_or("+Inf".to_owned(), |bound| seconds(*bound, 1e6).to_string());
        family.part("_bucket", &[("le", &bound)], count);
    }
    let sum_us = metrics.total(|worker| &worker.duration.sum_us);
    family.part("_sum", &[], seconds(sum_us, 1e6));
    family.part("_count", &[], count);
}

fn seconds(value: u64, per_second: f64) -> f64 {
    value as f64 / per_second
}

fn sticky(text: &mut Text, pools: &[PoolReading]) {
    let help = "Requests of pools with sticky sessions, by what came of their cookie.";
    let mut family = text.family("trimtab_pool_sticky_total", Counter, help);
    for pool in pools {
        let Some(sticky) = pool.view.pool.sticky() else {
            continue;
        };
        for (outcome, word) in Outcome::ALL {
            let labels = [("pool", pool.name()), ("outcome", word)];
            family.sample(&labels, sticky.total(outcome));
        }
    }
}

/// Of pools whose backends are found.
fn discovery_families(text: &mut Text, pools: &[PoolReading]) {
    let report = |pool: &PoolReading| Some((pool.name().to_owned(), pool.view.discovery.as_ref()?.report()));
    let reports: Vec<(String, Report)> = pools.iter().filter_map(report).collect();
    let mut family = |name, kind, help, read: fn(&Report) -> u64| {
        let mut family = text.family(name, kind, help);
        for (pool, report) in &reports {
            family.sample(&[("pool", pool)], read(report));
        }
    };
    family(
        "trimtab_discovery_ok",
        Gauge,
        "1 if the last answer of the pool's source was good.",
        |report| u64::from(report.error.is_none() && report.good.is_some()),
    );
    family(
        "trimtab_discovery_backends",
        Gauge,
        "Backends in the last good answer.",
        |report| report.backends as u64,
    );
    family(
        "trimtab_discovery_updates_total",
        Counter,
        "Answers that named other backends than the one before.",
        |report| report.updates,
    );
    family(
        "trimtab_discovery_failures_total",
        Counter,
        "Times that the pool's source failed.",
        |report| report.failures,
    );
}

fn pool_families(text: &mut Text, pools: &[PoolReading]) {
    let mut family = text.family("trimtab_pool_usable", Gauge, "Backends that may be picked.");
    for pool in pools {
        family.sample(&[("pool", pool.name())], pool.snapshot.usable);
    }
    let help = "1 while health is ignored because too few backends are ready.";
    let mut family = text.family("trimtab_pool_in_panic", Gauge, help);
    for pool in pools {
        family.sample(&[("pool", pool.name())], u8::from(pool.snapshot.in_panic));
    }
    pool_counters(text, pools);
    let help = "How often backends entered a state.";
    let mut family = text.family("trimtab_pool_transitions_total", Counter, help);
    for pool in pools {
        let counts = pool.view.supervisor.transitions();
        let counts = [counts.ready, counts.down, counts.ejected, counts.draining];
        for (state, count) in STATES.iter().zip(counts) {
            family.sample(&[("pool", pool.name()), ("state", state)], count);
        }
    }
}

/// What workers count of each pool: its name, its help, and where it is.
type PoolCounter = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

const POOL_COUNTERS: [PoolCounter; 7] = [
    (
        "trimtab_pool_retries_total",
        "Attempts after the first, at another backend.",
        |counts| &counts.retries,
    ),
    (
        "trimtab_pool_retries_denied_total",
        "Requests that were not sent again because the budget was spent.",
        |counts| &counts.retries_denied,
    ),
    (
        "trimtab_pool_hedges_total",
        "Second attempts beside a first that took long.",
        |counts| &counts.hedges,
    ),
    (
        "trimtab_pool_hedges_won_total",
        "Those of them that were quicker.",
        |counts| &counts.hedges_won,
    ),
    (
        "trimtab_pool_queued_total",
        "Requests that had to wait because every backend was full.",
        |counts| &counts.queued,
    ),
    (
        "trimtab_pool_queue_full_total",
        "Requests refused because the queue was full, too.",
        |counts| &counts.queue_full,
    ),
    (
        "trimtab_pool_queue_timeouts_total",
        "Requests refused because they had waited for too long.",
        |counts| &counts.queue_timeouts,
    ),
];

fn pool_counters(text: &mut Text, pools: &[PoolReading]) {
    let help = "Requests that wait because every backend is full.";
    let mut family = text.family("trimtab_pool_waiting", Gauge, help);
    for pool in pools {
        family.sample(&[("pool", pool.name())], pool.view.pool.waiting());
    }
    for (name, help, read) in POOL_COUNTERS {
        let mut family = text.family(name, Counter, help);
        for pool in pools {
            family.sample(&[("pool", pool.name())], pool.view.pool.total(read));
        }
    }
}

/// One sample for each backend.
fn per_backend(mut family: Family<'_>, pools: &[PoolReading], value: impl Fn(&BackendReading<'_>) -> f64) {
    for pool in pools {
        for backend in pool.backends() {
            let labels = [("pool", pool.name()), ("backend", backend.address())];
            family.sample(&labels, value(&backend));
        }
    }
}

fn backend_gauges(text: &mut Text, pools: &[PoolReading]) {
    let mut gauge = |name, help, value: fn(&BackendReading<'_>) -> f64| {
        per_backend(text.family(name, Gauge, help), pools, value);
    };
    gauge("trimtab_backend_active", "Requests in flight.", |b| {
        b.active.into()
    });
    gauge(
        "trimtab_backend_connections",
        "Connections to it, used and unused.",
        |b| b.member.backend.connections().into(),
    );
    gauge(
        "trimtab_backend_latency_seconds",
        "Moving average of the time to a response; 0 before the first.",
        |b| seconds(b.latency_us.into(), 1e6),
    );
    gauge(
        "trimtab_backend_throughput_bytes_per_second",
        "Body bytes both ways over the last seconds.",
        |b| b.bytes_per_second as f64,
    );
    gauge(
        "trimtab_backend_weight",
        "As configured or set by an operator.",
        |b| b.member.configured.into(),
    );
    gauge(
        "trimtab_backend_ramp_ratio",
        "Part of the weight during slow start.",
        |b| f64::from(b.member.ramp) / 100.0,
    );
    gauge("trimtab_backend_usable", "1 if it may be picked.", |b| {
        f64::from(u8::from(b.member.usable))
    });
    let help = "Requests that other nodes have in flight there, as they said; 0 if nobody says so.";
    let mut family = text.family("trimtab_backend_others_active", Gauge, help);
    for pool in pools {
        if pool.view.pool.config.load_view == LoadView::Cluster {
            for backend in pool.backends() {
                let labels = [("pool", pool.name()), ("backend", backend.address())];
                family.sample(&labels, backend.others.map_or(0, |others| others.active));
            }
        }
    }
    let help = "1 for the state that it is in, 0 for the others.";
    let mut family = text.family("trimtab_backend_state", Gauge, help);
    for pool in pools {
        for backend in pool.backends() {
            for state in STATES {
                let labels = [
                    ("pool", pool.name()),
                    ("backend", backend.address()),
                    ("state", state),
                ];
                family.sample(&labels, u8::from(backend.member.state.name() == state));
            }
        }
    }
}

fn backend_counters(text: &mut Text, pools: &[PoolReading]) {
    let mut counter = |name, help, value: fn(&BackendReading<'_>) -> u64| {
        per_backend(text.family(name, Counter, help), pools, |backend| {
            value(backend) as f64
        });
    };
    counter("trimtab_backend_picks_total", "Times it was picked.", |b| {
        b.total(|load| &load.picks)
    });
    counter(
        "trimtab_backend_failures_total",
        "Attempts that ended without a response head.",
        |b| b.total(|load| &load.failures),
    );
    counter(
        "trimtab_backend_sent_bytes_total",
        "Body bytes towards it.",
        |b| b.total(|load| &load.bytes_sent),
    );
    counter(
        "trimtab_backend_received_bytes_total",
        "Body bytes from it.",
        |b| b.total(|load| &load.bytes_received),
    );
    let help = "Its responses, by hundreds of the status.";
    let mut family = text.family("trimtab_backend_responses_total", Counter, help);
    for pool in pools {
        for backend in pool.backends() {
            for (class, name) in CLASSES {
                let labels = [
                    ("pool", pool.name()),
                    ("backend", backend.address()),
                    ("class", name),
                ];
                family.sample(&labels, backend.total(|load| &load.responses[class]));
            }
        }
    }
}

fn tenant_families(text: &mut Text, context: &Context) {
    let tenants = tenants::in_service(&context.handle.pools());
    let mut each = |name, kind, help, value: fn(&Tenant) -> f64| {
        let mut family = text.family(name, kind, help);
        for tenant in &tenants {
            family.sample(&[("tenant", &tenant.budgets().name)], value(tenant));
        }
    };
    each(
        "trimtab_tenant_memory_bytes",
        Gauge,
        "Memory and tables of its guests.",
        |tenant| tenant.memory() as f64,
    );
    each(
        "trimtab_tenant_memory_max_bytes",
        Gauge,
        "Its budget of them.",
        |tenant| tenant.budgets().memory_bytes as f64,
    );
    each(
        "trimtab_tenant_memory_denied_total",
        Counter,
        "How often a guest was denied more.",
        |tenant| tenant.memory_denied() as f64,
    );
    each(
        "trimtab_tenant_cpu_seconds_total",
        Counter,
        "Time in its guests, while it has a CPU share.",
        |tenant| seconds(tenant.cpu_us(), 1e6),
    );
    each(
        "trimtab_tenant_throttled_total",
        Counter,
        "Decisions that the host made because its guests had used their CPU share.",
        |tenant| tenant.throttled() as f64,
    );
    each(
        "trimtab_tenant_log_dropped_total",
        Counter,
        "Log lines of its guests beyond its budget.",
        |tenant| tenant.log_dropped() as f64,
    );
}
