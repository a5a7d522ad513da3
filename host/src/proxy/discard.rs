//! Where workers leave what takes long to drop: giving a guest's memory back to the kernel takes up to half a millisecond.
//!
//! Owns the thread that drops it, one for the process from the first thing on. It must not know what it drops.

use std::sync::{
    OnceLock,
    mpsc::{Sender, channel},
};

type Unneeded = Box<dyn Send>;

/// Has this dropped elsewhere, soon; here if no thread can be had.
pub(super) fn discard(unneeded: impl Send + 'static) {
    static DROPPER: OnceLock<Option<Sender<Unneeded>>> = OnceLock::new();
    if let Some(dropper) = DROPPER.get_or_init(start) {
        // It ends only with the process; what it does not take is dropped with the error.
        let _ = dropper.send(Box::new(unneeded));
    }
}

fn start() -> Option<Sender<Unneeded>> {
    let (sender, unneeded) = channel::<Unneeded>();
    let thread = std::thread::Builder::new().name("trimtab-drop".into());
    thread.spawn(move || unneeded.iter().for_each(drop)).ok()?;
    Some(sender)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::discard;

    /// Tells who dropped it.
    struct Witness(mpsc::Sender<thread::ThreadId>);

    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn everything_is_dropped_by_one_other_thread() {
        let (sender, droppers) = mpsc::channel();
        let rounds = || {
            discard([Some(Witness(sender.clone())), None]);
            droppers.recv().unwrap()
        };
        let (first, second) = (rounds(), rounds());
        assert_ne!(first, thread::current().id());
        assert_eq!(first, second);
    }
}
