//! The floor: forwards bytes between a client and a backend of its own, and looks at none of them.
//!
//! What a balancer costs above it is what HTTP, the decision and the sharing of connections cost. Other ways to forward are
//! tried here first: what the floor does not gain, no balancer can.

mod shared;
mod splice;
mod spread;
mod uring;

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use super::{Poll, Ready, listen, would_block};

const PIECE: usize = 65_536;
const LISTENER: usize = usize::MAX;

/// One end of a pair; the other end's token differs in the lowest bit.
struct Side {
    stream: TcpStream,
    /// What the socket would not take yet.
    waiting: Vec<u8>,
}

/// How it forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// Readiness by epoll, and a read and a write for it.
    Epoll,
    /// The same, and all connections that wait are accepted at once.
    Batch,
    /// The same on sockets with `SO_BUSY_POLL`.
    Busy,
    /// Readiness by epoll, and bytes that stay in the kernel.
    Splice,
    /// As the first, and each request goes to another backend.
    Spread,
    /// No readiness: receives and sends by io_uring.
    Uring,
    /// As the first, by two workers between whom the kernel deals connections out.
    Two,
    /// The same, and a program in the kernel gives each to the worker that has fewer.
    Steered,
}

/// Where it listens, and the first of how many backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) backends: u16,
    pub(crate) count: u16,
}

/// Connections that are accepted at once.
const BATCH: usize = 64;
/// Microseconds that a read may look for packets itself.
static BUSY_US: u32 = 50;

pub(crate) fn run(place: Place, way: Way) -> io::Result<()> {
    super::raise_file_limit()?;
    on(place, way, way.listen(place.port)?)
}

impl Way {
    fn listen(self, port: u16) -> io::Result<TcpListener> {
        match self {
            Self::Two | Self::Steered => shared::listen(port),
            _ => listen(port),
        }
    }
}

fn on(place: Place, way: Way, listener: TcpListener) -> io::Result<()> {
    match way {
        Way::Splice => splice::run(place, &listener),
        Way::Spread => spread::run(place, &listener),
        Way::Uring => uring::run(place, listener),
        Way::Two | Way::Steered => shared::run(place, way, listener),
        Way::Epoll | Way::Batch | Way::Busy => forward(place, way, &listener, &|| {}),
    }
}

/// Whoever wants to know is told of each connection that ended.
fn forward(place: Place, way: Way, listener: &TcpListener, ended: &dyn Fn()) -> io::Result<()> {
    let Place { backends, count, .. } = place;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, false)?;
    let mut sides: Vec<Option<Side>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let (mut turn, mut ready, mut piece) = (0, Vec::new(), vec![0; PIECE]);
    loop {
        poll.wait(None, &mut ready)?;
        for event in ready.drain(..) {
            if event.token != LISTENER {
                if serve(&poll, &mut sides, event, &mut piece).is_err() {
                    let pair = event.token & !1;
                    if sides[pair].take().is_some() {
                        sides[pair | 1] = None;
                        free.push(pair);
                        ended();
                    }
                }
                continue;
            }
            let most = if way == Way::Batch { BATCH } else { 1 };
            for _ in 0..most {
                let Ok((client, _)) = listener.accept() else {
                    break;
                };
                let Ok(backend) = TcpStream::connect((Ipv4Addr::LOCALHOST, backends + turn % count)) else {
                    ended();
                    continue;
                };
                turn = (turn + 1) % count;
                let pair = free.pop().unwrap_or_else(|| {
                    sides.extend([None, None]);
                    sides.len() - 2
                });
                for (token, stream) in [(pair, client), (pair | 1, backend)] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    if way == Way::Busy {
                        busy_poll(&stream)?;
                    }
                    poll.add(&stream, token, false)?;
                    sides[token] = Some(Side {
                        stream,
                        waiting: Vec::new(),
                    });
                }
            }
        }
    }
}

/// No crate here has this option.
#[allow(
    unsafe_code,
    reason = "an option of a socket that neither socket2 nor rustix knows"
)]
fn busy_poll(stream: &TcpStream) -> io::Result<()> {
    // SAFETY: the option is a number, which lives as long as the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BUSY_POLL,
            (&raw const BUSY_US).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An error means that the pair is over.
fn serve(poll: &Poll, sides: &mut [Option<Side>], event: Ready, piece: &mut [u8]) -> io::Result<()> {
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let other = event.token ^ 1;
    let (low, high) = sides.split_at_mut(event.token.max(other));
    let (first, second) = (&mut low[event.token.min(other)], &mut high[0]);
    let (this, that) = if event.token < other {
        (first, second)
    } else {
        (second, first)
    };
    // The pair may have ended earlier in this batch of events.
    let (Some(this), Some(that)) = (this, that) else {
        return Ok(());
    };
    if event.write && !this.waiting.is_empty() {
        match this.stream.write(&this.waiting) {
            Ok(sent) => drop(this.waiting.drain(..sent)),
            Err(error) if would_block(&error) => {}
            Err(error) => return Err(error),
        }
        if this.waiting.is_empty() {
            poll.change(&this.stream, event.token, that.waiting.is_empty(), false)?;
            poll.change(&that.stream, other, true, !that.waiting.is_empty())?;
        }
    }
    if event.read && that.waiting.is_empty() {
        let read = match this.stream.read(piece) {
            Ok(0) => return Err(ended()),
            Ok(read) => read,
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let sent = match that.stream.write(&piece[..read]) {
            Ok(sent) => sent,
            Err(error) if would_block(&error) => 0,
            Err(error) => return Err(error),
        };
        if sent < read {
            that.waiting.extend_from_slice(&piece[sent..read]);
            poll.change(&that.stream, other, this.waiting.is_empty(), true)?;
            poll.change(&this.stream, event.token, false, !this.waiting.is_empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
