//! Room that a connection keeps while it waits.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Wake,
};

use super::*;
use crate::{config::Config, proxy::scratch::Scratch};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn limits() -> Limits {
    let text = "listener = [{ name = \"a\", listen = \"127.0.0.1:0\", route = [{ pool = \"p\" }] }]\n\
                [pool.p]\nbackends = [\"127.0.0.1:1\"]\npolicy = \"round-robin\"\n";
    let config = Config::parse(text, "trimtab.toml", Path::new("/")).unwrap();
    config.listeners[0].limits.clone()
}

#[test]
fn a_connection_that_waits_for_longer_is_woken_once_to_give_its_room_back() {
    let limits = limits();
    let clock = Rc::new(Cell::new(5000));
    let watch = Watch::new(clock.clone());
    let count = Arc::new(Count::default());
    watch.remember(&Waker::from(count.clone()));
    let after = |ms| {
        clock.set(clock.get() + ms);
        assert!(!watch.check(&limits), "nothing has expired");
        (watch.has_stayed(), count.0.load(SeqCst))
    };
    watch.request_ended();
    watch.stay(true);
    assert_eq!(after(IDLE_MS - 1), (false, 0));
    assert_eq!(after(1), (true, 1));
    assert_eq!(after(IDLE_MS), (true, 1));
    watch.stay(false);
    watch.request_ended();
    assert_eq!(after(IDLE_MS), (false, 1), "it has none");
}

#[test]
fn so_many_connections_keep_room_and_no_more() {
    let scratch = Scratch::default();
    let mut staying = Vec::new();
    while let Some(place) = scratch.stay() {
        staying.push(place);
    }
    assert_eq!(staying.len(), 128);
    staying.pop();
    assert!(scratch.stay().is_some(), "one was given back");
    drop(staying);
    assert!(scratch.stay().is_some());
}
