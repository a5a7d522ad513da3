//! The way to the cluster's thread, and the view of it.
//!
//! Owns the orders and the bell that wakes the thread for them. Every call returns at once.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use trimtab_cluster::{Presence, Serves};

use super::{
    boot_us,
    fitness::Fitness,
    view::{Counters, MemberView, Standing, View, WarmView, presence_name, role_name},
};
use crate::config;

/// Why the lease is not given away. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// There is no lease here to give.
    #[error("{0} is not active")]
    NotActive(String),
    /// There is no such node.
    #[error("{0:?} is no other node of the cluster")]
    Unknown(String),
    /// Nobody could take it.
    #[error("no other node is ready to follow: see the members in /v1/cluster")]
    NoSuccessor,
    /// Somebody could, who would decide otherwise.
    #[error(
        "{0} has other policies in service than this node; it takes the lease if it is named (\"to\", --to)"
    )]
    OtherPolicies(String),
    /// The thread has ended.
    #[error("the balancer is stopping")]
    Stopping,
}

/// The name of the node that follows.
pub(super) type Transferred = oneshot::Sender<Result<String, TransferError>>;

/// Who is to follow.
pub(super) enum Target {
    /// Of the nodes that serve with the same, the best.
    Alike,
    /// Such a one, or another if there is none.
    Anyone,
    /// The node of this name.
    Named(String),
}

/// An order to the thread.
pub(super) enum Order {
    Transfer(Target, Transferred),
    /// What this node serves with from now on.
    Serves(Serves),
    /// No new connections, until the gate is closed.
    Hush(oneshot::Sender<()>),
    /// What was under way is.
    Finished,
    Closed,
    /// Another process is to be this member: end when the others can do without it.
    Part(Parted),
    /// It is not, after all.
    Stay,
    Stop,
}

/// Told when nothing of the member is left; dropped when it goes on.
pub(super) type Parted = oneshot::Sender<()>;

/// A member as others in this process see it.
pub struct Link {
    /// `None` once the thread has ended: an order then has nobody who would answer.
    orders: Mutex<Option<Vec<Order>>>,
    bell: OwnedFd,
    view: Mutex<View>,
    warm: Mutex<Option<WarmView>>,
    /// Counts of datagrams.
    pub counters: Counters,
    /// Whether this node could serve.
    pub fitness: Fitness,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(config: &config::Cluster) -> io::Result<Self> {
        let member = |member: &config::ClusterMember| MemberView {
            name: member.name.clone(),
            address: member.address,
            role: role_name(member.role),
            active: false,
            fit: false,
            presence: presence_name(Presence::Here),
            config: None,
            policies: None,
            heard_ms: None,
        };
        let view = View {
            cluster: config.name.clone(),
            node: config.members[config.me].name.clone(),
            members: config.members.iter().map(member).collect(),
            ..View::default()
        };
        Ok(Self {
            orders: Mutex::new(Some(Vec::new())),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            view: Mutex::new(view),
            warm: Mutex::default(),
            counters: Counters::default(),
            fitness: Fitness::new(),
        })
    }

    /// The cluster as it was after the thread's last step, but for a lease that has ended since.
    pub fn view(&self) -> View {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now_us = boot_us();
        view.lease_ms = view.until_us.saturating_sub(now_us) / 1_000;
        if view.role == Standing::Active && now_us >= view.until_us {
            view.role = Standing::Leaving;
        }
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).clone();
        view.warm = warm.filter(|_| view.role == Standing::Standby);
        if let Some(warm) = &mut view.warm {
            warm.age_ms = (warm.told_us > 0).then(|| now_us.saturating_sub(warm.told_us) / 1_000);
        }
        view
    }

    /// The active node was asked what this one would lack: how large that was and whether what policies have learned was among it, or
    /// why there was no answer.
    pub fn told(&self, from: &str, outcome: Result<(usize, bool), String>) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        let warm = warm.get_or_insert_default();
        if warm.from != from {
            *warm = WarmView {
                from: from.to_owned(),
                ..WarmView::default()
            };
        }
        match outcome {
            Ok((bytes, with_states)) => {
                warm.bytes = bytes;
                warm.states += u64::from(with_states);
                warm.told_us = boot_us();
                if warm.error.take().is_some() {
                    tracing::info!(from, "what the active node knows is told again");
                }
            }
            Err(error) => {
                if warm.error.as_ref() != Some(&error) {
                    tracing::warn!(
                        from,
                        error,
                        "the active node does not tell what it knows; a takeover would begin with less"
                    );
                }
                warm.error = Some(error);
            }
        }
    }

    pub(super) fn set_view(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Gives the lease to a node, or to the one that suits best. Answers with its name once that has begun.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn transfer(&self, to: Option<String>) -> Result<String, TransferError> {
        self.transfer_to(to.map_or(Target::Alike, Target::Named)).await
    }

    /// The same, to whoever is there: this node ends.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn leave(&self) -> Result<String, TransferError> {
        self.transfer_to(Target::Anyone).await
    }

    async fn transfer_to(&self, target: Target) -> Result<String, TransferError> {
        let (done, answer) = oneshot::channel();
        self.order(Order::Transfer(target, done));
        answer.await.unwrap_or(Err(TransferError::Stopping))
    }

    /// Tells the others what this node serves with.
    pub fn serves(&self, serves: Serves) {
        self.order(Order::Serves(serves));
    }

    /// Turns new connections away while the last ones end.
    pub async fn hush(&self) {
        let (done, hushed) = oneshot::channel();
        self.order(Order::Hush(done));
        // Without a thread there is nothing to hand over.
        let _ = hushed.await;
    }

    /// Nothing is under way any more, or not for longer than is waited for.
    pub fn finished(&self) {
        self.order(Order::Finished);
    }

    /// This node no longer listens.
    pub fn closed(&self) {
        self.order(Order::Closed);
    }

    /// Another process is to be this member. Answers when this one has ended, which it does as soon as the others can do without it, and with
    /// `false` if it goes on since it was told to stay.
    pub async fn part(&self) -> bool {
        let (done, parted) = oneshot::channel();
        self.order(Order::Part(done));
        parted.await.is_ok()
    }

    /// No other process is to be this member. Who was too late is told so by [`Self::has_ended`].
    pub fn stay(&self) {
        self.order(Order::Stay);
    }

    /// Whether the member is none any more.
    pub fn has_ended(&self) -> bool {
        self.orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    /// The thread has ended: whoever still waits for an answer gets none.
    pub(super) fn end(&self) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The thread ends. A lease that it still has ends by itself.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    fn order(&self, order: Order) {
        match &mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(orders) => orders.push(order),
            None => return,
        }
        // The only failure is a bell that rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn take_orders(&self) -> Vec<Order> {
        let mut count = [0; 8];
        // Nothing to read means that it did not ring.
        let _ = rustix::io::read(&self.bell, &mut count);
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
