//! The backends of a soak: three for requests, one of which dies again and again; one that lives, for what is not sent
//! again (uploads and tunnels); and one for bytes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use trimtab_tests::Port;

/// What `/large` is.
pub(crate) const LARGE_BYTES: usize = 500_000;

/// All of them, in this process.
pub(crate) struct Backends {
    mortal: [SocketAddr; 3],
    steady: SocketAddr,
    tcp: SocketAddr,
    is_alive: watch::Sender<bool>,
    /// Of the others, which never hear anything.
    _lives: watch::Sender<bool>,
    deaths: AtomicU64,
}

impl Backends {
    pub(crate) async fn start() -> Self {
        let is_alive = watch::Sender::new(true);
        let lives = watch::Sender::new(true);
        let first = listen(is_alive.subscribe()).await;
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(listen(lives.subscribe()).await);
        }
        let tcp = echo().await;
        Self {
            mortal: [first, others[0], others[1]],
            steady: others[2],
            tcp,
            is_alive,
            _lives: lives,
            deaths: AtomicU64::new(0),
        }
    }

    pub(crate) fn mortal(&self) -> [String; 3] {
        self.mortal.map(|address| address.to_string())
    }

    pub(crate) fn steady(&self) -> [String; 1] {
        [self.steady.to_string()]
    }

    pub(crate) fn tcp(&self) -> String {
        self.tcp.to_string()
    }

    pub(crate) fn deaths(&self) -> u64 {
        self.deaths.load(Relaxed)
    }

    /// One of the three dies, all its connections with it, and is back after a while.
    pub(crate) fn die(&self, how_long: Duration) {
        self.deaths.fetch_add(1, Relaxed);
        self.is_alive.send_replace(false);
        let is_alive = self.is_alive.clone();
        tokio::spawn(async move {
            tokio::time::sleep(how_long).await;
            is_alive.send_replace(true);
        });
    }
}

async fn listen(mut is_alive: watch::Receiver<bool>) -> SocketAddr {
    let port = Port::new();
    let address = port.address();
    tokio::spawn(async move {
        while is_alive.wait_for(|is_alive| *is_alive).await.is_ok() {
            let listening = port.listen().await;
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listening.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        connections.spawn(serve(stream));
                        while connections.try_join_next().is_some() {}
                    }
                    // Dropped with all connections, as a process that is killed.
                    died = is_alive.wait_for(|is_alive| !*is_alive) => { drop(died); break }
                }
            }
        }
    });
    address
}

async fn serve(stream: TcpStream) {
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    // A client that goes away is what some are here for.
    let _ = serving.await;
}

/// Tells back what was sent, or the path if that was nothing.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key(UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(stream) = upgraded.await {
                pass_back(TokioIo::new(stream)).await;
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = response.headers_mut();
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(response);
    }
    let path = request.uri().path().to_owned();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        // It ends the connection anyway.
        Err(_) => Bytes::new(),
    };
    let answer = match (path.as_str(), body.is_empty()) {
        (path, true) if path.ends_with("/large") => Bytes::from(vec![b'x'; LARGE_BYTES]),
        (_, true) => Bytes::from(path),
        (_, false) => body,
    };
    Ok(Response::new(Full::new(answer)))
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass_back(stream));
        }
    });
    address
}

async fn pass_back(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    // The other side has ended; how this ends is its business.
    let _ = stream.shutdown().await;
}
