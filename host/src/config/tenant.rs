//! Tenants: whose hosts, pools and policies are whose, and what each may use.
//!
//! Owns the rule which host belongs to whom, and how many metric series a pool makes. It must not read a file
//! (`file/tenant.rs` does) nor count what is used (`tenant.rs` at the top does).

use std::{collections::BTreeMap, num::NonZeroU8, sync::Arc, time::Duration};

use super::LoadView;

/// `[tenant.NAME]`: what a team owns, and its budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The table's name.
    pub name: String,
    /// Key `hosts`: at least one, as in a route. No host belongs to two tenants, through a wildcard neither.
    pub hosts: Vec<String>,
    /// Key `memory`: memory and tables of all its guests together, over all workers. Default 256 MiB, 1 MiB to 64 GiB.
    pub memory_bytes: u64,
    /// Key `deadline`: the longest that one of its policies may set. Default 10 ms, 1 ms to 1 s.
    pub deadline: Duration,
    /// Key `cpu`: percent of each worker that its guests may use while others want it. Default no limit, 1 to 100.
    pub cpu: Option<NonZeroU8>,
    /// Key `log_lines`: lines a second of all its guests together. Default 100, 0 to 10000.
    pub log_lines: u32,
    /// Key `series`: metric series of all its pools together. Default 10000, 100 to 1000000.
    pub series: u32,
}

/// Series of a pool without those of its backends; a test of `admin` counts them.
const SERIES_PER_POOL: u32 = 42;
/// Series of one with sticky sessions, beyond those.
const SERIES_OF_STICKY: u32 = 4;
/// More of them where backends are found.
const SERIES_OF_DISCOVERY: u32 = 4;
/// Series of each of its backends; likewise.
const SERIES_PER_BACKEND: u32 = 20;
/// One more where other nodes tell of it.
const SERIES_OF_OTHERS: u32 = 1;

impl super::Pool {
    /// How many metric series it makes.
    pub fn series(&self) -> u32 {
        let backends = u32::try_from(self.backends.len()).unwrap_or(u32::MAX);
        let found = self.discover.as_ref().map_or(0, |_| SERIES_OF_DISCOVERY);
        let others = match self.load_view {
            LoadView::Cluster => SERIES_OF_OTHERS,
            LoadView::Node => 0,
        };
        backends
            .saturating_mul(SERIES_PER_BACKEND + others)
            .saturating_add(SERIES_PER_POOL + found)
            .saturating_add(self.sticky.as_ref().map_or(0, |_| SERIES_OF_STICKY))
    }
}

/// The tenants of a configuration, by name.
pub type Tenants = BTreeMap<String, Arc<Tenant>>;

/// Every pattern that takes all of a host: itself, and the wildcards above it. `*.a.b` is below `*.b`.
pub(super) fn patterns_over(host: &str) -> impl Iterator<Item = String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
    let wildcards = parents.map(|(_, parent)| format!("*.{parent}"));
    std::iter::once(host.to_owned()).chain(wildcards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_below_itself_and_the_wildcards_above_it() {
        let over = |host| patterns_over(host).collect::<Vec<_>>();
        assert_eq!(over("a.x.b"), ["a.x.b", "*.x.b", "*.b"]);
        assert_eq!(over("*.x.b"), ["*.x.b", "*.b"]);
        assert_eq!(over("b"), ["b"]);
    }
}
