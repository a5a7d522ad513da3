//! A waker that does not wake a task for what the task itself is doing.
//!
//! Upstream connections are driven by the task that waits for them (`upstream.rs`). The HTTP library does not know that:
//! handing it a request, or asking it for a piece of a body, wakes "the connection's task", which is the very task that
//! does so and drives the connection right after. Each such wake-up would cost another poll of everything.
//!
//! Invariant: the gate is shut only around calls after which the connection is driven, and never while it is: what wakes
//! a task from inside (a spent budget) has to get through. All wake-ups come from the worker's own thread.

use std::{
    cell::OnceCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
};

/// The way from upstream connections to a client connection's task.
#[derive(Default)]
pub(super) struct Gate {
    way: OnceCell<Way>,
}

struct Way {
    waker: Waker,
    door: Arc<Door>,
}

struct Door {
    task: Waker,
    is_shut: AtomicBool,
}

impl Wake for Door {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_shut.load(Relaxed) {
            self.task.wake_by_ref();
        }
    }
}

impl Gate {
    /// Leads to the task of this context. A connection's task is the same for its whole life, so the first call counts.
    pub(super) fn lead_to(&self, task: &Context<'_>) {
        self.way.get_or_init(|| {
            let door = Arc::new(Door {
                task: task.waker().clone(),
                is_shut: AtomicBool::new(false),
            });
            Way {
                waker: Waker::from(door.clone()),
                door,
            }
        });
    }

    /// What upstream connections are driven with.
    #[inline]
    pub(super) fn waker(&self) -> &Waker {
        self.way.get().map_or(Waker::noop(), |way| &way.waker)
    }

    /// Does something to a connection that is going to be driven next.
    #[inline]
    pub(super) fn shut_for<T>(&self, act: impl FnOnce() -> T) -> T {
        let Some(way) = self.way.get() else {
            return act();
        };
        way.door.is_shut.store(true, Relaxed);
        let done = act();
        way.door.is_shut.store(false, Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_but_for_what_it_does_itself() {
        let count = Arc::new(Count::default());
        let gate = Gate::default();
        gate.lead_to(&Context::from_waker(&Waker::from(count.clone())));
        gate.waker().wake_by_ref();
        assert_eq!(count.0.load(Relaxed), 1);
        gate.shut_for(|| gate.waker().wake_by_ref());
        assert_eq!(count.0.load(Relaxed), 1);
        gate.waker().wake_by_ref();
        assert_eq!(count.0.load(Relaxed), 2);
    }
}
