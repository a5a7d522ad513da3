//! Pools by the names of their backends.

use crate::hash;
use crate::pool::{Pool, Snapshot};

/// A pool of these backends: usable, weight 1, fully ramped up, all in zone and tier 0. A backend's id is a hash of its
/// name, so it stays itself from pool to pool.
pub fn pool<N: Into<String>>(names: impl IntoIterator<Item = N>) -> PoolBuilder {
    let mut snapshot = Snapshot {
        generation: 1,
        ..Snapshot::default()
    };
    for name in names {
        let name = name.into();
        snapshot.ids.push(hash::bytes(name.as_bytes()));
        snapshot.addresses.push(name);
    }
    let count = snapshot.ids.len();
    snapshot.weights = vec![1; count];
    snapshot.ramps = vec![100; count];
    snapshot.zones = vec![0; count];
    snapshot.tiers = vec![0; count];
    snapshot.usable = vec![1; count];
    snapshot.labels = vec![Vec::new(); count];
    PoolBuilder(snapshot)
}

/// Says what is unusual about some backends of a [`pool`]. A name that is not in it panics: the test is wrong.
#[derive(Clone, Debug)]
pub struct PoolBuilder(Snapshot);

impl PoolBuilder {
    /// Sets a backend's weight; weight 0 makes it unusable, as the host does.
    #[must_use]
    pub fn weight(mut self, name: &str, weight: u32) -> Self {
        let index = self.index(name);
        self.0.weights[index] = weight;
        self.0.usable[index] = u8::from(weight > 0);
        self
    }

    /// Lets a backend warm up, in percent of its weight.
    #[must_use]
    pub fn ramp(mut self, name: &str, percent: u8) -> Self {
        let index = self.index(name);
        self.0.ramps[index] = percent;
        self
    }

    /// Makes a backend unusable.
    #[must_use]
    pub fn down(mut self, name: &str) -> Self {
        let index = self.index(name);
        self.0.usable[index] = 0;
        self
    }

    /// Puts a backend into a zone.
    #[must_use]
    pub fn zone(mut self, name: &str, zone: u16) -> Self {
        let index = self.index(name);
        self.0.zones[index] = zone;
        self
    }

    /// Puts a backend into a tier.
    #[must_use]
    pub fn tier(mut self, name: &str, tier: u8) -> Self {
        let index = self.index(name);
        self.0.tiers[index] = tier;
        self
    }

    /// Labels a backend.
    #[must_use]
    pub fn label(mut self, name: &str, label: &str, value: &str) -> Self {
        let index = self.index(name);
        self.0.labels[index].push((label.to_owned(), value.to_owned()));
        self.0.labels[index].sort();
        self
    }

    /// The pool as a policy sees it.
    #[must_use]
    pub fn build(self) -> Pool {
        Pool::new(self.0)
    }

    /// The pool as the contract hands it over.
    #[must_use]
    pub fn snapshot(self) -> Snapshot {
        self.0
    }

    fn index(&self, name: &str) -> usize {
        let index = self.0.addresses.iter().position(|address| address == name);
        index.unwrap_or_else(|| panic!("no backend `{name}` in this pool"))
    }
}
