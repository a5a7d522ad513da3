//! The three programs that a measurement is made of besides the balancers: load, backends, and the floor.
//!
//! Owns their epoll loop. Each is one thread, so that it can be pinned; none must know what is measured.

pub(crate) mod backend;
pub(crate) mod floor;
pub(crate) mod load;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use socket2::{Domain, Socket, Type};

/// Events that are taken from the kernel at once.
const EVENTS: usize = 512;

/// Readiness of many sockets.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Level-triggered: reading, and writing if asked for.
    pub(crate) fn add(&self, socket: &impl AsFd, token: usize, write: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, data(token), flags(true, write))?)
    }

    pub(crate) fn change(&self, socket: &impl AsFd, token: usize, read: bool, write: bool) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            socket,
            data(token),
            flags(read, write),
        )?)
    }

    /// Waits for at most this long, or for ever.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let spec = |timeout: Duration| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut timeout = timeout.map(spec);
        if timeout.is_some() {
            // epoll_wait counts in milliseconds, which is too coarse to be on time; ppoll in nanoseconds.
            let mut epoll = [PollFd::new(&self.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut epoll, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            timeout = Some(Timespec::default());
        }
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags; // the kernel's structure is packed
            let hung = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Ready {
                token: event.data.u64() as usize,
                read: hung || flags.contains(epoll::EventFlags::IN),
                write: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }

    /// Whether more events wait than were taken.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() == EVENTS
    }
}

fn data(token: usize) -> epoll::EventData {
    epoll::EventData::new_u64(token as u64)
}

fn flags(read: bool, write: bool) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, read);
    flags.set(epoll::EventFlags::OUT, write);
    flags
}

/// Listens on the loopback, with a backlog that a burst of connections fits in.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Begins to connect to a port of the loopback.
pub(crate) fn dial(port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}

/// Room for ten thousand connections on both sides, or as many files as the kernel lets a process have.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let both = |files| rustix::process::Rlimit {
        current: files,
        maximum: files,
    };
    let wanted = both(limit.maximum.map(|files| files.max(65_536)));
    // More than the maximum is for the privileged only.
    rustix::process::setrlimit(resource, wanted)
        .or_else(|_| rustix::process::setrlimit(resource, both(limit.maximum)))?;
    Ok(())
}

pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
