//! The floor by splice: bytes go from socket to socket through a pipe, and never into the process.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

use super::{LISTENER, PIECE, Place, Poll, Ready};

/// One end of a pair; the other end's token differs in the lowest bit.
struct Side {
    stream: TcpStream,
    /// What this side sent, on its way to the other: where it comes out, and where it goes in.
    pipe: (OwnedFd, OwnedFd),
    /// Bytes in the pipe.
    waiting: usize,
}

pub(super) fn run(place: Place, listener: &TcpListener) -> io::Result<()> {
    let Place { backends, count, .. } = place;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, false)?;
    let mut sides: Vec<Option<Side>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let (mut turn, mut ready) = (0, Vec::new());
    loop {
        poll.wait(None, &mut ready)?;
        for event in ready.drain(..) {
            if event.token != LISTENER {
                if serve(&poll, &mut sides, event).is_err() {
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
                let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                fcntl_setpipe_size(&pipe.1, PIECE)?;
                sides[token] = Some(Side {
                    stream,
                    pipe,
                    waiting: 0,
                });
            }
        }
    }
}

/// An error means that the pair is over.
fn serve(poll: &Poll, sides: &mut [Option<Side>], event: Ready) -> io::Result<()> {
    if event.write {
        // What the other side sent could not go on before.
        go_on(poll, sides, event.token ^ 1, true)?;
    }
    let Some(side) = &mut sides[event.token] else {
        return Ok(());
    };
    if !event.read || side.waiting > 0 {
        return Ok(());
    }
    match splice(&side.stream, None, &side.pipe.1, None, PIECE, flags()) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => side.waiting = count,
        Err(Errno::AGAIN) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    go_on(poll, sides, event.token, false)
}

/// Sends what is in the pipe of a side to the other one, and waits for room there if it has to.
fn go_on(poll: &Poll, sides: &mut [Option<Side>], token: usize, was_stuck: bool) -> io::Result<()> {
    let other = token ^ 1;
    let (low, high) = sides.split_at_mut(token.max(other));
    let (first, second) = (&mut low[token.min(other)], &mut high[0]);
    let (from, to) = if token < other {
        (first, second)
    } else {
        (second, first)
    };
    // The pair may have ended earlier in this batch of events.
    let (Some(from), Some(to)) = (from, to) else {
        return Ok(());
    };
    if from.waiting == 0 {
        return Ok(());
    }
    match splice(&from.pipe.0, None, &to.stream, None, from.waiting, flags()) {
        Ok(count) => from.waiting -= count,
        Err(Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    let is_stuck = from.waiting > 0;
    if !is_stuck && !was_stuck {
        return Ok(());
    }
    poll.change(&to.stream, other, to.waiting == 0, is_stuck)?;
    poll.change(&from.stream, token, !is_stuck, to.waiting > 0)
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}
