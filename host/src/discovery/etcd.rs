//! Backends that register themselves in etcd, each with a key of its own that goes when its lease ends.
//!
//! Owns what a key makes of a set. What one backend registers that is none is its own mistake: it is told once, and takes
//! nothing from the others.

use std::{collections::BTreeMap, sync::Arc};

use super::{Failure, Finding, Source};
use crate::{
    config::{self, Backend, registered_backend},
    etcd::{Client, Entries, Follower},
};

pub(super) struct Etcd {
    follower: Follower,
    /// Of keys that are no backends: the write that was told.
    told: BTreeMap<String, i64>,
}

impl Etcd {
    pub(super) fn new(at: &Arc<config::Etcd>, service: &str) -> Self {
        let client = Client::shared(at);
        let prefix = client.key(&format!("backends/{service}/"));
        Self {
            follower: Follower::new(client, prefix),
            told: BTreeMap::new(),
        }
    }

    async fn read(&mut self) -> Result<Vec<Backend>, Failure> {
        let entries = self.follower.next().await;
        let entries = entries.map_err(|error| Failure(error.to_string()))?;
        Ok(backends(entries, &mut self.told))
    }
}

impl Source for Etcd {
    fn next(&mut self) -> Finding<'_> {
        Box::pin(self.read())
    }
}

/// The first key of an address is the one that counts.
fn backends(entries: &Entries, told: &mut BTreeMap<String, i64>) -> Vec<Backend> {
    told.retain(|key, _| entries.contains_key(key));
    let mut found: BTreeMap<String, Backend> = BTreeMap::new();
    for (key, entry) in entries {
        let text = String::from_utf8_lossy(&entry.value);
        match registered_backend(&text, key) {
            Ok(backend) => {
                found.entry(backend.address.clone()).or_insert(backend);
            }
            Err(mistakes) => {
                if told.insert(key.clone(), entry.mod_revision) != Some(entry.mod_revision) {
                    tracing::warn!("registered in etcd, and no backend: {mistakes}");
                }
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Entry;

    #[test]
    fn what_is_no_backend_takes_none_of_the_others() {
        let entry = |value: &str| Entry {
            value: value.as_bytes().to_vec(),
            create_revision: 1,
            mod_revision: 1,
        };
        let entries = Entries::from([
            ("b/1".to_owned(), entry("10.0.0.1:80\n")),
            ("b/2".to_owned(), entry("\"10.0.0.2:80\"")),
            (
                "b/3".to_owned(),
                entry("{\"address\": \"10.0.0.3:80\", \"weight\": 7, \"labels\": {\"rack\": \"a\"}}"),
            ),
            (
                "b/4".to_owned(),
                entry("{\"address\": \"10.0.0.1:80\", \"weight\": 9}"),
            ),
            ("b/5".to_owned(), entry("")),
            ("b/6".to_owned(), entry("10.0.0.6")),
            ("b/7".to_owned(), entry("\"10.0.0.7:80\", \"10.0.0.8:80\"")),
            (
                "b/8".to_owned(),
                entry("{\"wieght\": 1, \"address\": \"10.0.0.9:80\"}"),
            ),
        ]);
        let mut told = BTreeMap::new();
        let found = backends(&entries, &mut told);
        let found: Vec<_> = found
            .iter()
            .map(|backend| (backend.address.as_str(), backend.weight))
            .collect();
        assert_eq!(
            found,
            [("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 7)]
        );
        let keys: Vec<&str> = told.keys().map(String::as_str).collect();
        assert_eq!(keys, ["b/5", "b/6", "b/7", "b/8"]);
    }
}
