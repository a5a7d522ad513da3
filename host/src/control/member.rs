//! The handle's way to the cluster, to the fleet and to the peers.
//!
//! Owns where they are kept. What can be asked of them is in `cluster/link.rs`, `fleet/link.rs` and `peers/link.rs`.

use std::{collections::BTreeMap, sync::Arc};

use super::{Command, Handle, ReloadReport};
use crate::{cluster::Link, config::Shared, fleet, peers, rollout::Shadow};

impl Handle {
    /// The cluster that this node belongs to; `None` if it does to none.
    pub fn cluster(&self) -> Option<Arc<Link>> {
        self.inner.cluster.load_full()
    }

    pub(crate) fn set_cluster(&self, link: Arc<Link>) {
        self.inner.cluster.store(Some(link));
    }

    /// The fleet that this node belongs to; `None` if it does to none.
    pub fn fleet(&self) -> Option<Arc<fleet::Link>> {
        self.inner.fleet.load_full()
    }

    pub(crate) fn set_fleet(&self, link: Arc<fleet::Link>) {
        self.inner.fleet.store(Some(link));
    }

    /// The exchange of load with other nodes; `None` without any.
    pub fn peers(&self) -> Option<Arc<peers::Link>> {
        self.inner.peers.load_full()
    }

    pub(crate) fn set_peers(&self, link: Arc<peers::Link>) {
        self.inner.peers.store(Some(link));
    }

    pub(crate) fn set_shadows(&self, shadows: BTreeMap<String, Arc<Shadow>>) {
        self.inner.shadows.store(Arc::new(shadows));
    }

    /// Puts what the fleet shares into service beside what this node has itself.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(crate) async fn share(&self, shared: Option<Arc<Shared>>) -> Result<ReloadReport, String> {
        let answer = self.ask(|done| Command::Share(shared, done)).await;
        answer.unwrap_or_else(super::stopped)
    }
}
