//! The fleet: nodes that serve side by side, and what they share in etcd.
//!
//! Owns this node's membership, the view of the others, and how another configuration goes through the fleet. It must not touch what
//! serves: `server/fleet.rs` does, and says how that went.
//!
//! Invariant: without etcd nothing changes. What serves goes on, and what would be a change is refused with the reason.
//! Read next: `fleet/rollout.rs` (what is decided), `fleet/controller.rs` (by whom), `fleet/publish.rs` (changes), `fleet/membership.rs`
//! (the lease), `fleet/record.rs` (the form).

use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::{config, etcd::Client};

mod controller;
mod follow;
mod link;
mod membership;
mod publish;
mod record;
mod rollout;
mod store;

pub use link::{Check, EtcdView, Link, MemberView, View};
pub use publish::Denied;
pub use record::{Attempt, Generation, Member, Verdict};
pub use rollout::{Phase, Rollout};
pub use store::Store;

/// This node's part in the fleet. It leaves when this is dropped, though without a word: see [`Fleet::leave`].
#[derive(Debug)]
pub struct Fleet {
    /// The view.
    pub link: Arc<Link>,
    tasks: [AbortHandle; 3],
}

impl Fleet {
    /// Joins, and goes on trying as long as it cannot; must be called inside a tokio runtime.
    pub fn join(config: &config::Fleet, check: Check) -> Self {
        let client = Client::shared(&config.etcd);
        let link = Arc::new(Link::new(config, check, client.clone()));
        let membership = membership::keep(link.clone(), client.clone());
        let following = follow::follow(link.clone(), client.clone());
        let controlling = controller::control(link.clone(), client);
        Self {
            link,
            tasks: [
                tokio::spawn(membership),
                tokio::spawn(following),
                tokio::spawn(controlling),
            ]
            .map(|task| task.abort_handle()),
        }
    }

    /// Says goodbye, so that the others need not wait for the lease to end.
    pub async fn leave(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.link.leave().await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
