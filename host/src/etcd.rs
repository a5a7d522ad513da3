//! etcd, version 3.4 or later, by its JSON gateway.
//!
//! Owns the requests and what is made of the answers: reading, writing under conditions, leases, and following what changes.
//! It must not know what the keys mean; `discovery` and `fleet` do.
//!
//! The gateway is part of every etcd (and on unless `--enable-grpc-gateway=false`), and speaks what this program speaks already.
//! A client by gRPC would take 28 more crates and, for everybody who builds this, the program `protoc`.
//!
//! Invariant: what may have been done already is not sent again. A write that nobody confirmed is told as that.
//! Read next: `etcd/exchange.rs` (one request), `etcd/login.rs` (who asks), `etcd/follower.rs` (a set of keys as it changes), `etcd/wire.rs` (the form).

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};

mod exchange;
mod follower;
mod login;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use follower::{Entries, Follower};

use crate::{
    config::{Etcd, Mistake},
    outgoing,
    tls::Originator,
};
use exchange::{Failed, Question, Stream};
use login::Login;
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
    /// It does not let this node in, or not do this. Nothing has changed.
    #[error("etcd refuses this node: {0}")]
    Forbidden(String),
}

/// What is wrong with the files that the table names. Reads them.
pub fn mistakes(config: &Etcd) -> Vec<Mistake> {
    let tls = config.tls.as_ref().map(|tls| Originator::load(tls, &[], None));
    let mut found = match tls {
        Some(Err(mistakes)) => mistakes,
        _ => Vec::new(),
    };
    let password = config.user.as_ref().map(outgoing::password);
    found.extend(password.and_then(Result::err).map(|mistake| *mistake));
    found
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
    login: Login,
    /// The member that answered last.
    first: AtomicUsize,
}

/// Those that are in use.
static SHARED: Mutex<Vec<Weak<Client>>> = Mutex::new(Vec::new());

impl Client {
    /// The one of this process for this etcd, so that all who ask log in once: a hundred pools would keep etcd busy with that.
    pub fn shared(config: &Arc<Etcd>) -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|client| client.strong_count() > 0);
        let mut known = shared.iter().filter_map(Weak::upgrade);
        if let Some(client) = known.find(|client| client.config == *config) {
            return client;
        }
        let client = Arc::new(Self::new(config.clone()));
        shared.push(Arc::downgrade(&client));
        client
    }

    /// Nothing is asked yet.
    pub fn new(config: Arc<Etcd>) -> Self {
        Self {
            login: Login::new(config.user.clone()),
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
            match self.open(endpoint, "/v3/watch", &body).await {
                Ok(stream) => return Ok(Watch::new(stream)),
                Err(Failed::Forbidden(text)) => return Err(Error::Forbidden(text)),
                Err(failed) => told.push(format!("{endpoint}: {}", failed.text())),
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
            let opened = self.open(endpoint, path, body).await;
            let answer = match opened {
                Ok(stream) => stream.whole(&self.config).await,
                Err(failed) => Err(failed),
            };
            match answer {
                Ok(answer) => {
                    self.first.store(index, Relaxed);
                    return Ok(answer);
                }
                Err(Failed::Refused(text)) => return Err(Error::Refused(text)),
                Err(Failed::Forbidden(text)) => return Err(Error::Forbidden(text)),
                Err(failed) => {
                    let was_sent = matches!(failed, Failed::Unanswered(_) | Failed::Cut(_));
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

    /// One member's answer, from its beginning on. If it does not know who asks, or no longer, nothing was done, and it is asked
    /// again after a login.
    async fn open(&self, endpoint: &str, path: &str, body: &Value) -> Result<Stream, Failed> {
        let mut spent = 0;
        loop {
            let pass = self.login.pass(&self.config, endpoint, spent).await?;
            let question = Question {
                path,
                body,
                token: pass.token.as_ref(),
            };
            match exchange::open(&self.config, endpoint, &question).await {
                Err(Failed::Unknown(_)) if spent == 0 && pass.number > 0 => spent = pass.number,
                Err(Failed::Unknown(text) | Failed::Forbidden(text)) => {
                    return Err(Failed::Forbidden(self.login.explained(&text)));
                }
                Err(Failed::Cut(text)) => {
                    self.login.doubt(&pass).await;
                    return Err(Failed::Cut(text));
                }
                opened => return opened,
            }
        }
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
