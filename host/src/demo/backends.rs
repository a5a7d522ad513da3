//! The demo's backends: four small HTTP servers on loopback that differ in speed and can die.
//!
//! Owns their thread, and what dying means: the listening socket and every connection are closed, so that others are
//! refused. It must not know that a balancer is in front of them.
//!
//! Invariant: a backend keeps its port for as long as the demo runs, dead or alive: nobody else may answer there.

use std::{convert::Infallible, io, net::SocketAddr, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// How many there are.
pub(super) const COUNT: usize = 4;
/// The field of a response that says who made it.
pub(super) const NAME_FIELD: &str = "x-backend";
/// More than the balancer ever has to one of them.
const BACKLOG: u32 = 1024;

/// One of the cast.
pub(super) struct Role {
    pub(super) name: &'static str,
    /// How long it takes to answer.
    pub(super) pause: Duration,
}

/// In the order of the configuration. The first is the one that dies: the fastest, because the most depends on it.
pub(super) static CAST: [Role; COUNT] = [
    Role::new("swift", 2),
    Role::new("brisk", 4),
    Role::new("slow", 8),
    Role::new("spare", 4),
];
/// Index of the one that dies.
pub(super) const MORTAL: usize = 0;
/// Index of the one that joins later.
pub(super) const SPARE: usize = 3;

impl Role {
    const fn new(name: &'static str, pause_ms: u64) -> Self {
        Self {
            name,
            pause: Duration::from_millis(pause_ms),
        }
    }
}

/// The running backends; dropping this ends them.
pub(super) struct Backends {
    pub(super) addresses: [SocketAddr; COUNT],
    /// Each order turns a backend over, from alive to dead or back, and is answered when that is done.
    orders: Vec<mpsc::Sender<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// Starts all of them, on a thread of their own so that they do not compete with what is shown.
    pub(super) fn start() -> io::Result<Self> {
        let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
        let (mut orders, mut servers) = (Vec::new(), Vec::new());
        for (role, address) in CAST.iter().zip(&mut addresses) {
            let socket = reserve(*address)?;
            *address = socket.local_addr()?;
            let (sender, receiver) = mpsc::channel(1);
            orders.push(sender);
            servers.push(live(role, socket, receiver));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            runtime.block_on(async {
                let servers: JoinSet<_> = servers.into_iter().collect();
                // One that cannot go on stops answering orders, which is how the demo hears of it.
                servers.join_all().await;
            });
        };
        let thread = std::thread::Builder::new()
            .name("demo-backends".into())
            .spawn(run)?;
        Ok(Self {
            addresses,
            orders,
            thread: Some(thread),
        })
    }

    /// A living backend dies, a dead one comes back. Returns when it has.
    pub(super) async fn turn_over(&self, index: usize) -> io::Result<()> {
        let gone = || {
            io::Error::other(format!(
                "the backend `{}` has stopped by itself",
                CAST[index].name
            ))
        };
        let (done, answer) = oneshot::channel();
        self.orders[index].send(done).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.orders.clear();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; the demo is over anyway.
            let _ = thread.join();
        }
    }
}

/// Takes a port without listening: connections are refused, and nobody else can have it.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections closed at the last death still occupy the port for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lives, dies, lives again, until nobody gives orders any more.
async fn live(
    role: &'static Role,
    mut socket: TcpSocket,
    mut orders: mpsc::Receiver<oneshot::Sender<()>>,
) -> io::Result<()> {
    let address = socket.local_addr()?;
    loop {
        let listener = socket.listen(BACKLOG)?;
        let Some(died) = serve_until_order(role, listener, &mut orders).await else {
            return Ok(());
        };
        socket = reserve(address)?;
        // Whoever ordered it may have been interrupted.
        let _ = died.send(());
        let Some(returned) = orders.recv().await else {
            return Ok(());
        };
        let _ = returned.send(());
    }
}

/// Accepts and serves. On an order, closes everything and gives the order back; `None` when there will be no more.
async fn serve_until_order(
    role: &'static Role,
    listener: TcpListener,
    orders: &mut mpsc::Receiver<oneshot::Sender<()>>,
) -> Option<oneshot::Sender<()>> {
    let mut connections = JoinSet::new();
    let order = loop {
        tokio::select! {
            order = orders.recv() => break order,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(role, stream));
            },
            Some(_) = connections.join_next() => {}
        }
    };
    drop(listener);
    connections.shutdown().await;
    order
}

async fn serve(role: &'static Role, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|_| async {
        tokio::time::sleep(role.pause).await;
        let mut response = Response::new(Full::new(Bytes::from_static(b"ahoy\n")));
        let name = HeaderValue::from_static(role.name);
        response.headers_mut().insert(NAME_FIELD, name);
        Ok::<_, Infallible>(response)
    });
    // How a connection ends is the other side's business.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
