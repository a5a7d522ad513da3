//! What requests borrow from their worker: buffers, desks, the date, and what serves those of HTTP/2.
//!
//! Owns their reuse, so that a request allocates none and an idle connection holds none.

use std::{
    cell::{Cell, RefCell},
    time::SystemTime,
};

use http::HeaderValue;

use tokio::net::TcpStream;

use super::{
    client::Encrypted,
    http2::Server,
    lane::Desk,
    plain::{INPUT_MAX, Pipe},
    spares::Spares,
};
use crate::http1::{Head, Known};

/// For bytes that are passed on as they are: more a call, fewer calls.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
/// Only tunnels whose one side is slower than the other hold any.
const BLOCKS_MAX: usize = 64;
/// Buffers for the pieces of long bodies that are kept, 2 MiB of them.
const WIDE_MAX: usize = 16;
/// What serves requests of HTTP/2, which is some KiB each.
const SERVERS_MAX: usize = 64;
/// Heads of requests that the library has read, and how large one that is kept may be.
const HEADS_MAX: usize = 64;
const HEAD_BYTES: usize = 4 << 10;
/// Connections that wait for a next request at their desks, each with some KiB.
const STAYING_MAX: usize = 128;
/// The date is looked up again after this time.
const DATE_EVERY_MS: u64 = 500;

/// A worker's spare buffers.
pub(super) struct Scratch {
    /// Of plain connections, and of those with TLS.
    pub(super) desks: (Spares<Desk<TcpStream>>, Spares<Desk<Encrypted>>),
    pipes: Spares<Pipe>,
    blocks: Spares<Vec<u8>>,
    wide: Spares<Vec<u8>>,
    servers: Spares<Server>,
    heads: Spares<Head>,
    /// Of backends' responses.
    pub(super) known: RefCell<Known>,
    staying: Cell<usize>,
    date: Cell<Date>,
    date_value: RefCell<Option<(u64, HeaderValue)>>,
    dated_ms: Cell<u64>,
}

/// Given back when it is dropped.
pub(super) struct Staying<'a>(&'a Cell<usize>);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            desks: Default::default(),
            pipes: Spares::default(),
            blocks: Spares::of(BLOCKS_MAX),
            wide: Spares::of(WIDE_MAX),
            servers: Spares::of(SERVERS_MAX),
            heads: Spares::of(HEADS_MAX),
            known: RefCell::default(),
            staying: Cell::new(0),
            date: Cell::default(),
            date_value: RefCell::default(),
            dated_ms: Cell::new(0),
        }
    }
}

impl Scratch {
    /// Lets go of what requests have had no need of since the last call.
    pub(super) fn sweep(&self) {
        self.desks.0.sweep();
        self.desks.1.sweep();
        self.pipes.sweep();
        self.blocks.sweep();
        self.wide.sweep();
        self.servers.sweep();
        self.heads.sweep();
    }

    /// A place at a desk while there is nothing to do, if one is left.
    #[inline]
    pub(super) fn stay(&self) -> Option<Staying<'_>> {
        let staying = self.staying.get();
        (staying < STAYING_MAX).then(|| {
            self.staying.set(staying + 1);
            Staying(&self.staying)
        })
    }

    #[inline]
    pub(super) fn take_pipe(&self) -> Pipe {
        self.pipes.take().unwrap_or_default()
    }

    pub(super) fn put_pipe(&self, mut pipe: Pipe) {
        if let Some(wide) = pipe.shrink() {
            self.put_wide(wide);
        }
        if !pipe.is_hollow() {
            self.pipes.put(pipe);
        }
    }

    /// For the pieces of a long body.
    pub(super) fn take_wide(&self) -> Vec<u8> {
        self.wide.take().unwrap_or_else(|| vec![0; INPUT_MAX])
    }

    /// Takes one back, if it is of that size.
    pub(super) fn put_wide(&self, wide: Vec<u8>) {
        if wide.len() == INPUT_MAX {
            self.wide.put(wide);
        }
    }

    #[inline]
    pub(super) fn take_block(&self) -> Vec<u8> {
        self.blocks.take().unwrap_or_else(|| vec![0; BLOCK_BYTES])
    }

    /// Takes one back, if it is of that size.
    #[inline]
    pub(super) fn put_block(&self, block: Vec<u8>) {
        if block.len() == BLOCK_BYTES {
            self.blocks.put(block);
        }
    }

    pub(super) fn take_server(&self) -> Server {
        self.servers.take().unwrap_or_else(Server::new)
    }

    /// Takes one back that is done with its request.
    pub(super) fn put_server(&self, server: Server) {
        self.servers.put(server);
    }

    /// One whose parts are somebody else's.
    pub(super) fn take_head(&self) -> Head {
        self.heads.take().unwrap_or_default()
    }

    pub(super) fn put_head(&self, head: Head) {
        if head.capacity() <= HEAD_BYTES {
            self.heads.put(head);
        }
    }

    /// The date as HTTP writes it, at most a second old.
    #[inline]
    pub(super) fn date(&self, now_ms: u64) -> Date {
        if now_ms >= self.dated_ms.get() {
            self.dated_ms.set(now_ms + DATE_EVERY_MS);
            self.date.set(Date::now());
        }
        self.date.get()
    }

    /// The same as a field's value, which costs nothing to copy.
    #[inline]
    pub(super) fn date_value(&self, now_ms: u64) -> HeaderValue {
        let date = self.date(now_ms);
        let dated_ms = self.dated_ms.get();
        let mut kept = self.date_value.borrow_mut();
        match &*kept {
            Some((at_ms, value)) if *at_ms == dated_ms => value.clone(),
            _ => {
                let value = HeaderValue::from_bytes(date.as_bytes()).unwrap_or(HeaderValue::from_static(""));
                *kept = Some((dated_ms, value.clone()));
                value
            }
        }
    }
}

/// A date as HTTP writes it (RFC 9110, 5.6.7).
#[derive(Clone, Copy, Default)]
pub(super) struct Date([u8; 29]);

impl Date {
    fn now() -> Self {
        let text = httpdate::fmt_http_date(SystemTime::now());
        Self(text.as_bytes().try_into().unwrap_or([b' '; 29]))
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
