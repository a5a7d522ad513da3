//! Who of a connection asks to be looked at: the library's own part, or one of the requests.
//!
//! Owns the wakers of parts that share a task. Each marks its part and then wakes the task, unless that is at work and sees
//! the mark anyway: what the requests hand to the library in a turn would have the task called once more otherwise. It must
//! not know what the parts are.
//!
//! Invariant: a mark that is set while the task is at work, and not taken before it rests, wakes it. Marks may be set by
//! other threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

/// Parts whose marks are in one number.
const GROUP: usize = u64::BITS as usize;

/// The marks of a task's parts, which are known by numbers from 0 on.
pub(super) struct Wakes {
    task: Arc<Task>,
    groups: Vec<Arc<Group>>,
}

struct Task {
    waker: Waker,
    is_at_work: AtomicBool,
}

struct Group {
    task: Arc<Task>,
    marks: AtomicU64,
}

/// One part of the task.
struct Part {
    group: Arc<Group>,
    mark: u64,
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.group.marks.fetch_or(self.mark, SeqCst);
        let task = &self.group.task;
        if before & self.mark == 0 && !task.is_at_work.load(SeqCst) {
            task.waker.wake_by_ref();
        }
    }
}

impl Wakes {
    /// Of the task with this waker, which is the same for the task's whole life.
    pub(super) fn new(waker: &Waker) -> Self {
        Self {
            task: Arc::new(Task {
                waker: waker.clone(),
                is_at_work: AtomicBool::new(false),
            }),
            groups: Vec::new(),
        }
    }

    /// What wakes this part.
    pub(super) fn waker(&mut self, part: usize) -> Waker {
        while self.groups.len() <= part / GROUP {
            self.groups.push(Arc::new(Group {
                task: self.task.clone(),
                marks: AtomicU64::new(0),
            }));
        }
        Waker::from(Arc::new(Part {
            group: self.groups[part / GROUP].clone(),
            mark: 1 << (part % GROUP),
        }))
    }

    /// The task begins to look at its parts.
    pub(super) fn begin(&self) {
        self.task.is_at_work.store(true, SeqCst);
    }

    /// The task rests, or is called again if a part asks for it.
    pub(super) fn rest(&self) {
        self.task.is_at_work.store(false, SeqCst);
        if self.is_any_marked() {
            self.task.waker.wake_by_ref();
        }
    }

    pub(super) fn is_any_marked(&self) -> bool {
        self.groups.iter().any(|group| group.marks.load(SeqCst) != 0)
    }

    /// Takes the mark of one part.
    pub(super) fn take(&self, part: usize) -> bool {
        let mark = 1 << (part % GROUP);
        let group = self.groups.get(part / GROUP);
        group.is_some_and(|group| group.marks.fetch_and(!mark, SeqCst) & mark != 0)
    }

    /// Takes all marks of a group, of which there are [`Self::groups`]; the parts that had one.
    pub(super) fn take_group(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        let marks = self.groups.get(group);
        let mut marks = marks.map_or(0, |group| group.marks.swap(0, SeqCst));
        std::iter::from_fn(move || {
            let lowest = marks.trailing_zeros() as usize;
            marks &= marks.wrapping_sub(1);
            (lowest < GROUP).then_some(group * GROUP + lowest)
        })
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn wakes() -> (Arc<Count>, Wakes) {
        let count = Arc::new(Count::default());
        let wakes = Wakes::new(&Waker::from(count.clone()));
        (count, wakes)
    }

    #[test]
    fn a_task_is_woken_once_however_often_a_part_asks() {
        let (count, mut wakes) = wakes();
        let waker = wakes.waker(70);
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 1);
        assert!(wakes.take_group(0).next().is_none());
        assert_eq!(wakes.take_group(1).collect::<Vec<_>>(), [70]);
        assert!(!wakes.is_any_marked());
        waker.wake();
        assert_eq!(count.0.load(SeqCst), 2);
    }

    #[test]
    fn a_task_at_work_is_not_woken_and_what_it_has_not_seen_calls_it_again() {
        let (count, mut wakes) = wakes();
        let (first, second) = (wakes.waker(0), wakes.waker(63));
        wakes.begin();
        first.wake_by_ref();
        second.wake_by_ref();
        assert!(wakes.take(0) && !wakes.take(0));
        assert_eq!(count.0.load(SeqCst), 0);
        wakes.rest();
        assert_eq!(count.0.load(SeqCst), 1);
        assert_eq!(wakes.take_group(0).collect::<Vec<_>>(), [63]);
        wakes.begin();
        wakes.rest();
        assert_eq!(count.0.load(SeqCst), 1);
    }
}
