//! What clients of the old node bring to the new one: TLS sessions and cookies.

use rustls::{
    ClientConfig, HandshakeKind,
    pki_types::{CertificateDer, pem::PemObject},
};
use trimtab_tests::{
    Client, Origin,
    tls::{Authority, shake_over},
};

use super::Cluster;

/// A request with TLS: the cookie that the client brings or gets, and whether its session was resumed.
async fn visit(cluster: &Cluster, config: &ClientConfig, cookie: &str) -> (String, Option<HandshakeKind>) {
    let stream = cluster.connect().await;
    let shaken = shake_over(stream, "shop.test", config.clone()).await;
    let mut client: Client<_> = shaken.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
    let kind = client.stream.get_ref().1.handshake_kind();
    client
        .send(&format!(
            "GET / HTTP/1.1\r\nhost: shop.test\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        ))
        .await;
    let answer = client.response().await;
    assert_eq!(answer.status, 200);
    let given = answer.field("set-cookie").unwrap_or_default();
    (given.split(';').next().unwrap_or_default().to_owned(), kind)
}

/// A client of one version, which keeps its sessions over its connections.
fn only(authority: &Authority, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_sessions_of_the_old_node_go_on_at_the_new_one() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    let authority = Authority::new();
    let signed = authority.server(["shop.test"]);
    cluster.directory.write("shop.pem", &signed.cert);
    cluster.directory.write("shop.key", &signed.key);
    let line = format!("listen = \"{}\"\n", cluster.address);
    let tls = "tls = { certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }] }\n";
    cluster.rewrite(&line, &format!("{line}{tls}"));
    cluster.rewrite("[cluster]", "[pool.main.sticky]\n[cluster]");
    cluster.start_all().await;

    let configs = [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| only(&authority, version));
    for config in &configs {
        assert_eq!(visit(&cluster, config, "").await.1, Some(HandshakeKind::Full));
    }
    let (cookie, _) = visit(&cluster, &configs[0], "").await;
    assert!(cookie.starts_with("trimtab="), "{cookie}");
    cluster.kill(0);
    for config in &configs {
        let (given, kind) = visit(&cluster, config, &cookie).await;
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{}", cluster.logs());
        assert_eq!(given, "", "the cookie of the old node is good");
    }
}
