//! What the nodes of the fleet say, as it changes.
//!
//! Owns the reading of their records.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Link,
    controller::{Known, Seat},
    record::{self, Member},
};
use crate::etcd::{Client, Entries, Follower};

/// Goes on until it is aborted.
pub(super) async fn follow(link: Arc<Link>, client: Arc<Client>) {
    let mut follower = Follower::new(client.clone(), client.key(record::FLEET));
    loop {
        match follower.next().await {
            Ok(entries) => {
                let members = members(entries, &client.key(record::MEMBERS));
                let (seat, known) = (Seat::read(entries, &client), Known::read(entries, &client));
                link.saw(members, seat, known);
                link.heard(Ok(()));
            }
            Err(error) => link.heard(Err(error.to_string())),
        }
    }
}

/// By name. One that writes nonsense is a member all the same.
pub(super) fn members(entries: &Entries, prefix: &str) -> BTreeMap<String, Member> {
    let members = entries.iter().filter_map(|(key, entry)| {
        let name = key.strip_prefix(prefix)?;
        Some((
            name.to_owned(),
            serde_json::from_slice(&entry.value).unwrap_or_default(),
        ))
    });
    members.collect()
}
