//! Handshakes as bytes: slow ones, cut up ones, old ones, and what is none.

use std::sync::Arc;

use rustls::{ClientConnection, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trimtab_tests::{Client, DEADLINE, Origin, tls::shake, wait_until, within};

use super::{Shop, plain};

#[tokio::test]
async fn i5_a_handshake_that_stalls_is_ended_and_keeps_nobody_waiting() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, ", handshake_timeout = \"200ms\"").await;
    let mut silent = Client::connect(balancer.address).await;
    let mut begun = Client::connect(balancer.address).await;
    begun.send([0x16, 3, 1, 2, 0, 1, 0, 1]).await;
    let mut client = shake(balancer.address, "shop.test", shop.trusted())
        .await
        .unwrap();
    assert_eq!(
        client.get("/").await.status,
        200,
        "the only worker goes on serving"
    );
    assert_eq!(silent.until_closed().await, "");
    assert_eq!(begun.until_closed().await, "");
    wait_until("both are counted", DEADLINE, || {
        balancer.count(|worker| &worker.tls_handshake_failures) == 2
    })
    .await;
    assert_eq!(
        client.get("/").await.status,
        200,
        "a handshake's time-out ends with it"
    );
}

/// The first flight of a client.
fn hello(shop: &Shop) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("shop.test").unwrap();
    let mut connection = ClientConnection::new(Arc::new(shop.trusted()), name).unwrap();
    let mut flight = Vec::new();
    connection.write_tls(&mut flight).unwrap();
    (connection, flight)
}

#[tokio::test]
async fn k2_a_hello_in_records_of_one_byte_is_understood() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, "").await;
    let (mut connection, flight) = hello(&shop);
    let mut client = Client::connect(balancer.address).await;
    for byte in &flight[5..] {
        client.send([0x16, 3, 1, 0, 1, *byte]).await;
    }
    let mut received = vec![0; 4096];
    let count = within("an answer", DEADLINE, client.stream.read(&mut received))
        .await
        .unwrap();
    let read = connection.read_tls(&mut &received[..count]).unwrap();
    assert!(read > 0);
    connection.process_new_packets().unwrap();
    let alert = [0x15, 3, 3, 0, 2];
    assert_ne!(received[..5], alert, "it was refused");
}

#[tokio::test]
async fn k2_what_is_no_hello_is_refused() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, "").await;
    // A record that is too large, a message that is too large, a record of no kind, and application data.
    for bytes in [
        vec![0x16, 3, 1, 0xff, 0xff, 1],
        [vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], vec![0; 0x3ffc]].concat(),
        vec![0x7f, 3, 1, 0, 1, 0],
        vec![0x17, 3, 3, 0, 1, 0],
    ] {
        let mut client = Client::connect(balancer.address).await;
        client.send(&bytes).await;
        let mut answer = Vec::new();
        // An alert or none, and in any case an end.
        let _ = within("the end", DEADLINE, client.stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    assert_eq!(origin.hits(), 0);
    assert!(shake(balancer.address, "shop.test", shop.trusted()).await.is_ok());
}

#[tokio::test]
async fn k1_old_versions_are_refused() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, "").await;
    // SSL 3.0, TLS 1.0 and 1.1, as the only version of a hello with one strong and one weak suite.
    for minor in [0, 1, 2] {
        let suites = [0, 4, 0xc0, 0x2f, 0, 0x35];
        let body = [&[3, minor][..], &[7; 32], &[0], &suites, &[1, 0]].concat();
        let length = body.len() as u8;
        let message = [&[1, 0, 0, length][..], &body].concat();
        let record = [&[0x16, 3, minor, 0, message.len() as u8][..], &message].concat();
        let mut client = Client::connect(balancer.address).await;
        client.stream.write_all(&record).await.unwrap();
        let mut answer = Vec::new();
        let _ = within("the end", DEADLINE, client.stream.read_to_end(&mut answer)).await;
        assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
        assert_eq!(answer.len(), 7, "and nothing else: {answer:?}");
    }
}

#[tokio::test]
async fn plain_text_on_a_port_with_tls_is_told_what_the_port_speaks() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, "").await;
    let mut client = Client::connect(balancer.address).await;
    let response = client.get("/").await;
    assert_eq!(response.status, 400);
    assert!(response.text().contains("HTTPS"), "{}", response.text());
    client.until_closed().await;
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn a_handshake_under_way_is_finished_when_the_balancer_stops() {
    let origin = Origin::start("a").await;
    let shop = Shop::new();
    let balancer = plain(&origin, &shop, "").await;
    let (mut connection, flight) = hello(&shop);
    let mut client = Client::connect(balancer.address).await;
    client.send(&flight[..100]).await;
    wait_until("it is accepted", DEADLINE, || {
        balancer.count(|worker| &worker.connections) == 1
    })
    .await;
    balancer.handle().stop().await;
    client.send(&flight[100..]).await;
    let mut all = Vec::new();
    while connection.is_handshaking() {
        let mut received = vec![0; 8192];
        let count = within("an answer", DEADLINE, client.stream.read(&mut received))
            .await
            .unwrap();
        assert!(count > 0, "the connection was cut in the middle of the handshake");
        all.extend_from_slice(&received[..count]);
        connection.read_tls(&mut &all[..]).unwrap();
        connection.process_new_packets().unwrap();
        all.clear();
    }
}
