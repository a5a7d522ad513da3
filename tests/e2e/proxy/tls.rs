//! TLS with clients: who is shown which certificate, what is refused, and what a certificate that changes does. Numbers
//! like K3 are those of the case list that issue 5 names.

mod clients;
mod wire;

use rustls::{ClientConfig, HandshakeKind, pki_types::CertificateDer};
use trimtab_tests::{
    Balancer, DEADLINE, Directory, Load, Origin, RawOrigin, Setup, ok,
    tls::{Authority, Signed, shake},
    wait_until, within,
};

/// An authority, and a directory with what it signed.
struct Shop {
    authority: Authority,
    directory: Directory,
}

impl Shop {
    /// With a certificate for `shop.test` in `shop.pem` and `shop.key`.
    fn new() -> Self {
        let shop = Self {
            authority: Authority::new(),
            directory: Directory::new(),
        };
        shop.keep("shop", &shop.authority.server(["shop.test"]));
        shop.directory.write("ca.pem", &shop.authority.pem);
        shop
    }

    fn keep(&self, name: &str, signed: &Signed) {
        self.directory.replace(&format!("{name}.pem"), &signed.cert);
        self.directory.replace(&format!("{name}.key"), &signed.key);
    }

    /// A balancer whose listener has these certificates, and more in its TLS table.
    async fn serve(&self, setup: Setup, certificates: &[&str], more: &str) -> Balancer {
        let text = setup.listener(&table(certificates, more)).text();
        let started = Balancer::start(text.clone(), self.directory.path()).await;
        started.unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn trusted(&self) -> ClientConfig {
        self.authority.trusted(&[], None)
    }
}

/// The line of a listener.
fn table(certificates: &[&str], more: &str) -> String {
    let entry = |name: &&str| format!("{{ cert = \"{name}.pem\", key = \"{name}.key\" }}");
    let entries: Vec<_> = certificates.iter().map(entry).collect();
    format!("tls = {{ certificates = [{}]{more} }}", entries.join(", "))
}

fn der(signed: &Signed) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap()
}

async fn shown(balancer: &Balancer, name: &str, shop: &Shop) -> std::io::Result<CertificateDer<'static>> {
    let client = shake(balancer.address, name, shop.trusted()).await?;
    Ok(client.stream.get_ref().1.peer_certificates().unwrap()[0].clone())
}

#[tokio::test]
async fn a_client_with_tls_is_served_and_the_backend_is_told() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let shop = Shop::new();
    let balancer = shop.serve(Setup::to(origin.address()), &["shop"], "").await;
    let mut client = shake(balancer.address, "shop.test", shop.trusted())
        .await
        .unwrap();
    for request in [
        // By our own way, and then by the library's.
        "GET /own HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-proto: http\r\n\r\n",
        "POST /library HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        assert_eq!(client.ask(request).await.text(), "hello");
    }
    let received = origin.received();
    assert_eq!(
        received.matches("x-forwarded-proto: https\r\n").count(),
        2,
        "{received}"
    );
    assert_eq!(received.matches("x-forwarded-proto").count(), 2, "{received}");
    assert_eq!(balancer.count(|worker| &worker.tls_handshakes), 1);
}

#[tokio::test]
async fn bodies_that_fill_all_buffers_arrive_whole_both_ways() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let origin = RawOrigin::start(move |mut peer| {
        let answer = answer.clone();
        async move {
            while peer.request().await.is_some() {
                peer.send(&answer).await;
            }
        }
    })
    .await;
    let shop = Shop::new();
    let balancer = shop.serve(Setup::to(origin.address()), &["shop"], "").await;
    let mut client = shake(balancer.address, "shop.test", shop.trusted())
        .await
        .unwrap();
    let response = client.get("/").await;
    assert!(response.is_complete && response.body == body);
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    client.send(&body).await;
    let response = client.response().await;
    assert!(response.is_complete && response.body == body);
    let received = origin.received_bytes();
    assert!(received.ends_with(&body), "{} bytes", received.len());
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_name_and_else_the_first() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let wild = shop.authority.server(["*.wild.test", "wild.test"]);
    let first = shop.authority.server(["shop.test", "other.test"]);
    shop.keep("shop", &first);
    shop.keep("wild", &wild);
    let balancer = shop
        .serve(Setup::to(origin.address()), &["shop", "wild"], "")
        .await;
    for (name, certificate) in [
        ("shop.test", &first),
        ("other.test", &first),
        ("SHOP.test", &first),
        ("wild.test", &wild),
        ("a.wild.test", &wild),
    ] {
        assert_eq!(
            shown(&balancer, name, &shop).await.unwrap(),
            der(certificate),
            "{name}"
        );
    }
    // K3: shown the first, which is not for the name, so the client refuses; not the balancer.
    for name in ["unknown.test", "b.a.wild.test", "127.0.0.1"] {
        let refused = shown(&balancer, name, &shop).await.unwrap_err().to_string();
        assert!(refused.contains("not valid for name"), "{name}: {refused}");
    }
}

#[tokio::test]
async fn k3_with_strict_sni_names_without_a_certificate_are_turned_away() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address());
    let balancer = shop.serve(setup, &["shop"], ", strict_sni = true").await;
    assert!(shown(&balancer, "shop.test", &shop).await.is_ok());
    for name in ["unknown.test", "127.0.0.1"] {
        let refused = shown(&balancer, name, &shop).await.unwrap_err().to_string();
        assert!(refused.contains("alert"), "{name}: {refused}");
    }
    wait_until("they are counted", DEADLINE, || {
        balancer.count(|worker| &worker.tls_handshake_failures) == 2
    })
    .await;
}

#[tokio::test]
async fn k4_a_client_that_speaks_nothing_of_ours_is_told_so() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = shop.serve(Setup::to(origin.address()), &["shop"], "").await;
    let config = shop.authority.trusted(&["smtp"], None);
    let refused = shake(balancer.address, "shop.test", config)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    let config = shop.authority.trusted(&["smtp", "http/1.1"], None);
    let mut client = shake(balancer.address, "shop.test", config).await.unwrap();
    assert_eq!(client.get("/").await.status, 200);
}

/// Has a session, and tells how the next one with the same client began.
async fn second(balancer: &Balancer, config: &ClientConfig) -> Option<HandshakeKind> {
    for _ in 0..2 {
        let mut client = shake(balancer.address, "shop.test", config.clone())
            .await
            .unwrap();
        let kind = client.stream.get_ref().1.handshake_kind();
        // Tickets come with what is read.
        assert_eq!(client.get("/").await.status, 200);
        if kind == Some(HandshakeKind::Resumed) {
            return kind;
        }
    }
    Some(HandshakeKind::Full)
}

fn only(
    config: &ClientConfig,
    version: &'static rustls::SupportedProtocolVersion,
    shop: &Shop,
) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots
        .add(CertificateDer::from_pem_slice(shop.authority.pem.as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(config.crypto_provider().clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn k7_sessions_are_resumed_in_every_worker_and_after_a_new_certificate() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address()).workers(2);
    let balancer = shop.serve(setup.clone(), &["shop"], "").await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = only(&shop.trusted(), version, &shop);
        assert_eq!(second(&balancer, &config).await, Some(HandshakeKind::Resumed));
        shop.keep("shop", &shop.authority.server(["shop.test"]));
        let setup = setup.clone().listener(&table(&["shop"], ""));
        within("reloading", DEADLINE, balancer.handle().replace(setup.text()))
            .await
            .unwrap();
        // Whichever worker gets it, and under another certificate.
        for _ in 0..8 {
            let mut client = shake(balancer.address, "shop.test", config.clone())
                .await
                .unwrap();
            let kind = client.stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
            assert_eq!(client.get("/").await.status, 200);
        }
    }
}

/// How this client's handshake with that balancer went.
async fn met(balancer: &Balancer, config: &ClientConfig) -> Option<HandshakeKind> {
    let mut client = shake(balancer.address, "shop.test", config.clone())
        .await
        .unwrap();
    let kind = client.stream.get_ref().1.handshake_kind();
    // Tickets of TLS 1.3 come with the first answer at the latest.
    assert_eq!(client.get("/").await.status, 200);
    kind
}

#[tokio::test]
async fn k7_sessions_go_on_with_another_node_that_has_the_same_key() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let node = |more: &'static str| shop.serve(Setup::to(origin.address()).workers(1), &["shop"], more);
    shop.directory
        .write("tickets", "forty bytes and more that nobody can guess");
    shop.directory
        .write("others", "forty bytes and more that are something else");
    shop.directory.write("short", "thirty-one bytes are not enough");
    let keyed = ", ticket_key = \"tickets\"";
    let (first, second) = (node(keyed).await, node(keyed).await);
    let (stranger, without) = (node(", ticket_key = \"others\"").await, node("").await);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = only(&shop.trusted(), version, &shop);
        assert_eq!(met(&first, &config).await, Some(HandshakeKind::Full));
        for node in [&second, &first, &second] {
            assert_eq!(
                met(node, &config).await,
                Some(HandshakeKind::Resumed),
                "{version:?}"
            );
        }
        for node in [&stranger, &second, &without, &second] {
            assert_eq!(met(node, &config).await, Some(HandshakeKind::Full), "{version:?}");
        }
    }

    // Whoever has to show more from now on begins anew, and a new secret ends what the old one sealed.
    let config = only(&shop.trusted(), &rustls::version::TLS13, &shop);
    assert_eq!(met(&first, &config).await, Some(HandshakeKind::Full));
    let asking = ", ticket_key = \"tickets\", client_ca = \"ca.pem\", client_auth = \"optional\"";
    assert_eq!(met(&node(asking).await, &config).await, Some(HandshakeKind::Full));
    let text = Setup::to(origin.address()).listener(&table(&["shop"], ", ticket_key = \"short\""));
    let refused = Balancer::start(text.text(), shop.directory.path()).await;
    let refused = refused.err().unwrap().to_string();
    assert!(
        refused.contains("ticket_key") && refused.contains("at least 32 bytes"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_oldest_version_is_the_listeners_choice() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address());
    let balancer = shop.serve(setup, &["shop"], ", min_version = \"1.3\"").await;
    let old = only(&shop.trusted(), &rustls::version::TLS12, &shop);
    let refused = shake(balancer.address, "shop.test", old)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    let new = only(&shop.trusted(), &rustls::version::TLS13, &shop);
    assert!(shake(balancer.address, "shop.test", new).await.is_ok());
}

/// A balancer over a file in the shop's directory.
async fn filed(shop: &Shop, setup: &Setup) -> Balancer {
    let file = shop.directory.write("trimtab.toml", setup.text());
    Balancer::start_file(file)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_without_a_restart_and_connections_go_on() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address()).listener(&table(&["shop"], ""));
    let balancer = filed(&shop, &setup).await;
    let mut before = shake(balancer.address, "shop.test", shop.trusted())
        .await
        .unwrap();
    assert_eq!(before.get("/").await.status, 200);
    let new = shop.authority.server(["shop.test"]);
    shop.keep("shop", &new);
    within("the new one is shown", DEADLINE, async {
        while shown(&balancer, "shop.test", &shop).await.unwrap() != der(&new) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(before.get("/").await.status, 200);
}

#[tokio::test]
async fn m4_a_bad_certificate_keeps_the_old_one_and_is_told() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let old = shop.authority.server(["shop.test"]);
    shop.keep("shop", &old);
    let setup = Setup::to(origin.address()).listener(&table(&["shop"], ""));
    let balancer = filed(&shop, &setup).await;
    let another = shop.authority.server(["shop.test"]);
    for (file, content, reason) in [
        ("shop.pem", "nonsense", "has no certificate in it"),
        (
            "shop.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
        ("shop.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", "expected PEM"),
        (
            "shop.pem",
            another.cert.as_str(),
            "is not the key of the certificate",
        ),
        ("shop.key", another.cert.as_str(), "has no private key in it"),
        (
            "shop.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "passphrase",
        ),
    ] {
        shop.keep("shop", &old);
        shop.directory.replace(file, content);
        let refused = within("reloading", DEADLINE, balancer.handle().reload()).await;
        let text = refused.expect_err(reason);
        assert!(text.contains(reason), "{reason}: {text}");
        assert!(
            text.contains("trimtab.toml:6: listener[0].tls.certificates[0]."),
            "{text}"
        );
        assert_eq!(shown(&balancer, "shop.test", &shop).await.unwrap(), der(&old));
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_the_files_is_told_at_once() {
    let shop = Shop::new();
    let setup = Setup::to("127.0.0.1:1".into());
    let more = ", client_ca = \"shop.key\"";
    let text = setup.listener(&table(&["absent", "shop"], more)).text();
    let told = Balancer::start(text, shop.directory.path())
        .await
        .err()
        .unwrap()
        .to_string();
    for (key, reason) in [
        ("certificates[0].cert", "cannot be read"),
        ("certificates[0].key", "cannot be read"),
    ] {
        assert!(
            told.lines()
                .any(|line| line.contains(key) && line.contains(reason)),
            "{told}"
        );
    }
    let text = Setup::to("127.0.0.1:1".into())
        .listener(&table(&["shop"], more))
        .text();
    let told = Balancer::start(text, shop.directory.path())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        told.contains("client_ca = \"shop.key\": has no certificate in it"),
        "{told}"
    );
}

#[tokio::test]
async fn m3_certificates_that_change_under_load_fail_nothing() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address())
        .workers(2)
        .listener(&table(&["shop"], ""));
    let balancer = filed(&shop, &setup).await;
    let plain = Setup::to(origin.address()).start().await;
    let load = Load::start(plain.address, 2);
    for _ in 0..10 {
        shop.keep("shop", &shop.authority.server(["shop.test"]));
        within("reloading", DEADLINE, balancer.handle().reload())
            .await
            .unwrap();
        for _ in 0..4 {
            let mut client = shake(balancer.address, "shop.test", shop.trusted())
                .await
                .unwrap();
            assert_eq!(client.get("/").await.text(), "a");
        }
    }
    load.stop().await.expect_no_failure();
    assert_eq!(balancer.count(|worker| &worker.tls_handshake_failures), 0);
}

#[tokio::test]
async fn the_end_of_a_connection_is_said_so_that_no_cut_looks_like_it() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let shop = Shop::new();
    let balancer = shop.serve(Setup::to(origin.address()), &["shop"], "").await;
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n",
    ] {
        let mut client = shake(balancer.address, "shop.test", shop.trusted())
            .await
            .unwrap();
        assert_eq!(client.ask(request).await.text(), "hello");
        // rustls makes an end without close_notify an error.
        assert_eq!(client.rest().await.unwrap(), b"");
    }
}

/// For the other files of this folder.
async fn plain(origin: &Origin, shop: &Shop, more: &str) -> Balancer {
    shop.serve(Setup::to(origin.address()), &["shop"], more).await
}
