//! `[cluster]` as a file may say it: who belongs to it, who this is, and how the active node takes the clients over.
//!
//! Owns the values. `file/cluster.rs` reads them; the protocol is in the crate `trimtab-cluster`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use trimtab_cluster::Unlike;

use super::NamedFile;

/// `[cluster]`: nodes of which one is active. A change takes a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Key `name`, required: the same on all members.
    pub name: String,
    /// Key `node`, required: which of the members this is, by its place.
    pub me: usize,
    /// Key `key_file`, required: a secret that all members share, at least 32 bytes.
    pub key: NamedFile,
    /// Key `takeover`: how clients come to the active node. Default bind.
    pub takeover: Takeover,
    /// Key `heartbeat`: how often the active node asks for its lease anew. Default 100 ms, 10 ms to 10 s.
    pub heartbeat: Duration,
    /// Key `lease`: how long a vote holds. Default 400 ms, 30 ms to 1 min, at least three heartbeats.
    pub lease: Duration,
    /// Key `margin`: what the holder's lease is shorter by. Default 50 ms, 1 ms to 10 s, at most a quarter of the lease.
    pub margin: Duration,
    /// Key `without_witness`: what two nodes without a third member do when one is alone. Required then, and only then.
    pub without_witness: Option<WithoutWitness>,
    /// Key `other_policies`: what a node does whose policies are others than the active node's. Default last.
    pub other_policies: Unlike,
    /// Key `preempt_after`: how long a node with a higher priority has to be ready until this one hands over to it. Default never,
    /// 1 s to 24 h.
    pub preempt_after: Option<Duration>,
    /// What is run when the role changes.
    pub hooks: Hooks,
    /// `[[cluster.member]]`: two to nine, in the same order on all members.
    pub members: Vec<Member>,
}

impl Cluster {
    /// What this member is for.
    pub fn role(&self) -> MemberRole {
        self.members[self.me].role
    }

    /// Whether this address is on this machine only while the node is active.
    pub fn comes_and_goes(&self, address: IpAddr) -> bool {
        match &self.takeover {
            Takeover::Address { addresses, gate, .. } => {
                *gate == GateKind::Lifetime && addresses.contains(&address)
            }
            Takeover::Bind | Takeover::RoleOnly => false,
        }
    }

    /// The list of members as one text, for members to see whether they have the same.
    pub fn roll(&self) -> String {
        let line = |member: &Member| {
            let Member {
                name,
                address,
                role,
                priority,
            } = member;
            format!("{name} {address} {role:?} {priority}\n")
        };
        let lines: String = self.members.iter().map(line).collect();
        format!("{lines}{:?}", self.without_witness)
    }
}

/// How clients come to the active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Only the active node listens. For nodes on one host, or behind whatever tries several addresses.
    Bind,
    /// Every node listens; who is active is only told (`/v1/role`, hooks).
    RoleOnly,
    /// The kernel of the active node alone answers for the addresses.
    Address {
        /// Key `addresses`: at least one.
        addresses: Vec<IpAddr>,
        /// Key `interface`: where clients come from.
        interface: String,
        /// Key `gate`: by what the kernel answers for them. Default nftables.
        gate: GateKind,
    },
}

/// By what the kernel keeps a node that is not active from answering for the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// Every node has them; a table drops their packets, but for the time of a lease.
    Nftables,
    /// Only the active node has them, each with a lifetime after which the kernel takes it away.
    Lifetime,
}

/// What the kernel counts lifetimes of addresses in.
pub const LIFETIME_UNIT: Duration = Duration::from_secs(1);
/// An address may outlive its lifetime by so much: the kernel looks no sooner than a second after it looked last, whatever that was for, and
/// its timer is late by an eighth of that at most. The rest is for the work that the timer starts. (Seen: 1.18 s, on a busy machine.)
pub const LIFETIME_LATE: Duration = Duration::from_millis(1250);

/// What two nodes without a witness do when one of them is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutWitness {
    /// Nobody serves. Never two do.
    PreferSafety,
    /// It serves. During a partition both do.
    PreferAvailability,
}

/// What is run when the role changes: a program and its arguments; nothing when empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Key `on_active`.
    pub active: Vec<String>,
    /// Key `on_standby`.
    pub standby: Vec<String>,
    /// Key `on_fault`: when the gate cannot be opened or closed, or the node is unfit.
    pub fault: Vec<String>,
    /// Key `hook_timeout`: then it is killed. Default 10 s, 100 ms to 1 h.
    pub timeout: Duration,
}

/// `[[cluster.member]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Key `name`, required, unique.
    pub name: String,
    /// Key `address`, required, unique: where it listens for the others (UDP).
    pub address: SocketAddr,
    /// Key `role`: node or witness. Default node.
    pub role: MemberRole,
    /// Key `priority`: who asks first when nobody is active: the higher. Default 100, 0 to 1000.
    pub priority: u16,
}

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// It serves when it is active, and votes.
    Node,
    /// It votes.
    Witness,
}
