//! A set of keys as it changes.
//!
//! Owns what the keys are, and how that stays true: everything is read, then every change is followed from there on. When that
//! ends, for whatever reason (a member that dies, no leader, a history that was compacted), everything is read again.
//!
//! Invariant: what [`Follower::next`] gave last was true in one state of the store, never a mixture of two.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Client, Entry, Error, Watch};

/// By whole key.
pub type Entries = BTreeMap<String, Entry>;

/// Then everything is read again, whatever the watch says: a member that hangs says nothing, as one does that has nothing to say.
const READ_EVERY: Duration = Duration::from_secs(15);
/// The first pause after a failure. Then it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A node knows within this, and a time-out, that etcd is back.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// Follows all keys that begin with some text.
pub struct Follower {
    client: Arc<Client>,
    prefix: String,
    entries: Entries,
    watch: Option<Watch>,
    /// Whether the next reading is news, even if it reads the same: the first one, and the one after a failure.
    is_news: bool,
    /// When everything is read again in any case.
    again_at: Instant,
    pause: Duration,
    not_before: Instant,
}

impl Follower {
    /// Nothing is asked yet.
    pub fn new(client: Arc<Client>, prefix: String) -> Self {
        Self {
            client,
            prefix,
            entries: Entries::new(),
            watch: None,
            is_news: true,
            again_at: Instant::now(),
            pause: PAUSE_MIN,
            not_before: Instant::now(),
        }
    }

    /// The keys, once they are others than before, or once they are known again after a failure. Dropping what is waited for
    /// loses nothing.
    ///
    /// # Errors
    /// When they cannot be known just now. The next call tries again, after a pause.
    pub async fn next(&mut self) -> Result<&Entries, Error> {
        loop {
            let Some(watch) = &mut self.watch else {
                if self.begin().await? {
                    return Ok(&self.entries);
                }
                continue;
            };
            let next = tokio::time::timeout_at(self.again_at.into(), watch.next());
            let Ok(next) = next.await else {
                self.watch = None;
                continue;
            };
            match next {
                Ok(changes) if changes.is_empty() => {
                    // Only now it is sure that it works.
                    self.pause = PAUSE_MIN;
                }
                Ok(changes) => {
                    for (key, entry) in changes {
                        match entry {
                            Some(entry) => self.entries.insert(key, entry),
                            None => self.entries.remove(&key),
                        };
                    }
                    return Ok(&self.entries);
                }
                // Most often a member that ends. Another one may know at once.
                Err(_) => self.end_watch(),
            }
        }
    }

    /// Reads everything and follows it from there; true if that is news.
    async fn begin(&mut self) -> Result<bool, Error> {
        tokio::time::sleep_until(self.not_before.into()).await;
        let (revision, entries) = match self.client.all(&self.prefix).await {
            Ok(read) => read,
            Err(error) => {
                self.is_news = true;
                self.end_watch();
                return Err(error);
            }
        };
        match self.client.watch(&self.prefix, revision + 1).await {
            Ok(watch) => {
                self.watch = Some(watch);
                self.again_at = Instant::now() + READ_EVERY;
            }
            Err(error) => {
                self.is_news = true;
                self.end_watch();
                return Err(error);
            }
        }
        let is_news = std::mem::take(&mut self.is_news) || entries != self.entries;
        self.entries = entries;
        Ok(is_news)
    }

    fn end_watch(&mut self) {
        self.watch = None;
        // Nodes that lost the same member do not all come back in the same instant.
        self.not_before = Instant::now() + self.pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
