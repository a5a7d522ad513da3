//! `[tenant.NAME]`: its hosts and budgets, and the checks of who may use what.
//!
//! Invariant: nothing of one tenant is reached through another. A route to a tenant's pool is for one of its hosts, a
//! route for a tenant's host leads to one of its pools, and a pool runs the policies of its own tenant or built-ins.

use std::{collections::BTreeMap, num::NonZeroU8, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    super::{
        Pool, Route, Tenant, addresses,
        names::Names,
        reader::Value,
        tenant::{Tenants, patterns_over},
        units::{ms, s},
    },
    TENANT, named,
};

const MEMORY: RangeInclusive<usize> = (1 << 20)..=(64 << 30);
const DEADLINE: RangeInclusive<Duration> = ms(1)..=s(1);
const CPU: RangeInclusive<u32> = 1..=100;
const LOG_LINES: RangeInclusive<u32> = 0..=10_000;
const SERIES: RangeInclusive<u32> = 100..=1_000_000;
/// A message lists no more.
const HOSTS_LISTED_MAX: usize = 5;

/// The tenants, and what belongs to whom.
pub(in crate::config) struct Tenancy<'a> {
    pub(super) names: Names<'a>,
    pub(super) tenants: Tenants,
    defined: &'a [(&'a str, Value<'a>)],
    pools: BTreeMap<&'a str, &'a str>,
    policies: BTreeMap<&'a str, &'a str>,
    /// Who has each host, by its pattern.
    hosts: BTreeMap<String, Owner>,
}

#[derive(Clone)]
struct Owner {
    tenant: String,
    line: usize,
}

type Defined<'a> = &'a [(&'a str, Value<'a>)];

impl<'a> Tenancy<'a> {
    pub(in crate::config) fn read(tenants: Defined<'a>, pools: Defined<'a>, policies: Defined<'a>) -> Self {
        let mut hosts = BTreeMap::new();
        let read = named(tenants, |name, value| {
            tenant(name, value, &mut hosts).map(Arc::new)
        });
        note_overlaps(tenants, &hosts);
        Self {
            names: Names::new("tenant", &[], tenants),
            tenants: read,
            defined: tenants,
            pools: owners(pools),
            policies: owners(policies),
            hosts,
        }
    }

    /// The tenant that a pool or a policy names.
    pub(super) fn refer(&self, value: Option<Value<'_>>) -> Option<String> {
        value.and_then(|value| self.names.refer(Some(&value)))
    }

    /// The budgets of a tenant that is known and could be read.
    pub(super) fn get(&self, name: Option<&str>) -> Option<&Arc<Tenant>> {
        self.tenants.get(name?)
    }

    fn owner_of(&self, host: &str) -> Option<&Owner> {
        patterns_over(host).find_map(|pattern| self.hosts.get(&pattern))
    }

    /// `pool` and `host` are where the route says so; a route that is implied says neither.
    pub(super) fn check_route(&self, item: &Value<'_>, route: &Route) {
        let tenant = self.pools.get(route.pool.as_str()).copied();
        if route.pool.is_empty() || tenant.is_some_and(|tenant| !self.is_defined(tenant)) {
            return; // That is the mistake, and told.
        }
        let owner = route.host.as_deref().and_then(|host| self.owner_of(host));
        match (owner, tenant) {
            (Some(Owner { tenant: own, .. }), Some(tenant)) if own == tenant => {}
            (Some(Owner { tenant: own, line }), _) => item.wrong_at(
                "pool",
                format!("expected a pool of tenant \"{own}\", which owns the host (line {line})"),
            ),
            (None, Some(tenant)) => item.wrong_at("host", self.expected_host(tenant)),
            (None, None) => {}
        }
    }

    /// What to say where requests of any host would reach a pool of this tenant.
    fn expected_host(&self, tenant: &str) -> String {
        let hosts = self.get(Some(tenant)).map(|tenant| tenant.hosts.as_slice());
        let quoted = |host: &String| format!("\"{host}\"");
        let listed: Vec<_> = hosts.unwrap_or_default().iter().map(quoted).collect();
        let more = if listed.len() > HOSTS_LISTED_MAX {
            ", …"
        } else {
            ""
        };
        let listed = listed[..listed.len().min(HOSTS_LISTED_MAX)].join(", ");
        format!("expected a host of tenant \"{tenant}\", whose pool this is: {listed}{more}")
    }

    /// Whether a pool may be reached without a route of its own, by requests of any host.
    pub(super) fn check_implied_route(&self, pool: &str) -> Result<(), String> {
        match self.pools.get(pool) {
            Some(tenant) if self.is_defined(tenant) => Err(self.expected_host(tenant)),
            _ => Ok(()),
        }
    }

    /// `value` is what the pool names as its policy.
    pub(super) fn check_policy(&self, tenant: Option<&str>, policy: &str, value: &Value<'_>) {
        let of_policy = self.policies.get(policy).copied();
        let is_known = |name: Option<&str>| name.is_none_or(|name| self.is_defined(name));
        let is_builtin = super::super::BUILTIN_POLICIES.contains(&policy);
        // An empty one is no policy's name, and told.
        let is_fine = policy.is_empty() || is_builtin || of_policy == tenant;
        if is_fine || !is_known(of_policy) || !is_known(tenant) {
            return;
        }
        value.wrong(match (of_policy, tenant) {
            (Some(other), _) => format!("this policy is of tenant \"{other}\", and the pool is not"),
            (None, tenant) => format!(
                "expected a policy of tenant \"{}\", as the pool is, or a built-in",
                tenant.unwrap_or_default()
            ),
        });
    }

    /// Whether each tenant's pools keep within its series.
    pub(super) fn check_series(&self, pools: &BTreeMap<String, Arc<Pool>>) {
        for (name, value) in self.defined {
            let Some(tenant) = self.get(Some(name)) else {
                continue;
            };
            let own = pools
                .values()
                .filter(|pool| pool.tenant.as_deref() == Some(*name));
            let (count, sum) = own.fold((0, 0_u32), |(count, sum), pool| {
                (count + 1, sum.saturating_add(pool.series()))
            });
            if sum > tenant.series {
                value.wrong_at(
                    "series",
                    format!(
                        "its pools ({count}) make {sum} metric series, and it may have {}: raise this, or take backends out",
                        tenant.series
                    ),
                );
            }
        }
    }

    fn is_defined(&self, tenant: &str) -> bool {
        self.defined.iter().any(|(name, _)| *name == tenant)
    }
}

/// What each table says its tenant is. Whether there is one of that name is found where the table is read.
fn owners<'a>(defined: Defined<'a>) -> BTreeMap<&'a str, &'a str> {
    let owner = |(name, value): &'a (&'a str, Value<'a>)| Some((*name, value.text_at("tenant")?));
    defined.iter().filter_map(owner).collect()
}

fn tenant(name: &str, value: &Value<'_>, owners: &mut BTreeMap<String, Owner>) -> Option<Tenant> {
    if !value.kind().is_table() {
        return value.expected("a table: [tenant.NAME]");
    }
    let table = value.table(TENANT)?;
    let hosts = table.require("hosts");
    let cpu = table.take("cpu").and_then(|value| value.whole(CPU));
    Some(Tenant {
        name: name.to_owned(),
        memory_bytes: table.size("memory", MEMORY, 256 << 20) as u64,
        deadline: table.duration("deadline", DEADLINE, ms(10)),
        cpu: cpu.and_then(|percent| NonZeroU8::new(percent as u8)),
        log_lines: table.whole("log_lines", LOG_LINES, 100),
        series: table.whole("series", SERIES, 10_000),
        hosts: hosts.map(|value| claim_hosts(name, &value, owners))?,
    })
}

fn claim_hosts(tenant: &str, value: &Value<'_>, owners: &mut BTreeMap<String, Owner>) -> Vec<String> {
    let items = value.items("a list of hosts, like [\"shop.example\", \"*.shop.example\"]");
    let items = items.unwrap_or_default();
    if value.kind().as_array().is_some() && items.is_empty() {
        value.wrong("expected at least one host");
    }
    let mut hosts = Vec::new();
    for item in &items {
        let Some(host) = item.parsed(addresses::route_host) else {
            continue;
        };
        if let Some(Owner { tenant: other, line }) = owners.get(&host) {
            item.wrong(if other == tenant {
                format!("the same host is on line {line}")
            } else {
                format!("tenant \"{other}\" owns this host (line {line})")
            });
            continue;
        }
        let owner = Owner {
            tenant: tenant.to_owned(),
            line: item.line(),
        };
        owners.insert(host.clone(), owner);
        hosts.push(host);
    }
    hosts
}

/// A host below another tenant's wildcard. Which of them gets a request would depend on the order of the routes.
fn note_overlaps(tenants: Defined<'_>, owners: &BTreeMap<String, Owner>) {
    for (host, owner) in owners {
        let above = patterns_over(host)
            .skip(1)
            .find_map(|pattern| owners.get(&pattern).map(|above| (pattern, above)));
        let Some((pattern, above)) = above.filter(|(_, above)| above.tenant != owner.tenant) else {
            continue;
        };
        if let Some((_, value)) = tenants.iter().find(|(name, _)| *name == owner.tenant) {
            value.wrong_at(
                "hosts",
                format!(
                    "\"{host}\" is below \"{pattern}\", which tenant \"{}\" owns (line {})",
                    above.tenant, above.line
                ),
            );
        }
    }
}
