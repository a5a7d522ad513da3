//! Changes of the whole fleet, by way of one node.
//!
//! Owns what is asked of etcd for them: components in parts, generations, and the step that each is. It must not know what is in a
//! configuration.
//!
//! Invariant: a generation, the components that it names and the beginning of its rollout are there together or not at all, and
//! nobody else's change is written over: each step holds only if the rollout is the one that was looked at.

use std::collections::BTreeSet;

use super::{
    Link, follow,
    record::{self, Generation},
    rollout::{self, Phase, Rollout},
};
use crate::{
    etcd::{Condition, Error, Write},
    policy::digest,
};

/// Below etcd's limit of 1.5 MiB for a request.
const PART_BYTES: usize = 512 * 1024;
/// The same, with room for the rest of the record.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Generations that can be gone back to.
const KEPT: u64 = 20;
/// etcd's limit is 128 steps a write.
const REMOVED_AT_ONCE: usize = 100;

/// Why a change of the fleet is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// etcd is away. Nothing has changed, and what serves goes on.
    #[error("{0}; nothing was changed, and what serves goes on")]
    Away(String),
    /// Perhaps it is done.
    #[error("{0}; trimtab fleet status tells what holds")]
    Unconfirmed(String),
    /// It cannot be done as the fleet is now.
    #[error("{0}")]
    Conflict(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It makes no sense.
    #[error("{0}")]
    Wrong(String),
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        match error {
            Error::Away(_) | Error::Forbidden(_) => Self::Away(error.to_string()),
            Error::Unconfirmed(_) => Self::Unconfirmed(error.to_string()),
            Error::Refused(_) => Self::Conflict(error.to_string()),
        }
    }
}

impl Link {
    /// Gives a component to the fleet; its digest.
    ///
    /// # Errors
    /// When etcd is away.
    pub async fn upload(&self, wasm: &[u8]) -> Result<String, Denied> {
        let digest = digest(wasm);
        if self.first_part(&digest).await? != 0 {
            return Ok(digest);
        }
        // The first part is written last: where it is, all are.
        for (number, part) in wasm.chunks(PART_BYTES).enumerate().rev() {
            let put = Write::Put(self.part(&digest, number), part.to_vec(), 0);
            self.client.write(&[], &[put]).await?;
        }
        Ok(digest)
    }

    /// The bytes of a component.
    ///
    /// # Errors
    /// When etcd is away, or has it no longer.
    pub async fn download(&self, digest: &str) -> Result<Vec<u8>, Denied> {
        let prefix = self.client.key(&format!("{}{digest}/", record::POLICIES));
        let names = self.client.names(&prefix).await?;
        let mut wasm = Vec::new();
        for name in &names {
            let part = self.client.get(name).await?;
            wasm.extend(part.map(|part| part.value).unwrap_or_default());
        }
        match names.is_empty() {
            true => Err(Denied::Unknown(format!("etcd has no component {digest}"))),
            false => Ok(wasm),
        }
    }

    fn part(&self, digest: &str, number: usize) -> String {
        self.client
            .key(&format!("{}{digest}/{number:04}", record::POLICIES))
    }

    /// Which change wrote a component's first part; 0 without it.
    async fn first_part(&self, digest: &str) -> Result<i64, Denied> {
        let entry = self.client.get(&self.part(digest, 0)).await?;
        Ok(entry.map_or(0, |entry| entry.mod_revision))
    }

    /// A generation as it was written.
    ///
    /// # Errors
    /// When etcd is away, or has it no longer.
    pub async fn generation(&self, generation: u64) -> Result<Generation, Denied> {
        let key = self.client.key(&record::generation_key(generation));
        let entry = self.client.get(&key).await?;
        let entry =
            entry.ok_or_else(|| Denied::Unknown(format!("there is no generation {generation} any more")))?;
        serde_json::from_slice(&entry.value)
            .map_err(|error| Denied::Wrong(format!("generation {generation} cannot be read: {error}")))
    }

    /// The rollout as a majority has it, and which change wrote it.
    async fn rollout_now(&self) -> Result<(Option<Rollout>, i64), Denied> {
        let Some(entry) = self.client.get(&self.client.key(record::ROLLOUT)).await? else {
            return Ok((None, 0));
        };
        let rollout = serde_json::from_slice(&entry.value)
            .map_err(|error| Denied::Wrong(format!("the rollout in etcd cannot be read: {error}")))?;
        Ok((Some(rollout), entry.mod_revision))
    }

    /// Begins to roll out a configuration that names these components.
    ///
    /// # Errors
    /// Why it does not begin.
    pub async fn publish(&self, text: String, policies: Vec<String>) -> Result<Rollout, Denied> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Denied::Wrong(format!(
                "a generation has at most {TEXT_BYTES_MAX} bytes"
            )));
        }
        let (now, revision) = self.rollout_now().await?;
        if let Some(now) = now.as_ref().filter(|now| now.phase == Phase::Canary) {
            return Err(Denied::Conflict(format!(
                "generation {} is on trial with {}; wait for it, or end it: trimtab fleet halt",
                now.generation,
                now.canaries.join(", ")
            )));
        }
        // As a majority has them: this node may not have heard of one that has just come, not even of itself.
        let prefix = self.client.key(record::MEMBERS);
        let (_, members) = self.client.all(&prefix).await?;
        let canaries = rollout::canaries(&follow::members(&members, &prefix));
        if canaries.is_empty() {
            return Err(Denied::Conflict(
                "no node is in the fleet that could try it".to_owned(),
            ));
        }
        let next = Rollout::next(now.as_ref(), canaries);
        let rollout = self.client.key(record::ROLLOUT);
        let mut conditions = vec![Condition::Written(rollout.clone(), revision)];
        for digest in &policies {
            match self.first_part(digest).await? {
                0 => {
                    return Err(Denied::Unknown(format!(
                        "the fleet has no component {digest}; upload it first"
                    )));
                }
                written => conditions.push(Condition::Written(self.part(digest, 0), written)),
            }
        }
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let generation = Generation {
            generation: next.generation,
            text,
            policies,
            by: self.config.node.clone(),
            at_s: at.map_or(0, |at| at.as_secs()),
        };
        let key = self.client.key(&record::generation_key(next.generation));
        let writes = [
            Write::Put(key, json(&generation)?, 0),
            Write::Put(rollout, json(&next)?, 0),
        ];
        self.step(&conditions, &writes).await?;
        tracing::info!(generation = next.generation, canaries = ?next.canaries, "rollout begins");
        if let Err(error) = self.clean(&next).await {
            tracing::warn!(%error, "old generations stay in etcd for now");
        }
        Ok(next)
    }

    /// Rolls out an older generation as a new one: that one, or else the good one before the last.
    ///
    /// # Errors
    /// Why it does not begin.
    pub async fn roll_back(&self, to: Option<u64>) -> Result<Rollout, Denied> {
        let (now, _) = self.rollout_now().await?;
        let before = now.map_or(0, |now| now.previous);
        let to = to.unwrap_or(before);
        if to == 0 {
            return Err(Denied::Unknown(
                "there is no good generation before the last".to_owned(),
            ));
        }
        let Generation { text, policies, .. } = self.generation(to).await?;
        self.publish(text, policies).await
    }

    /// Ends a rollout that is on trial.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn halt(&self) -> Result<Rollout, Denied> {
        let (now, revision) = self.rollout_now().await?;
        let running = now.filter(|now| now.phase == Phase::Canary);
        let running = running.ok_or_else(|| Denied::Conflict("no generation is on trial".to_owned()))?;
        let halted = running.halted("halted by an operator".to_owned());
        let key = self.client.key(record::ROLLOUT);
        let conditions = [Condition::Written(key.clone(), revision)];
        self.step(&conditions, &[Write::Put(key, json(&halted)?, 0)])
            .await?;
        tracing::info!(generation = halted.generation, "rollout halted by an operator");
        Ok(halted)
    }

    async fn step(&self, conditions: &[Condition], writes: &[Write]) -> Result<(), Denied> {
        match self.client.write(conditions, writes).await? {
            true => Ok(()),
            false => Err(Denied::Conflict(
                "somebody else has changed the fleet just now; look, and try again".to_owned(),
            )),
        }
    }

    /// Removes generations that are too old to go back to, and components that none of the others names. Only while this rollout
    /// is the newest, so that what the next one names stays.
    async fn clean(&self, newest: &Rollout) -> Result<(), Denied> {
        let (now, revision) = self.rollout_now().await?;
        if now.is_none_or(|now| now.generation != newest.generation) {
            return Ok(());
        }
        let key = self.client.key(record::ROLLOUT);
        let (_, generations) = self.client.all(&self.client.key(record::GENERATIONS)).await?;
        let (mut named, mut old) = (BTreeSet::new(), Vec::new());
        for (key, entry) in &generations {
            let Ok(generation) = serde_json::from_slice::<Generation>(&entry.value) else {
                continue;
            };
            let number = generation.generation;
            match number + KEPT > newest.generation || [newest.good, newest.previous].contains(&number) {
                true => named.extend(generation.policies),
                false => old.push(Write::Delete(key.clone())),
            }
        }
        let prefix = self.client.key(record::POLICIES);
        // Without its first part it is being written just now.
        let names = self.client.names(&prefix).await?;
        let whole = names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix("/0000"));
        let unnamed = whole.filter(|digest| !named.contains(*digest));
        old.extend(unnamed.map(|digest| Write::DeleteAll(format!("{prefix}{digest}/"))));
        for part in old.chunks(REMOVED_AT_ONCE) {
            let conditions = [Condition::Written(key.clone(), revision)];
            self.client.write(&conditions, part).await?;
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Denied> {
    serde_json::to_vec(value).map_err(|error| Denied::Wrong(error.to_string()))
}
