//! The requests of one connection, all in its task.
//!
//! Owns which of them are under way and who of them is looked at. A task for each would cost more than most requests do. It
//! must not know what a request does (`stream.rs`).
//!
//! Invariant: a request counts as open until its future has ended or is dropped, and is watched by the worker as long.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;

use super::{stream, wakes::Wakes};
use crate::proxy::serve::Client;

/// The connection itself, among the parts of its task. Requests follow.
const CONNECTION: usize = 0;

/// All requests of a connection.
pub(super) struct Streams {
    connection: Rc<Client>,
    wakes: Wakes,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// What wakes the connection.
    waker: Waker,
}

/// Where one request after the other is.
struct Slot {
    waker: Waker,
    request: Option<Stream>,
}

/// One request, until its future ends.
struct Stream {
    future: Pin<Box<dyn Future<Output = ()>>>,
    client: Rc<Client>,
}

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
        let connection = &self.connection;
        let client = connection.stream(connection.worker.register_stream(&connection.listener));
        let client = Rc::new(client);
        connection.watch.request_began();
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
        slot.request = Some(Stream {
            future: Box::pin(stream::run(client.clone(), request, respond)),
            client,
        });
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
        let Some(stream) = &mut slot.request else {
            return;
        };
        let mut cx = Context::from_waker(&slot.waker);
        if stream.future.as_mut().poll(&mut cx) == Poll::Pending {
            return;
        }
        slot.request = None;
        self.free.push(at);
        if self.free.len() == self.slots.len() {
            self.connection.watch.all_ended();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.client.worker.forget_stream(self.client.key);
    }
}
