//! The lease that makes this node a member.
//!
//! Owns granting, keeping and granting anew. A node whose lease has ended is no member to others, and serves all the same.

use std::{sync::Arc, time::Duration};

use super::{Link, record};
use crate::etcd::{Client, Error, Write};

/// Between two tries while etcd is away: a fleet is whole again soon after etcd is.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A lease is kept so many times in its life.
const KEPT_IN_LIFE: u32 = 3;

/// Goes on until it is aborted.
pub(super) async fn keep(link: Arc<Link>, client: Arc<Client>) {
    let mut changes = link.changes();
    loop {
        let step = step(&link, &client).await;
        let pause = match &step {
            Ok(()) => link.config.ttl / KEPT_IN_LIFE,
            Err(_) => AGAIN_AFTER,
        };
        link.heard(step.map_err(|error| error.to_string()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // What this node says of itself has changed.
            _ = changes.changed() => {}
        }
    }
}

/// Has a lease, and this node's record with it, as it is now.
async fn step(link: &Link, client: &Client) -> Result<(), Error> {
    let lease = match link.lease() {
        0 => {
            let lease = client.grant(link.config.ttl).await?;
            link.set_lease(lease);
            lease
        }
        lease => {
            if !client.keep(lease).await? {
                tracing::warn!(node = link.config.node, "was no member any more; joining again");
                link.set_lease(0);
                return Box::pin(step(link, client)).await;
            }
            lease
        }
    };
    let Some(record) = link.unwritten(lease) else {
        return Ok(());
    };
    let key = client.key(&format!("{}{}", record::MEMBERS, link.config.node));
    let value = serde_json::to_vec(&record).map_err(|error| Error::Refused(error.to_string()))?;
    match client.write(&[], &[Write::Put(key, value, lease)]).await {
        Ok(_) => {
            link.written(lease, record);
            Ok(())
        }
        Err(error) => {
            // It may have ended in between.
            if matches!(error, Error::Refused(_)) {
                link.set_lease(0);
            }
            Err(error)
        }
    }
}
