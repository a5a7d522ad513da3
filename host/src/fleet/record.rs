//! What the nodes of a fleet write for one another, as JSON.
//!
//! Owns the form and the names of keys. A newer version may say more: what is not known is passed over.

use serde::{Deserialize, Serialize};

/// All that the nodes follow.
pub(super) const FLEET: &str = "fleet/";
/// How far the newest generation is.
pub(super) const ROLLOUT: &str = "fleet/rollout";
/// Who decides on it: made with a lease, and every decision is written only while it is still there.
pub(super) const CONTROLLER: &str = "fleet/controller";
/// One for each generation.
pub(super) const GENERATIONS: &str = "generations/";
/// The parts of each component.
pub(super) const POLICIES: &str = "policies/";
/// One for each node, with its lease.
pub(super) const MEMBERS: &str = "fleet/members/";

/// A node, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Another one for each start.
    pub instance: u64,
    /// The program's.
    pub version: String,
    /// On its machine.
    pub pid: u32,
    /// Where its admin listener is; of no use to others unless it listens for them.
    pub admin: Option<String>,
    /// Where it hears the load of others, if it does.
    pub peers: Option<String>,
    /// Whether it is among the first to take another configuration.
    pub canary: bool,
    /// What it serves; 0 is what is in its file.
    pub generation: u64,
    /// What it makes of the last one that it was to serve.
    pub attempt: Option<Attempt>,
}

/// What a node makes of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub generation: u64,
    /// How it does.
    pub verdict: Verdict,
    /// Why it is no good, in words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How a generation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It serves, and is watched. Ends as good or bad.
    Trying,
    /// It serves, and nothing spoke against it.
    Good,
    /// It did not go into service.
    Refused,
    /// It went into service, and things got worse.
    Bad,
}

/// A configuration of the fleet. It never changes once it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// Tables that nodes add to their own files.
    pub text: String,
    /// SHA-256 of the components that it names, in hex.
    pub policies: Vec<String>,
    /// By which node it came in.
    pub by: String,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// The key of a generation. Names sort as numbers do.
pub(super) fn generation_key(generation: u64) -> String {
    format!("{GENERATIONS}{generation:012}")
}
