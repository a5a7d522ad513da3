//! The handle's way to the cluster.
//!
//! Owns where it is kept. What can be asked of it is in `cluster/link.rs`.

use std::sync::Arc;

use super::Handle;
use crate::cluster::Link;

impl Handle {
    /// The cluster that this node belongs to; `None` if it does to none.
    pub fn cluster(&self) -> Option<Arc<Link>> {
        self.inner.cluster.load_full()
    }

    pub(crate) fn set_cluster(&self, link: Arc<Link>) {
        self.inner.cluster.store(Some(link));
    }
}
