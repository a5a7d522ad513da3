//! Tenants as JSON.
//!
//! Owns the shape of `/v1/tenants`. Keys are only ever added; a golden file holds them. Counts are since the start.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::Context;
use crate::{control::PoolView, tenant};

#[derive(Serialize)]
pub(super) struct Tenants {
    tenants: Vec<Tenant>,
}

#[derive(Serialize)]
struct Tenant {
    name: String,
    hosts: Vec<String>,
    pools: Vec<String>,
    deadline_ms: u64,
    memory: Memory,
    cpu: Cpu,
    log: Log,
    series: Series,
}

#[derive(Serialize)]
struct Memory {
    bytes: u64,
    bytes_max: u64,
    denied: u64,
}

#[derive(Serialize)]
struct Cpu {
    /// Of each worker; without a limit nothing is accounted.
    percent_max: Option<u8>,
    seconds: f64,
    throttled: u64,
}

#[derive(Serialize)]
struct Log {
    lines_per_second_max: u32,
    dropped: u64,
}

#[derive(Serialize)]
struct Series {
    count: u32,
    count_max: u32,
}

/// The tenants that have a pool in service, which is all of them, by name.
pub(super) fn in_service(pools: &[PoolView]) -> Vec<Arc<tenant::Tenant>> {
    let owner = |view: &PoolView| {
        let tenant = view.pool.tenant()?;
        Some((tenant.budgets().name.clone(), tenant.clone()))
    };
    let by_name: BTreeMap<_, _> = pools.iter().filter_map(owner).collect();
    by_name.into_values().collect()
}

pub(super) fn all(context: &Context) -> Tenants {
    let pools = context.handle.pools();
    let tenants = in_service(&pools);
    let tenants = tenants.iter().map(|tenant| Tenant::new(tenant, &pools)).collect();
    Tenants { tenants }
}

impl Tenant {
    fn new(tenant: &tenant::Tenant, pools: &[PoolView]) -> Self {
        let budgets = tenant.budgets();
        let own: Vec<_> = pools
            .iter()
            .map(|view| &view.pool.config)
            .filter(|pool| pool.tenant.as_ref() == Some(&budgets.name))
            .collect();
        Self {
            name: budgets.name.clone(),
            hosts: budgets.hosts.clone(),
            pools: own.iter().map(|pool| pool.name.clone()).collect(),
            deadline_ms: budgets.deadline.as_millis() as u64,
            memory: Memory {
                bytes: tenant.memory(),
                bytes_max: budgets.memory_bytes,
                denied: tenant.memory_denied(),
            },
            cpu: Cpu {
                percent_max: budgets.cpu.map(Into::into),
                seconds: tenant.cpu_us() as f64 / 1e6,
                throttled: tenant.throttled(),
            },
            log: Log {
                lines_per_second_max: budgets.log_lines,
                dropped: tenant.log_dropped(),
            },
            series: Series {
                count: own.iter().map(|pool| pool.series()).sum(),
                count_max: budgets.series,
            },
        }
    }
}
