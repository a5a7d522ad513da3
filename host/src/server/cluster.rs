//! What the role of this node means for the rest of the balancer.
//!
//! Owns listening only while active, handing over before a stop, the probe through a listener, and what is run at a change of role.
//! Who is active is decided in `cluster`.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    process::Command,
    sync::{mpsc, oneshot},
};

use super::{
    Control, StartError, WorkerHandle,
    sockets::{Held, Newcomers, welcome},
};
use crate::{
    cluster::{Change, Cluster, KEY_BYTES_MIN, Link, Serves, Standing, TransferError, Trouble},
    config::{self, Config, GateKind, Hooks, MemberRole, Mistakes, NamedFile, Takeover},
    proxy::{Arrivals, ListenerPlan, Message},
};

/// Between two tries to listen where another process still does.
const LISTEN_AGAIN: Duration = Duration::from_millis(20);
/// Longer than a node that hands over takes. Then this one gives up the lease instead.
const LISTEN_TRIES: u32 = 100;
/// A probe may take so many heartbeats, and its fellows too.
const PROBE_EVERY: u32 = 2;
/// A connection whose first packet passed is in a listener's queue by then.
const ARRIVAL: Duration = Duration::from_millis(20);
/// The last connections of a node that hands over have so long. Whoever is turned away meanwhile tries again after a second.
const FINISH_MAX: Duration = Duration::from_millis(1500);
/// New connections are turned away for so long at most, as by a table (`cluster/gate/table.rs`).
const QUIET_MAX: Duration = Duration::from_secs(2);
/// A node that is being replaced or has just started takes less to be ready to follow.
const LEASES_TO_COME: u32 = 4;
/// A name in the environment of whatever is run at a change of role.
const ROLE: &str = "TRIMTAB_ROLE";

/// This node's place in the cluster.
pub(super) struct Seat {
    pub(super) link: Arc<Link>,
    changes: mpsc::UnboundedReceiver<Change>,
    /// As it was at the start: another file takes a restart.
    pub(super) config: config::Cluster,
    key: Vec<u8>,
    probe: Option<tokio::task::JoinHandle<()>>,
    /// Tries to listen, and when to try again; `None` when there is nothing to try.
    listening: Option<u32>,
}

/// What the control task has to do.
pub(super) enum Turn {
    Change(Change),
    ListenAgain,
}

impl Seat {
    /// Takes part in the cluster, if there is one.
    pub(super) fn take(config: &Config, handle: &crate::control::Handle) -> Result<Option<Self>, StartError> {
        let Some(config) = config.cluster.clone() else {
            return Ok(None);
        };
        let key = read_key(&config.key)?;
        Self::of(config, key, handle).map(Some)
    }

    /// The same member again, by the same file.
    pub(super) fn again(&self, handle: &crate::control::Handle) -> Result<Self, StartError> {
        Self::of(self.config.clone(), self.key.clone(), handle)
    }

    fn of(
        config: config::Cluster,
        key: Vec<u8>,
        handle: &crate::control::Handle,
    ) -> Result<Self, StartError> {
        let address = config.members[config.me].address;
        let cluster = Cluster::start(&config, &key, handle.metrics().clone());
        let Cluster { link, changes } = cluster.map_err(|error| StartError::Cluster { address, error })?;
        handle.set_cluster(link.clone());
        Ok(Self {
            link,
            changes,
            config,
            key,
            probe: None,
            listening: None,
        })
    }

    /// The next thing to do; never without a cluster.
    pub(super) async fn next(seat: &mut Option<Self>) -> Turn {
        let Some(seat) = seat else {
            return std::future::pending().await;
        };
        let again = seat.listening.is_some();
        tokio::select! {
            Some(change) = seat.changes.recv() => Turn::Change(change),
            () = tokio::time::sleep(LISTEN_AGAIN), if again => Turn::ListenAgain,
            else => std::future::pending().await,
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.config.role() == MemberRole::Node
    }

    /// For giving the lease to another node, with what is under way.
    pub(super) fn handing_over_max(&self, drain: Duration) -> Duration {
        drain + FINISH_MAX + self.config.lease * 2
    }

    pub(super) fn binds(&self) -> bool {
        self.config.takeover == Takeover::Bind
    }

    /// Runs what the file says for a change, and does not wait for it.
    fn run_hook(&self, command: &[String], role: &'static str, epoch: u64, reason: String) {
        let Some((program, arguments)) = command.split_first() else {
            return;
        };
        let mut child = Command::new(program);
        child
            .args(arguments)
            .env(ROLE, role)
            .env("TRIMTAB_EPOCH", epoch.to_string())
            .env("TRIMTAB_REASON", &reason)
            .env("TRIMTAB_CLUSTER", &self.config.name)
            .env("TRIMTAB_NODE", &self.config.members[self.config.me].name)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let (program, timeout) = (program.clone(), self.config.hooks.timeout);
        tokio::spawn(async move {
            let ended = tokio::time::timeout(timeout, async { child.spawn()?.wait().await }).await;
            match ended {
                Ok(Ok(status)) if status.success() => tracing::info!(program, role, "hook ran"),
                Ok(Ok(status)) => tracing::warn!(program, role, %status, "hook failed"),
                Ok(Err(error)) => tracing::warn!(program, role, %error, "hook cannot be run"),
                Err(_) => tracing::warn!(program, role, ?timeout, "hook took too long and was killed"),
            }
        });
    }

    fn stop_probing(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        self.link.fitness.stop_probing();
    }

    /// Connects to a listener again and again: a worker that accepts and reads ends the connection when we do.
    fn start_probing(&mut self, listener: Option<SocketAddr>) {
        self.stop_probing();
        let Some(mut address) = listener else { return };
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let link = self.link.clone();
        let pause = self.config.heartbeat * PROBE_EVERY;
        link.fitness.probed();
        self.probe = Some(tokio::spawn(async move {
            loop {
                let probed =
                    tokio::time::timeout(pause.max(Duration::from_millis(200)), probe(address)).await;
                if matches!(probed, Ok(Ok(()))) {
                    link.fitness.probed();
                }
                tokio::time::sleep(pause).await;
            }
        }));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stop_probing();
        self.link.stop();
    }
}

async fn probe(address: SocketAddr) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let mut stream = TcpStream::connect(address).await?;
    stream.shutdown().await?;
    let mut rest = [0; 64];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

pub(super) fn welcome_at(listeners: &Held, newcomers: Newcomers) {
    for sockets in listeners.values() {
        if let Err(error) = welcome(sockets, newcomers) {
            tracing::warn!(%error, "what becomes of new connections cannot be changed");
        }
    }
}

/// Gives the lease away, and waits until then for a node that has only just started.
async fn leave(link: &Link, until: Instant) -> Result<String, TransferError> {
    loop {
        match link.leave().await {
            Err(TransferError::NoSuccessor) if link.view().somebody_comes() && Instant::now() < until => {
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// The secret that the members share.
pub(super) fn read_key(file: &NamedFile) -> Result<Vec<u8>, StartError> {
    let wrong = |message: String| {
        let mistakes = Mistakes::collect(vec![*file.mistake(message.clone())]);
        mistakes.map_or(StartError::Engine(message), StartError::Mistakes)
    };
    let bytes = std::fs::read(&file.path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let key = bytes.trim_ascii_end().to_vec();
    if key.len() < KEY_BYTES_MIN {
        return Err(wrong(format!(
            "expected a secret of at least {KEY_BYTES_MIN} bytes in it"
        )));
    }
    Ok(key)
}

/// A secret for one purpose that all members have.
pub(super) fn derived(config: &config::Cluster, purpose: &str) -> Result<[u8; 32], StartError> {
    let key = read_key(&config.key)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)
        .map_err(|error| StartError::Engine(format!("bug: the cluster's key is no key: {error}")))?;
    // No datagram begins like this: those begin with their magic.
    for part in ["derived", &config.name, purpose] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    Ok(mac.finalize().into_bytes().into())
}

impl Control {
    /// Tells the other nodes what is in service here, so that they see whether they have the same.
    pub(super) fn tell_what_serves(&self) {
        let Some(seat) = self.seat.as_ref().filter(|seat| seat.serves()) else {
            return;
        };
        let mut policies = Sha256::new();
        for pool in self.service.config.pools.keys() {
            let Some(candidate) = self.service.candidate(pool) else {
                continue;
            };
            for part in [pool.as_str(), &candidate.digest, &candidate.spec.config_json] {
                policies.update((part.len() as u64).to_le_bytes());
                policies.update(part.as_bytes());
            }
        }
        let policies = policies.finalize();
        let first = policies.iter().take(8);
        seat.link.serves(Serves {
            config: self.service.config.shared,
            policies: first.fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        });
    }

    /// Follows a change of this node's role.
    pub(super) async fn take_turn(&mut self, turn: Turn) {
        match turn {
            Turn::ListenAgain => self.listen().await,
            Turn::Change(Change::Active { epoch }) => self.become_active(epoch).await,
            Turn::Change(Change::Standby { epoch, why }) => {
                self.become_standby().await;
                self.run_hook("standby", epoch, format!("{why:?}").to_lowercase(), |hooks| {
                    &hooks.standby
                });
            }
            Turn::Change(Change::Leaving) => self.finish(),
            Turn::Change(Change::Fitness(Some(trouble))) => {
                self.run_hook("fault", 0, trouble.to_string(), |hooks| &hooks.fault);
            }
            Turn::Change(Change::Fitness(None)) => {}
        }
    }

    fn run_hook(&self, role: &'static str, epoch: u64, reason: String, of: impl Fn(&Hooks) -> &Vec<String>) {
        if let Some(seat) = &self.seat {
            seat.run_hook(of(&seat.config.hooks), role, epoch, reason);
        }
    }

    async fn become_active(&mut self, epoch: u64) {
        let Some(seat) = &mut self.seat else { return };
        if seat.binds() && !self.service.is_listening {
            seat.listening = Some(0);
            self.listen().await;
        } else {
            self.go_on();
            self.probe();
        }
        self.run_hook("active", epoch, "lease".to_owned(), |hooks| &hooks.active);
    }

    /// Tries to listen, as the active node. Another process may still be about to close its sockets.
    async fn listen(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let Some(tries) = &mut seat.listening else { return };
        *tries += 1;
        let plans = match self.service.listen(self.workers.len()) {
            Ok(plans) => plans,
            Err(error) => {
                if *tries == 1 {
                    tracing::warn!(%error, "active, and cannot listen yet");
                }
                if *tries == LISTEN_TRIES {
                    tracing::error!(%error, "active, and cannot listen; the lease is given up");
                    seat.link.fitness.set(Some(Trouble::CannotListen));
                }
                return;
            }
        };
        seat.listening = None;
        seat.link.fitness.set(None);
        self.handle
            .set_service(self.service.views(), self.service.listener_views());
        // Policies before the first request; rates when there are listeners to have them.
        let known = self.take_known();
        self.go_on_with(known.as_ref(), true);
        let waiting = self.have_workers_listen(plans);
        self.go_on_with(known.as_ref(), false);
        for applied in waiting {
            let _ = applied.await;
        }
        self.probe();
    }

    pub(super) fn have_workers_listen(&self, plans: Vec<Vec<ListenerPlan>>) -> Vec<oneshot::Receiver<()>> {
        let listen = |(worker, plans): (&WorkerHandle, Vec<ListenerPlan>)| {
            let (done, applied) = oneshot::channel();
            // A worker that is gone has logged why.
            let _ = worker.messages.send(Message::Listen(plans, done));
            applied
        };
        self.workers.iter().zip(plans).map(listen).collect()
    }

    /// Watches the first listener that a connection without a request leaves no trace of.
    fn probe(&mut self) {
        let is_plain = |listener: &config::Listener| {
            let is_http = listener.protocol == config::Protocol::Http;
            is_http && listener.tls.is_none() && listener.proxy_protocol.is_none()
        };
        let listeners = self.service.config.listeners.iter();
        let mut addressed = listeners.zip(self.service.listener_views());
        let plain = addressed.find(|(listener, _)| is_plain(listener));
        let address = plain.map(|(_, view)| view.address);
        if let Some(seat) = &mut self.seat {
            seat.start_probing(address);
        }
    }

    /// Ends the connections that there are, then turns new ones away and ends the last, then says so. New ones are welcome until
    /// shortly before the end, since there is nobody else yet who could serve them.
    fn finish(&self) {
        let Some(seat) = &self.seat else { return };
        let link = seat.link.clone();
        let drain = self.service.config.drain;
        let quiet = match seat.config.takeover {
            // No table turns them away.
            Takeover::Address {
                gate: GateKind::Lifetime,
                ..
            } => self.service.held.clone(),
            _ => Held::new(),
        };
        let workers: Vec<_> = self
            .workers
            .iter()
            .map(|worker| worker.messages.clone())
            .collect();
        tokio::spawn(async move {
            for (within, arrivals) in [(drain, Arrivals::GoOn), (FINISH_MAX, Arrivals::AreOver)] {
                if arrivals == Arrivals::AreOver {
                    link.hush().await;
                    welcome_at(&quiet, Newcomers::TurnedAway);
                    tokio::time::sleep(ARRIVAL).await;
                }
                let finish = |worker: &mpsc::UnboundedSender<Message>| {
                    let (done, finished) = oneshot::channel();
                    let _ = worker.send(Message::Finish(within, arrivals, done));
                    finished
                };
                let waiting: Vec<_> = workers.iter().map(finish).collect();
                for finished in waiting {
                    let _ = finished.await;
                }
            }
            link.finished();
            // Where nobody follows after all, it goes on.
            tokio::time::sleep(QUIET_MAX).await;
            welcome_at(&quiet, Newcomers::Welcome);
        });
    }

    async fn become_standby(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        seat.stop_probing();
        seat.listening = None;
        if !seat.binds() {
            return;
        }
        seat.link.fitness.set(None);
        let link = seat.link.clone();
        if self.service.is_listening {
            self.service.is_listening = false;
            // The workers' are the last then.
            self.service.held.clear();
            let mut waiting = Vec::new();
            for worker in &self.workers {
                let (done, withdrawn) = oneshot::channel();
                let _ = worker.messages.send(Message::Withdraw(done));
                waiting.push(withdrawn);
            }
            for withdrawn in waiting {
                let _ = withdrawn.await;
            }
        }
        link.closed();
    }

    /// Gives the lease to another node before this one stops, if there is another. In any case it asks for none again.
    pub(super) async fn hand_over(&mut self) {
        let Some(seat) = self.seat.as_ref().filter(|seat| !seat.link.has_ended()) else {
            return;
        };
        let link = seat.link.clone();
        let limit = seat.handing_over_max(self.service.config.drain);
        match leave(&link, Instant::now() + seat.config.lease * LEASES_TO_COME).await {
            Ok(to) => {
                tracing::info!(to, "handing over before the stop");
                if tokio::time::timeout(limit, self.until_left(&link)).await.is_err() {
                    tracing::warn!("the lease was not given back in time");
                }
            }
            Err(TransferError::NotActive(_)) => {}
            Err(error) => tracing::warn!(%error, "nobody to hand over to before the stop"),
        }
        link.fitness.set(Some(Trouble::Stopping));
    }

    async fn until_left(&mut self, link: &Link) {
        while matches!(link.view().role, Standing::Active | Standing::Leaving) {
            tokio::select! {
                turn = Seat::next(&mut self.seat) => self.take_turn(turn).await,
                () = tokio::time::sleep(LISTEN_AGAIN) => {}
            }
        }
    }
}
