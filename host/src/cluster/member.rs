//! The thread: datagrams, time and orders go into the state machine, and what it wants is done.
//!
//! Owns the socket, the session with each member, and the gate. Everything in it is bounded: datagrams for each look at the clock,
//! and answers to strangers.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};
use trimtab_cluster::{
    Action, Closing, Core, Event, MemberId, Message, Session, Standing, Verdict,
    wire::{self, DATAGRAM_BYTES_MAX, Secrets, Unreadable},
};

use super::{
    Change, boot_us,
    fitness::{GateRest, Trouble},
    gate::Gate,
    link::{Link, Order, Parted, Target, TransferError, Transferred},
    settings,
    view::{self, View, presence_name},
};
use crate::{
    config::{self, Takeover},
    metrics::Metrics,
};

/// Datagrams between two looks at the clock, so that a flood delays no renewal.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Between two looks at the fitness.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two answers to members that are not acquainted: an answer to each would make a recording an amplifier.
const INTRODUCTION_PAUSE_US: u64 = 5_000;
/// Between two log lines about the same oddity.
const COMPLAINT_PAUSE_US: u64 = 30_000_000;
/// After a gate could not be made again.
const MEND_PAUSE_US: u64 = 1_000_000;
/// Nobody's place in the list of members: votes for it are votes for a node of another list.
const STRANGER: MemberId = MemberId::MAX;

type Outside = (Arc<Link>, mpsc::UnboundedSender<Change>, Arc<Metrics>);

pub(super) struct Member {
    names: Vec<String>,
    addresses: Vec<SocketAddr>,
    me: MemberId,
    heartbeat_us: u64,
    /// The server has to tell when the gate is closed.
    waits_for_server: bool,
    core: Core,
    session: Session,
    secrets: Secrets,
    socket: UdpSocket,
    gate: Option<Gate>,
    link: Arc<Link>,
    changes: mpsc::UnboundedSender<Change>,
    metrics: Arc<Metrics>,
    /// Of the lease that this node has, or is giving up.
    epoch: Option<u64>,
    trouble: Option<Trouble>,
    rest: GateRest,
    /// Not to be looked at before.
    mend_us: u64,
    transfer: Option<(MemberId, Transferred)>,
    /// Who follows once nothing is under way here.
    successor: Option<MemberId>,
    /// Who waits for this member to end.
    parting: Option<Parted>,
    has_parted: bool,
    leases: u64,
    /// Since when this node has its lease.
    active_since_us: u64,
    preempt_after_us: Option<u64>,
    introduced_us: u64,
    complained_us: u64,
}

impl Member {
    pub(super) fn new(
        config: &config::Cluster,
        (socket, secrets, gate): (UdpSocket, Secrets, Option<Gate>),
        (link, changes, metrics): Outside,
    ) -> io::Result<Self> {
        let mut boot = [0; 8];
        rustix::rand::getrandom(&mut boot, rustix::rand::GetRandomFlags::empty())?;
        let members = &config.members;
        Ok(Self {
            names: members.iter().map(|member| member.name.clone()).collect(),
            addresses: members.iter().map(|member| member.address).collect(),
            me: config.me as MemberId,
            heartbeat_us: config.heartbeat.as_micros() as u64,
            waits_for_server: config.takeover == Takeover::Bind,
            core: Core::new(settings(config), boot_us()),
            session: Session::new(config.me as MemberId, members.len(), u64::from_ne_bytes(boot)),
            secrets,
            socket,
            gate,
            link,
            changes,
            metrics,
            epoch: None,
            trouble: None,
            rest: GateRest::default(),
            mend_us: 0,
            transfer: None,
            successor: None,
            parting: None,
            has_parted: false,
            leases: 0,
            active_since_us: 0,
            preempt_after_us: config.preempt_after.map(|after| after.as_micros() as u64),
            introduced_us: 0,
            complained_us: 0,
        })
    }

    /// Runs until it is told to stop, or has ended since another process is to be this member: who is to be told once nothing of it is left.
    pub(super) fn run(&mut self) -> Option<Parted> {
        while !self.has_parted {
            self.look();
            self.step(Event::Tick);
            for order in self.link.take_orders() {
                match order {
                    Order::Transfer(to, done) => self.transfer(to, done),
                    Order::Hush(done) => self.hush(done),
                    Order::Finished => {
                        let to = self.successor.take();
                        to.into_iter().for_each(|to| self.step(Event::Transfer(Some(to))));
                    }
                    Order::Serves(serves) => self.step(Event::Serves(serves)),
                    Order::Closed => self.step(Event::Closed),
                    Order::Part(done) => {
                        self.parting = Some(done);
                        self.step(Event::Part(true));
                    }
                    Order::Stay if !self.has_parted => {
                        self.parting = None;
                        self.step(Event::Part(false));
                    }
                    Order::Stay => {}
                    Order::Stop => return None,
                }
            }
            self.prefer();
            if let Some(gate) = &mut self.gate {
                gate.announce();
            }
            self.show();
            self.wait();
            for _ in 0..DATAGRAMS_AT_ONCE {
                if self.has_parted || !self.receive() {
                    break;
                }
            }
        }
        self.parting.take()
    }

    /// Until something comes, or it is time.
    fn wait(&self) {
        let until_us = self.core.wake_us().saturating_sub(boot_us());
        let within = Duration::from_micros(until_us).min(LOOK_EVERY);
        let bell = self.link.bell();
        let mut events = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&bell, PollFlags::IN),
        ];
        // Interrupted is as good as woken up.
        let _ = poll(&mut events, Timespec::try_from(within).ok().as_ref());
    }

    fn step(&mut self, event: Event) {
        for action in self.core.step(boot_us(), event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(to, message) => self.send(to, message),
            Action::Open { epoch, until_us } => {
                if let Some(gate) = &mut self.gate {
                    match gate.open(until_us) {
                        Ok(()) => self.rest.worked(boot_us()),
                        Err(error) => {
                            tracing::error!(%error, "the kernel's gate cannot be opened");
                            self.rest.failed(boot_us());
                        }
                    }
                }
                if self.epoch.replace(epoch) != Some(epoch) {
                    self.leases += 1;
                    self.active_since_us = boot_us();
                    tracing::info!(
                        epoch,
                        node = self.names[usize::from(self.me)],
                        "this node is active"
                    );
                    self.tell(Change::Active { epoch });
                }
            }
            Action::Close(why) => self.close(why),
            Action::Part => self.has_parted = true,
            Action::NoSuccessor => {
                if let Some((_, done)) = self.transfer.take() {
                    let _ = done.send(Err(TransferError::NoSuccessor));
                }
            }
        }
    }

    fn close(&mut self, why: Closing) {
        let epoch = self.epoch.take().unwrap_or_default();
        self.successor = None;
        let node = &self.names[usize::from(self.me)];
        match why {
            Closing::Transferred => tracing::info!(epoch, node, "this node hands over"),
            Closing::Unfit => tracing::warn!(epoch, node, "this node gives up its lease: it cannot serve"),
            Closing::Lapsed => {
                tracing::warn!(
                    epoch,
                    node,
                    "this node's lease is over: no majority answered in time"
                );
            }
            Closing::Superseded => {
                tracing::warn!(
                    epoch,
                    node,
                    "two nodes served at once during a partition; this one stops"
                );
            }
        }
        if let Some(gate) = &mut self.gate
            && let Err(error) = gate.close()
        {
            // It closes by itself at the end of the lease, before any other node has one.
            tracing::error!(%error, "the kernel's gate cannot be closed");
        }
        self.tell(Change::Standby { epoch, why });
        if let Some((to, done)) = self.transfer.take() {
            let name = self.names[usize::from(to)].clone();
            let _ = done.send(Ok(name));
        }
        if !self.waits_for_server {
            self.step(Event::Closed);
        }
    }

    fn tell(&self, change: Change) {
        // Without a server there is nobody to serve.
        let _ = self.changes.send(change);
    }

    fn transfer(&mut self, target: Target, done: Transferred) {
        let now_us = boot_us();
        let refuse = |done: Transferred, error| drop(done.send(Err(error)));
        if !matches!(self.core.standing(), Standing::Active { .. }) {
            let me = self.names[usize::from(self.me)].clone();
            return refuse(done, TransferError::NotActive(me));
        }
        let to = match target {
            Target::Anyone => self.core.successor(now_us),
            Target::Alike => match self.core.successor(now_us) {
                Some(to) if self.core.is_unlike(to) => {
                    let name = self.names[usize::from(to)].clone();
                    return refuse(done, TransferError::OtherPolicies(name));
                }
                to => to,
            },
            Target::Named(name) => match self.names.iter().position(|known| *known == name) {
                Some(place) if place != usize::from(self.me) => Some(place as MemberId),
                _ => return refuse(done, TransferError::Unknown(name)),
            },
        };
        let Some(to) = to else {
            return refuse(done, TransferError::NoSuccessor);
        };
        if self.gate.is_none() {
            self.transfer = Some((to, done));
            return self.step(Event::Transfer(Some(to)));
        }
        // Behind a gate that closes, what is under way would be cut.
        let name = self.names[usize::from(to)].clone();
        self.successor = Some(to);
        self.tell(Change::Leaving);
        let _ = done.send(Ok(name));
    }

    /// Hands over to a node with a higher priority, once it has been ready for long enough and this one active for as long.
    fn prefer(&mut self) {
        let Some(after_us) = self.preempt_after_us.filter(|_| self.successor.is_none()) else {
            return;
        };
        let now_us = boot_us();
        if now_us < self.active_since_us + after_us {
            return;
        }
        if let Some(to) = self.core.preferred(now_us, after_us) {
            let name = self.names[usize::from(to)].clone();
            tracing::info!(
                to = name,
                "a node with a higher priority is ready for long enough"
            );
            // Nobody waits for the answer.
            self.transfer(Target::Named(name), oneshot::channel().0);
        }
    }

    fn hush(&mut self, done: oneshot::Sender<()>) {
        if let Some(gate) = &mut self.gate
            && let Err(error) = gate.hush()
        {
            tracing::warn!(%error, "the kernel's gate cannot be hushed");
        }
        let _ = done.send(());
    }

    /// Without a gate nothing keeps a node that has no lease from answering.
    fn mend_gate(&mut self) {
        let now_us = boot_us();
        let Some(gate) = self.gate.as_mut().filter(|_| now_us >= self.mend_us) else {
            return;
        };
        if let Err(error) = gate.mend() {
            tracing::error!(%error, "the kernel's gate cannot be made again");
            self.rest.failed(now_us);
            self.mend_us = now_us + MEND_PAUSE_US;
        }
    }

    /// Tells the state machine when this node can no longer serve, or can again.
    fn look(&mut self) {
        self.mend_gate();
        let trouble = self.link.fitness.look(&self.metrics, self.heartbeat_us);
        let trouble = trouble.or_else(|| self.rest.trouble(boot_us()));
        if trouble == self.trouble {
            return;
        }
        self.trouble = trouble;
        match trouble {
            Some(Trouble::Stopping) => {}
            Some(trouble) => tracing::error!(%trouble, "this node cannot serve"),
            None => tracing::info!("this node can serve again"),
        }
        self.tell(Change::Fitness(trouble));
        self.step(Event::Fit(trouble.is_none()));
    }

    // === The network ===

    fn send(&mut self, to: MemberId, message: Message) {
        let letter = self.session.letter(to, Some(message));
        self.post(&letter);
    }

    fn post(&self, letter: &wire::Letter) {
        let Some(address) = self.addresses.get(usize::from(letter.to)) else {
            return;
        };
        let sent = self.socket.send_to(&wire::write(letter, &self.secrets), address);
        let counters = &self.link.counters;
        let counter = if sent.is_ok() {
            &counters.sent
        } else {
            &counters.unsent
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Whether there was something.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; DATAGRAM_BYTES_MAX + 1];
        match self.socket.recv_from(&mut bytes) {
            Ok((length, from)) => self.read(&bytes[..length], from),
            // A port that nobody listens on says so on the next call: the member is down, which we see without it.
            Err(error) => return error.kind() == io::ErrorKind::ConnectionRefused,
        }
        true
    }

    fn read(&mut self, bytes: &[u8], from: SocketAddr) {
        let counters = &self.link.counters;
        let letter = match wire::read(bytes, &self.secrets) {
            Ok(letter) => letter,
            Err(unreadable) => {
                let counter = match unreadable {
                    Unreadable::Malformed => &counters.malformed,
                    Unreadable::Version => &counters.version,
                    Unreadable::Cluster => &counters.cluster,
                    Unreadable::Seal => &counters.seal,
                };
                counter.fetch_add(1, Relaxed);
                return self.complain(&format!("{unreadable:?}"), from);
            }
        };
        match self.session.judge(&letter) {
            Verdict::New if !letter.is_same_list => {
                counters.list.fetch_add(1, Relaxed);
                if let Some(Message::Ask(ask)) = letter.message {
                    self.step(Event::Foreign(STRANGER, ask));
                }
                self.complain("another list of members, or another order of it", from);
            }
            Verdict::New => {
                counters.received.fetch_add(1, Relaxed);
                if let Some(message) = letter.message {
                    self.step(Event::Received(letter.from, message));
                }
            }
            Verdict::Replayed => {
                counters.replayed.fetch_add(1, Relaxed);
            }
            Verdict::Unacquainted => {
                counters.unacquainted.fetch_add(1, Relaxed);
                let now_us = boot_us();
                if now_us >= self.introduced_us + INTRODUCTION_PAUSE_US {
                    self.introduced_us = now_us;
                    let letter = self.session.introduce(&letter);
                    self.post(&letter);
                }
            }
        }
    }

    fn complain(&mut self, what: &str, from: SocketAddr) {
        let now_us = boot_us();
        if self.complained_us == 0 || now_us >= self.complained_us + COMPLAINT_PAUSE_US {
            self.complained_us = now_us;
            tracing::warn!(%from, what, "a datagram to the cluster's port does not count; more are only in the metrics");
        }
    }

    // === What others see ===

    fn show(&self) {
        let now_us = boot_us();
        let name = |id: MemberId| self.names.get(usize::from(id)).cloned();
        self.link.set_view(|view: &mut View| {
            let (role, until_us) = match self.core.standing() {
                Standing::Active { until_us, .. } => (view::Standing::Active, until_us),
                Standing::Standby => (view::Standing::Standby, 0),
                Standing::Leaving => (view::Standing::Leaving, 0),
                Standing::Witness => (view::Standing::Witness, 0),
            };
            (view.role, view.until_us) = (role, until_us);
            view.epoch = self.epoch.unwrap_or(self.core.epoch());
            view.votes_for = self.core.vote(now_us).and_then(|(id, _)| name(id));
            view.unfit = self.trouble.map(|trouble| trouble.to_string());
            view.leases = self.leases;
            view.same_policies = self.core.is_like_the_last();
            for (id, (member, peer)) in view.members.iter_mut().zip(self.core.peers()).enumerate() {
                let serves = if id == usize::from(self.me) {
                    self.core.serves()
                } else {
                    peer.serves
                };
                let digest = |digest: u64| format!("{digest:016x}");
                member.config = serves.map(|serves| digest(serves.config));
                member.policies = serves.map(|serves| digest(serves.policies));
                if id == usize::from(self.me) {
                    member.presence = presence_name(self.core.presence(now_us));
                    member.active = role == view::Standing::Active;
                    member.fit = self.trouble.is_none() && member.role == "node";
                    continue;
                }
                member.presence = presence_name(peer.beat.presence);
                member.active = peer.beat.active;
                member.fit = peer.beat.fit;
                let heard = (peer.heard_us > 0).then(|| now_us.saturating_sub(peer.heard_us) / 1_000);
                member.heard_ms = heard;
            }
        });
    }
}
