//! One request of the balancer's own, on a connection of its own.
//!
//! Owns connecting, TLS and HTTP/1.1, and the password of whoever asks. Such requests are few, so nothing is kept: a peer that came back
//! is as good as one that was never away. Files of TLS tables are read each time, so another certificate needs no restart.
//! It must not know who is asked what; `etcd` and `registry` do. Time-outs are theirs.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};

use crate::{
    config::{Mistake, PoolTls, User},
    tls::{Offer, Originator},
};

/// A peer that cannot be reached any more is noticed by a connection on which nothing is said after this, and so many tries.
const SILENT_AFTER: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// A larger file is some other one.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Why there is no answer.
#[derive(Debug)]
pub enum Broken {
    /// It was not sent, or not looked at.
    Unsent(String),
    /// The connection ended in place of an answer.
    Cut(String),
}

/// Ends a connection when it is dropped.
#[derive(Debug)]
pub struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks whoever is at an address (`host:port`), and waits for the head of the answer. Dropping this ends the connection.
///
/// # Errors
/// Why there is none.
pub async fn send(
    address: &str,
    tls: Option<&PoolTls>,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Driver), Broken> {
    let unsent = |error: io::Error| Broken::Unsent(error.to_string());
    let stream = connect(address).await.map_err(unsent)?;
    match tls {
        None => over(stream, request).await,
        Some(tls) => {
            let stream = secure(tls.clone(), address.to_owned(), stream).await;
            over(stream.map_err(unsent)?, request).await
        }
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(SILENT_AFTER)
        .with_interval(TRY_EVERY)
        .with_retries(TRIES);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    Ok(stream)
}

async fn secure(
    tls: PoolTls,
    address: String,
    stream: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let prepared = tokio::task::spawn_blocking(move || {
        let wrong = |mistakes: Vec<_>| {
            let first = mistakes.first().map(ToString::to_string);
            io::Error::other(first.unwrap_or_default())
        };
        let originator = Originator::load(&tls, &[], None).map_err(wrong)?;
        let name = originator.name_of(&address)?;
        Ok((originator.connectors().to(Offer::Http1).clone(), name))
    });
    let (connector, name) = prepared
        .await
        .map_err(io::Error::other)?
        .map_err(|error: io::Error| error)?;
    connector.connect(name, stream).await
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Driver), Broken> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake
        .await
        .map_err(|error| Broken::Unsent(with_causes(&error)))?;
    let driver = Driver(tokio::spawn(connection).abort_handle());
    match sender.send_request(request).await {
        Ok(response) => Ok((response, driver)),
        Err(error) => Err(match is_alert(&error) {
            true => Broken::Unsent(with_causes(&error)),
            false => Broken::Cut(with_causes(&error)),
        }),
    }
}

/// An error of hyper's says itself only where it happened.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Whether the peer does not want the connection. In TLS 1.3 it says so of a client's certificate only when that may have
/// sent something, which it has not looked at.
fn is_alert(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref())
        .filter_map(|cause| cause.downcast_ref::<rustls::Error>())
        .any(|cause| matches!(cause, rustls::Error::AlertReceived(_)))
}

/// A user's password, which blocks for as long as the disk does.
///
/// # Errors
/// The mistake that the file is, told at the key that names it.
pub fn password(user: &User) -> Result<String, Box<Mistake>> {
    let file = &user.password;
    let bytes =
        std::fs::read(&file.path).map_err(|error| file.mistake(format!("cannot be read: {error}")))?;
    // Editors end a text with an empty line.
    let text = String::from_utf8(bytes).unwrap_or_default();
    let text = text.trim_end_matches(['\r', '\n']);
    match (1..=PASSWORD_BYTES_MAX).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(file.mistake(format!(
            "expected a password in it, a text of 1 to {PASSWORD_BYTES_MAX} bytes"
        ))),
    }
}
