//! The admin listener: what operators, orchestrators and Prometheus ask.
//!
//! Owns its socket, its connections and their limits, and who may ask. It shows what others count and passes on what
//! operators want; it must not decide anything about requests, nor keep state of its own.
//!
//! Invariants: it has connections of its own on the control runtime, so that no client of it can slow a worker; a stuck
//! one gives its place back in time. There are no passwords, hence the loopback default and `admin/guard.rs`.
//! Read next: `admin/endpoint.rs` (what there is), `docs/admin.md` (for its users).

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::control::Handle;

mod answer;
mod canaries;
mod change;
mod cluster;
mod endpoint;
mod explain;
mod fleet;
mod guard;
mod listeners;
mod metrics;
mod peers;
mod policies;
mod pools;
mod reading;
mod record;
mod tenants;
#[cfg(test)]
mod tests;
mod text;

/// Connections at once. Those beyond it wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, and for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// After this a connection may finish its request and is closed, so that a client that stopped reading gives its place
/// back. Longer than the usual interval between two scrapes, which thus reuse their connection.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(120);
/// For that last request. A reload goes on even if its client is gone.
const CONNECTION_GRACE: Duration = Duration::from_secs(30);
/// For a component's bytes.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Uploads at once: each may take `compile.size` of memory. Further ones are told to come again.
const UPLOADS_MAX: usize = 2;
/// Of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// When no file descriptors are left, trying at once again would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket, not yet served.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    address: SocketAddr,
}

/// What answers need.
#[derive(Debug)]
struct Context {
    handle: Handle,
    address: SocketAddr,
    started: Instant,
    uploads: Semaphore,
}

impl Admin {
    /// Listens. Has to be called on a tokio runtime.
    ///
    /// # Errors
    /// What the system says of the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::of(std::net::TcpListener::bind(address)?)
    }

    /// Of a socket that listens already.
    ///
    /// # Errors
    /// What the system says of it.
    pub fn of(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let socket = TcpListener::from_std(socket)?;
        Ok(Self { socket, address })
    }

    /// Where it really listens, which matters for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A copy of the socket, for a process that takes over.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn copy(&self) -> io::Result<std::net::TcpListener> {
        socket2::SockRef::from(&self.socket).try_clone().map(Into::into)
    }

    /// Answers until dropped, which also ends its connections. Told to leave, it accepts nothing more and ends with its
    /// last answer.
    pub async fn serve(self, handle: Handle, mut leaving: watch::Receiver<bool>) {
        let context = Arc::new(Context {
            handle,
            address: self.address,
            started: Instant::now(),
            uploads: Semaphore::new(UPLOADS_MAX),
        });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        // The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = leaving.wait_for(|leaves| *leaves) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (context, leaving) = (context.clone(), leaving.clone());
                    connections.spawn(async move {
                        converse(stream, context, leaving).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }
}

/// One connection from beginning to end. How it ends matters to nobody: the client has its answers, or is gone.
async fn converse(stream: TcpStream, context: Arc<Context>, mut leaving: watch::Receiver<bool>) {
    let answer = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(endpoint::answer(&context, request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
        _ = leaving.wait_for(|leaves| *leaves) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CONNECTION_GRACE, connection).await;
}
