//! The floor by io_uring: one ring, a receive or a send under way for each direction, all that came of them taken at once.
//!
//! Owns the buffers that the kernel reads into and writes from.
//!
//! Invariant: a pair is dropped only when nothing of it is under way, since the kernel has its buffers until then.
#![allow(
    unsafe_code,
    reason = "an entry of the ring has pointers, and the crate cannot know how long they are good"
)]

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};

use super::{PIECE, Place};

const ENTRIES: u32 = 4096;
/// What an entry is for, in the lowest bits of what the kernel gives back; the rest is the side's token.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const ACCEPT: u64 = 2;
const KINDS: u64 = 4;

/// One end of a pair; the other end's token differs in the lowest bit.
struct Side {
    stream: TcpStream,
    /// What this side sent, on its way to the other.
    buffer: Box<[u8]>,
    filled: usize,
    sent: usize,
    is_under_way: bool,
    has_ended: bool,
}

struct Floor {
    ring: IoUring,
    listener: TcpListener,
    sides: Vec<Option<Side>>,
    free: Vec<usize>,
    turn: u16,
}

pub(super) fn run(place: Place, listener: TcpListener) -> io::Result<()> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun();
    let mut floor = Floor {
        ring: builder.build(ENTRIES)?,
        listener,
        sides: Vec::new(),
        free: Vec::new(),
        turn: 0,
    };
    floor.accept()?;
    let mut done: Vec<cqueue::Entry> = Vec::new();
    loop {
        floor.ring.submit_and_wait(1)?;
        done.extend(floor.ring.completion());
        for entry in done.drain(..) {
            floor.go_on(place, &entry)?;
        }
    }
}

impl Floor {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: entries point into buffers of sides, which stay where they are while something is under way.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.push(&accept.user_data(ACCEPT))
    }

    fn go_on(&mut self, place: Place, entry: &cqueue::Entry) -> io::Result<()> {
        let (kind, token) = (entry.user_data() % KINDS, (entry.user_data() / KINDS) as usize);
        if kind == ACCEPT {
            if !cqueue::more(entry.flags()) {
                self.accept()?;
            }
            if entry.result() >= 0 {
                // SAFETY: the kernel has just made it for us.
                let client = unsafe { TcpStream::from_raw_fd(entry.result()) };
                return self.begin(place, client);
            }
            return Ok(());
        }
        let Some(side) = &mut self.sides[token] else {
            return Ok(());
        };
        side.is_under_way = false;
        let count = usize::try_from(entry.result()).unwrap_or(0);
        if count == 0 || side.has_ended {
            return self.end(token);
        }
        if kind == RECEIVE {
            (side.filled, side.sent) = (count, 0);
            return self.send(token);
        }
        side.sent += count;
        if side.sent < side.filled {
            self.send(token)
        } else {
            self.receive(token)
        }
    }

    fn begin(&mut self, place: Place, client: TcpStream) -> io::Result<()> {
        let port = place.backends + self.turn % place.count;
        let Ok(backend) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
            return Ok(());
        };
        self.turn = (self.turn + 1) % place.count;
        let pair = self.free.pop().unwrap_or_else(|| {
            self.sides.extend([None, None]);
            self.sides.len() - 2
        });
        for (token, stream) in [(pair, client), (pair | 1, backend)] {
            stream.set_nodelay(true)?;
            self.sides[token] = Some(Side {
                stream,
                buffer: vec![0; PIECE].into_boxed_slice(),
                filled: 0,
                sent: 0,
                is_under_way: false,
                has_ended: false,
            });
            self.receive(token)?;
        }
        Ok(())
    }

    fn receive(&mut self, token: usize) -> io::Result<()> {
        let Some(side) = &mut self.sides[token] else {
            return Ok(());
        };
        side.is_under_way = true;
        let (socket, into) = (Fd(side.stream.as_raw_fd()), side.buffer.as_mut_ptr());
        let entry = opcode::Recv::new(socket, into, PIECE as u32).build();
        self.push(&entry.user_data(token as u64 * KINDS + RECEIVE))
    }

    fn send(&mut self, token: usize) -> io::Result<()> {
        let Some(other) = &self.sides[token ^ 1] else {
            return Ok(());
        };
        let socket = Fd(other.stream.as_raw_fd());
        let Some(side) = &mut self.sides[token] else {
            return Ok(());
        };
        side.is_under_way = true;
        let rest = &side.buffer[side.sent..side.filled];
        let entry = opcode::Send::new(socket, rest.as_ptr(), rest.len() as u32).build();
        self.push(&entry.user_data(token as u64 * KINDS + SEND))
    }

    /// A side has ended: so does the pair, once nothing of it is under way.
    fn end(&mut self, token: usize) -> io::Result<()> {
        let pair = token & !1;
        let mut is_over = true;
        for side in [pair, pair | 1] {
            if let Some(side) = &mut self.sides[side] {
                if !side.has_ended {
                    side.has_ended = true;
                    // What is under way comes to an end by it. It may have been shut down by the other side.
                    drop(side.stream.shutdown(Shutdown::Both));
                }
                is_over &= !side.is_under_way;
            }
        }
        if is_over && self.sides[pair].take().is_some() {
            self.sides[pair | 1] = None;
            self.free.push(pair);
        }
        Ok(())
    }
}
