//! Which versions of its policy each pool can go back to, and who said which of them serves.
//!
//! Owns the history of each pool, the uploads that wait to be promoted, how many are kept, and the rule between the
//! operator's two ways to say what serves, the file and the admin API: **the last word counts**. A version that was
//! promoted or rolled back to is pinned: it serves in place of the file's, over reloads and restarts, until the file
//! says something else about this policy than it did. It must not do any I/O, and it knows components by digest only.
//!
//! Invariant: the first version of a history is the one in service. A pin belongs to that first one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Code, builtin_component, code::digest};
use crate::config::{self, PolicySource};

#[cfg(test)]
mod tests;

/// Uploads that wait. The oldest makes room.
const UPLOADS_MAX: usize = 16;
/// Digits that tell a digest from others well enough for a person to type.
const DIGITS_MIN: usize = 8;
const DIGITS: usize = 64;

/// Where a component came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Part of this program.
    Builtin(String),
    /// A file that the configuration names.
    File(PathBuf),
    /// A registry, by this name.
    Registry(String),
    /// The admin API.
    Upload,
}

/// A version that a pool can go back to: a component and its settings. Limits and grants are always the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Size of the component.
    pub bytes: usize,
    /// Where it came from.
    pub origin: Origin,
    /// What was handed to `configure`.
    pub config_json: String,
    /// When it last went into service, in milliseconds since 1970.
    pub since_ms: u64,
    /// How long it took to compile, or to load from the cache.
    pub compile_ms: u64,
}

/// What a configuration file says about a pool's policy. A pin ends when any of it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSays {
    /// The policy's name.
    pub policy: String,
    /// Where its component is.
    pub origin: Origin,
    /// The component's digest.
    pub digest: String,
    /// Its settings.
    pub config_json: String,
}

/// A component that came by the admin API and may be promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took to compile, or to load from the cache.
    pub compile_ms: u64,
}

/// All versions that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pools: BTreeMap<String, History>,
    /// The youngest first.
    uploads: Vec<Upload>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct History {
    /// By when they last served, the one in service first.
    versions: Vec<Version>,
    /// What the file said when an operator chose the first version in its place.
    pin: Option<FileSays>,
}

/// Which version is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// By its digest, or the beginning of it.
    Digest(String),
    /// The one that served before.
    Previous,
}

impl Origin {
    /// Where the file's component comes from.
    pub fn of(source: &PolicySource) -> Self {
        match source {
            PolicySource::File(path) => Self::File(path.clone()),
            PolicySource::Registry(artifact) => Self::Registry(artifact.to_string()),
            PolicySource::Builtin(name) => Self::Builtin(name.clone()),
        }
    }

    /// The word used in logs and the admin API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Builtin(_) => "builtin",
            Self::File(_) => "file",
            Self::Registry(_) => "registry",
            Self::Upload => "upload",
        }
    }
}

impl FileSays {
    /// What a file says that has this policy, with this component.
    pub fn new(policy: &config::Policy, digest: &str) -> Self {
        Self {
            policy: policy.name.clone(),
            origin: Origin::of(&policy.source),
            digest: digest.to_owned(),
            config_json: policy.config_json.clone(),
        }
    }
}

impl Version {
    /// One that goes into service now.
    pub fn now(code: &Code, origin: Origin, config_json: &str) -> Self {
        Self {
            digest: code.digest.to_string(),
            bytes: code.bytes,
            origin,
            config_json: config_json.to_owned(),
            since_ms: now_ms(),
            compile_ms: millis(code.took),
        }
    }

    /// The first 12 digits, as logs show it.
    pub fn short(&self) -> &str {
        short(&self.digest)
    }

    /// Whether the file says the very same.
    pub fn is_what(&self, says: &FileSays) -> bool {
        self.digest == says.digest && self.config_json == says.config_json
    }

    /// Its bytes, if they are part of this program. Another release may have another component by the same name.
    pub fn builtin(&self) -> Option<&'static [u8]> {
        let Origin::Builtin(name) = &self.origin else {
            return None;
        };
        builtin_component(name).filter(|bytes| digest(bytes) == self.digest)
    }
}

impl Upload {
    /// One that came now.
    pub fn now(code: &Code) -> Self {
        Self {
            digest: code.digest.to_string(),
            bytes: code.bytes,
            at_ms: now_ms(),
            compile_ms: millis(code.took),
        }
    }
}

impl Versions {
    /// The pool's versions, the one in service first.
    pub fn of(&self, pool: &str) -> &[Version] {
        self.pools.get(pool).map_or(&[], |history| &history.versions)
    }

    /// What waits to be promoted, the youngest first.
    pub fn uploads(&self) -> &[Upload] {
        &self.uploads
    }

    /// Whether an operator chose the version in service, in place of the file's.
    pub fn is_pinned(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(|history| history.pin.is_some())
    }

    /// Pools whose version an operator chose, with that version.
    pub fn pinned(&self) -> impl Iterator<Item = (&str, &Version)> {
        let pinned = self.pools.iter().filter(|(_, history)| history.pin.is_some());
        pinned.filter_map(|(pool, history)| Some((pool.as_str(), history.versions.first()?)))
    }

    /// The version that is to serve in place of the file's, if there is one and the file still says what it said then.
    pub fn in_place_of(&self, pool: &str, says: &FileSays) -> Option<&Version> {
        let history = self.pools.get(pool)?;
        let is_valid = history.pin.as_ref() == Some(says);
        history.versions.first().filter(|_| is_valid)
    }

    /// Notes what serves a pool from now on, with what the file says if that is something else.
    pub fn serve(&mut self, pool: &str, version: Version, pin: Option<FileSays>) {
        let history = self.pools.entry(pool.to_owned()).or_default();
        history.pin = pin;
        let is_same =
            |known: &Version| known.digest == version.digest && known.config_json == version.config_json;
        match history.versions.iter().position(is_same) {
            Some(0) => {}
            Some(at) => {
                history.versions.remove(at);
                history.versions.insert(0, version);
            }
            None => history.versions.insert(0, version),
        }
    }

    /// Forgets that an operator chose.
    pub fn unpin(&mut self, pool: &str) {
        if let Some(history) = self.pools.get_mut(pool) {
            history.pin = None;
        }
    }

    /// Notes an upload.
    pub fn upload(&mut self, upload: Upload) {
        self.uploads.retain(|known| known.digest != upload.digest);
        self.uploads.insert(0, upload);
        self.uploads.truncate(UPLOADS_MAX);
    }

    /// Whether it is known.
    pub fn is_known(&self, digest: &str) -> bool {
        self.digests().contains(digest)
    }

    /// Forgets pools that are gone, and what is too much: more than so many versions of a pool, and, oldest first, what
    /// is beyond so many bytes altogether. What serves and what was just uploaded stays.
    pub fn trim(&mut self, pools: &BTreeSet<&str>, versions_max: usize, bytes_max: u64) {
        self.pools.retain(|pool, _| pools.contains(pool.as_str()));
        for history in self.pools.values_mut() {
            history.versions.truncate(versions_max);
        }
        while self.bytes() > bytes_max && self.remove_oldest() {}
    }

    /// Of all kept components, each counted once. Those of this program take no room.
    fn bytes(&self) -> u64 {
        let versions = self.pools.values().flat_map(|history| &history.versions);
        let versions = versions.filter(|version| !matches!(version.origin, Origin::Builtin(_)));
        let versions = versions.map(|version| (version.digest.as_str(), version.bytes));
        let uploads = self
            .uploads
            .iter()
            .map(|upload| (upload.digest.as_str(), upload.bytes));
        let sizes: BTreeMap<&str, usize> = versions.chain(uploads).collect();
        sizes.values().map(|bytes| *bytes as u64).sum()
    }

    /// False if there is nothing to remove.
    fn remove_oldest(&mut self) -> bool {
        let idle = self.pools.iter().flat_map(|(pool, history)| {
            let idle = history.versions.iter().enumerate().skip(1);
            idle.map(move |(at, version)| (version.since_ms, Some((pool.clone(), at))))
        });
        let uploads = self.uploads.iter().skip(1).map(|upload| (upload.at_ms, None));
        match idle.chain(uploads).min_by_key(|(age, _)| *age) {
            None => return false,
            Some((_, None)) => drop(self.uploads.pop()),
            Some((_, Some((pool, at)))) => {
                if let Some(history) = self.pools.get_mut(&pool) {
                    history.versions.remove(at);
                }
            }
        }
        true
    }

    /// Every component that is kept.
    pub fn digests(&self) -> BTreeSet<String> {
        let versions = self.pools.values().flat_map(|history| &history.versions);
        let versions = versions.map(|version| version.digest.clone());
        let uploads = self.uploads.iter().map(|upload| upload.digest.clone());
        versions.chain(uploads).collect()
    }

    /// The version that an operator means. Of a digest that served with several settings, the last ones; for one that
    /// never served this pool, the settings are those given.
    ///
    /// # Errors
    /// What there is instead.
    pub fn find(&self, pool: &str, sought: &Sought, config_json: &str) -> Result<Version, String> {
        let own = self.of(pool);
        let digits = match sought {
            Sought::Previous => {
                let previous = own.get(1).cloned();
                return previous.ok_or_else(|| format!("no version served pool {pool:?} before this one"));
            }
            Sought::Digest(digits) => digits,
        };
        let is_plausible = (DIGITS_MIN..=DIGITS).contains(&digits.len())
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_plausible {
            return Err(format!(
                "{digits:?} is no digest: expected {DIGITS_MIN} to {DIGITS} digits of 0-9 and a-f"
            ));
        }
        let fitting: BTreeSet<String> = self.digests();
        let mut fitting = fitting.into_iter().filter(|digest| digest.starts_with(digits));
        let digest = fitting
            .next()
            .ok_or_else(|| format!("no kept version and no upload has a digest that begins with {digits}"))?;
        if fitting.next().is_some() {
            return Err(format!("several digests begin with {digits}; give more of it"));
        }
        if let Some(version) = own.iter().find(|version| version.digest == digest) {
            return Ok(version.clone());
        }
        let others = self.pools.values().flat_map(|history| &history.versions);
        let other = others.clone().find(|version| version.digest == digest);
        let upload = self.uploads.iter().find(|upload| upload.digest == digest);
        Ok(Version {
            origin: other.map_or(Origin::Upload, |version| version.origin.clone()),
            bytes: upload.map_or_else(|| other.map_or(0, |version| version.bytes), |upload| upload.bytes),
            config_json: config_json.to_owned(),
            since_ms: 0,
            compile_ms: 0,
            digest,
        })
    }
}

/// The first 12 digits of a digest.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn now_ms() -> u64 {
    // Before 1970 everything is equally old.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(millis).unwrap_or(0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
