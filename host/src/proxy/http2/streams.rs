//! The requests of one connection, all in its task.
//!
//! Owns which of them are under way and who of them is looked at. A task for each would cost more than most requests do. It
//! must not know what a request does (`stream.rs`).
//!
//! Invariant: a request counts as open until its future has ended or is dropped, and is watched by the worker as long.

use std::{
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;

use super::{
    stream::{Job, Server},
    wakes::Wakes,
};
use crate::proxy::serve::Client;

/// The connection itself, among the parts of its task. Requests follow.
const CONNECTION: usize = 0;
/// So many that have ended are kept for the next requests.
const SPARE_MAX: usize = 8;

/// All requests of a connection.
pub(super) struct Streams {
    connection: Rc<Client>,
    wakes: Wakes,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Clients of requests that have ended, as good as new.
    spare: Vec<Rc<Client>>,
    /// What wakes the connection.
    waker: Waker,
}

/// Where one request after the other is.
struct Slot {
    waker: Waker,
    request: Option<Stream>,
}

/// One request, until it is done.
struct Stream {
    server: Server,
    client: Watched,
}

/// What the worker watches until this is dropped.
struct Watched(Rc<Client>);

impl Streams {
    /// Of a connection in the task with this waker.
    pub(super) fn new(connection: Rc<Client>, task: &Waker) -> Self {
        let mut wakes = Wakes::new(task);
        let waker = wakes.waker(CONNECTION);
        // It has to be looked at before anything can ask for that.
        waker.wake_by_ref();
        Self {
            connection,
            waker,
            wakes,
            slots: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// What wakes the connection, and none of its requests.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Who asks to be looked at.
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Whether the connection asks to be looked at.
    pub(super) fn take_connection(&self) -> bool {
        self.wakes.take(CONNECTION)
    }

    /// A request has begun.
    pub(super) fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let client = self.client();
        self.connection.watch.request_began();
        let at = self.free.pop().unwrap_or_else(|| {
            let at = self.slots.len();
            self.slots.push(Slot {
                waker: self.wakes.waker(CONNECTION + 1 + at),
                request: None,
            });
            at
        });
        let slot = &mut self.slots[at];
        client.watch.remember(&slot.waker);
        slot.waker.wake_by_ref();
        let server = client.worker.scratch.take_server();
        server.begin(Job {
            client: client.clone(),
            request,
            respond,
        });
        slot.request = Some(Stream {
            server,
            client: Watched(client),
        });
    }

    /// The client of a request, which the worker watches.
    fn client(&mut self) -> Rc<Client> {
        let Client { worker, listener, .. } = &*self.connection;
        if let Some(mut client) = self.spare.pop()
            && let Some(again) = Rc::get_mut(&mut client)
        {
            again.key = worker.watch(again.watch.clone(), listener);
            return client;
        }
        Rc::new(self.connection.stream(worker.register_stream(listener)))
    }

    /// Looks at those that ask for it. What the connection asks for is kept.
    pub(super) fn poll(&mut self) {
        for group in 0..self.wakes.groups() {
            for part in self.wakes.take_group(group) {
                match part.checked_sub(CONNECTION + 1) {
                    None => self.waker.wake_by_ref(),
                    Some(at) => self.poll_one(at),
                }
            }
        }
    }

    fn poll_one(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        // One that has ended may be called late.
        let Some(mut stream) = slot.request.take() else {
            return;
        };
        let mut cx = Context::from_waker(&slot.waker);
        if stream.server.poll(&mut cx) == Poll::Pending {
            slot.request = Some(stream);
            return;
        }
        let Stream { server, client } = stream;
        let mut spare = client.0.clone();
        drop(client);
        spare.worker.scratch.put_server(server);
        if self.spare.len() < SPARE_MAX && Rc::get_mut(&mut spare).is_some_and(Client::renew) {
            self.spare.push(spare);
        }
        self.free.push(at);
        if self.free.len() == self.slots.len() {
            self.connection.watch.all_ended();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.worker.forget_stream(self.0.key);
    }
}
