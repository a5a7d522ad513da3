//! A registry that answers as a test tells it to, with TLS or without, and notes who asks.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use trimtab::policy::digest;
use trimtab_tests::tls::{Signed, acceptor};

pub(super) type Answer = Response<Full<Bytes>>;
type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// With the query.
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) accept: String,
}

pub(super) struct Registry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    accepting: JoinHandle<()>,
}

impl Registry {
    pub(super) async fn start(
        signed: Option<&Signed>,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = signed.map(acceptor);
        let (asked, script): (Arc<Mutex<Vec<Asked>>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let noted = asked.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted, script) = (acceptor.clone(), noted.clone(), script.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, noted, script).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, noted, script).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            asked,
            accepting,
        }
    }

    /// Its name, as references have it.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    noted: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Script>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let text = |name| {
            let value = request.headers().get(name);
            value.map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned())
        };
        let asked = Asked {
            path: request.uri().to_string(),
            authorization: text(header::AUTHORIZATION),
            accept: text(header::ACCEPT).unwrap_or_default(),
        };
        let answer = script(&asked);
        noted.lock().unwrap().push(asked);
        async { Ok::<_, Infallible>(answer) }
    });
    let server = hyper::server::conn::http1::Builder::new();
    // A client that goes away is no failure of the test.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// What a registry has: a component with its manifest.
#[derive(Clone)]
pub(super) struct Pushed {
    pub(super) manifest: Vec<u8>,
    pub(super) component: Vec<u8>,
}

impl Pushed {
    pub(super) fn new(component: Vec<u8>) -> Self {
        Self::with_layer(component, "application/wasm")
    }

    pub(super) fn with_layer(component: Vec<u8>, media_type: &str) -> Self {
        let (digest, bytes) = (digest(&component), component.len());
        let layer = format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":{bytes}}}"#);
        Self {
            manifest: manifest(&[&layer]),
            component,
        }
    }

    pub(super) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The reference to it in a registry of this name.
    pub(super) fn at(&self, registry: &str) -> String {
        format!("oci://{registry}/team/policy:1.2@sha256:{}", self.digest())
    }

    pub(super) fn paths(&self) -> [String; 2] {
        let path = |kind: &str, digest: &str| format!("/v2/team/policy/{kind}/sha256:{digest}");
        [
            path("manifests", &self.digest()),
            path("blobs", &digest(&self.component)),
        ]
    }

    /// What is there under a path.
    pub(super) fn answer(&self, path: &str) -> Answer {
        let [manifest, blob] = self.paths();
        match path {
            _ if path == manifest => whole(200, &self.manifest),
            _ if path == blob => whole(200, &self.component),
            _ => whole(
                404,
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            ),
        }
    }
}

pub(super) fn manifest(layers: &[&str]) -> Vec<u8> {
    let layers = layers.join(",");
    let config = r#"{"mediaType":"application/vnd.wasm.config.v0+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layers}]}}"#
    )
    .into_bytes()
}

pub(super) fn whole(status: u16, body: &[u8]) -> Answer {
    let answer = Response::builder().status(status);
    answer.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

pub(super) fn with(status: u16, name: header::HeaderName, value: &str) -> Answer {
    let answer = Response::builder().status(status).header(name, value);
    answer.body(Full::default()).unwrap()
}
