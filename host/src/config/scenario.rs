//! Scenarios: what a simulation is made of, as values that cannot be invalid.
//!
//! Owns the types. It must not simulate anything, nor draw a random number.
//!
//! Invariant: rates and times are finite, and every group that something refers to exists.
//! Read next: `scenario/read.rs` (the keys), `docs/simulate.md` (their meaning), `simulate.rs` (who uses it).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{HashOn, Mistake, Mistakes, Policy, Pool, file, reader::Table};

mod dynamics;
mod load;
mod read;
#[cfg(test)]
mod tests;
mod values;

/// A whole scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Key `title`: one line for people. Default the file's name.
    pub title: String,
    /// Key `seed`, default 1.
    pub seed: u64,
    /// Key `requests`, default 100,000, 1 to 100 million.
    pub requests: u64,
    /// Key `warm_up`: requests that arrive earlier are not counted. Default 0 s.
    pub warm_up: Duration,
    /// Key `policies`: what is compared, in this order.
    pub policies: Vec<Arc<Policy>>,
    /// Every `[policy.NAME]`, by name, whether it is compared or not.
    pub defined: BTreeMap<String, Arc<Policy>>,
    /// `[arrivals]`
    pub arrivals: Arrivals,
    /// `[service]`: what a request costs a backend, if its class does not say otherwise.
    pub service: Distribution,
    /// `[[class]]`: at least one.
    pub classes: Vec<Class>,
    /// `[keys]`
    pub keys: Option<Keys>,
    /// `[[backends]]`: at least one.
    pub groups: Vec<Group>,
    /// `[balancers]`
    pub balancers: Balancers,
    /// `[network]`
    pub network: Network,
    /// `[pool]`, without backends.
    pub pool: Arc<Pool>,
    /// `[autoscale]`
    pub autoscale: Option<Autoscale>,
    /// `[[event]]`, in the order of the file.
    pub events: Vec<Happening>,
    /// Of the policies that are files: where each is, and the mistake that it would be to be missing.
    pub(super) components: Vec<(PathBuf, Mistake)>,
}

impl Scenario {
    /// Reads a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// Every mistake in it, in the order of its lines.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let origin = path.display().to_string();
        let read = |root: &Table<'_>, directory: &Path| read::scenario(root, &origin, directory);
        file::load_with(path, read, read::ROOT)
    }

    /// Reads text that came from `origin`, which messages name. Relative paths are relative to `directory`.
    ///
    /// # Errors
    /// As [`Scenario::load`].
    pub fn parse(text: &str, origin: &str, directory: &Path) -> Result<Self, Mistakes> {
        file::parse_with(
            text,
            origin,
            |root| read::scenario(root, origin, directory),
            read::ROOT,
        )
    }

    /// Where this component is named, as the mistake that it is if it cannot be read.
    pub fn unreadable(&self, path: &Path, problem: &str) -> Option<Mistake> {
        let (_, place) = self.components.iter().find(|(known, _)| known == path)?;
        let message = format!("cannot be read: {} ({problem})", path.display());
        Some(Mistake {
            message,
            ..place.clone()
        })
    }

    /// Requests a second that the backends of the beginning can serve.
    pub fn capacity(&self) -> f64 {
        capacity(&self.groups, self.mean_service_s())
    }

    /// Seconds that a request costs on the average, at a backend of factor 1.
    pub fn mean_service_s(&self) -> f64 {
        mean_service_s(&self.classes, &self.service)
    }
}

fn capacity(groups: &[Group], mean_service_s: f64) -> f64 {
    let of = |group: &Group| f64::from(group.count) * f64::from(group.concurrency) / group.factor;
    groups.iter().map(of).sum::<f64>() / mean_service_s
}

fn mean_service_s(classes: &[Class], service: &Distribution) -> f64 {
    let weights: f64 = classes.iter().map(|class| class.weight).sum();
    let cost = |class: &Class| class.weight * class.service.as_ref().unwrap_or(service).mean_s();
    classes.iter().map(cost).sum::<f64>() / weights
}

/// `[arrivals]`: when requests come. All but `constant` are Poisson processes whose rate may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrivals {
    /// Key `process`, with the keys of its kind.
    pub process: Process,
    /// Key `rate`, requests a second, or from `load`, the share of the backends' capacity that this asks for. Of
    /// processes whose rate changes, the average; of `ramp`, where it begins.
    pub rate: f64,
}

/// How the rate of arrivals changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Never; independent clients.
    Poisson,
    /// Never, and requests come at equal distances.
    Constant,
    /// Between quiet and burst, each for exponentially distributed times (a Markov-modulated Poisson process).
    Bursty {
        /// Key `burst`: the rate in a burst, as a multiple of the quiet one. Default 5.
        burst: f64,
        /// Key `burst_time`: mean length of a burst. Default 500 ms.
        burst_time: Duration,
        /// Key `quiet_time`: mean time between two. Default 2 s.
        quiet_time: Duration,
    },
    /// Linearly from `rate` to another one, which then stays.
    Ramp {
        /// Key `to` (or `load_to`), requests a second.
        to: f64,
        /// Key `over`.
        over: Duration,
    },
    /// As a sine: `rate * (1 + swing * sin)`.
    Diurnal {
        /// Key `swing`, 0 to 1. Default 0.5.
        swing: f64,
        /// Key `period`. Default 60 s.
        period: Duration,
    },
}

/// How long a backend works on a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Always as long.
    Constant {
        /// Key `mean`.
        mean: Duration,
    },
    /// Memoryless.
    Exponential {
        /// Key `mean`.
        mean: Duration,
    },
    /// A long tail that ends, as many measured services have.
    Lognormal {
        /// Key `mean`.
        mean: Duration,
        /// Key `sigma`: the deviation of the logarithm. Default 1, 0.01 to 4.
        sigma: f64,
    },
    /// A tail without end.
    Pareto {
        /// Key `mean`.
        mean: Duration,
        /// Key `shape`: the smaller the heavier. Default 2.1, 1.05 to 10.
        shape: f64,
    },
    /// Either of two times.
    Bimodal {
        /// Key `fast`.
        fast: Duration,
        /// Key `slow`.
        slow: Duration,
        /// Key `slow_share` of the requests. Default 0.01.
        slow_share: f64,
    },
}

impl Distribution {
    /// The average, in seconds.
    pub fn mean_s(&self) -> f64 {
        match self {
            Self::Constant { mean }
            | Self::Exponential { mean }
            | Self::Lognormal { mean, .. }
            | Self::Pareto { mean, .. } => mean.as_secs_f64(),
            Self::Bimodal {
                fast,
                slow,
                slow_share,
            } => fast.as_secs_f64() * (1.0 - slow_share) + slow.as_secs_f64() * slow_share,
        }
    }
}

/// `[[class]]`: requests of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Key `name`.
    pub name: String,
    /// Key `weight`: its share of the requests, relative to the others. Default 1.
    pub weight: f64,
    /// Key `method`. Default GET.
    pub method: String,
    /// Key `host`. Default `simulated.test`.
    pub host: String,
    /// Key `path`, with the query. Default `/`.
    pub path: String,
    /// Key `headers`: a table of texts.
    pub headers: BTreeMap<String, String>,
    /// Key `service`: instead of `[service]`.
    pub service: Option<Distribution>,
    /// Key `body`: bytes of a response. Default 0.
    pub body_bytes: u64,
}

/// `[keys]`: what requests have in common that a hash can be made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Key `count` of different keys. Default 1000, 1 to 1 million.
    pub count: u32,
    /// Key `popularity`.
    pub popularity: Popularity,
    /// Key `in`: where requests carry it. Default client-ip.
    pub place: HashOn,
}

/// How often each key comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// All as often.
    Uniform,
    /// The n-th most popular `n^exponent` times rarer than the first.
    Zipf {
        /// Key `exponent`. Default 1, 0.1 to 4.
        exponent: f64,
    },
}

/// `[[backends]]`: backends that are alike. They are called `NAME-1:80`, `NAME-2:80`, ...
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Key `name`, unique.
    pub name: String,
    /// Key `count`. Default 1, 1 to 10,000.
    pub count: u32,
    /// Key `concurrency`: requests that one works on at a time. Default 8.
    pub concurrency: u32,
    /// Key `queue`: requests that wait there at most; one more is answered 503. Default 100,000.
    pub queue: u32,
    /// Key `factor`: service times are multiplied by it. Default 1.
    pub factor: f64,
    /// Key `weight`, default 1.
    pub weight: u32,
    /// Key `zone`, default none.
    pub zone: Option<String>,
    /// Key `tier`, default 0.
    pub tier: u8,
    /// Key `labels`: what policies see of them.
    pub labels: BTreeMap<String, String>,
}

/// `[balancers]`: who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancers {
    /// Key `count`: balancers that know nothing of each other. Default 1, 1 to 64.
    pub count: u32,
    /// Key `workers` of each, which share their counters within a millisecond. Default 1, 1 to 64.
    pub workers: u32,
    /// Key `digest`: how often balancers tell each other what they have in flight. Default off.
    pub digest: Option<Duration>,
    /// Key `zones`: of the balancers, in turn. Default none.
    pub zones: Vec<String>,
}

/// `[network]`: times between balancers and backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Key `round_trip`. Default 0.
    pub round_trip: Duration,
    /// Key `between_zones`: what is added to it if balancer and backend have different zones. Default 0.
    pub between_zones: Duration,
}

/// `[autoscale]`: backends that come and go with the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Autoscale {
    /// Key `group`: whose size changes.
    pub group: usize,
    /// Key `min` size. Default 1.
    pub min: u32,
    /// Key `max` size.
    pub max: u32,
    /// Key `every`: how often it looks. Default 5 s.
    pub every: Duration,
    /// Key `above`: utilisation since the last look that adds backends. Default 0.75.
    pub above: f64,
    /// Key `below`: utilisation that removes some. Default 0.3.
    pub below: f64,
    /// Key `step`: how many at once. Default 1.
    pub step: u32,
    /// Key `delay`: from the decision until a new one serves. Default 10 s.
    pub delay: Duration,
}

/// `[[event]]`: something that happens to backends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Happening {
    /// Key `at`.
    pub at: Duration,
    /// Key `until`: when it is undone.
    pub until: Option<Duration>,
    /// Key `group`.
    pub group: usize,
    /// Key `count`: how many of the group: its first ones, or of those that join or leave the last. Default all of
    /// the beginning, and 1 that joins or leaves.
    pub count: Option<u32>,
    /// Key `do`.
    pub action: Action,
}

/// What happens to a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// `slow`: service times are multiplied by `factor` (in addition to the group's).
    Slow {
        /// Key `factor`. Default 5.
        factor: f64,
    },
    /// `fail`: a share of the requests is answered at once with an error status.
    Fail {
        /// Key `rate`, 0 to 1. Default 1.
        rate: f64,
        /// Key `status`, 500 to 599. Default 503.
        status: u16,
    },
    /// `die`: what it works on is cut off, and connections are refused.
    Die,
    /// `hang`: requests are taken and not answered.
    Hang,
    /// `drain`: no new requests, as by an operator.
    Drain,
    /// `join`: more backends in the configuration.
    Join,
    /// `leave`: fewer.
    Leave,
}

impl Action {
    /// The word in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow { .. } => "slow",
            Self::Fail { .. } => "fail",
            Self::Die => "die",
            Self::Hang => "hang",
            Self::Drain => "drain",
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }
}
