//! etcd, version 3.4 or later, by its JSON gateway.
//!
//! Owns the requests and what is made of the answers: reading, writing under conditions, leases, and following what changes.
//! It must not know what the keys mean; `discovery` and `fleet` do.
//!
//! The gateway is part of every etcd (and on unless `--enable-grpc-gateway=false`), and speaks what this program speaks already.
//! A client by gRPC would take 28 more crates and, for everybody who builds this, the program `protoc`.
//!
//! Invariant: what may have been done already is not sent again. A write that nobody confirmed is told as that.
//! Read next: `etcd/exchange.rs` (one request), `etcd/follower.rs` (a set of keys as it changes), `etcd/wire.rs` (the form).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};

mod exchange;
mod follower;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use follower::{Entries, Follower};

use crate::config::Etcd;
use exchange::Failed;
use watch::Watch;

/// Why etcd did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No member that could do it answered. Nothing has changed.
    #[error("etcd cannot be reached: {0}")]
    Away(String),
    /// It was sent, and nobody said whether it was done.
    #[error("etcd did not say whether it was done: {0}")]
    Unconfirmed(String),
    /// It answers that it will not.
    #[error("etcd refuses: {0}")]
    Refused(String),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Which change of the whole store made the key.
    pub create_revision: i64,
    /// Which one wrote it last.
    pub mod_revision: i64,
}

/// What has to hold for a write.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The key was made by this change of the store, and is still there; 0 for a key that is not there.
    Created(String, i64),
    /// The key was last written by this change of the store; 0 for a key that is not there.
    Written(String, i64),
}

/// A part of a write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Sets a key; it goes with this lease, or stays with 0.
    Put(String, Vec<u8>, i64),
    /// Removes a key.
    Delete(String),
    /// Removes all keys that begin so.
    DeleteAll(String),
}

/// Speaks with whichever member answers.
#[derive(Debug)]
pub struct Client {
    config: Arc<Etcd>,
    /// The member that answered last.
    first: AtomicUsize,
}

impl Client {
    /// Nothing is asked yet.
    pub fn new(config: Arc<Etcd>) -> Self {
        Self {
            config,
            first: AtomicUsize::new(0),
        }
    }

    /// The whole name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.config.prefix)
    }

    /// A key, as a majority has it.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let body = json!({ "key": wire::encode(key.as_bytes()) });
        let found = self.read("/v3/kv/range", &body).await.and_then(wire::range)?;
        Ok(found.1.into_iter().next().map(|(_, entry)| entry))
    }

    /// All keys that begin so, as a majority has them, and the state of the store that this is.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn all(&self, prefix: &str) -> Result<(i64, Entries), Error> {
        let body = json!({ "key": wire::encode(prefix.as_bytes()), "range_end": wire::end_of(prefix) });
        self.read("/v3/kv/range", &body).await.and_then(wire::range)
    }

    /// The names of all keys that begin so.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let (key, end) = (wire::encode(prefix.as_bytes()), wire::end_of(prefix));
        let body = json!({ "key": key, "range_end": end, "keys_only": true });
        let (_, found) = self.read("/v3/kv/range", &body).await.and_then(wire::range)?;
        Ok(found.into_keys().collect())
    }

    /// Writes all of it, or nothing if a condition does not hold, which is `false`.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] if it may have been done.
    pub async fn write(&self, conditions: &[Condition], writes: &[Write]) -> Result<bool, Error> {
        let body = wire::transaction(conditions, writes);
        let answer = self.ask("/v3/kv/txn", &body, MayRepeat::No).await?;
        Ok(answer["succeeded"] == true)
    }

    /// A lease: what goes with it is removed when it is not kept for so long.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        // One that nobody hears of ends by itself.
        let body = json!({ "TTL": ttl.as_secs().to_string() });
        let answer = self.ask("/v3/lease/grant", &body, MayRepeat::Yes).await?;
        wire::number(&answer["ID"]).ok_or_else(|| unreadable(&answer))
    }

    /// Keeps a lease; `false` if it has ended.
    ///
    /// # Errors
    /// When no member answers.
    pub async fn keep(&self, lease: i64) -> Result<bool, Error> {
        let body = json!({ "ID": lease.to_string() });
        let answer = self.read("/v3/lease/keepalive", &body).await?;
        let ttl = wire::number(&answer["result"]["TTL"]).unwrap_or(0);
        Ok(ttl > 0)
    }

    /// Ends a lease, and removes what goes with it.
    ///
    /// # Errors
    /// When no member answers; then it ends by itself.
    pub async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let body = json!({ "ID": lease.to_string() });
        self.ask("/v3/lease/revoke", &body, MayRepeat::Yes)
            .await
            .map(drop)
    }

    /// Follows all keys that begin so, from this state of the store on. A member without a leader ends it.
    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, Error> {
        let create = json!({
            "key": wire::encode(prefix.as_bytes()),
            "range_end": wire::end_of(prefix),
            "start_revision": from.to_string(),
        });
        let body = json!({ "create_request": create });
        let mut told = Vec::new();
        for index in self.order() {
            let endpoint = &self.config.endpoints[index];
            let opened = exchange::open(&self.config, endpoint, "/v3/watch", &body);
            match tokio::time::timeout(self.config.timeout, opened).await {
                Ok(Ok(stream)) => return Ok(Watch::new(stream)),
                Ok(Err(failed)) => told.push(format!("{endpoint}: {}", failed.text())),
                Err(_) => told.push(format!("{endpoint}: no answer in {:?}", self.config.timeout)),
            }
        }
        Err(Error::Away(told.join("; ")))
    }

    async fn read(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.ask(path, body, MayRepeat::Yes).await
    }

    /// The members, the one that answered last before the others.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first.load(Relaxed), self.config.endpoints.len());
        (0..count).map(move |at| (first + at) % count)
    }

    async fn ask(&self, path: &str, body: &Value, may_repeat: MayRepeat) -> Result<Value, Error> {
        let mut told = Vec::new();
        for index in self.order() {
            let endpoint = &self.config.endpoints[index];
            let asked = exchange::ask(&self.config, endpoint, path, body);
            let answer = tokio::time::timeout(self.config.timeout, asked).await;
            let late = || Failed::Unanswered(format!("no answer in {:?}", self.config.timeout));
            match answer.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => {
                    self.first.store(index, Relaxed);
                    return Ok(answer);
                }
                Err(Failed::Refused(text)) => return Err(Error::Refused(text)),
                Err(failed) => {
                    let was_sent = matches!(failed, Failed::Unanswered(_));
                    told.push(format!("{endpoint}: {}", failed.text()));
                    if was_sent && may_repeat == MayRepeat::No {
                        self.first.store(index + 1, Relaxed);
                        return Err(Error::Unconfirmed(told.join("; ")));
                    }
                }
            }
        }
        Err(Error::Away(told.join("; ")))
    }
}

/// Whether a request that got no answer is sent to another member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MayRepeat {
    Yes,
    No,
}

fn unreadable(answer: &Value) -> Error {
    let text: String = answer.to_string().chars().take(200).collect();
    Error::Refused(format!("an answer that cannot be understood: {text}"))
}
