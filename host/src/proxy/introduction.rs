//! Connections that a proxy introduces: whom to believe, and what is read before anything else.
//!
//! Owns the waiting for a header of the PROXY protocol (`proxy_header.rs` reads it). It must not know what the connection
//! is for.
//!
//! Invariant: only a peer that the listener trusts is asked for a header; nobody else is believed.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    config::ProxyProtocol,
    proxy_header::{self, BYTES_MAX, Beginning, Endpoints},
};

/// Holds the longest line, and a binary header without long extensions.
const LIKELY_BYTES: usize = 256;
/// Proxies write a header at once, so the rest of one is hardly ever waited for.
const REST_PAUSE: Duration = Duration::from_millis(5);

/// What the peer says of the connection; `None` if it is the client itself. Nothing after the header is read.
///
/// # Errors
/// When a header is malformed, missing or late.
pub(super) async fn hear(
    stream: &mut TcpStream,
    peer: SocketAddr,
    rules: &ProxyProtocol,
    within: Duration,
) -> io::Result<Option<Endpoints>> {
    let ip = peer.ip().to_canonical();
    if !rules.trusted.iter().any(|network| network.contains(ip)) {
        return Ok(None);
    }
    let hearing = tokio::time::timeout(within, hear_trusted(stream, rules));
    hearing
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn hear_trusted(stream: &mut TcpStream, rules: &ProxyProtocol) -> io::Result<Option<Endpoints>> {
    let wrong = |message: &str| io::Error::new(io::ErrorKind::InvalidData, message.to_owned());
    let mut bytes = vec![0; LIKELY_BYTES];
    loop {
        let count = stream.peek(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let beginning = proxy_header::read(&bytes[..count]);
        match beginning.map_err(|malformed| wrong(&malformed.to_string()))? {
            Beginning::Header { len, endpoints } => {
                bytes.resize(len, 0);
                stream.read_exact(&mut bytes).await?;
                return Ok(endpoints);
            }
            Beginning::Other if rules.is_required => return Err(wrong("no header of the PROXY protocol")),
            Beginning::Other => return Ok(None),
            Beginning::Part(least) => {
                bytes.resize(least.clamp(bytes.len(), BYTES_MAX), 0);
                tokio::time::sleep(REST_PAUSE).await;
            }
        }
    }
}
