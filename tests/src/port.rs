//! Ports that are a test's own for as long as it likes, whether somebody listens there or not.
//!
//! The system gives new listeners an odd port of the lower half of its range, one of some 7000: of 5600 of them, one gets
//! the port that another test has just given up and takes to be dead, and then hears what that one's balancer sends there
//! (measured on Linux 6.18). Here a socket stays bound and never listens: who connects is refused, nobody is given the
//! port by chance, and who asks for it by its number gets it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::{DEADLINE, wait_until};

/// A port of 127.0.0.1. Free again when this is dropped.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// One of the system's choice. Until somebody listens at it, it is dead.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn new() -> Self {
        let held = TcpSocket::new_v4().expect("a socket");
        // What lets others listen beside a socket that does not (socket(7)); all servers of this house set it, too.
        held.set_reuseaddr(true).expect("an option");
        held.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let address = held.local_addr().expect("an address");
        Self { address, _held: held }
    }

    /// The one at which a balancer listens now: nobody gets it when that has ended.
    ///
    /// # Panics
    /// When its listener does not let others have its port.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        let held = TcpSocket::new_v4().expect("a socket");
        // Its workers share the port, and so may whoever is of the same user.
        held.set_reuseaddr(true).expect("an option");
        held.set_reuseport(true).expect("an option");
        held.bind(address).expect("a port that is shared");
        Self { address, _held: held }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there. Waits for the end of who does so already: a task that is aborted ends at its next turn.
    ///
    /// # Panics
    /// When that does not end.
    pub async fn listen(&self) -> TcpListener {
        let mut listener = None;
        let mut listen = || {
            listener = std::net::TcpListener::bind(self.address).ok();
            listener.is_some()
        };
        wait_until("the port is free to listen at", DEADLINE, &mut listen).await;
        let listener = listener.expect("it was waited for");
        listener.set_nonblocking(true).expect("an option");
        TcpListener::from_std(listener).expect("a runtime")
    }
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn a_port_is_dead_while_nobody_listens_and_may_be_listened_at_again() {
        let port = Port::new();
        for _ in 0..2 {
            assert!(Client::try_connect(port.address()).await.is_err());
            let listener = port.listen().await;
            Client::connect(port.address()).await;
            drop(listener);
        }
        // Of a listener that shares its port, as those of a balancer do.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let port = Port::of(listener.local_addr().unwrap());
        Client::connect(port.address()).await;
        drop(listener);
        assert!(Client::try_connect(port.address()).await.is_err());
    }

    #[test]
    fn nobody_is_given_a_port_that_is_kept() {
        let port = Port::new();
        // Seven times as many as there are to be given.
        for _ in 0..50_000 {
            let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            assert_ne!(other.local_addr().unwrap(), port.address());
        }
    }
}
