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

/// Whether connections come while others end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// They do, and are not waited for: there would be no end to it.
    GoOn,
    /// They are turned away, so that whatever is still found was here before, perhaps in a listener's queue.
    AreOver,
}

/// The driver of sockets hands over what waits in a queue at one look, and who accepts it may have its turn after that.
const LOOKS_WITHOUT_ARRIVALS: u32 = 3;

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
    pub(super) async fn finish(
        self: Rc<Self>,
        within: Duration,
        arrivals: Arrivals,
        done: oneshot::Sender<()>,
    ) {
        self.finishes.set(self.finishes.get() + 1);
        for (watch, _) in self.connections.borrow().values() {
            watch.stop_with_an_answer();
        }
        let next = self.next_connection.get();
        let is_meant = |key: u64| arrivals == Arrivals::AreOver || key < next;
        let is_under_way = || self.connections.borrow().keys().any(|key| is_meant(*key));
        // What takes longer is not waited for.
        let _ = tokio::time::timeout(within, until_over(is_under_way, arrivals)).await;
        // Whoever is idle still should hear of the end while there is a way to tell.
        for (key, (watch, _)) in self.connections.borrow().iter() {
            if is_meant(*key) {
                watch.finish();
            }
        }
        tokio::time::sleep(WITHDRAW_LOOK).await;
        self.finishes.set(self.finishes.get() - 1);
        let _ = done.send(());
    }
}

/// Looks until nothing is under way, and, where nothing more can come, nothing was at several looks either.
async fn until_over(is_under_way: impl Fn() -> bool, arrivals: Arrivals) {
    let wanted = match arrivals {
        Arrivals::GoOn => 0,
        Arrivals::AreOver => LOOKS_WITHOUT_ARRIVALS,
    };
    let mut empty = 0;
    loop {
        empty = if is_under_way() { 0 } else { empty + 1 };
        if empty > wanted {
            return;
        }
        tokio::time::sleep(WITHDRAW_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How many looks it takes at what says each time whether something is under way, and nothing after that.
    async fn looks(seen: &[bool], arrivals: Arrivals) -> usize {
        let looked = Cell::new(0);
        let look = || {
            looked.set(looked.get() + 1);
            seen.get(looked.get() - 1).copied().unwrap_or(false)
        };
        until_over(look, arrivals).await;
        looked.get()
    }

    #[tokio::test]
    async fn what_was_in_a_queue_when_nothing_more_comes_is_waited_for() {
        let late = [false, false, true, true, false];
        assert!(looks(&late, Arrivals::AreOver).await > late.len());
    }

    #[tokio::test]
    async fn while_more_come_it_is_over_when_those_are_gone_that_were_there() {
        assert_eq!(looks(&[true, true, false, true], Arrivals::GoOn).await, 3);
    }
}
