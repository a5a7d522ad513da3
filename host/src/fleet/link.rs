//! What is known of the fleet in this process, for all who ask.
//!
//! Owns the view, this node's own record, and the log lines when etcd goes and comes back. No call waits for etcd but those
//! that say so.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use super::{
    controller::{Known, Seat},
    record::Member,
    rollout::Rollout,
};
use crate::{config, etcd::Client};

/// For a goodbye: a stop does not wait for an etcd that is away.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The fleet, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// This node.
    pub node: String,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How etcd does.
    pub etcd: EtcdView,
    /// The node that decides on rollouts; `None` while nobody does.
    pub controller: Option<String>,
    /// The newest configuration, and how far it is; `None` before the first.
    pub rollout: Option<Rollout>,
    /// The nodes by name, as last heard; this one is among them while it is a member.
    pub members: Vec<MemberView>,
}

/// How etcd does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EtcdView {
    /// Whether it answered the last time.
    pub ok: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// Since when it is so.
    pub since_ms: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Whether it is the one that answers.
    pub me: bool,
    /// What it says.
    #[serde(flatten)]
    pub member: Member,
}

/// What tables would be beside this node's own: the components that they name, or every mistake. Reads files.
pub type Check = Box<dyn Fn(config::Shared) -> Result<Vec<String>, String> + Send + Sync>;

/// What is shared by the tasks and those who look.
pub struct Link {
    pub(super) config: config::Fleet,
    pub(super) client: Arc<Client>,
    check: Check,
    /// Rings when the fleet says something new.
    news: watch::Sender<()>,
    /// What this node says of itself.
    own: watch::Sender<Member>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// 0 without one.
    lease: i64,
    /// What was written with which lease.
    written: Option<(i64, Member)>,
    members: BTreeMap<String, Member>,
    seat: Seat,
    known: Known,
    error: Option<String>,
    since: Instant,
    has_rival: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(config: &config::Fleet, check: Check, client: Arc<Client>) -> Self {
        let own = Member {
            instance: fastrand::u64(1..),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            canary: config.canary,
            ..Member::default()
        };
        let state = State {
            lease: 0,
            written: None,
            members: BTreeMap::new(),
            seat: Seat::default(),
            known: Known::default(),
            error: Some("not asked yet".to_owned()),
            since: Instant::now(),
            has_rival: false,
        };
        Self {
            config: config.clone(),
            client,
            check,
            news: watch::Sender::new(()),
            own: watch::Sender::new(own),
            state: Mutex::new(state),
        }
    }

    /// What these tables would be beside this node's own: the components that they name.
    ///
    /// # Errors
    /// Every mistake.
    pub fn check(&self, text: String) -> Result<Vec<String>, String> {
        (self.check)(config::Shared {
            name: "generation".to_owned(),
            text,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is known.
    pub fn view(&self) -> View {
        let state = self.state();
        let member = |(name, member): (&String, &Member)| MemberView {
            name: name.clone(),
            me: *name == self.config.node && member.instance == self.own.borrow().instance,
            member: member.clone(),
        };
        View {
            node: self.config.node.clone(),
            prefix: self.config.etcd.prefix.clone(),
            etcd: EtcdView {
                ok: state.error.is_none(),
                error: state.error.clone(),
                since_ms: state.since.elapsed().as_millis() as u64,
            },
            controller: state.seat.holder.as_ref().map(|holder| {
                let node = holder.rsplit_once('/').map_or(&**holder, |(node, _)| node);
                node.to_owned()
            }),
            rollout: state.known.rollout.clone(),
            members: state.members.iter().map(member).collect(),
        }
    }

    /// Where the other nodes hear load.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let state = self.state();
        let others = state
            .members
            .iter()
            .filter(|(name, _)| **name != self.config.node);
        others
            .filter_map(|(_, member)| member.peers.as_ref()?.parse().ok())
            .collect()
    }

    /// What this node says of itself from now on.
    pub fn tell(&self, change: impl FnOnce(&mut Member)) {
        self.own.send_if_modified(|own| {
            let before = own.clone();
            change(own);
            *own != before
        });
    }

    pub(super) fn changes(&self) -> watch::Receiver<Member> {
        self.own.subscribe()
    }

    pub(super) fn lease(&self) -> i64 {
        self.state().lease
    }

    pub(super) fn set_lease(&self, lease: i64) {
        self.state().lease = lease;
    }

    /// What has to be written: nothing if it is there already, or if it is another process's name by now.
    pub(super) fn unwritten(&self, lease: i64) -> Option<Member> {
        let own = self.own.borrow().clone();
        let state = self.state();
        let is_written = state.written.as_ref() == Some(&(lease, own.clone()));
        (!is_written && !state.has_rival).then_some(own)
    }

    pub(super) fn written(&self, lease: i64, own: Member) {
        self.state().written = Some((lease, own));
    }

    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// What was seen last.
    pub(super) fn seen(&self) -> (Seat, Known, BTreeMap<String, Member>) {
        let state = self.state();
        (state.seat.clone(), state.known.clone(), state.members.clone())
    }

    /// How this process calls itself as the controller.
    pub(super) fn holder(&self) -> String {
        format!("{}/{}", self.config.node, self.own.borrow().instance)
    }

    /// Whether others know this process by its name.
    pub(super) fn is_member(&self) -> bool {
        let (state, instance) = (self.state(), self.own.borrow().instance);
        let mine = state.members.get(&self.config.node);
        mine.is_some_and(|member| member.instance == instance)
    }

    /// The generation that this node is to serve; `None` while there is none, or nothing is known yet.
    pub fn target(&self) -> Option<u64> {
        let state = self.state();
        let rollout = state.known.rollout.as_ref()?;
        Some(rollout.target(&self.config.node))
    }

    /// Whether a generation is on trial here.
    pub fn is_trial(&self, generation: u64) -> bool {
        let state = self.state();
        let rollout = state.known.rollout.as_ref();
        rollout.is_some_and(|rollout| {
            rollout.generation == generation && rollout.canaries.contains(&self.config.node)
        })
    }

    /// Waits until the fleet says something new, or so long.
    pub async fn something_new(&self, within: Duration) {
        let mut news = self.news();
        let _ = tokio::time::timeout(within, news.changed()).await;
    }

    pub(super) fn saw(&self, members: BTreeMap<String, Member>, seat: Seat, known: Known) {
        self.set_members(members);
        let mut state = self.state();
        (state.seat, state.known) = (seat, known);
        drop(state);
        self.news.send_replace(());
    }

    fn set_members(&self, members: BTreeMap<String, Member>) {
        let instance = self.own.borrow().instance;
        let mut state = self.state();
        let mine = members.get(&self.config.node);
        // A process that was here before this one is overwritten once; whoever overwrites this one is a rival.
        let is_taken = mine.is_some_and(|member| member.instance != instance);
        let has_rival = is_taken && state.written.is_some();
        if has_rival && !state.has_rival {
            tracing::warn!(
                node = self.config.node,
                "another process has this node's name (fleet.node), as at an upgrade; this one is no member any more"
            );
        }
        if state.has_rival && !has_rival {
            // Its place is free again.
            state.written = None;
        }
        state.has_rival = has_rival;
        state.members = members;
    }

    /// etcd has answered, or not; logged when that is news.
    pub(super) fn heard(&self, answer: Result<(), String>) {
        let mut state = self.state();
        match (&state.error, answer) {
            (None, Ok(())) => {}
            (Some(_), Ok(())) => {
                tracing::info!(node = self.config.node, "etcd answers");
                (state.error, state.since) = (None, Instant::now());
            }
            (None, Err(error)) => {
                tracing::warn!(
                    node = self.config.node,
                    error,
                    "etcd is away; what serves goes on, and nothing can be changed"
                );
                (state.error, state.since) = (Some(error), Instant::now());
            }
            (Some(_), Err(error)) => state.error = Some(error),
        }
    }

    /// Ends the lease.
    pub(super) async fn leave(&self) {
        let lease = self.lease();
        if lease == 0 {
            return;
        }
        let left = tokio::time::timeout(LEAVE_WITHIN, self.client.revoke(lease)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("left the fleet without a word: etcd does not answer");
        }
    }
}
