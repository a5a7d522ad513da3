//! Certificates that clients show.

use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use trimtab_tests::{
    Balancer, DEADLINE, Origin, Setup,
    tls::{Authority, Signed, shake},
    within,
};

use super::{Shop, plain, table};

const REQUIRED: &str = ", client_ca = \"ca.pem\"";

/// Whether a client that shows this gets an answer. With TLS 1.3 a client learns of the refusal only when it reads.
async fn answered(balancer: &Balancer, shop: &Shop, shows: Option<&Signed>) -> Result<u16, String> {
    let config = shop.authority.trusted(&[], shows);
    let shaken = shake(balancer.address, "shop.test", config).await;
    let mut client = shaken.map_err(|error| error.to_string())?;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.try_response().await;
    response
        .map(|response| response.status)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn k5_only_a_good_certificate_of_the_authority_gets_in() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    shop.directory.write("revoked.pem", shop.authority.revoke(7));
    let balancer = plain(
        &origin,
        &shop,
        &format!("{REQUIRED}, client_crl = \"revoked.pem\""),
    )
    .await;
    let good = shop.authority.client(1);
    assert_eq!(answered(&balancer, &shop, Some(&good)).await, Ok(200));
    let for_servers = shop
        .authority
        .sign(["client"], ExtendedKeyUsagePurpose::ServerAuth, 2);
    for (shows, alert) in [
        (None, "CertificateRequired"),
        (Some(Authority::new().client(3)), "DecryptError"),
        (Some(shop.authority.expired_client()), "CertificateExpired"),
        (Some(for_servers), "UnsupportedCertificate"),
        (Some(shop.authority.client(7)), "CertificateRevoked"),
    ] {
        let refused = answered(&balancer, &shop, shows.as_ref()).await.unwrap_err();
        assert!(
            refused.contains(alert) || refused.contains("UnknownCA"),
            "{alert}: {refused}"
        );
    }
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn an_optional_certificate_may_be_left_out_but_not_be_bad() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, &format!("{REQUIRED}, client_auth = \"optional\"")).await;
    assert_eq!(answered(&balancer, &shop, None).await, Ok(200));
    assert_eq!(
        answered(&balancer, &shop, Some(&shop.authority.client(1))).await,
        Ok(200)
    );
    assert!(
        answered(&balancer, &shop, Some(&Authority::new().client(1)))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_session_is_not_resumed_after_what_clients_must_show_has_changed() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let setup = Setup::to(origin.address());
    let balancer = plain(&origin, &shop, REQUIRED).await;
    let config = shop.authority.trusted(&[], Some(&shop.authority.client(7)));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = shake(balancer.address, "shop.test", config.clone())
            .await
            .unwrap();
        assert_eq!(client.stream.get_ref().1.handshake_kind(), Some(expected));
        assert_eq!(client.get("/").await.status, 200);
    }
    shop.directory.write("revoked.pem", shop.authority.revoke(7));
    let more = format!("{REQUIRED}, client_crl = \"revoked.pem\"");
    let text = setup.listener(&table(&["shop"], &more)).text();
    within("reloading", DEADLINE, balancer.handle().replace(text))
        .await
        .unwrap();
    let hits = origin.hits();
    let shaken = shake(balancer.address, "shop.test", config).await;
    if let Ok(mut client) = shaken {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.try_response().await.is_err(), "a ticket got it in");
    }
    assert_eq!(origin.hits(), hits);
}
