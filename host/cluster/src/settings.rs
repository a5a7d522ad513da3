//! What all members of a cluster agree on beforehand.

/// A member by its place in the list of members, which is the same everywhere.
pub type MemberId = u8;

/// Most members of a cluster. More would only make majorities slower.
pub const MEMBERS_MAX: usize = 9;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May be active, and votes.
    Node,
    /// Votes.
    Witness,
}

/// A member of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// Who asks first when nobody is active: the higher. It never takes the lease from another.
    pub priority: u16,
}

/// What a node does that hears from nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAlone {
    /// Not serve: without a majority there is no lease.
    Stop,
    /// Of two nodes without a witness: serve. During a partition both do.
    Serve,
}

/// What becomes of a node whose policies are others than those of the active one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlike {
    /// As of any other. Nothing is compared.
    Ignored,
    /// It follows if nobody better does: nothing is handed over to it while the active node goes on, and it asks later than others.
    #[default]
    Last,
    /// It does not follow.
    Never,
}

/// A bug put in on purpose, for the simulation to find. Nothing else sets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A voter answers as soon as it has started.
    NoSilence,
    /// A holder counts its lease from the receipt of the grant.
    FromReceipt,
    /// A member that is to begin anew does not look at whether the others can do without it.
    PartsAtOnce,
}

/// All of it, and who this member is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member.
    pub me: MemberId,
    /// All members, at least two and at most [`MEMBERS_MAX`].
    pub members: Vec<Member>,
    /// How often the holder asks.
    pub heartbeat_us: u64,
    /// How long a vote holds; at least three heartbeats.
    pub lease_us: u64,
    /// What a holder's lease is shorter by: the clocks' drift over a lease, and the lateness of timers.
    pub margin_us: u64,
    /// What a node does that hears from nobody; `Serve` counts for two nodes only.
    pub when_alone: WhenAlone,
    /// What this node does while its policies are others than the last active node's.
    pub unlike: Unlike,
    /// Epochs of this member are above it, so that they rise even over a power cut of all members: seconds since 1970 will do.
    /// No lease depends on it.
    pub epoch_floor: u64,
    /// None but in a simulation.
    pub mutation: Option<Mutation>,
}

impl Settings {
    /// How many votes a lease takes.
    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    pub(crate) fn my_role(&self) -> Role {
        self.members[usize::from(self.me)].role
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = MemberId> + use<> {
        let me = self.me;
        (0..self.members.len() as MemberId).filter(move |id| *id != me)
    }

    /// Nodes in the order in which they ask: by priority, then by their places.
    fn rank(&self, id: MemberId) -> (std::cmp::Reverse<u16>, MemberId) {
        let priority = self
            .members
            .get(usize::from(id))
            .map_or(0, |member| member.priority);
        (std::cmp::Reverse(priority), id)
    }

    /// Whether this member ranks before that one.
    pub(crate) fn precedes(&self, other: MemberId) -> bool {
        self.rank(self.me) < self.rank(other)
    }

    /// How long after the moment at which all may ask this node does. The first in rank does at once; `without` is a node that is known
    /// not to ask.
    pub(crate) fn stagger_us(&self, without: Option<MemberId>) -> u64 {
        let is_before = |id: &MemberId| {
            let is_node = self.members[usize::from(*id)].role == Role::Node;
            is_node && Some(*id) != without && !self.precedes(*id)
        };
        self.others().filter(is_before).count() as u64 * (self.heartbeat_us / 5)
    }
}
