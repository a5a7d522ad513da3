//! The requests of one connection, each a task.
//!
//! Owns which request a task belongs to, and the end of one that waits for its client in vain. The library calls the
//! service and starts the task right after; that is how the two are brought together.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
};

use hyper::rt::Executor;

use crate::proxy::{client::Watch, serve::Client};

/// All requests of a connection.
#[derive(Clone)]
pub(super) struct Streams(Rc<Shared>);

struct Shared {
    connection: Rc<Client>,
    open: Cell<u32>,
    /// The request whose task is about to start.
    next: RefCell<Option<Rc<Stream>>>,
}

impl Streams {
    pub(super) fn new(connection: Rc<Client>) -> Self {
        Self(Rc::new(Shared {
            connection,
            open: Cell::new(0),
            next: RefCell::new(None),
        }))
    }

    /// A request has begun. Gives the client that it is served as.
    pub(super) fn begin(&self) -> Rc<Client> {
        let connection = &self.0.connection;
        let (key, watch) = connection.worker.register_stream(&connection.listener);
        self.0.open.set(self.0.open.get() + 1);
        connection.watch.request_began();
        let stream = Rc::new(Stream {
            shared: self.0.clone(),
            watch: watch.clone(),
            key,
        });
        // If no task was started for the last one, this ends it.
        self.0.next.replace(Some(stream.clone()));
        Rc::new(connection.stream((key, watch), stream))
    }
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let stream = self.0.next.take();
        // A task would keep what it is given twice, and be moved with that.
        let mut future = Box::pin(future);
        tokio::task::spawn_local(async move {
            poll_fn(|cx| {
                let watch = stream.as_ref().map(|stream| &stream.watch);
                if let Some(watch) = watch {
                    watch.gate.lead_to(cx);
                    watch.remember(cx.waker());
                    if watch.has_expired() {
                        // Dropping it resets the stream, and ends the attempt at the backend.
                        return Poll::Ready(());
                    }
                }
                future.as_mut().poll(cx).map(drop)
            })
            .await;
        });
    }
}

/// One request, until its task ends and the tunnel that may have come of it.
struct Stream {
    shared: Rc<Shared>,
    watch: Rc<Watch>,
    key: u64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.connection.worker.forget_stream(self.key);
        let open = self.shared.open.get().saturating_sub(1);
        self.shared.open.set(open);
        if open == 0 {
            self.shared.connection.watch.all_ended();
        }
    }
}
