//! A connection whose bytes are passed on as they are, from its first byte to its end.
//!
//! Owns the order of the steps: look for a name, route, pick, connect, relay. It must not know what the bytes mean,
//! beyond the name in the first message of a TLS handshake.
//!
//! Invariant: nothing is sent to a client that its backend has not said.

use std::{io, rc::Rc};

use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;

use super::{
    accept::Rules,
    attempts::Attempts,
    client::{ClientStream, Socket},
    error::Error,
    forward::{Exchange, Failed},
    journey::Journey,
    relay::{Tunnel, is_cut},
    route,
    serve::Client,
};
use crate::http1::Head;

/// What policies, metrics and outlier ejection are told of a connection that was opened: that all is well.
const OPENED: u16 = 200;
/// The longest first message of a handshake that is looked at; with keys against quantum computers they have 2 KiB.
const HELLO_MAX: usize = 32 << 10;
const PIECE_BYTES: usize = 4 << 10;

/// Serves a connection to its end. `name` is the server's, if a handshake with us has told it.
pub(super) async fn serve<S: Socket>(client: Rc<Client>, stream: S, name: Option<String>) {
    // Boxed because it is large, and connections of other listeners never need it.
    Box::pin(serve_boxed(client, stream, name)).await;
}

async fn serve_boxed<S: Socket>(client: Rc<Client>, stream: S, name: Option<String>) {
    let mut stream = ClientStream::new(stream, client.watch.clone());
    let rules = client.listener.rules();
    let (early, name) = if rules.config.peek_sni {
        client.watch.handshake_began();
        let peeking = peek(&mut stream);
        let peeked = tokio::time::timeout(rules.config.limits.header_timeout, peeking).await;
        let Ok(Ok(peeked)) = peeked else {
            client
                .worker
                .metrics()
                .count(|metrics| &metrics.tls_handshake_failures);
            return;
        };
        peeked
    } else {
        (Vec::new(), name)
    };
    client.watch.request_began();
    let mut head = Head::of("", name.as_deref().unwrap_or_default(), "", []);
    let mut journey = Journey::begin(&client, &head).of_connection();
    let tunnel = match connect(&client, &rules, &mut head, &mut journey).await {
        Ok(tunnel) => tunnel,
        Err(error) => {
            journey.fail(&error);
            return stream.cut();
        }
    };
    // Rules hold pools, and a connection may outlive those.
    drop(rules);
    let worker = &client.worker;
    worker.metrics().count(|metrics| &metrics.tcp_connections);
    let with = (&*client.watch, &worker.scratch);
    let (passed, ended) = tunnel.run(&mut stream, early, with).await;
    journey.passed(passed);
    match ended {
        Ok(()) => journey.complete(),
        Err(error) if is_cut(&error) => stream.cut(),
        Err(_) => {}
    }
}

/// Opens a connection to the first backend that takes one.
async fn connect(
    client: &Rc<Client>,
    rules: &Rules,
    head: &mut Head,
    journey: &mut Journey,
) -> Result<Tunnel, Error> {
    let pool = route::find_at(&rules.routes, head.host(), "/").ok_or(Error::NoRoute)?;
    let mut attempts = Attempts::new(client, pool, head, true, journey.began_us);
    loop {
        let (target, _) = attempts.pick_in_turn(head, journey).await?;
        let mut ledger = attempts.begin(&target);
        let metrics = client.worker.metrics();
        metrics.count(|metrics| &metrics.upstream_connects);
        match ledger.upstream.connect_bytes(ledger.how()).await {
            Ok(wire) => {
                ledger.record(Some(OPENED));
                return Ok(Tunnel::new(wire, [], Exchange::of_bytes(ledger)));
            }
            Err(error) => {
                metrics.count(|metrics| &metrics.upstream_connect_failures);
                ledger.record(None);
                drop(ledger);
                let failed = Failed::for_good(Error::Connect(error.to_string()));
                attempts.allow_another(target, failed, true)?;
            }
        }
    }
}

/// Reads up to the end of a TLS client's first message, over as many pieces and records as it has: all bytes that were
/// read, and the server's name in it. What is not TLS has none.
async fn peek<S: Socket>(stream: &mut ClientStream<S>) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    loop {
        let begin = bytes.len();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok((bytes, None));
        }
        let mut piece = &bytes[begin..];
        while !piece.is_empty() {
            if acceptor.read_tls(&mut piece)? == 0 {
                return Ok((bytes, None));
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Ok((bytes, name));
            }
            Ok(None) if bytes.len() < HELLO_MAX => bytes.reserve(PIECE_BYTES),
            // Old or broken ones are the backend's to judge.
            Ok(None) | Err(_) => return Ok((bytes, None)),
        }
    }
}
