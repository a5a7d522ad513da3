//! Who may come in: places on a listener, and the idle connections that make room for others.
//!
//! Owns the limit of a listener's connections, and the share of open files that clients may not take: backends, files and
//! the admin listener need some too. It must not know how a connection ends.
//!
//! Invariant: a connection that is let in holds a [`Place`] until it is over. Limits hold over all workers within one
//! connection for each: they read each other's counters and wait for nobody.

use std::{
    cell::{Cell, RefCell},
    os::fd::AsRawFd,
    rc::Rc,
};

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpStream;

use super::{accept::ListenerState, client::Idleness, worker::WorkerState};

/// Idle connections that are remembered, so that a flood does not have all connections looked at for each of its own.
const REMEMBERED: usize = 64;
/// For so long nobody looks again where nothing was idle.
const BARREN_MS: u64 = 10;
/// Of the files that may be open, so much stays for other things than clients: one in so many, and not less than this.
const RESERVED_PART: u64 = 8;
const RESERVED_MIN: u64 = 32;
/// Between two lines in the log about the same trouble.
const COMPLAIN_EVERY_MS: u64 = 10_000;

/// Why a connection cannot come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The listener has as many as it may, none of them idle.
    Listener,
    /// The process has nearly as many files open as it may. More tries would be of no use before some are closed.
    Files,
}

/// What a worker knows about room in the process.
pub(super) struct Room {
    /// The first number that no client's socket should have. Systems give the lowest free one, so what has it is about
    /// as many as are open.
    files_max: u64,
    idle: Idle,
    complained_ms: Cell<u64>,
}

impl Room {
    pub(super) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let reserved = (files / RESERVED_PART).max(RESERVED_MIN).min(files / 2);
        Self {
            files_max: files - reserved,
            idle: Idle::default(),
            complained_ms: Cell::new(0),
        }
    }

    /// The socket of a newcomer, when others have had their turn: a worker with nothing but newcomers sees no connection
    /// end. Where clients have all the files that they may have, one that is idle is closed for it.
    pub(super) async fn settle(&self, worker: &WorkerState, stream: TcpStream) -> TcpStream {
        tokio::task::yield_now().await;
        let stream = self.lower(stream);
        // What is idle is judged by the clock, which may stand still for a while in a worker that has nothing else to do.
        worker.tick();
        if !self.is_of_others(&stream) || !self.make(worker) {
            return stream;
        }
        // What was closed has its turn to end.
        tokio::task::yield_now().await;
        self.lower(stream)
    }

    /// With the lowest number that is free, if that may be a client's. So no client keeps a number that it should not
    /// have, and numbers go on telling how many are open.
    fn lower(&self, stream: TcpStream) -> TcpStream {
        if !self.is_of_others(&stream) {
            return stream;
        }
        match rustix::io::fcntl_dupfd_cloexec(&stream, 0) {
            Ok(lower) if !self.is_of_others(&lower) => TcpStream::from_std(lower.into()).unwrap_or(stream),
            _ => stream,
        }
    }

    /// Closes what has been idle for longest, whoever's it is. False if nothing is.
    pub(super) fn make(&self, worker: &WorkerState) -> bool {
        self.idle.close_longest(worker, None)
    }

    /// Whether to write a line about it: now and then.
    pub(super) fn may_complain(&self, now_ms: u64) -> bool {
        let last = self.complained_ms.get();
        let may = last == 0 || now_ms >= last + COMPLAIN_EVERY_MS;
        if may {
            self.complained_ms.set(now_ms);
        }
        may
    }

    /// Whether a client's socket has a number that it should not have.
    fn is_of_others(&self, socket: &impl AsRawFd) -> bool {
        u64::try_from(socket.as_raw_fd()).is_ok_and(|number| number >= self.files_max)
    }
}

/// A connection's place on its listener.
pub(super) struct Place {
    worker: Rc<WorkerState>,
    listener: Rc<ListenerState>,
}

impl Place {
    /// Whether there may be no place for a newcomer, so that it has to be [settled](Room::settle) first.
    pub(super) fn is_scarce(worker: &WorkerState, listener: &ListenerState, stream: &TcpStream) -> bool {
        worker.room.is_of_others(stream) || listener.is_full()
    }

    /// A place for a new connection, which an idle one may have to give up.
    pub(super) fn take(
        worker: &Rc<WorkerState>,
        listener: &Rc<ListenerState>,
        stream: &TcpStream,
    ) -> Result<Self, Full> {
        // What is idle is judged by the clock, which may stand still for a while in a worker that has nothing else to do.
        worker.tick();
        let counters = listener.counters.of(worker.id);
        let refused = |why| {
            counters.count(|counters| &counters.connections_refused);
            if worker.room.may_complain(worker.coarse_ms()) {
                let listener = &listener.rules().config.name;
                tracing::warn!(
                    listener,
                    ?why,
                    "connections are refused: no room, and none is idle"
                );
            }
            why
        };
        if worker.room.is_of_others(stream) {
            return Err(refused(Full::Files));
        }
        if listener.is_full() && !listener.idle.close_longest(worker, Some(listener)) {
            return Err(refused(Full::Listener));
        }
        counters.count(|counters| &counters.connections);
        Ok(Self {
            worker: worker.clone(),
            listener: listener.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counters = self.listener.counters.of(self.worker.id);
        counters.count(|counters| &counters.connections_closed);
    }
}

/// The connections that have been idle for longest, as they were when they were looked for.
#[derive(Default)]
pub(super) struct Idle {
    /// The last one goes first.
    found: RefCell<Vec<(Idleness, u64)>>,
    barren_ms: Cell<u64>,
}

impl Idle {
    /// Closes one, of this listener or of any. False if none is idle.
    fn close_longest(&self, worker: &WorkerState, of: Option<&Rc<ListenerState>>) -> bool {
        self.close_found(worker) || (self.find(worker, of) && self.close_found(worker))
    }

    fn close_found(&self, worker: &WorkerState) -> bool {
        while let Some((idleness, key)) = self.found.borrow_mut().pop() {
            let connections = worker.connections();
            let Some((watch, listener)) = connections.get(&key) else {
                continue;
            };
            // It may have been used since; and if not, none has been idle for longer.
            if watch.idleness() == Some(idleness) {
                watch.make_room();
                let counters = listener.counters.of(worker.id);
                counters.count(|counters| &counters.connections_evicted);
                return true;
            }
        }
        false
    }

    fn find(&self, worker: &WorkerState, of: Option<&Rc<ListenerState>>) -> bool {
        let now_ms = worker.coarse_ms();
        if now_ms < self.barren_ms.get() {
            return false;
        }
        let connections = worker.connections();
        let mut found = Vec::new();
        let (mut all, mut silent) = (0_usize, 0_usize);
        for (key, (watch, listener)) in connections.iter() {
            if of.is_some_and(|of| !Rc::ptr_eq(of, listener)) {
                continue;
            }
            all += 1;
            silent += usize::from(watch.is_silent());
            found.extend(watch.idleness().map(|idleness| (idleness, *key)));
        }
        // Where most have said nothing yet, one more of them is no reason to close what has been of use.
        if silent > all / 2 {
            found.retain(|(idleness, _)| !idleness.is_used());
        }
        if found.len() > REMEMBERED {
            found.select_nth_unstable(REMEMBERED);
            found.truncate(REMEMBERED);
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        if found.is_empty() {
            self.barren_ms.set(now_ms + BARREN_MS);
        }
        let has_found = !found.is_empty();
        *self.found.borrow_mut() = found;
        has_found
    }
}
