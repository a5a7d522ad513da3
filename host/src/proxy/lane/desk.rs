//! Where requests are worked on: room for all that a request needs from its first byte to the last of its response.
//!
//! Owns that room, which is large, and its reuse: a connection sits at a desk while it has something to do, and leaves when
//! it waits for the next request. So what is idle holds none, and a request allocates none. It must not know how a request
//! is served.
//!
//! Invariant: a desk that is given back is empty.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{Lane, Next, Upload};
use crate::{
    http1::Inbox,
    proxy::{
        client::{ClientStream, Socket},
        serve::Client,
    },
};

/// A connection that has something to read.
pub(super) struct Visit<S> {
    pub(super) client: Rc<Client>,
    pub(super) stream: ClientStream<S>,
    /// No request was served before.
    pub(super) is_first: bool,
}

/// The same when everything that had come is served.
pub(super) struct Leave<S> {
    pub(super) stream: ClientStream<S>,
    pub(super) is_first: bool,
    /// `None` if the connection waits for more.
    pub(super) next: Option<Next>,
}

/// Room for one connection at a time.
pub(in crate::proxy) struct Desk<S> {
    door: Rc<Door<S>>,
    /// Never ends: it serves whoever comes in.
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// Who comes to a desk, and who leaves it.
struct Door<S> {
    visit: Cell<Option<Visit<S>>>,
    leave: Cell<Option<Leave<S>>>,
}

impl<S: Socket + 'static> Default for Desk<S> {
    fn default() -> Self {
        let door = Rc::new(Door {
            visit: Cell::new(None),
            leave: Cell::new(None),
        });
        Self {
            work: Box::pin(work(door.clone())),
            door,
        }
    }
}

impl<S> Desk<S> {
    /// A connection sits down, at a desk that is empty.
    #[inline]
    pub(super) fn admit(&self, visit: Visit<S>) {
        self.door.visit.set(Some(visit));
    }

    /// Serves what has come of the connection, and what comes until all of it is served. Whoever stops asking has to drop the
    /// desk, and with it the request.
    #[inline]
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<Leave<S>> {
        // It does not end.
        let _ = self.work.as_mut().poll(cx);
        self.door.leave.take().map_or(Poll::Pending, Poll::Ready)
    }
}

async fn work<S: Socket>(door: Rc<Door<S>>) {
    let mut inbox = Inbox::default();
    loop {
        // Whoever comes in asks for it to be polled.
        let visit = poll_fn(|_| door.visit.take().map_or(Poll::Pending, Poll::Ready)).await;
        let mut lane = Lane {
            client: &visit.client,
            stream: visit.stream,
            inbox: &mut inbox,
            upload: Upload::default(),
        };
        let mut is_first = visit.is_first;
        let next = lane.run(&mut is_first).await;
        let leave = Leave {
            stream: lane.stream,
            is_first,
            next,
        };
        inbox.clear();
        door.leave.set(Some(leave));
    }
}
