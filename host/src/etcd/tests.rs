//! Members of etcd that say what the test says; a real one is in `tests/outside/fleet.rs`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Client, Condition, Error, Follower, Write};
use crate::config::Etcd;

/// Answers each connection with the next of these, and ends it; a text that is empty ends it without an answer.
async fn member(answers: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 4096];
            let _ = stream.read(&mut read).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Nobody listens there.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

fn client(endpoints: &[SocketAddr]) -> Client {
    Client::new(Arc::new(Etcd {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        prefix: "trimtab/".to_owned(),
        timeout: Duration::from_secs(10),
        user: None,
        tls: None,
    }))
}

#[test]
fn whoever_asks_the_same_etcd_in_one_process_logs_in_once() {
    let of = |prefix: &str| {
        Arc::new(Etcd {
            endpoints: vec!["10.0.0.1:2379".to_owned()],
            prefix: prefix.to_owned(),
            timeout: Duration::from_secs(1),
            user: None,
            tls: None,
        })
    };
    let [one, same, other] = ["once/", "once/", "other/"].map(|prefix| Client::shared(&of(prefix)));
    assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
}

const NO_LEADER: &str = r#"{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}"#;
const ONE_KEY: &str = r#"{"header":{"revision":"7"},"kvs":[{"key":"YQ==","create_revision":"3","mod_revision":"5","value":"MQ=="}],"count":"1"}"#;

#[tokio::test]
async fn a_reading_goes_on_to_the_next_member() {
    let leaderless = member(vec![http("503 Service Unavailable", NO_LEADER)]).await;
    let good = member(vec![http("200 OK", ONE_KEY)]).await;
    let client = client(&[nobody().await, leaderless, good]);
    let entry = client.get("a").await.unwrap().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.create_revision, entry.mod_revision),
        (&b"1"[..], 3, 5)
    );
}

#[tokio::test]
async fn a_write_that_was_sent_is_not_sent_again() {
    let silent = member(vec![String::new()]).await;
    let good = member(vec![http("200 OK", r#"{"succeeded":true}"#)]).await;
    let write = [Write::Put("a".to_owned(), b"1".to_vec(), 0)];
    let condition = [Condition::Created("a".to_owned(), 0)];
    let both = client(&[silent, good]);
    let first = both.write(&condition, &write).await;
    assert!(matches!(first, Err(Error::Unconfirmed(_))), "{first:?}");
    // Nobody was there to get it, so it may go to the other.
    let other = client(&[nobody().await, good]);
    assert_eq!(other.write(&condition, &write).await, Ok(true));
}

#[tokio::test]
async fn every_member_is_named_when_none_answers() {
    let (one, two) = (
        nobody().await,
        member(vec![http("503 Service Unavailable", NO_LEADER)]).await,
    );
    let error = client(&[one, two]).get("a").await.unwrap_err().to_string();
    assert!(error.starts_with("etcd cannot be reached: "), "{error}");
    assert!(error.contains(&format!("{one}: ")), "{error}");
    assert!(
        error.contains(&format!("{two}: etcdserver: no leader")),
        "{error}"
    );
}

#[tokio::test]
async fn a_watch_that_ends_has_everything_read_again() {
    let created = r#"{"result":{"header":{"revision":"7"},"created":true}}"#;
    let removed =
        r#"{"result":{"header":{"revision":"8"},"events":[{"type":"DELETE","kv":{"key":"YQ=="}}]}}"#;
    let compacted = r#"{"result":{"canceled":true,"compact_revision":"9"}}"#;
    let chunked = |lines: &[&str]| {
        let chunk = |line: &&str| format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        let chunks: String = lines.iter().map(chunk).collect();
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    let member = member(vec![
        http("200 OK", ONE_KEY),
        chunked(&[created, removed, compacted]),
        http("200 OK", ONE_KEY),
        chunked(&[created]),
    ]);
    let mut follower = Follower::new(Arc::new(client(&[member.await])), "a".to_owned());
    let read = follower.next().await.unwrap();
    assert_eq!(read.keys().collect::<Vec<_>>(), ["a"]);
    assert!(follower.next().await.unwrap().is_empty(), "the change");
    assert_eq!(follower.next().await.unwrap().len(), 1, "read again");
}
