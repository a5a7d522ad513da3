//! The node that decides for the fleet, one at a time.
//!
//! Owns the election: whoever makes the key, with its lease, is the controller until the lease ends. That alone would not keep one
//! that was frozen for a while from writing afterwards, so each decision is a write under two conditions: the key is still the one
//! that this node made, and the rollout is still the one that was looked at.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Link,
    record::{self, Member},
    rollout::Rollout,
};
use crate::etcd::{Client, Condition, Entries, Error, Write};

/// What may have to be decided anew although nobody has said anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The controller's key, as last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seat {
    /// Who, as `NODE/INSTANCE`; `None` while nobody is.
    pub(super) holder: Option<String>,
    /// Which change of the store made the key: the fencing token.
    pub(super) token: i64,
}

/// The rollout, as last heard, and which change wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) rollout: Option<Rollout>,
    pub(super) written: i64,
}

impl Seat {
    pub(super) fn read(entries: &Entries, client: &Client) -> Self {
        let entry = entries.get(&client.key(record::CONTROLLER));
        Self {
            holder: entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()),
            token: entry.map_or(0, |entry| entry.create_revision),
        }
    }
}

impl Known {
    pub(super) fn read(entries: &Entries, client: &Client) -> Self {
        let entry = entries.get(&client.key(record::ROLLOUT));
        Self {
            rollout: entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()),
            written: entry.map_or(0, |entry| entry.mod_revision),
        }
    }
}

/// Goes on until it is aborted.
pub(super) async fn control(link: Arc<Link>, client: Arc<Client>) {
    let mut news = link.news();
    loop {
        let _ = tokio::time::timeout(LOOK_EVERY, news.changed()).await;
        let (seat, known, members) = link.seen();
        let is_mine = seat.holder.as_ref() == Some(&link.holder());
        let done = match (&seat.holder, is_mine) {
            (None, _) => stand(&link, &client).await,
            (Some(_), true) => decide(&client, &seat, &known, &members).await,
            (Some(_), false) => Ok(()),
        };
        // What is away is told by those who follow; it is tried again in any case.
        if let Err(error) = done {
            tracing::debug!(%error, "the fleet's controller could not write");
        }
    }
}

/// Becomes the controller, unless somebody else does.
async fn stand(link: &Link, client: &Client) -> Result<(), Error> {
    let lease = link.lease();
    if lease == 0 || !link.is_member() {
        return Ok(());
    }
    let key = client.key(record::CONTROLLER);
    let value = link.holder().into_bytes();
    let conditions = [Condition::Created(key.clone(), 0)];
    if client
        .write(&conditions, &[Write::Put(key, value, lease)])
        .await?
    {
        tracing::info!(node = link.config.node, "controls the fleet");
    }
    Ok(())
}

/// Takes the next step of the rollout, if there is one to take.
async fn decide(
    client: &Client,
    seat: &Seat,
    known: &Known,
    members: &BTreeMap<String, Member>,
) -> Result<(), Error> {
    let Some(next) = known.rollout.as_ref().and_then(|rollout| rollout.decide(members)) else {
        return Ok(());
    };
    if write(client, seat.token, known.written, &next).await? {
        tracing::info!(
            generation = next.generation,
            phase = ?next.phase,
            reason = next.reason,
            "rollout goes on"
        );
    }
    Ok(())
}

/// Writes a decision; `false` if this node is no longer the controller, or the rollout is another by now.
pub(super) async fn write(client: &Client, token: i64, written: i64, next: &Rollout) -> Result<bool, Error> {
    let rollout = client.key(record::ROLLOUT);
    let value = serde_json::to_vec(next).map_err(|error| Error::Refused(error.to_string()))?;
    let conditions = [
        Condition::Created(client.key(record::CONTROLLER), token),
        Condition::Written(rollout.clone(), written),
    ];
    client.write(&conditions, &[Write::Put(rollout, value, 0)]).await
}
