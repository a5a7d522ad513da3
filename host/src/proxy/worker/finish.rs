//! A worker that goes on, and for a while without listeners or without the connections that it has: another node takes its clients.
//!
//! Owns who is told to end, and when that is done. A stop for good is `worker.rs`'.

use std::{rc::Rc, time::Duration};

use tokio::sync::oneshot;

use super::WorkerState;

/// Between two looks at sockets that are being closed.
const WITHDRAW_LOOK: Duration = Duration::from_millis(1);

/// What becomes of connections without a request when a worker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// They are closed: nobody would listen to their next request.
    Close,
    /// They end with the answer to their next request, if one comes in time: another process listens already.
    Answer,
}

impl WorkerState {
    /// Ends listening, at once; connections end by and by.
    pub(super) async fn withdraw(&self) {
        let listeners = self.listeners.take();
        listeners.values().for_each(|listener| listener.close());
        while !listeners.values().all(|listener| listener.is_closed()) {
            tokio::time::sleep(WITHDRAW_LOOK).await;
        }
        let connections = self.connections.borrow();
        connections.values().for_each(|(watch, _)| watch.finish());
    }

    /// Ends the connections that there are now with an answer each, and those that come meanwhile with their first. None is
    /// closed before that or the time is over: a request that crosses the end of its connection would be lost.
    pub(super) async fn finish(self: Rc<Self>, within: Duration, done: oneshot::Sender<()>) {
        self.finishes.set(self.finishes.get() + 1);
        for (watch, _) in self.connections.borrow().values() {
            watch.stop_with_an_answer();
        }
        let next = self.next_connection.get();
        let deadline = tokio::time::Instant::now() + within;
        let is_under_way = || self.connections.borrow().keys().any(|key| *key < next);
        while is_under_way() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(WITHDRAW_LOOK).await;
        }
        // Whoever is idle still should hear of the end while there is a way to tell.
        for (key, (watch, _)) in self.connections.borrow().iter() {
            if *key < next {
                watch.finish();
            }
        }
        tokio::time::sleep(WITHDRAW_LOOK).await;
        self.finishes.set(self.finishes.get() - 1);
        let _ = done.send(());
    }
}
