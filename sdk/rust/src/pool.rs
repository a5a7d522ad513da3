//! The backends as the last `update` told them, and their live load as the host answers it now.

use std::cell::OnceCell;

use crate::algorithm::Algorithm;
use crate::host;

/// The backends of the pool as the contract hands them over: parallel lists, entry `i` of each is backend `i`. The
/// fields are those of `snapshot` in `wit/picker.wit`. Plugins see it through [`Pool`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows with every change of the pool.
    pub generation: u64,
    /// Stable identity of each backend.
    pub ids: Vec<u64>,
    /// `host:port` as configured.
    pub addresses: Vec<String>,
    /// Configured weight, 0 to 65535.
    pub weights: Vec<u32>,
    /// Slow start, in percent of the weight, 1 to 100.
    pub ramps: Vec<u8>,
    /// Number of the zone.
    pub zones: Vec<u16>,
    /// Priority tier, 0 first.
    pub tiers: Vec<u8>,
    /// 1 where the backend may be picked now.
    pub usable: Vec<u8>,
    /// The configured labels, as name and value pairs sorted by name.
    pub labels: Vec<Vec<(String, String)>>,
}

/// The pool a policy picks from. What the last `update` told is free to read; what is live asks the host, about 20 ns
/// for one backend and 100 to 150 ns for the column of all: look at a few one by one, and scan whole columns.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    snapshot: Snapshot,
    usable: Vec<u32>,
    capacities: Vec<u32>,
    attempt: u32,
    /// The ready backends of a retry, found when first asked for: most picks are no retries, and most retries ask for
    /// one backend only.
    untried: OnceCell<Vec<u32>>,
}

impl Pool {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let facts = snapshot.usable.iter().zip(&snapshot.weights).zip(&snapshot.ramps);
        let capacities: Vec<u32> = facts
            .map(|((&usable, &weight), &ramp)| if usable == 0 { 0 } else { weight * u32::from(ramp) })
            .collect();
        let usable = (0..)
            .zip(&capacities)
            .filter(|&(_, &capacity)| capacity > 0)
            .map(|(index, _)| index)
            .collect();
        Self {
            snapshot,
            usable,
            capacities,
            ..Self::default()
        }
    }

    /// Prepares for a pick: which backends are ready depends on the attempt.
    pub(crate) fn begin(&mut self, attempt: u32) {
        if attempt > 0 {
            self.untried.take();
        }
        self.attempt = attempt;
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many backends there are, usable or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshot.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshot.ids.is_empty()
    }

    /// Grows with every change of the pool.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// Every backend, usable or not.
    pub fn iter(&self) -> impl Iterator<Item = Backend<'_>> {
        (0..self.len()).map(|index| Backend { index, pool: self })
    }

    /// The backend with this index, if there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Backend<'_>> {
        (index < self.len()).then_some(Backend { index, pool: self })
    }

    /// The backends a policy should choose among: usable, and not yet tried for this request unless all were.
    pub fn ready(&self) -> impl Iterator<Item = Backend<'_>> {
        self.ready_indices().iter().map(|&index| Backend {
            index: index as usize,
            pool: self,
        })
    }

    /// The indices of [`ready`](Pool::ready), ascending.
    #[must_use]
    pub fn ready_indices(&self) -> &[u32] {
        if self.attempt == 0 {
            &self.usable
        } else {
            self.untried.get_or_init(|| self.find_untried())
        }
    }

    /// Whether this backend is one of [`ready`](Pool::ready).
    #[must_use]
    pub fn is_ready(&self, index: usize) -> bool {
        if self.attempt == 0 {
            return self.capacities.get(index).is_some_and(|&capacity| capacity > 0);
        }
        u32::try_from(index).is_ok_and(|index| self.ready_indices().binary_search(&index).is_ok())
    }

    /// At most `attempt` backends can have been tried, so the search ends with the last of them.
    fn find_untried(&self) -> Vec<u32> {
        let mut left = self.attempt;
        let is_untried = |index: &u32| {
            let tried = left > 0 && host::request::tried(*index);
            left -= u32::from(tried);
            !tried
        };
        let untried: Vec<u32> = self.usable.iter().copied().filter(is_untried).collect();
        if untried.is_empty() {
            self.usable.clone()
        } else {
            untried
        }
    }

    /// The indices of the usable backends, ascending, whether tried or not.
    #[must_use]
    pub fn usable_indices(&self) -> &[u32] {
        &self.usable
    }

    /// Stable identities; hash on these, never on the index.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.snapshot.ids
    }

    /// Configured weights.
    #[must_use]
    pub fn weights(&self) -> &[u32] {
        &self.snapshot.weights
    }

    /// What each backend may take relative to the others: its weight times its slow-start percentage, 0 where it is
    /// not usable. At most 6 553 500.
    #[must_use]
    pub fn capacities(&self) -> &[u32] {
        &self.capacities
    }

    /// Requests in flight to all backends together, over all workers.
    #[must_use]
    pub fn active_total(&self) -> u32 {
        host::pool::active_total()
    }

    /// [`Backend::active`] of every backend, in order.
    #[must_use]
    pub fn active_all(&self) -> Vec<u32> {
        host::pool::active_all()
    }

    /// [`Backend::latency_us`] of every backend, in order.
    #[must_use]
    pub fn latency_us_all(&self) -> Vec<u32> {
        host::pool::latency_us_all()
    }

    /// [`Backend::throughput`] of every backend, in order.
    #[must_use]
    pub fn throughput_all(&self) -> Vec<u64> {
        host::pool::throughput_all()
    }

    /// Requests in flight to backend `index`, over all workers; 0 when there is none.
    #[must_use]
    pub fn active(&self, index: usize) -> u32 {
        host::pool::active(clamp(index))
    }

    /// [`Backend::own_active`] of every backend, in order.
    #[must_use]
    pub fn own_active_all(&self) -> Vec<u32> {
        host::nodes::own_active_all()
    }

    /// [`Backend::others_active`] of every backend, in order.
    #[must_use]
    pub fn others_active_all(&self) -> Vec<u32> {
        host::nodes::others_active_all()
    }

    /// [`Backend::others_age_ms`] of every backend, in order; `u32::MAX`, older than anything, where nobody says anything.
    #[must_use]
    pub fn others_age_ms_all(&self) -> Vec<u32> {
        host::nodes::others_age_ms_all()
    }

    /// Lets the host's own algorithm choose among these indices: filter, and leave the rest to the host. `None` when
    /// nothing usable and untried is left.
    #[must_use]
    pub fn delegate(&self, among: &[u32]) -> Option<Backend<'_>> {
        self.get(host::pool::delegate(among)? as usize)
    }

    /// Lets an algorithm of the host choose among the ready backends that `fits` takes: filter, and leave the rest to the
    /// host. `None` when none fits.
    #[must_use]
    pub fn delegate_to<'a>(
        &'a self,
        algorithm: Algorithm,
        mut fits: impl FnMut(Backend<'a>) -> bool,
    ) -> Option<Backend<'a>> {
        let among: Vec<u32> = (self.ready_indices().iter().copied())
            .filter(|&index| self.get(index as usize).is_some_and(&mut fits))
            .collect();
        self.get(host::pool::delegate_to(algorithm.name(), &among)? as usize)
    }
}

/// One backend of the pool.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'a> {
    index: usize,
    pool: &'a Pool,
}

impl<'a> Backend<'a> {
    /// Its index in the last update.
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// Stable identity, the same over reloads and balancers.
    #[must_use]
    pub fn id(self) -> u64 {
        self.pool.snapshot.ids[self.index]
    }

    /// `host:port` as configured.
    #[must_use]
    pub fn address(self) -> &'a str {
        &self.pool.snapshot.addresses[self.index]
    }

    /// Configured weight.
    #[must_use]
    pub fn weight(self) -> u32 {
        self.pool.snapshot.weights[self.index]
    }

    /// Slow start, in percent of the weight: 100 unless it warms up.
    #[must_use]
    pub fn ramp(self) -> u8 {
        self.pool.snapshot.ramps[self.index]
    }

    /// Weight times ramp, 0 while not usable.
    #[must_use]
    pub fn capacity(self) -> u32 {
        self.pool.capacities[self.index]
    }

    /// Number of its zone.
    #[must_use]
    pub fn zone(self) -> u16 {
        self.pool.snapshot.zones[self.index]
    }

    /// Priority tier, 0 first.
    #[must_use]
    pub fn tier(self) -> u8 {
        self.pool.snapshot.tiers[self.index]
    }

    /// Whether it may be picked.
    #[must_use]
    pub fn is_usable(self) -> bool {
        self.capacity() > 0
    }

    /// The value of a configured label.
    #[must_use]
    pub fn label(self, name: &str) -> Option<&'a str> {
        let labels = &self.pool.snapshot.labels[self.index];
        labels
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Requests in flight to it now, over all workers; in a pool with `load_view = "cluster"` also those of other nodes.
    #[must_use]
    pub fn active(self) -> u32 {
        self.pool.active(self.index)
    }

    /// Those of them that are this node's own. Costs what [`active`](Backend::active) does; a component that uses this or the
    /// two below needs a host that has them (`nodes` of the contract, 0.1.1).
    #[must_use]
    pub fn own_active(self) -> u32 {
        host::nodes::own_active(clamp(self.index))
    }

    /// Those of them that are other nodes', as they said last: 0 unless the pool has `load_view = "cluster"`.
    #[must_use]
    pub fn others_active(self) -> u32 {
        host::nodes::others_active(clamp(self.index))
    }

    /// How many milliseconds ago the other nodes said that, or that they have nothing in flight; the longest time of them.
    /// `None` if nobody says anything.
    #[must_use]
    pub fn others_age_ms(self) -> Option<u32> {
        let age_ms = host::nodes::others_age_ms(clamp(self.index));
        (age_ms != u32::MAX).then_some(age_ms)
    }

    /// Average microseconds to the response head over about 5 seconds of traffic; 0 while nothing was measured.
    #[must_use]
    pub fn latency_us(self) -> u32 {
        host::pool::latency_us(clamp(self.index))
    }

    /// Body bytes per second in both directions, over the last 4 seconds.
    #[must_use]
    pub fn throughput(self) -> u64 {
        host::pool::throughput(clamp(self.index))
    }
}

/// The contract's 32-bit index; one that does not fit stays out of range, which answers 0.
pub(crate) fn clamp(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, with_host};

    #[test]
    fn a_backend_that_is_down_or_weightless_is_not_ready() {
        let pool = testing::pool(["a", "b", "c"]).down("a").weight("b", 0).build();
        let ready: Vec<_> = pool.ready().map(|backend| backend.address()).collect();
        assert_eq!(ready, ["c"]);
        assert!(!pool.is_ready(0) && !pool.is_ready(1) && pool.is_ready(2) && !pool.is_ready(3));
    }

    #[test]
    fn capacity_is_weight_times_ramp() {
        let pool = testing::pool(["a", "b"])
            .weight("a", 3)
            .ramp("a", 50)
            .down("b")
            .build();
        assert_eq!(pool.capacities(), [150, 0]);
    }

    #[test]
    fn a_retry_is_ready_for_untried_backends_only() {
        let mut pool = testing::pool(["a", "b", "c"]).build();
        with_host(|host| host.tried = vec![true, false, false]);
        assert_eq!(pool.ready_indices(), [0, 1, 2]);
        pool.begin(1);
        assert_eq!(pool.ready_indices(), [1, 2]);
        assert!(!pool.is_ready(0) && pool.is_ready(1));
    }

    #[test]
    fn when_all_were_tried_all_are_ready_again() {
        let mut pool = testing::pool(["a", "b"]).build();
        with_host(|host| host.tried = vec![true, true]);
        pool.begin(2);
        assert_eq!(pool.ready_indices(), [0, 1]);
    }

    #[test]
    fn what_is_in_flight_is_told_apart_by_node() {
        let pool = testing::pool(["a", "b", "c"]).build();
        let b = pool.get(1).unwrap();
        with_host(|host| (host.len, host.active) = (3, vec![1, 5]));
        assert_eq!(
            (b.own_active(), b.others_active(), b.others_age_ms()),
            (5, 0, None)
        );
        with_host(|host| host.others = vec![None, Some((4, 30))]);
        assert_eq!(
            (b.own_active(), b.others_active(), b.others_age_ms()),
            (1, 4, Some(30))
        );
        assert_eq!(pool.own_active_all(), [1, 1, 0]);
        assert_eq!(pool.others_active_all(), [0, 4, 0]);
        assert_eq!(pool.others_age_ms_all(), [u32::MAX, 30, u32::MAX]);
    }

    #[test]
    fn labels_are_found_by_name() {
        let pool = testing::pool(["a"]).label("a", "rack", "7").build();
        assert_eq!(pool.get(0).unwrap().label("rack"), Some("7"));
        assert_eq!(pool.get(0).unwrap().label("row"), None);
        assert!(pool.get(1).is_none());
    }
}
