//! What the new process got, and what it says to the old one.
//!
//! Invariant: until [`Inheritance::confirm`] the old process serves, and goes on if this one says no or dies.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::channel::{Channel, Word};
use crate::{config::Backend, pool::Standing};

/// For the old process to say what it has, and later to stop accepting. It does both at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listening sockets that another process has opened, by their keys.
pub type Sockets = BTreeMap<String, Vec<TcpListener>>;

/// What a process begins with that it did not make.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// From the process before, by their keys.
    pub sockets: Sockets,
    /// From the service manager: they are known by their addresses.
    pub activated: Vec<TcpListener>,
    /// What was known of each pool's backends.
    pub standings: BTreeMap<String, Vec<Standing>>,
    /// What each pool's source named last.
    pub found: BTreeMap<String, Vec<Backend>>,
    /// The process before is a member of a cluster.
    is_member: bool,
    predecessor: Option<Channel>,
}

impl Inheritance {
    /// From the service manager.
    pub fn of_activated(activated: Vec<TcpListener>) -> Self {
        Self {
            activated,
            ..Self::default()
        }
    }

    /// From the process at the other end. Blocks until it has said everything.
    ///
    /// # Errors
    /// When it says something else, or nothing.
    pub fn hear(stream: UnixStream) -> io::Result<Self> {
        let mut channel = Channel::new(stream);
        channel.set_patience(PATIENCE)?;
        let mut heard = Self::default();
        loop {
            let (word, descriptors) = channel.hear()?;
            match word {
                Word::Sockets { keys } => {
                    for (key, descriptor) in keys.into_iter().zip(descriptors) {
                        heard.sockets.entry(key).or_default().push(descriptor.into());
                    }
                }
                Word::Standings { pool, standings } => drop(heard.standings.insert(pool, standings)),
                Word::Found { pool, backends } => drop(heard.found.insert(pool, backends)),
                Word::Member => heard.is_member = true,
                Word::All => break,
                Word::Ready
                | Word::Refused { .. }
                | Word::Yours
                | Word::Waits
                | Word::Place
                | Word::Unknown => {}
            }
        }
        heard.predecessor = Some(channel);
        Ok(heard)
    }

    /// Whether another process serves until this one says that it does.
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Whether the process before is a member of a cluster: its place has to be waited for.
    pub fn has_place(&self) -> bool {
        self.is_member && self.predecessor.is_some()
    }

    /// Tells the process before that this one could serve, and waits until that one is no member any more. Blocks, for as long as the
    /// other takes to hand over what it serves.
    ///
    /// # Errors
    /// When it has gone meanwhile: then it is no member either.
    pub fn wait_for_place(&mut self) -> io::Result<()> {
        let Some(channel) = &mut self.predecessor else {
            return Ok(());
        };
        channel.wait_for_ever()?;
        channel.say(&Word::Waits, &[])?;
        while channel.hear()?.0 != Word::Place {}
        channel.set_patience(PATIENCE)
    }

    /// Takes an admin listener's socket: the process before had it, or the service manager has opened this address.
    pub fn take_admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let kept = self.sockets.remove(super::ADMIN).unwrap_or_default();
        kept.into_iter()
            .find(|socket| is_at(socket, address))
            .or_else(|| self.take_activated(address).pop())
    }

    /// Takes the sockets that the service manager has opened at this address.
    pub fn take_activated(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let activated = std::mem::take(&mut self.activated);
        // Port 0 is none that a service manager opens, and would fit every one.
        let is_asked = |socket: &TcpListener| socket.local_addr().is_ok_and(|real| real == address);
        let (found, rest) = activated.into_iter().partition(is_asked);
        self.activated = rest;
        found
    }

    /// Tells the process before that this one does not serve. It goes on.
    pub fn refuse(&mut self, reason: &str) {
        if let Some(mut channel) = self.predecessor.take() {
            let reason = reason.to_owned();
            // A process that has gone needs no reason.
            let _ = channel.say(&Word::Refused { reason }, &[]);
        }
    }

    /// Tells the process before that this one serves, and waits until it accepts nothing more. Blocks.
    ///
    /// # Errors
    /// When it has gone meanwhile, and this process is the only one.
    pub fn confirm(&mut self) -> io::Result<()> {
        let Some(mut channel) = self.predecessor.take() else {
            return Ok(());
        };
        channel.say(&Word::Ready, &[])?;
        while channel.hear()?.0 != Word::Yours {}
        Ok(())
    }
}

/// Whether a socket listens there; with port 0, on any port of the address.
pub(crate) fn is_at(socket: &TcpListener, address: SocketAddr) -> bool {
    socket
        .local_addr()
        .is_ok_and(|real| real == address || (address.port() == 0 && real.ip() == address.ip()))
}
