//! What is seen of the cluster from this member.
//!
//! Owns a copy of what the thread knows, made after each step, and the counters of datagrams. It must not lead to a decision.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::Serialize;
use trimtab_cluster::Presence;

use crate::config::MemberRole;

/// Where a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It has the lease.
    Active,
    /// It would follow.
    #[default]
    Standby,
    /// It is handing over.
    Leaving,
    /// It votes, and nothing else.
    Witness,
}

/// The cluster as this member sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// The cluster's name.
    pub cluster: String,
    /// This member's.
    pub node: String,
    /// Where it is.
    pub role: Standing,
    /// Of its lease; of a member without one, the highest that it knows of.
    pub epoch: u64,
    /// How long its lease goes on if nobody answers any more, in milliseconds.
    pub lease_ms: u64,
    /// For whom it votes.
    pub votes_for: Option<String>,
    /// Why it cannot serve.
    pub unfit: Option<String>,
    /// Whether its policies are those that the last other active node had; `None` if there was none, or nothing is compared.
    pub same_policies: Option<bool>,
    /// How often it became active.
    pub leases: u64,
    /// What this node would go on with if it became active; `None` before there was anything, and of a node that is active.
    pub warm: Option<WarmView>,
    /// All members, in the order of the file.
    pub members: Vec<MemberView>,
    /// When the lease ends, by [`super::boot_us`].
    #[serde(skip)]
    pub(super) until_us: u64,
}

impl View {
    /// Whether another node is there that cannot follow yet: it has just started, or is about to.
    pub fn somebody_comes(&self) -> bool {
        let others = self.members.iter().filter(|member| member.name != self.node);
        let mut nodes = others.filter(|member| member.role == "node" && member.heard_ms.is_some());
        nodes.any(|member| member.presence != "here")
    }
}

/// What a standby was told by the active node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WarmView {
    /// By whom.
    pub from: String,
    /// How long ago; `None` for never.
    pub age_ms: Option<u64>,
    /// How large it was.
    pub bytes: usize,
    /// How often what policies have learned was told.
    pub states: u64,
    /// Why nothing was told the last time.
    pub error: Option<String>,
    #[serde(skip)]
    pub(super) told_us: u64,
}

/// Another member, or this one.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// What it is for.
    pub role: &'static str,
    /// Whether it is active, as it said last.
    pub active: bool,
    /// Whether it could serve, as it said last.
    pub fit: bool,
    /// Whether its vote can be counted on: `here`, `silent` (it began lately), or `parting` (another process is about to be this member).
    pub presence: &'static str,
    /// Digest of its configuration, but for what belongs to one node, if it said so.
    pub config: Option<String>,
    /// Digest of the policies in service, if it said so.
    pub policies: Option<String>,
    /// How long ago it was heard, in milliseconds; `None` for never, and for this member.
    pub heard_ms: Option<u64>,
}

/// The name of a role in the configuration.
pub(super) fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Node => "node",
        MemberRole::Witness => "witness",
    }
}

pub(super) fn presence_name(presence: Presence) -> &'static str {
    match presence {
        Presence::Here => "here",
        Presence::Silent => "silent",
        Presence::Parting => "parting",
    }
}

/// Counts of datagrams, each by what became of it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sent.
    pub sent: AtomicU64,
    /// Could not be sent.
    pub unsent: AtomicU64,
    /// Received, and they counted.
    pub received: AtomicU64,
    /// Not of this protocol.
    pub malformed: AtomicU64,
    /// Of another version of it.
    pub version: AtomicU64,
    /// Of another cluster.
    pub cluster: AtomicU64,
    /// Of another key, or changed on the way.
    pub seal: AtomicU64,
    /// Seen before, or of a start that is over, or for another member.
    pub replayed: AtomicU64,
    /// Of a member that had not yet heard of this start.
    pub unacquainted: AtomicU64,
    /// Of a member with another list of members.
    pub list: AtomicU64,
}

impl Counters {
    /// Each with its name.
    pub fn all(&self) -> [(&'static str, u64); 10] {
        [
            ("sent", &self.sent),
            ("unsent", &self.unsent),
            ("received", &self.received),
            ("malformed", &self.malformed),
            ("version", &self.version),
            ("cluster", &self.cluster),
            ("seal", &self.seal),
            ("replayed", &self.replayed),
            ("unacquainted", &self.unacquainted),
            ("list", &self.list),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}
