//! What is seen of the peers from outside: a copy of what the exchange knows, and counters of datagrams.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use crate::{clock, config};

/// The exchange, as it was after its last round.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Where this node hears the others.
    pub listen: SocketAddr,
    /// Whether it does; another process may have the address.
    pub listening: bool,
    /// How often load is told.
    pub interval_ms: u64,
    /// How long what was heard counts.
    pub stale_after_ms: u64,
    /// Backends that nodes tell each other of.
    pub backends: usize,
    /// The other nodes, by address.
    pub peers: Vec<PeerView>,
}

/// A peer.
#[derive(Clone, Debug, Serialize)]
pub struct PeerView {
    /// Where it listens, and what it is known by.
    pub address: SocketAddr,
    /// How long ago it was heard; `None` for never.
    pub heard_ms: Option<u64>,
    /// Whether what it said counts.
    pub fresh: bool,
    /// Requests that it has in flight.
    pub active: u64,
    /// To so many backends of ours.
    pub busy_backends: usize,
    #[serde(skip)]
    pub(super) heard_at_ms: u64,
}

/// What is shared by the exchange and those who look.
#[derive(Debug)]
pub struct Link {
    view: Mutex<View>,
    pub(super) counters: Counters,
}

impl Link {
    pub(super) fn new(config: &config::Peers) -> Self {
        let view = View {
            listen: config.listen,
            listening: false,
            interval_ms: config.interval.as_millis() as u64,
            stale_after_ms: config.stale_after.as_millis() as u64,
            backends: 0,
            peers: Vec::new(),
        };
        Self {
            view: Mutex::new(view),
            counters: Counters::default(),
        }
    }

    /// What is known, with ages as of now.
    pub fn view(&self) -> View {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now_ms = clock::now_us() / 1000;
        for peer in &mut view.peers {
            let age_ms = now_ms.saturating_sub(peer.heard_at_ms);
            peer.heard_ms = (peer.heard_at_ms > 0).then_some(age_ms);
            peer.fresh = peer.heard_ms.is_some_and(|age_ms| age_ms < view.stale_after_ms);
            if !peer.fresh {
                (peer.active, peer.busy_backends) = (0, 0);
            }
        }
        view
    }

    /// Datagrams by what became of them.
    pub fn datagrams(&self) -> [(&'static str, u64); 10] {
        self.counters.all()
    }

    /// Backends that were told of and are none here.
    pub fn strange_backends(&self) -> u64 {
        self.counters.strange_backends.load(Relaxed)
    }

    pub(super) fn set_view(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Counts of datagrams, each by what became of it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
    /// They counted.
    pub(super) received: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) version: AtomicU64,
    /// Of something else with the same key.
    pub(super) cluster: AtomicU64,
    /// Of another key, or changed on the way.
    pub(super) seal: AtomicU64,
    /// Seen before, or of a start that is over, or for another node.
    pub(super) replayed: AtomicU64,
    /// Of a node that had not yet heard of this start.
    pub(super) unacquainted: AtomicU64,
    /// Of a node that is no peer.
    pub(super) stranger: AtomicU64,
    pub(super) strange_backends: AtomicU64,
}

impl Counters {
    fn all(&self) -> [(&'static str, u64); 10] {
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
            ("stranger", &self.stranger),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}
