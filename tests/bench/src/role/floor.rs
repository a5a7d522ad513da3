//! The floor: forwards bytes between a client and a backend of its own, and looks at none of them.
//!
//! What a balancer costs above it is what HTTP, the decision and the sharing of connections cost.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
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

pub(crate) fn run(port: u16, backends: u16, count: u16) -> io::Result<()> {
    super::raise_file_limit()?;
    let listener = listen(port)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER, false)?;
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
                    }
                }
                continue;
            }
            let Ok((client, _)) = listener.accept() else {
                continue;
            };
            let Ok(backend) = TcpStream::connect((Ipv4Addr::LOCALHOST, backends + turn % count)) else {
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
                poll.add(&stream, token, false)?;
                sides[token] = Some(Side {
                    stream,
                    waiting: Vec::new(),
                });
            }
        }
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
