//! Active checks: one connection, one question, one answer, in time.
//!
//! Owns how a backend is asked and how often. It must not know what an answer leads to: results go to the supervisor.
//!
//! Invariants: checks of one backend never overlap; each has a connection of its own, since a kept one would prove only
//! that an old connection still works; no check takes longer than `timeout`.
//! Read next: `health/tally.rs`.

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{plain, stream::Stream};
use crate::{
    config::{Health, HealthKind, PoolProtocol},
    http1::Malformed,
    pool::{Backend, Pool},
    proxy_header,
    tls::{ALPN_H2, Offer, Originator},
};

/// As much of a body is read as lets an ordinary backend finish its answer undisturbed. The rest is cut off.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;
/// First checks are spread over the interval, but nobody should wait longer than this to learn what works.
const FIRST_CHECK_MAX: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("trimtab-health/", env!("CARGO_PKG_VERSION"));

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Whether it counts as good.
    pub ok: bool,
    /// What was seen, in words: `status 200`, `connect refused`, `timed out after 500ms`.
    pub reason: String,
    /// When the check began.
    pub at: std::time::Instant,
    /// How long it took.
    pub duration: Duration,
}

/// Why a check is bad. All of them count alike.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody listens there.
    #[error("connect refused")]
    Refused,
    /// The connection could not be opened for another cause.
    #[error("connect failed: {0}")]
    Connect(#[source] io::Error),
    /// The handshake failed: above all, a certificate that is not good, or not the backend's.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// The pool's protocol is HTTP/2, and the backend did not agree to it.
    #[error("TLS: no agreement to HTTP/2 (ALPN)")]
    NoHttp2,
    /// Connecting, asking and answering together took too long.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// It answered, but not as it should.
    #[error("status {status} (expected {})", range(.expected))]
    Status {
        status: u16,
        expected: RangeInclusive<u16>,
    },
    /// The connection ended before the answer did, or the answer was not HTTP.
    #[error("broken answer: {0}")]
    Broken(#[source] io::Error),
    /// The same over HTTP/2.
    #[error("broken answer: {0}")]
    Answer(#[from] hyper::Error),
    /// It was HTTP that no client would get from here.
    #[error("broken answer: {}", .0.reason())]
    Malformed(#[from] Malformed),
    /// Its head does not end.
    #[error("broken answer: its head is too long")]
    LongHead,
    /// The configured path or host cannot be sent.
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
}

/// As the configuration writes it.
fn range(expected: &RangeInclusive<u16>) -> String {
    match (expected.start(), expected.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    }
}

/// A finished check, for the supervisor.
#[derive(Debug)]
pub(super) struct Check {
    /// Index of the backend in its pool.
    pub(super) index: usize,
    pub(super) result: CheckResult,
}

/// One backend, and how it is checked.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    index: usize,
    address: String,
    socket: SocketAddr,
    rule: Health,
    protocol: PoolProtocol,
    /// What each check begins with, for backends that expect a word about their clients.
    introduces: Option<proxy_header::Version>,
    /// How TLS begins, if the checks are over TLS.
    tls: Option<Arc<Originator>>,
}

impl Probe {
    pub(super) fn new(index: usize, backend: &Backend, rule: &Health, pool: &Pool) -> Self {
        let mut socket = backend.socket;
        socket.set_port(rule.port.unwrap_or(socket.port()));
        Self {
            index,
            address: backend.address.to_string(),
            socket,
            rule: rule.clone(),
            tls: pool.tls().filter(|_| rule.tls).cloned(),
            introduces: pool.config.send_proxy.filter(|_| rule.port.is_none()),
            // What listens on another port is for checks only, and nobody said that it speaks anything but the usual.
            protocol: if rule.port.is_some() {
                PoolProtocol::Http1
            } else {
                pool.config.protocol
            },
        }
    }

    /// Checks the backend again and again until nobody receives the results. May be dropped at any time.
    pub(super) async fn run(self, schedule: Schedule, results: mpsc::Sender<Check>) {
        let mut start = Instant::now() + schedule.first();
        for round in 1.. {
            sleep_until(start).await;
            let result = self.check().await;
            if results
                .send(Check {
                    index: self.index,
                    result,
                })
                .await
                .is_err()
            {
                return;
            }
            start = (start + schedule.pause(round)).max(Instant::now());
        }
    }

    /// One check. Dropping it closes its connection.
    pub(super) async fn check(&self) -> CheckResult {
        let start = Instant::now();
        let limit = self.rule.timeout;
        let outcome = timeout(limit, self.ask())
            .await
            .unwrap_or(Err(Failure::TimedOut(limit)));
        CheckResult {
            ok: outcome.is_ok(),
            reason: outcome.unwrap_or_else(|failure| failure.to_string()),
            at: start.into_std(),
            duration: start.elapsed(),
        }
    }

    async fn ask(&self) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(self.socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Failure::Refused,
                _ => Failure::Connect(error),
            })?;
        if let Some(version) = self.introduces {
            let mut header = Vec::new();
            proxy_header::write(version, None, &mut header);
            stream.write_all(&header).await.map_err(Failure::Connect)?;
        }
        let Some(tls) = &self.tls else {
            return self.ask_over(stream, self.protocol == PoolProtocol::Http2).await;
        };
        let stream = self.shake(tls, stream).await.map_err(Failure::Tls)?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
        if self.protocol == PoolProtocol::Http2 && !is_http2 {
            return Err(Failure::NoHttp2);
        }
        self.ask_over(stream, is_http2).await
    }

    /// Each check is a handshake like that of a client that was never here: a remembered session would prove less.
    async fn shake(&self, tls: &Arc<Originator>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let offer = match self.protocol {
            PoolProtocol::Http1 => Offer::Http1,
            PoolProtocol::Http2 => Offer::Http2,
            PoolProtocol::Auto => Offer::Either,
        };
        let name = tls.name_of(&self.address)?;
        let connecting = tls.connectors().to(offer).connect(name, stream);
        connecting.await
    }

    async fn ask_over<S>(&self, stream: S, is_http2: bool) -> Result<String, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let HealthKind::Http { path, host, expect } = &self.rule.kind else {
            return Ok("connected".into());
        };
        let request = self.request(path, host.as_deref(), is_http2)?;
        let status = match is_http2 {
            false => plain::get(stream, &request, expect).await?,
            true => get_http2(Stream(stream), request.map(|()| Empty::new()), expect).await?,
        };
        Ok(format!("status {status}"))
    }

    fn request(&self, path: &str, host: Option<&str>, is_http2: bool) -> Result<Request<()>, http::Error> {
        let host = host.unwrap_or(&self.address);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match is_http2 {
            false => Request::get(path)
                .header(header::HOST, host)
                .header(header::USER_AGENT, USER_AGENT)
                .header(header::CONNECTION, "close")
                .body(()),
            true => Request::get(format!("{scheme}://{host}{path}"))
                .header(header::USER_AGENT, USER_AGENT)
                .body(()),
        }
    }
}

/// As [`plain::get`], over HTTP/2.
async fn get_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: Stream<S>,
    request: Request<Empty<Bytes>>,
    expected: &RangeInclusive<u16>,
) -> Result<u16, Failure> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    let exchange = async { judge(sender.send_request(request).await?, expected).await };
    drive_until(exchange, connection).await
}

async fn judge(response: Response<Incoming>, expected: &RangeInclusive<u16>) -> Result<u16, Failure> {
    let status = response.status().as_u16();
    if !expected.contains(&status) {
        return Err(Failure::Status {
            status,
            expected: expected.clone(),
        });
    }
    read_body(response).await?;
    Ok(status)
}

async fn drive_until<T>(
    exchange: impl Future<Output = Result<T, Failure>>,
    connection: impl Future,
) -> Result<T, Failure> {
    // The connection moves the bytes. When it ends before the exchange has looked at the last of them, that is no end of
    // the exchange, which hears of a broken connection by itself.
    let drive = async {
        let _ = connection.await;
        pending().await
    };
    tokio::select! {
        outcome = exchange => outcome,
        never = drive => never,
    }
}

/// Waits for the body, so that a backend that stops in the middle of its answer is found out.
async fn read_body(response: Response<Incoming>) -> Result<(), hyper::Error> {
    let mut body = response.into_body();
    let mut read = 0;
    while read < BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else { break };
        read += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// When a backend is checked. Spread by chance that differs for every backend and every process, so that neither the
/// backends of one balancer nor the balancers of one backend fall into step.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    interval: Duration,
    backend: u64,
    keys: RandomState,
}

impl Schedule {
    pub(super) fn new(interval: Duration, backend: u64) -> Self {
        Self {
            interval,
            backend,
            keys: RandomState::new(),
        }
    }

    /// From the start to the first check.
    pub(super) fn first(&self) -> Duration {
        self.interval.min(FIRST_CHECK_MAX).mul_f64(self.chance(0))
    }

    /// From the start of one check to that of the next: the interval, give or take 10 %.
    pub(super) fn pause(&self, round: u64) -> Duration {
        self.interval.mul_f64(0.9 + 0.2 * self.chance(round))
    }

    /// Between 0 and 1.
    fn chance(&self, round: u64) -> f64 {
        self.keys.hash_one((self.backend, round)) as f64 / u64::MAX as f64
    }
}
