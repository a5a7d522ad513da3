//! Listening sockets: opened here, or by another process.
//!
//! Owns how many each worker gets, and the copies that the next process may take over.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
};

use super::{StartError, prepare::Service};
use crate::{
    config::{self, Config},
    handover::{Inheritance, Sockets as Inherited, is_at, listener_key},
};

/// Connections that may wait to be accepted, for each worker.
const BACKLOG: i32 = 4096;

/// New sockets of the listeners that are new, by their keys: for each worker those that it accepts from.
pub(super) type Sockets = BTreeMap<String, Vec<Vec<TcpListener>>>;
/// Copies of all sockets in service, by their listeners' keys.
pub(super) type Held = BTreeMap<String, Arc<Vec<TcpListener>>>;

/// What another process has opened, by the keys of the listeners that it is for.
pub(super) fn inherited(config: &Config, inheritance: &mut Inheritance) -> Held {
    let take = |listener: &config::Listener| {
        let kept = inheritance.sockets.remove(&listener_key(&listener.key()));
        let kept = kept.filter(|sockets| sockets.iter().all(|socket| is_at(socket, listener.listen)));
        let found = kept.unwrap_or_else(|| inheritance.take_activated(listener.listen));
        (!found.is_empty()).then(|| (listener.key(), Arc::new(found)))
    };
    let held: Held = config.listeners.iter().filter_map(take).collect();
    for socket in std::mem::take(&mut inheritance.activated) {
        let address = socket.local_addr().map(|address| address.to_string());
        let address = address.unwrap_or_default();
        tracing::warn!(
            address,
            "the service manager has opened a socket that no listener names; it is closed"
        );
    }
    inheritance.sockets = Inherited::new();
    held
}

impl Service {
    /// Sockets for the listeners that are new, and copies of all.
    pub(super) fn sockets(&self, config: &Config, workers: usize) -> Result<(Sockets, Held), StartError> {
        match self.is_listening {
            true => self.open(config, workers, |key| self.has_listener(key)),
            // What another process has left waits.
            false => Ok((Sockets::new(), self.held.clone())),
        }
    }

    /// The same, where `is_open` says which listeners are not new.
    pub(super) fn open(
        &self,
        config: &Config,
        workers: usize,
        is_open: impl Fn(&str) -> bool,
    ) -> Result<(Sockets, Held), StartError> {
        let mut sockets = Sockets::new();
        let mut held = Held::new();
        for listener in &config.listeners {
            let key = listener.key();
            let failed = |error| cannot_listen(listener, error);
            let kept = self.held.get(&key).cloned();
            if let Some(kept) = kept.clone().filter(|_| is_open(&key)) {
                held.insert(key, kept);
                continue;
            }
            let opened = match kept {
                Some(kept) => spread(&kept, workers),
                None => bind_all(listener.listen, presence(config, listener.listen), workers),
            };
            let opened = opened.map_err(failed)?;
            let copies = opened.iter().flatten().map(TcpListener::try_clone);
            held.insert(
                key.clone(),
                Arc::new(copies.collect::<Result<_, _>>().map_err(failed)?),
            );
            sockets.insert(key, opened);
        }
        Ok((sockets, held))
    }

    /// Whether the addresses of listeners can be listened on that no other process has left.
    pub(super) fn check_addresses(&self) -> Result<(), StartError> {
        let config = &self.config;
        let is_new = |listener: &&config::Listener| !self.held.contains_key(&listener.key());
        for listener in config.listeners.iter().filter(is_new) {
            let bound = bind_all(listener.listen, presence(config, listener.listen), 1);
            bound.map_err(|error| cannot_listen(listener, error))?;
        }
        Ok(())
    }

    /// Copies of all sockets, for another process.
    pub(super) fn copies(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let all = self
            .held
            .iter()
            .flat_map(|(key, sockets)| sockets.iter().map(move |socket| (key, socket)));
        all.map(|(key, socket)| Ok((listener_key(key), socket.try_clone()?.into())))
            .collect()
    }
}

fn cannot_listen(listener: &config::Listener, error: std::io::Error) -> StartError {
    StartError::Bind {
        name: format!("listener.{}", listener.name),
        address: listener.listen,
        error,
    }
}

/// Spreads sockets that another process has opened over the workers. Each is accepted from, since connections wait in
/// each; a worker without one gets one of its own, or shares another's where the port is not to be shared.
fn spread(opened: &[TcpListener], workers: usize) -> std::io::Result<Vec<Vec<TcpListener>>> {
    let mut spread: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, socket) in opened.iter().enumerate() {
        let own = socket2::SockRef::from(socket);
        own.set_nonblocking(true)?;
        own.listen(BACKLOG)?;
        spread[index % workers].push(socket.try_clone()?);
    }
    let Some(first) = opened.first() else {
        return Ok(spread);
    };
    let (address, is_shared) = (first.local_addr()?, socket2::SockRef::from(first).reuse_port()?);
    let presence = presence_of(first, address);
    for (index, empty) in spread.iter_mut().enumerate().skip(opened.len()) {
        let more = match is_shared {
            true => bind(address, presence, Sharing::Workers),
            false => opened[index % opened.len()].try_clone(),
        };
        empty.push(more?);
    }
    Ok(spread)
}

/// A socket of its own for each worker: the kernel spreads connections over them, without a lock.
fn bind_all(
    address: SocketAddr,
    presence: Presence,
    workers: usize,
) -> std::io::Result<Vec<Vec<TcpListener>>> {
    // Shared ports are shared with every process of the same user. A first try without sharing finds out whether
    // another one, most likely a second trimtab started by mistake, has this one. A port of the system's choice is
    // nobody else's, and would be anybody's if it were given up for a moment.
    if address.port() != 0 {
        drop(bind(address, presence, Sharing::Alone)?);
    }
    let first = bind(address, presence, Sharing::Workers)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| Ok(vec![bind(address, presence, Sharing::Workers)?]));
    std::iter::once(Ok(vec![first])).chain(others).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Workers,
}

/// Whether this machine has an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Always,
    /// The kernel lets a socket wait for it.
    WhileActive,
}

fn presence(config: &Config, address: SocketAddr) -> Presence {
    let cluster = config.cluster.as_ref();
    match cluster.is_some_and(|cluster| cluster.comes_and_goes(address.ip())) {
        true => Presence::WhileActive,
        false => Presence::Always,
    }
}

fn presence_of(socket: &TcpListener, address: SocketAddr) -> Presence {
    let socket = socket2::SockRef::from(socket);
    let is_free = match address {
        SocketAddr::V4(_) => socket.freebind_v4(),
        SocketAddr::V6(_) => socket.freebind_v6(),
    };
    // A kernel that does not know the option has not set it.
    match is_free {
        Ok(true) => Presence::WhileActive,
        Ok(false) | Err(_) => Presence::Always,
    }
}

/// Has the kernel drop connections that begin, or take them again. Those that have begun go on; clients of the others try again
/// after a second.
pub(super) fn welcome(sockets: &[TcpListener], newcomers: Newcomers) -> std::io::Result<()> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Of a TCP header, RFC 9293, 3.1.
    const TCP_FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let no_first_packets = [
        socket2::SockFilter::new(LOAD_BYTE, 0, 0, TCP_FLAGS),
        socket2::SockFilter::new(AND, 0, 0, SYN | ACK),
        socket2::SockFilter::new(IF_EQUAL, 0, 1, SYN),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    sockets
        .iter()
        .map(socket2::SockRef::from)
        .try_for_each(|socket| match newcomers {
            Newcomers::TurnedAway => socket.attach_filter(&no_first_packets),
            Newcomers::Welcome => match socket.detach_filter() {
                // Nobody was turned away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                result => result,
            },
        })
}

/// What becomes of connections that begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomers {
    TurnedAway,
    Welcome,
}

fn bind(address: SocketAddr, presence: Presence, sharing: Sharing) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Workers)?;
    socket.set_nonblocking(true)?;
    match (presence, address) {
        (Presence::Always, _) => {}
        (Presence::WhileActive, SocketAddr::V4(_)) => socket.set_freebind_v4(true)?,
        (Presence::WhileActive, SocketAddr::V6(_)) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    if sharing == Sharing::Workers {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spread: &[Vec<TcpListener>]) -> Vec<usize> {
        spread.iter().map(Vec::len).collect()
    }

    fn opened(count: usize) -> Vec<TcpListener> {
        let address = "127.0.0.1:0".parse().unwrap();
        bind_all(address, Presence::Always, count)
            .unwrap()
            .into_iter()
            .flatten()
            .collect()
    }

    #[tokio::test]
    async fn every_socket_has_a_worker_and_every_worker_a_socket() {
        assert_eq!(counts(&spread(&opened(2), 2).unwrap()), [1, 1]);
        assert_eq!(counts(&spread(&opened(3), 2).unwrap()), [2, 1]);
        let more = spread(&opened(1), 3).unwrap();
        assert_eq!(counts(&more), [1, 1, 1]);
        let addresses: Vec<_> = more
            .iter()
            .flatten()
            .map(|socket| socket.local_addr().unwrap())
            .collect();
        assert!(addresses.iter().all(|address| *address == addresses[0]));
    }

    #[tokio::test]
    async fn a_port_that_is_not_to_be_shared_has_one_socket_for_all() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let spread = spread(std::slice::from_ref(&one), 2).unwrap();
        assert_eq!(counts(&spread), [1, 1]);
        assert_eq!(spread[1][0].local_addr().unwrap(), one.local_addr().unwrap());
    }
}
