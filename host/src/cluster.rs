//! The cluster: which node is active, as this process lives it.
//!
//! Owns a thread with a socket, in which the state machine of `trimtab-cluster` runs, the gate that it opens and closes, and what
//! others see of it. What being active means for listeners is the server's business, which is told by [`Change`]s. It must not
//! know of requests.
//!
//! Invariants: the thread waits for nobody in this process, so that no worker, no policy and no admin client makes a node lose its lease;
//! and it renews the lease only while the workers run, so that a node whose workers hang is followed.
//! Read next: `cluster/member.rs` (the thread), `cluster/link.rs` (what others see), `docs/cluster.md`.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::Arc,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use trimtab_cluster::{Closing, Member as Voice, Role, Settings, WhenAlone, wire::Secrets};

use gate::Gate;

use crate::{
    config::{self, GateKind, MemberRole, Takeover, WithoutWitness},
    metrics::Metrics,
    sched,
};

mod fitness;
mod gate;
mod link;
mod member;
mod view;

pub use fitness::{Fitness, Trouble};
pub use link::{Link, TransferError};
pub use trimtab_cluster::Serves;
pub use view::{Counters, MemberView, Standing, View, WarmView};

/// A key that could be guessed is none.
pub const KEY_BYTES_MIN: usize = 32;

/// What the thread tells the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This node is the active one from now on.
    Active {
        /// The lease's token.
        epoch: u64,
    },
    /// It is to hand over, and what is under way is to be finished first: [`Link::finished`] has to be told.
    Leaving,
    /// It no longer is. Of [`config::Takeover::Bind`], [`Link::closed`] has to be told when it no longer listens.
    Standby {
        /// Of the lease that ended.
        epoch: u64,
        /// Why.
        why: Closing,
    },
    /// It cannot serve; or can again.
    Fitness(Option<Trouble>),
}

/// The thread, and how to reach it.
#[derive(Debug)]
pub struct Cluster {
    /// For asking and telling.
    pub link: Arc<Link>,
    /// What it tells.
    pub changes: mpsc::UnboundedReceiver<Change>,
}

impl Cluster {
    /// Starts to take part. The node begins as a standby.
    ///
    /// # Errors
    /// When the address cannot be listened on, the kernel holds no gate for us, or there is no thread.
    pub fn start(config: &config::Cluster, key: &[u8], metrics: Arc<Metrics>) -> io::Result<Self> {
        let secrets = Secrets::new(&config.name, &config.roll(), key);
        let secrets = secrets.ok_or_else(|| io::Error::other("the key is empty"))?;
        let socket = UdpSocket::bind(config.members[config.me].address)?;
        socket.set_nonblocking(true)?;
        let gate = with_gate(config, Gate::new)?;
        let (told, changes) = mpsc::unbounded_channel();
        let link = Arc::new(Link::new(config)?);
        let ended = link.clone();
        let mut member = member::Member::new(config, (socket, secrets, gate), (link.clone(), told, metrics))?;
        std::thread::Builder::new()
            .name("trimtab-cluster".to_owned())
            .spawn(move || {
                // A lease must not wait for whatever else has the core.
                sched::take_slices_of(sched::SLICE_MIN);
                let waiting = member.run();
                // The socket and the gate go with it, so that the next process can have them.
                drop(member);
                ended.end();
                if let Some(waiting) = waiting {
                    // Whoever does not wait any more sees it there.
                    let _ = waiting.send(());
                }
            })?;
        Ok(Self { link, changes })
    }
}

/// Whether a member could be started here, as far as that can be seen while another process is it. Changes nothing.
///
/// # Errors
/// What [`Cluster::start`] would fail with.
pub fn check(config: &config::Cluster) -> io::Result<()> {
    with_gate(config, Gate::check).map(drop)
}

/// Does it for a member that has a gate.
fn with_gate<T>(
    config: &config::Cluster,
    make: impl FnOnce(&str, GateKind, &str, &[IpAddr]) -> io::Result<T>,
) -> io::Result<Option<T>> {
    match &config.takeover {
        // A witness has the table of all, and answers for nothing.
        Takeover::Address {
            addresses,
            interface,
            gate,
        } if config.role() == MemberRole::Node => make(&config.name, *gate, interface, addresses).map(Some),
        Takeover::Address { .. } | Takeover::Bind | Takeover::RoleOnly => Ok(None),
    }
}

/// Microseconds since the machine started, with the time that it slept.
pub fn boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// What the members agree on, in the words of the protocol.
fn settings(config: &config::Cluster) -> Settings {
    let voice = |member: &config::ClusterMember| Voice {
        role: match member.role {
            MemberRole::Node => Role::Node,
            MemberRole::Witness => Role::Witness,
        },
        priority: member.priority,
    };
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Settings {
        me: config.me as u8,
        members: config.members.iter().map(voice).collect(),
        heartbeat_us: config.heartbeat.as_micros() as u64,
        lease_us: config.lease.as_micros() as u64,
        margin_us: config.margin.as_micros() as u64,
        when_alone: match config.without_witness {
            Some(WithoutWitness::PreferAvailability) => WhenAlone::Serve,
            Some(WithoutWitness::PreferSafety) | None => WhenAlone::Stop,
        },
        unlike: config.other_policies,
        epoch_floor: since_1970.map_or(0, |time| time.as_secs()),
        mutation: None,
    }
}
