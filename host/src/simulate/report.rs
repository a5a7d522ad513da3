//! What is told of a simulation: figures for each policy, on the same axes.
//!
//! Owns what each figure means, and their computation from what was measured. It must not know how they look.
//!
//! Invariant: nothing in a [`Report`] depends on the machine; what does is in [`Cost`].

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    agenda::Ns,
    figures::{BUCKETS, Bucket},
    world::World,
};
use crate::{
    config::{Action, Happening, Scenario},
    policy::{FaultKind, Reason},
};

/// A simulation's outcome. Times of requests are in milliseconds, those of the simulation in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's title.
    pub title: String,
    /// Of all random numbers.
    pub seed: u64,
    /// Requests that arrived.
    pub requests: u64,
    /// Those that arrive before are not counted.
    pub warm_up_s: f64,
    /// When the last one arrived.
    pub span_s: f64,
    /// Requests a second, on the average over the span.
    pub rate: f64,
    /// What the backends of the beginning can serve, in requests a second.
    pub capacity: f64,
    /// How many backends there are at the beginning.
    pub backends: u32,
    /// How many balancers, and workers of each.
    pub balancers: (u32, u32),
    /// What happens, in the order of time.
    pub marks: Vec<Mark>,
    /// Width of the series' buckets.
    pub bucket_s: f64,
    /// In the order of the scenario, then of the command line.
    pub policies: Vec<PolicyReport>,
}

/// Something that happens in the scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// When.
    pub at_s: f64,
    /// What, in words.
    pub text: String,
}

/// What one policy has come to.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyReport {
    /// As the scenario or the command line calls it.
    pub name: String,
    /// Of requests that ended with a status below 500.
    pub latency: Latency,
    /// Requests that ended so.
    pub answered: u64,
    /// The others.
    pub errors: Errors,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Decisions that the policy was asked for.
    pub decisions: u64,
    /// Decisions that the host made instead, by its reason.
    pub host_chose: BTreeMap<&'static str, u64>,
    /// The policy's faults, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What was wrong the last time.
    pub last_fault: Option<String>,
    /// How unevenly the backends are loaded.
    pub imbalance: Imbalance,
    /// Where requests of the same key go; `None` without keys.
    pub homes: Option<Homes>,
    /// Percent of the attempts that stay in the balancer's zone; `None` without zones.
    pub same_zone_percent: Option<f64>,
    /// All that ever were, in the configuration's order.
    pub backends: Vec<BackendReport>,
    /// Over time.
    pub series: Series,
}

/// How long requests took, from arrival to answer, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// The average.
    pub mean_ms: f64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 90 percent.
    pub p90_ms: f64,
    /// 99 percent.
    pub p99_ms: f64,
    /// 99.9 percent.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// The distribution.
    pub quantiles: Vec<Quantile>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// This percentage of the requests ...
    pub percent: f64,
    /// ... took no longer.
    pub ms: f64,
}

/// Requests that did not end well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// All of them.
    pub all: u64,
    /// Answered by a backend with a status from 500.
    pub answered: u64,
    /// No backend could be reached, or the last one broke off.
    pub unreachable: u64,
    /// No answer within `response_timeout`.
    pub timed_out: u64,
    /// No backend was usable.
    pub no_backend: u64,
    /// Refused by the policy.
    pub rejected: u64,
}

/// The load of a backend is what it has in flight for each request that it can work on at a time. Of the backends that
/// are there and alive, over a bucket of time, averaged over the buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Imbalance {
    /// The highest load, as a multiple of the average.
    pub max_over_mean: f64,
    /// Their deviation, as a multiple of the average.
    pub variation: f64,
}

/// Of requests whose key came before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Homes {
    /// Percent that went where the key's last request had gone.
    pub same_percent: f64,
    /// How many went elsewhere.
    pub moved: u64,
}

/// One backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendReport {
    /// Its address in the configuration.
    pub name: String,
    /// Attempts sent there.
    pub sent: u64,
    /// Percent of all.
    pub share_percent: f64,
    /// Of those sent, percent without an answer below 500.
    pub failed_percent: f64,
    /// Its average load, while it was there.
    pub load: f64,
}

/// Figures for each bucket of time. Those of backends are in the order of [`PolicyReport::backends`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// Requests a second that arrived.
    pub rate: Vec<f64>,
    /// Median latency of those that ended; `None` if none did.
    pub p50_ms: Vec<Option<f64>>,
    /// The 99th percentile.
    pub p99_ms: Vec<Option<f64>>,
    /// Requests a second that ended badly.
    pub errors: Vec<f64>,
    /// As [`Imbalance::variation`].
    pub variation: Vec<Option<f64>>,
    /// Load of each backend; `None` while it is not there or dead.
    #[serde(skip)]
    pub load: Vec<Vec<Option<f32>>>,
    /// Percent of the attempts sent to each backend.
    #[serde(skip)]
    pub share: Vec<Vec<f32>>,
}

/// What decisions of a policy cost on this machine, measured at every 64th. Includes the host's part, and whatever else
/// the machine did at the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Nanoseconds a decision, on the average.
    pub ns: Option<f64>,
}

impl Report {
    pub(super) fn of(scenario: &Scenario, span: Ns) -> Self {
        let span_s = span as f64 / 1e9;
        Self {
            title: scenario.title.clone(),
            seed: scenario.seed,
            requests: scenario.requests,
            warm_up_s: scenario.warm_up.as_secs_f64(),
            span_s,
            rate: scenario.requests as f64 / span_s,
            capacity: scenario.capacity(),
            backends: scenario.groups.iter().map(|group| group.count).sum(),
            balancers: (scenario.balancers.count, scenario.balancers.workers),
            marks: marks(scenario, span_s),
            bucket_s: span_s / BUCKETS as f64,
            policies: Vec::new(),
        }
    }
}

/// What the scenario's events are, as far as they happen.
fn marks(scenario: &Scenario, span_s: f64) -> Vec<Mark> {
    let mut marks = Vec::new();
    for event in &scenario.events {
        let mut mark = |at: Duration, text: String| {
            let at_s = at.as_secs_f64();
            if at_s < span_s {
                marks.push(Mark { at_s, text });
            }
        };
        mark(event.at, in_words(scenario, event));
        if let Some(until) = event.until {
            mark(until, format!("{} is over", in_words(scenario, event)));
        }
    }
    marks.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    marks
}

fn in_words(scenario: &Scenario, event: &Happening) -> String {
    let group = &scenario.groups[event.group];
    let is_of_many = matches!(event.action, Action::Join | Action::Leave);
    let count = event.count.unwrap_or(if is_of_many { 1 } else { group.count });
    let who = match count {
        1 if !is_of_many => format!("{}-1", group.name),
        _ => format!("{count} {}", group.name),
    };
    match event.action {
        Action::Slow { factor } => format!("{who}: {factor} times slower"),
        Action::Fail { rate, status } => format!("{who}: {} % answered {status}", rate * 100.0),
        other => format!("{who}: {}", other.name()),
    }
}

/// The report on one policy, and what its decisions cost.
pub(super) fn of_policy(scenario: &Scenario, name: &str, world: &World<'_>) -> (PolicyReport, Cost) {
    let figures = &world.figures;
    let counts = &figures.counts;
    debug_assert!(counts.all() <= scenario.requests, "a request ends once");
    let total = |read: fn(&crate::policy::Stats) -> &std::sync::atomic::AtomicU64| -> u64 {
        world.nodes.iter().map(|node| node.deployment().total(read)).sum()
    };
    let order = world.fleet.in_order();
    let warm = (scenario.warm_up.as_secs_f64() / figures.bucket_s()).ceil() as usize;
    let buckets = &figures.buckets[..BUCKETS.min(figures.buckets.len())];
    let warm = warm.min(buckets.len().saturating_sub(1));
    let homing = figures.homing;
    let (local, remote) = figures.zones;
    let (timed_ns, timed) = (total(|stats| &stats.bounded_ns), total(|stats| &stats.timed));
    let cost = Cost {
        ns: (timed > 0).then(|| timed_ns as f64 / timed as f64),
    };
    let policy = PolicyReport {
        name: name.to_owned(),
        latency: latency(&figures.latency_us, figures.latency_sum_us),
        answered: counts.answered,
        errors: Errors {
            all: counts.errors(),
            answered: counts.failed,
            unreachable: counts.unreachable,
            timed_out: counts.timed_out,
            no_backend: counts.no_backend,
            rejected: counts.rejected,
        },
        retries: figures.retries,
        decisions: total(|stats| &stats.decisions),
        host_chose: host_chose(world),
        faults: faults(world),
        last_fault: world.nodes.iter().find_map(super::node::Node::last_fault),
        imbalance: imbalance(&buckets[warm..]),
        homes: scenario.keys.as_ref().map(|_| Homes {
            same_percent: percent(homing.stayed, homing.stayed + homing.moved),
            moved: homing.moved,
        }),
        same_zone_percent: (local + remote > 0).then(|| percent(local, local + remote)),
        backends: backends(world, &order, &buckets[warm..]),
        series: series(buckets, &order, figures.bucket_s()),
    };
    (policy, cost)
}

fn host_chose(world: &World<'_>) -> BTreeMap<&'static str, u64> {
    let count = |reason: Reason| -> u64 {
        let nodes = world.nodes.iter();
        nodes
            .map(|node| node.deployment().total(|stats| stats.host(reason)))
            .sum()
    };
    let counted = Reason::ALL.map(|reason| (reason.name(), count(reason)));
    counted.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn faults(world: &World<'_>) -> BTreeMap<&'static str, u64> {
    let count = |kind: FaultKind| -> u64 {
        let nodes = world.nodes.iter();
        nodes
            .map(|node| node.deployment().total(|stats| stats.faults(kind)))
            .sum()
    };
    let counted = FaultKind::ALL.map(|kind| (kind.name(), count(kind)));
    counted.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        rounded(part as f64 * 100.0 / whole as f64)
    }
}

/// To six digits after the point: more is noise, and makes a report long.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn latency(histogram: &Histogram<u64>, sum_us: u128) -> Latency {
    if histogram.is_empty() {
        return Latency::default();
    }
    let at = |percentile: f64| histogram.value_at_percentile(percentile) as f64 / 1000.0;
    let quantiles = histogram.iter_quantiles(5).map(|step| Quantile {
        percent: rounded(step.percentile()),
        ms: step.value_iterated_to() as f64 / 1000.0,
    });
    Latency {
        mean_ms: rounded(sum_us as f64 / histogram.len() as f64 / 1000.0),
        p50_ms: at(50.0),
        p90_ms: at(90.0),
        p99_ms: at(99.0),
        p999_ms: at(99.9),
        max_ms: histogram.max() as f64 / 1000.0,
        quantiles: quantiles.collect(),
    }
}

/// Of one bucket: the highest load and the deviation, as multiples of the average.
fn spread(bucket: &Bucket) -> Option<(f64, f64)> {
    let loads = || bucket.load.iter().flatten().map(|load| f64::from(*load));
    let count = loads().count() as f64;
    let mean = loads().sum::<f64>() / count;
    if count == 0.0 || mean <= 0.0 {
        return None;
    }
    let highest = loads().fold(0.0, f64::max);
    let variance = loads().map(|load| (load - mean) * (load - mean)).sum::<f64>() / count;
    Some((highest / mean, variance.sqrt() / mean))
}

fn imbalance(buckets: &[Bucket]) -> Imbalance {
    let spreads: Vec<(f64, f64)> = buckets.iter().filter_map(spread).collect();
    let count = spreads.len().max(1) as f64;
    Imbalance {
        max_over_mean: rounded(spreads.iter().map(|spread| spread.0).sum::<f64>() / count),
        variation: rounded(spreads.iter().map(|spread| spread.1).sum::<f64>() / count),
    }
}

fn backends(world: &World<'_>, order: &[u32], buckets: &[Bucket]) -> Vec<BackendReport> {
    let all: u64 = world.figures.servers.iter().map(|server| server.sent).sum();
    let report = |place: &u32| {
        let place = *place as usize;
        let figures = world.figures.servers.get(place).copied().unwrap_or_default();
        let loads = || buckets.iter().filter_map(|bucket| *bucket.load.get(place)?);
        let count = loads().count().max(1) as f64;
        BackendReport {
            name: world.fleet.servers[place].address.clone(),
            sent: figures.sent,
            share_percent: percent(figures.sent, all),
            failed_percent: percent(figures.sent - figures.answered.min(figures.sent), figures.sent),
            load: rounded(loads().map(f64::from).sum::<f64>() / count),
        }
    };
    order.iter().map(report).collect()
}

fn series(buckets: &[Bucket], order: &[u32], bucket_s: f64) -> Series {
    let at = |bucket: &Bucket, percentile| {
        let histogram = &bucket.latency_us;
        (!histogram.is_empty()).then(|| histogram.value_at_percentile(percentile) as f64 / 1000.0)
    };
    let load = |bucket: &Bucket| {
        let of = |place: &u32| bucket.load.get(*place as usize).copied().flatten();
        order.iter().map(of).collect()
    };
    let share = |bucket: &Bucket| {
        let all: u32 = bucket.sent.iter().sum();
        let of = |place: &u32| {
            let sent = bucket.sent.get(*place as usize).copied().unwrap_or(0);
            sent as f32 * 100.0 / all.max(1) as f32
        };
        order.iter().map(of).collect()
    };
    let each = |read: &dyn Fn(&Bucket) -> f64| buckets.iter().map(read).map(rounded).collect();
    Series {
        rate: each(&|bucket| bucket.arrivals as f64 / bucket_s),
        p50_ms: buckets.iter().map(|bucket| at(bucket, 50.0)).collect(),
        p99_ms: buckets.iter().map(|bucket| at(bucket, 99.0)).collect(),
        errors: each(&|bucket| bucket.errors as f64 / bucket_s),
        variation: buckets
            .iter()
            .map(|bucket| spread(bucket).map(|spread| rounded(spread.1)))
            .collect(),
        load: buckets.iter().map(load).collect(),
        share: buckets.iter().map(share).collect(),
    }
}

impl Report {
    /// One line on what was simulated.
    pub fn setup(&self) -> String {
        let (balancers, workers) = self.balancers;
        let who = match (balancers, workers) {
            (1, 1) => String::new(),
            (1, workers) => format!(", 1 balancer of {workers} workers"),
            (balancers, 1) => format!(", {balancers} balancers"),
            (balancers, workers) => format!(", {balancers} balancers of {workers} workers"),
        };
        let span = match self.span_s {
            ..1.0 => format!("{:.0} ms", self.span_s * 1000.0),
            ..10.0 => format!("{:.1} s", self.span_s),
            span_s => format!("{span_s:.0} s"),
        };
        format!(
            "{} requests over {span} to {} backends{who}; {:.0} a second, {:.0} % of what they can serve; seed {}",
            self.requests,
            self.backends,
            self.rate,
            self.rate * 100.0 / self.capacity,
            self.seed
        )
    }
}
