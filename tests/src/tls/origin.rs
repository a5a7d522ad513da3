//! An origin behind TLS: a web server that notes each handshake, and what came over it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Authority, Signed};

/// A web server behind TLS. It answers with what was sent to it; asked for another protocol, it agrees and echoes.
#[derive(Debug)]
pub struct TlsOrigin {
    address: SocketAddr,
    record: Arc<Record>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Record {
    connections: Mutex<Vec<Seen>>,
    failed: AtomicUsize,
}

/// One connection whose handshake succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whom the client asked for.
    pub name: Option<String>,
    /// What both agreed to speak, if anything.
    pub protocol: Option<String>,
    /// Whether the client went on with an earlier session.
    pub is_resumed: bool,
    /// Whether the client has shown a certificate.
    pub shows_certificate: bool,
    /// Requests as they came: version, method, target.
    pub requests: Vec<String>,
}

impl Record {
    fn connections(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsOrigin {
    /// Shows `signed`, agrees to one of `protocols`, and wants a certificate of `clients` if there are any.
    ///
    /// # Panics
    /// When there is no port, or the certificate is none.
    pub async fn start(signed: &Signed, protocols: &[&str], clients: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(config(signed, protocols, clients)));
        let record = Arc::new(Record::default());
        let shared = record.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(acceptor.clone(), stream, shared.clone()));
            }
        });
        Self {
            address,
            record,
            accepting,
        }
    }

    /// `address:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The connections so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.record.connections().clone()
    }

    /// Requests over all connections.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.seen().into_iter().flat_map(|seen| seen.requests).collect()
    }

    /// Handshakes that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.record.failed.load(Ordering::SeqCst)
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What a server shows `signed` with, that has no wishes.
///
/// # Panics
/// When the certificate is none.
#[must_use]
pub fn acceptor(signed: &Signed) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(config(signed, &["http/1.1"], None)))
}

fn config(signed: &Signed, protocols: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let own = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM");
            roots.add(own).expect("an authority");
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("a verifier")
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(signed.cert.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("PEM"),
        )
        .expect("a certificate with its key");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, record: Arc<Record>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        record.failed.fetch_add(1, Ordering::SeqCst);
        return;
    };
    let tls = stream.get_ref().1;
    let seen = Seen {
        name: tls.server_name().map(str::to_owned),
        protocol: tls
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        is_resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        shows_certificate: tls.peer_certificates().is_some(),
        requests: Vec::new(),
    };
    let is_http2 = seen.protocol.as_deref() == Some("h2");
    let number = {
        let mut connections = record.connections();
        connections.push(seen);
        connections.len() - 1
    };
    serve(stream, is_http2, (record, number)).await;
}

/// A client that goes away is no failure of the test.
async fn serve(stream: TlsStream<TcpStream>, is_http2: bool, (record, number): (Arc<Record>, usize)) {
    let service = service_fn(move |request| answer(record.clone(), number, request));
    let stream = TokioIo::new(stream);
    if is_http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(stream, service).await;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(stream, service).with_upgrades().await;
    }
}

async fn answer(
    record: Arc<Record>,
    number: usize,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{:?} {} {}", request.version(), request.method(), request.uri());
    record.connections()[number].requests.push(line);
    if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let mut stream = TokioIo::new(upgraded);
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                let _ = stream.write_all(&bytes[..read]).await;
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = header::HeaderValue::from_static("upgrade");
        response.headers_mut().insert(header::CONNECTION, upgrade);
        response.headers_mut().insert(header::UPGRADE, protocol);
        return Ok(response);
    }
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}
