//! A wire to a member of etcd that can be cut and mended, and that holds back what it is told to.
//!
//! Each request has a connection of its own, so that what is held back is one request.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::AbortHandle,
};

/// What is under way while it is cut waits, as packets that are lost and sent again do.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Clone, Default)]
struct State {
    is_cut: bool,
    /// Requests with this in them wait.
    holds: Option<&'static str>,
    /// Another number ends the connections of before.
    age: u64,
}

#[derive(Default)]
struct Seen {
    held: AtomicUsize,
    /// What was answered to requests that had waited.
    answers: Mutex<Vec<u8>>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State::default());
        let seen = Arc::new(Seen::default());
        let (watched, shared) = (state.subscribe(), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(carry(stream, target, watched.clone(), shared.clone()));
            }
        });
        Self {
            address,
            state,
            seen,
            task: task.abort_handle(),
        }
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.send_modify(|state| state.is_cut = is_cut);
    }

    /// From now on, requests with this in them wait; `None` lets them go.
    pub(crate) fn hold(&self, what: Option<&'static str>) {
        self.state.send_modify(|state| state.holds = what);
    }

    /// Ends all connections.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| state.age += 1);
    }

    /// How many requests have waited, or do.
    pub(crate) fn held(&self) -> usize {
        self.seen.held.load(SeqCst)
    }

    /// What was answered to them.
    pub(crate) fn answers(&self) -> String {
        String::from_utf8_lossy(&self.seen.answers.lock().unwrap()).into_owned()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(stream: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>, seen: Arc<Seen>) {
    let age = state.borrow().age;
    // Whoever connects to a wire that is cut hears nothing.
    let _ = state.wait_for(|state| !state.is_cut).await;
    let Ok(other) = TcpStream::connect(target).await else {
        return;
    };
    let ((read, write), (back, forth)) = (stream.into_split(), other.into_split());
    let has_waited = Arc::new(Mutex::new(false));
    let ended = async |mut state: watch::Receiver<State>| {
        let _ = state.wait_for(|state| state.age != age).await;
    };
    tokio::select! {
        () = up((read, forth), state.clone(), (&seen, &has_waited)) => {}
        () = down((back, write), state.clone(), (&seen, &has_waited)) => {}
        () = ended(state) => {}
    }
}

async fn up(
    (mut from, mut to): (tcp::OwnedReadHalf, tcp::OwnedWriteHalf),
    mut state: watch::Receiver<State>,
    (seen, has_waited): (&Seen, &Mutex<bool>),
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let holds = state.borrow().holds;
        let is_meant = |what: &str| {
            bytes[..count]
                .windows(what.len())
                .any(|part| part == what.as_bytes())
        };
        if holds.is_some_and(is_meant) {
            seen.held.fetch_add(1, SeqCst);
            *has_waited.lock().unwrap() = true;
            let _ = state.wait_for(|state| state.holds.is_none()).await;
        }
        let _ = state.wait_for(|state| !state.is_cut).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn down(
    (mut from, mut to): (tcp::OwnedReadHalf, tcp::OwnedWriteHalf),
    mut state: watch::Receiver<State>,
    (seen, has_waited): (&Seen, &Mutex<bool>),
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if *has_waited.lock().unwrap() {
            seen.answers.lock().unwrap().extend(&bytes[..count]);
        }
        let _ = state.wait_for(|state| !state.is_cut).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
