//! One process takes over from another, and certificates change, while clients ask by TLS, by HTTP/2 over it, and by
//! TCP. What `upgrade.rs` shows of plain HTTP holds there too.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use trimtab_tests::{
    Client, DEADLINE, Directory, LONG, Origin, Setup,
    tls::{Authority, Signed, shake},
    wait_until, within,
};

use crate::{PROGRAM, lineage::Lineage};

const NAME: &str = "shop.test";
const REQUEST: &str = "GET /load HTTP/1.1\r\nhost: shop.test\r\n\r\n";

/// Who asks, and in which way.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By one connection after the other, which last until the balancer ends them.
    Kept,
    /// By a connection for each request.
    Anew,
    /// By HTTP/2.
    Multiplexed,
    /// By TCP, a connection for each request.
    Tcp,
    /// By one TCP connection, to the end.
    Tunnel,
}

/// Every way has as many clients.
const WAYS: [Way; 5] = [Way::Kept, Way::Anew, Way::Multiplexed, Way::Tcp, Way::Tunnel];
const CLIENTS: usize = 3;

#[derive(Clone)]
struct Asking {
    tls: SocketAddr,
    tcp: SocketAddr,
    config: ClientConfig,
    is_over: Arc<AtomicBool>,
    answered: Arc<[AtomicU64; WAYS.len()]>,
}

impl Asking {
    async fn ask(self, way: Way) {
        match way {
            Way::Kept | Way::Anew => self.ask_by_tls(way).await,
            Way::Multiplexed => self.ask_by_http2().await,
            Way::Tcp | Way::Tunnel => self.ask_by_tcp(way).await,
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(SeqCst)
    }

    fn count(&self, way: Way) {
        self.answered[way as usize].fetch_add(1, SeqCst);
    }

    async fn ask_by_tls(&self, way: Way) {
        let mut kept = None;
        while self.goes_on() {
            let mut client = match kept.take() {
                Some(client) => client,
                None => shake(self.tls, NAME, self.config.clone()).await.expect("TLS"),
            };
            let answer = client.ask(REQUEST).await;
            assert_eq!((answer.status, answer.is_complete), (200, true), "{way:?}");
            self.count(way);
            let is_last = answer.field("connection") == Some("close");
            kept = Some(client).filter(|_| matches!(way, Way::Kept) && !is_last);
        }
    }

    async fn ask_by_http2(&self) {
        let mut sender = self.http2().await;
        while self.goes_on() {
            let mut request = Request::get("https://shop.test/load")
                .body(Full::default())
                .unwrap();
            let response = loop {
                match sender.try_send_request(request).await {
                    Ok(response) => break response,
                    Err(mut error) => {
                        // After GOAWAY a client knows that this one was not looked at.
                        let unsent = error.take_message();
                        request = unsent.unwrap_or_else(|| panic!("lost: {:?}", error.into_error()));
                        sender = self.http2().await;
                    }
                }
            };
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
            self.count(Way::Multiplexed);
        }
    }

    async fn http2(&self) -> SendRequest<Full<Bytes>> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client = shake(self.tls, NAME, config).await.expect("TLS");
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(client.stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn ask_by_tcp(&self, way: Way) {
        let mut client = Client::connect(self.tcp).await;
        while self.goes_on() {
            let answer = client.ask(REQUEST).await;
            assert_eq!((answer.status, answer.is_complete), (200, true), "{way:?}");
            self.count(way);
            if matches!(way, Way::Tcp) {
                client = Client::connect(self.tcp).await;
            }
        }
    }
}

/// All of them.
struct Clients {
    asking: Asking,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Clients {
    fn start(asking: Asking) -> Self {
        let all = WAYS.into_iter().flat_map(|way| [way; CLIENTS]);
        let tasks = all.map(|way| tokio::spawn(asking.clone().ask(way))).collect();
        Self { asking, tasks }
    }

    /// Waits until each way has had so many more answers.
    async fn more(&self, count: u64) {
        let answered = || self.asking.answered.each_ref().map(|way| way.load(SeqCst));
        let before = answered();
        wait_until("more answers by every way", LONG, || {
            let has_more = |(now, before): (&u64, &u64)| *now >= before + count;
            answered().iter().zip(&before).all(has_more) || self.tasks.iter().any(|task| task.is_finished())
        })
        .await;
    }

    /// Ends them; a client whose request failed has panicked.
    async fn stop(self) {
        self.asking.is_over.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no request failed");
        }
    }
}

fn keep(directory: &Directory, signed: &Signed) {
    // One file, so that nobody can find a certificate beside another one's key.
    directory.replace("shop.pem", format!("{}{}", signed.cert, signed.key));
}

/// Waits until new handshakes show this certificate.
async fn shown(asking: &Asking, signed: &Signed) {
    let wanted = CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap();
    let looking = async {
        loop {
            let client = shake(asking.tls, NAME, fresh(&asking.config)).await.unwrap();
            let shown = client.stream.get_ref().1.peer_certificates().unwrap();
            if shown.first() == Some(&wanted) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the new certificate is shown", DEADLINE, looking).await;
}

/// A client that remembers no session, in which no certificate is shown.
fn fresh(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.resumption = rustls::client::Resumption::disabled();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_and_certificates_change_under_load_and_no_request_is_lost_by_tls_or_tcp() {
    let origin = Origin::start("a").await;
    let (authority, directory) = (Authority::new(), Directory::new());
    keep(&directory, &authority.server([NAME]));
    let setup = Setup::to(origin.address())
        .workers(2)
        .with_admin()
        .top("drain = \"1h\"\nlog = { format = \"json\" }")
        .listener(
            "tls = { certificates = [{ cert = \"shop.pem\" }] }\n\
             [[listener]]\nname = \"bytes\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"",
        );
    directory.replace("trimtab.toml", setup.text());
    let mut lineage = Lineage::start(Path::new(PROGRAM), &directory).await;
    let asking = Asking {
        tls: lineage.listener(),
        tcp: lineage.listener_named("bytes"),
        config: authority.trusted(&[], None),
        is_over: Arc::default(),
        answered: Arc::default(),
    };
    let clients = Clients::start(asking.clone());
    clients.more(50).await;
    for generation in 1..=3 {
        let signed = authority.server([NAME]);
        keep(&directory, &signed);
        shown(&asking, &signed).await;
        clients.more(30).await;
        let (status, text) = lineage.ask_admin("POST /v1/upgrade", "").await;
        assert_eq!(status, 200, "{text}");
        lineage.wait_for_serving(generation + 1).await;
        clients.more(30).await;
        // The new process shows it too, and looks for the next.
        shown(&asking, &signed).await;
    }
    assert!(
        lineage.first.try_wait().unwrap().is_none(),
        "it has tunnels to the end"
    );
    clients.stop().await;
    lineage.wait_for_the_first_to_end().await;
    assert_eq!(lineage.successors().len(), 3);
}
