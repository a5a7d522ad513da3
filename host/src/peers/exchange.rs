//! The rounds: this node's load goes out, what the others said goes into the backends.
//!
//! Owns the socket, the acquaintance with each peer, and the times. Everything in it is bounded: datagrams for each peer and round, and
//! answers to those that are not acquainted.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{SocketAddr, UdpSocket as StdSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Interval, MissedTickBehavior},
};
use trimtab_cluster::{
    Acquaintance, Stamp, Verdict,
    wire::{self, DATAGRAM_BYTES_MAX, Parcel, Secrets, Unreadable},
};

use super::{
    Sources, digest,
    link::{Counters, Link, PeerView},
    own::{self, Own, Shared},
    told::Told,
};
use crate::{clock, config};

/// Between two tries to have the address.
const LISTEN_AGAIN: Duration = Duration::from_millis(200);
/// Between two answers to peers that are not acquainted: an answer to each would make a recording an amplifier.
const INTRODUCTION_PAUSE_MS: u64 = 5;
/// Datagrams between two looks at the time, so that a flood delays no round.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Peers that a fleet may add.
const PEERS_MAX: usize = 64;

struct Peer {
    address: SocketAddr,
    known: Acquaintance,
    heard_ms: u64,
}

pub(super) struct Exchange {
    listen: SocketAddr,
    me: u64,
    configured: Vec<SocketAddr>,
    interval: Duration,
    stale_ms: u64,
    secrets: Secrets,
    /// Tells this start from others.
    boot: u64,
    sequence: u64,
    peers: BTreeMap<u64, Peer>,
    own: Own,
    told: Told,
    known: HashSet<u64>,
    introduced_ms: u64,
    link: Arc<Link>,
    sources: Sources,
}

/// A socket of the system's, for this runtime.
pub(super) fn adopt(socket: StdSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// What a node is known by: its address is in the others' files anyway.
fn name(address: SocketAddr) -> u64 {
    wire::digest(&address.to_string())
}

impl Exchange {
    pub(super) fn new(
        config: &config::Peers,
        secrets: Secrets,
        (link, sources): (Arc<Link>, Sources),
    ) -> io::Result<Self> {
        let mut boot = [0; 8];
        rustix::rand::getrandom(&mut boot, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            listen: config.listen,
            me: name(config.listen),
            configured: config.others.clone(),
            interval: config.interval,
            stale_ms: config.stale_after.as_millis() as u64,
            secrets,
            boot: u64::from_ne_bytes(boot).max(1),
            sequence: 0,
            peers: BTreeMap::new(),
            own: Own::default(),
            told: Told::default(),
            known: HashSet::new(),
            introduced_ms: 0,
            link,
            sources,
        })
    }

    /// Goes on until it is aborted.
    pub(super) async fn run(mut self, socket: Option<UdpSocket>) {
        let socket = match socket {
            Some(socket) => socket,
            None => self.listen().await,
        };
        let mut rounds = tokio::time::interval(self.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.hear(&socket, &mut rounds).await;
            self.round(&socket);
        }
    }

    async fn listen(&self) -> UdpSocket {
        loop {
            tokio::time::sleep(LISTEN_AGAIN).await;
            if let Ok(socket) = StdSocket::bind(self.listen).and_then(adopt) {
                tracing::info!(address = %self.listen, "the peers' address is free; load is told and heard");
                return socket;
            }
        }
    }

    /// Reads until the next round.
    async fn hear(&mut self, socket: &UdpSocket, rounds: &mut Interval) {
        let mut bytes = [0; DATAGRAM_BYTES_MAX + 1];
        loop {
            tokio::select! {
                biased;
                _ = rounds.tick() => return,
                // An error is that of a datagram to a peer that does not listen.
                _ = socket.readable() => {
                    for _ in 0..DATAGRAMS_AT_ONCE {
                        match socket.try_recv(&mut bytes) {
                            Ok(length) => self.read(&bytes[..length], socket),
                            Err(_) => break,
                        }
                    }
                }
            }
        }
    }

    fn read(&mut self, bytes: &[u8], socket: &UdpSocket) {
        let counters = &self.link.counters;
        let count = |counter: fn(&Counters) -> &std::sync::atomic::AtomicU64| {
            counter(counters).fetch_add(1, Relaxed);
        };
        let parcel = match wire::read_parcel(bytes, &self.secrets) {
            Ok(parcel) => parcel,
            Err(Unreadable::Malformed) => return count(|all| &all.malformed),
            Err(Unreadable::Version) => return count(|all| &all.version),
            Err(Unreadable::Cluster) => return count(|all| &all.cluster),
            Err(Unreadable::Seal) => return count(|all| &all.seal),
        };
        if parcel.to != self.me {
            return count(|all| &all.replayed);
        }
        let Some(peer) = self.peers.get_mut(&parcel.from) else {
            return count(|all| &all.stranger);
        };
        match peer.known.judge(self.boot, parcel.stamp) {
            Verdict::Replayed => count(|all| &all.replayed),
            Verdict::Unacquainted => {
                count(|all| &all.unacquainted);
                let (address, echo) = (peer.address, parcel.stamp.boot);
                self.introduce(parcel.from, (address, echo), socket);
            }
            Verdict::New => {
                count(|all| &all.received);
                let now_ms = clock::now_us() / 1000;
                peer.heard_ms = now_ms;
                // What is no load is of a later version, or says only who is there.
                if let Some(entries) = digest::read(parcel.body) {
                    let strange = self.told.hear(parcel.from, &entries, &self.known, now_ms);
                    counters.strange_backends.fetch_add(strange as u64, Relaxed);
                }
            }
        }
    }

    /// Makes this start known to a peer, and its own start to this node by its answer.
    fn introduce(&mut self, to: u64, (address, echo): (SocketAddr, u64), socket: &UdpSocket) {
        let now_ms = clock::now_us() / 1000;
        if now_ms >= self.introduced_ms + INTRODUCTION_PAUSE_MS {
            self.introduced_ms = now_ms;
            self.send(socket, (to, address), (echo, &[]));
        }
    }

    fn send(&mut self, socket: &UdpSocket, (to, address): (u64, SocketAddr), (echo, body): (u64, &[u8])) {
        self.sequence += 1;
        let stamp = Stamp {
            boot: self.boot,
            echo,
            sequence: self.sequence,
        };
        let parcel = Parcel {
            from: self.me,
            to,
            stamp,
            body,
        };
        let sent = socket.try_send_to(&wire::write_parcel(&parcel, &self.secrets), address);
        let counters = &self.link.counters;
        let counter = match sent {
            Ok(_) => &counters.sent,
            Err(_) => &counters.unsent,
        };
        counter.fetch_add(1, Relaxed);
    }

    fn round(&mut self, socket: &UdpSocket) {
        let now_us = clock::now_us();
        let now_ms = now_us / 1000;
        let backends = own::shared(&(self.sources.pools)());
        self.known = backends.iter().map(|shared| shared.key).collect();
        self.meet();
        let bodies = digest::write(&self.own.entries(&backends, now_us));
        let addressed: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| (*id, peer.address, peer.known.boot()))
            .collect();
        for (to, address, echo) in addressed {
            for body in &bodies {
                self.send(socket, (to, address), (echo, body));
            }
        }
        let (peers, known) = (&self.peers, &self.known);
        let before_ms = now_ms.saturating_sub(self.stale_ms);
        self.told
            .forget(before_ms, |peer| peers.contains_key(&peer), known);
        self.apply(&backends);
        self.show(backends.len());
    }

    /// The peers as they are now: those of the file, and those of the fleet.
    fn meet(&mut self) {
        let found = (self.sources.others)();
        let addresses = self.configured.iter().chain(&found).take(PEERS_MAX);
        let addresses: BTreeMap<u64, SocketAddr> = addresses
            .filter(|address| **address != self.listen)
            .map(|address| (name(*address), *address))
            .collect();
        self.peers.retain(|id, _| addresses.contains_key(id));
        for (id, address) in addresses {
            self.peers.entry(id).or_insert_with(|| Peer {
                address,
                known: Acquaintance::default(),
                heard_ms: 0,
            });
        }
    }

    fn apply(&self, backends: &[Shared]) {
        // What is too old was forgotten; this is for when no round comes any more.
        let until_ms = self.told.latest_ms() + self.stale_ms;
        for Shared { key, backend } in backends {
            match self.told.of(*key) {
                Some(elsewhere) => backend.others.tell(elsewhere, until_ms),
                None => backend.others.tell(crate::pool::Elsewhere::default(), 0),
            }
        }
    }

    fn show(&self, backends: usize) {
        let peer = |(id, peer): (&u64, &Peer)| {
            let (active, busy_backends) = self.told.by(*id);
            PeerView {
                address: peer.address,
                heard_ms: None,
                fresh: false,
                active,
                busy_backends,
                heard_at_ms: peer.heard_ms,
            }
        };
        self.link.set_view(|view| {
            view.listening = true;
            view.backends = backends;
            view.peers = self.peers.iter().map(peer).collect();
            view.peers.sort_by_key(|peer| peer.address);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "127.0.0.1:7001";
    const OTHER: &str = "127.0.0.1:7002";

    fn exchange() -> Exchange {
        let text = format!(
            "[peers]\nlisten = \"{ME}\"\nkey_file = \"a\"\nothers = [\"{ME}\", \"{OTHER}\"]\n{}",
            POOL
        );
        let config = config::Config::parse(&text, "a.toml", std::path::Path::new("/")).unwrap();
        let config = config.peers.unwrap();
        let sources = Sources {
            pools: Box::new(Vec::new),
            others: Box::new(Vec::new),
        };
        let link = Arc::new(Link::new(&config));
        let mut exchange = Exchange::new(&config, secrets(), (link, sources)).unwrap();
        exchange.meet();
        exchange
    }

    const POOL: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = [{ pool = \"shop\" }]\n[pool.shop]\nbackends = [\"10.0.0.1:80\"]\n";

    fn secrets() -> Secrets {
        Secrets::new("peers", "", b"a secret").unwrap()
    }

    fn datagram(from: &str, to: &str, (boot, echo, sequence): (u64, u64, u64)) -> Vec<u8> {
        let name = |address: &str| name(address.parse().unwrap());
        let entry = digest::Entry {
            key: 5,
            active: 3,
            rate: 0,
        };
        let parcel = Parcel {
            from: name(from),
            to: name(to),
            stamp: Stamp { boot, echo, sequence },
            body: &digest::write(&[entry])[0],
        };
        wire::write_parcel(&parcel, &secrets())
    }

    async fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    fn counted(exchange: &Exchange) -> Vec<(&'static str, u64)> {
        let all = exchange.link.datagrams();
        all.into_iter()
            .filter(|(name, count)| *count > 0 && !name.ends_with("sent"))
            .collect()
    }

    #[tokio::test]
    async fn what_a_peer_says_counts_once_and_only_of_this_start() {
        let (mut exchange, socket) = (exchange(), socket().await);
        exchange.known.insert(5);
        let before = datagram(OTHER, ME, (9, exchange.boot ^ 1, 1));
        exchange.read(&before, &socket);
        assert_eq!(counted(&exchange), [("unacquainted", 1)]);
        assert_eq!(exchange.told.of(5), None);
        let good = datagram(OTHER, ME, (9, exchange.boot, 2));
        exchange.read(&good, &socket);
        exchange.read(&good, &socket);
        assert_eq!(
            counted(&exchange),
            [("received", 1), ("replayed", 1), ("unacquainted", 1)]
        );
        assert_eq!(exchange.told.of(5).unwrap().active, 3);
    }

    #[tokio::test]
    async fn a_stranger_and_what_is_for_another_count_for_nothing() {
        let (mut exchange, socket) = (exchange(), socket().await);
        exchange.known.insert(5);
        for (from, to) in [("127.0.0.1:7003", ME), (OTHER, OTHER), (ME, ME)] {
            let bytes = datagram(from, to, (9, exchange.boot, 1));
            exchange.read(&bytes, &socket);
        }
        assert_eq!(counted(&exchange), [("replayed", 1), ("stranger", 2)]);
        exchange.read(&[0; DATAGRAM_BYTES_MAX + 1], &socket);
        exchange.read(b"tp", &socket);
        assert_eq!(counted(&exchange)[0], ("malformed", 2));
        assert_eq!(exchange.told.of(5), None);
    }
}
