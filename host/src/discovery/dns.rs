//! Backends that the DNS names: every address of a name (A and AAAA), or every target of a service (SRV, RFC 2782).
//!
//! Owns the questions, what answers make of backends, and when they are asked again: when an answer's time to live is over,
//! within the pool's bounds. Packets, time-outs of each server and the change to TCP are the library's.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType, rdata::SRV},
};
use tokio::{task::JoinSet, time::Instant};

use super::{Failure, Finding, Source};
use crate::config::{Backend, Discover, DiscoverFrom, Family};

/// Targets of a service that are looked up at the same time.
const TARGETS_AT_ONCE: usize = 16;
/// The last tier that a backend can have.
const TIER_MAX: usize = 15;

pub(super) struct Dns {
    discover: Discover,
    /// Made anew after each failure: the system's own configuration may be the reason.
    resolver: Option<TokioResolver>,
    /// When to ask; at once before the first answer.
    due: Option<Instant>,
    /// In a row.
    failures: u32,
}

/// What was found, and for how long it is good.
type Answer<T> = Result<(T, Duration), Failure>;

impl Dns {
    pub(super) fn new(discover: Discover) -> Self {
        Self {
            discover,
            resolver: None,
            due: None,
            failures: 0,
        }
    }

    async fn ask(&mut self) -> Result<Vec<Backend>, Failure> {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
        }
        let answer = self.look_up().await;
        let (least, most) = (self.discover.interval_min, self.discover.interval_max);
        let pause = match &answer {
            Ok((_, good_for)) => {
                self.failures = 0;
                (*good_for).clamp(least, most)
            }
            Err(_) => {
                self.resolver = None;
                self.failures = self.failures.saturating_add(1);
                let doublings = (self.failures - 1).min(16);
                least.saturating_mul(1 << doublings).min(most)
            }
        };
        self.due = Some(Instant::now() + pause);
        answer.map(|(found, _)| found)
    }

    async fn look_up(&mut self) -> Answer<Vec<Backend>> {
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => self.resolver.insert(resolver(&self.discover)?).clone(),
        };
        // When to ask again is decided here.
        resolver.clear_cache();
        let asker = Asker {
            resolver,
            family: self.discover.family,
            timeout: self.discover.timeout,
        };
        match &self.discover.from {
            DiscoverFrom::Dns { name, port } => {
                let (addresses, good_for) = asker.addresses(name).await?;
                if addresses.is_empty() {
                    return Err(Failure(format!("\"{name}\" has no address")));
                }
                let found = addresses.into_iter().map(|ip| backend(ip, *port, 1, 0));
                Ok((found.collect(), good_for))
            }
            DiscoverFrom::Srv { name } => asker.targets(name).await,
            DiscoverFrom::File(_) | DiscoverFrom::Etcd { .. } => Err(Failure("not a name".to_owned())),
        }
    }
}

impl Source for Dns {
    fn next(&mut self) -> Finding<'_> {
        Box::pin(self.ask())
    }
}

fn resolver(discover: &Discover) -> Result<TokioResolver, Failure> {
    let failed = |error: NetError| Failure(format!("the resolver cannot be used: {error}"));
    let mut builder = if discover.resolver.is_empty() {
        TokioResolver::builder_tokio().map_err(failed)?
    } else {
        let servers = discover.resolver.iter().map(|address| name_server(*address));
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        // Whoever says which server is asked does not mean a file of this machine.
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    let options = builder.options_mut();
    // One lost packet must not make a failure of it: there is time for a second try.
    options.timeout = discover.timeout / 2;
    options.attempts = 1;
    builder.build().map_err(failed)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    let at_port = |connection: &mut ConnectionConfig| connection.port = address.port();
    server.connections.iter_mut().for_each(at_port);
    server
}

#[derive(Clone)]
struct Asker {
    resolver: TokioResolver,
    family: Family,
    timeout: Duration,
}

impl Asker {
    /// `None` if there is no such record.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Option<Lookup>, Failure> {
        let asked = tokio::time::timeout(self.timeout, self.resolver.lookup(name, kind)).await;
        match asked {
            Ok(Ok(lookup)) => Ok(Some(lookup)),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Ok(None),
            Ok(Err(error)) => Err(Failure(format!("{kind} of \"{name}\": {error}"))),
            Err(_) => {
                let within = crate::config::show_duration(self.timeout);
                Err(Failure(format!("{kind} of \"{name}\": no answer in {within}")))
            }
        }
    }

    /// Every address of a name, or none. One kind may be missing, but if asking for it fails, the whole fails: half an answer would take
    /// backends away that are there.
    async fn addresses(&self, name: &str) -> Answer<Vec<IpAddr>> {
        let (four, six) = (RecordType::A, RecordType::AAAA);
        let (four, six) = match self.family {
            Family::Any => tokio::try_join!(self.ask(name, four), self.ask(name, six))?,
            Family::V4 => (self.ask(name, four).await?, None),
            Family::V6 => (None, self.ask(name, six).await?),
        };
        let lookups = [four, six];
        let lookups = || lookups.iter().flatten();
        let records = lookups().flat_map(|lookup| lookup.answers());
        let mut addresses: Vec<IpAddr> = records
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok((addresses, lookups().map(good_for).min().unwrap_or_default()))
    }

    /// Every address of every target of a service.
    async fn targets(&self, name: &str) -> Answer<Vec<Backend>> {
        let lookup = self.ask(name, RecordType::SRV).await?;
        let records = lookup.iter().flat_map(|lookup| lookup.answers());
        let records: Vec<SRV> = records
            .filter_map(|record| match &record.data {
                RData::SRV(target) => Some(target.clone()),
                _ => None,
            })
            // A single target of "." says that there is no such service.
            .filter(|target| !target.target.is_root())
            .collect();
        if records.is_empty() {
            return Err(Failure(format!("\"{name}\" has no target (SRV)")));
        }
        let mut found = BTreeMap::new();
        let mut shortest = lookup.as_ref().map(good_for).unwrap_or_default();
        let tiers = tiers(&records);
        let mut asking = JoinSet::new();
        let mut rest = records.into_iter();
        loop {
            for record in rest.by_ref().take(TARGETS_AT_ONCE - asking.len()) {
                let asker = self.clone();
                asking.spawn(async move {
                    let addresses = asker.addresses(&record.target.to_utf8()).await;
                    (record, addresses)
                });
            }
            let Some(asked) = asking.join_next().await else {
                break;
            };
            let (record, answer) = asked.map_err(|error| Failure(error.to_string()))?;
            // A target that is going away may lose its addresses before its record.
            let (addresses, good_for) = answer?;
            shortest = shortest.min(good_for);
            for ip in addresses {
                let tier = tiers.get(&record.priority).copied().unwrap_or_default();
                let backend = backend(ip, record.port, weight(record.weight), tier);
                found.entry(backend.address.clone()).or_insert(backend);
            }
        }
        if found.is_empty() {
            return Err(Failure(format!("no target of \"{name}\" (SRV) has an address")));
        }
        Ok((found.into_values().collect(), shortest))
    }
}

fn good_for(lookup: &Lookup) -> Duration {
    lookup
        .valid_until()
        .saturating_duration_since(std::time::Instant::now())
}

/// The lowest priority is tier 0, the next one tier 1: as RFC 2782 has it, a later one is for when the earlier ones are not
/// reached.
fn tiers(records: &[SRV]) -> BTreeMap<u16, u8> {
    let priorities: std::collections::BTreeSet<u16> = records.iter().map(|record| record.priority).collect();
    let numbered = priorities.into_iter().enumerate();
    numbered
        .map(|(tier, priority)| (priority, tier.min(TIER_MAX) as u8))
        .collect()
}

/// 0 means "no selection to be done" there, or "hardly ever", and would mean "never" here.
fn weight(weight: u16) -> u32 {
    u32::from(weight.max(1))
}

fn backend(ip: IpAddr, port: u16, weight: u32, tier: u8) -> Backend {
    Backend {
        address: SocketAddr::new(ip, port).to_string(),
        weight,
        zone: None,
        tier,
        labels: BTreeMap::new(),
    }
}
