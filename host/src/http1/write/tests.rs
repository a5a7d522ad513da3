//! Requests as backends get them, and answers of our own.

use super::*;
use crate::http1::{Inbox, Received};

const PEER: Peer<'_> = Peer {
    address: b"10.0.0.1",
    scheme: "http",
};

fn written(fields: &str, mode: Forwarded, via: bool) -> String {
    let request = format!("GET /a?b HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
    let mut inbox = Inbox::default();
    inbox.space()[..request.len()].copy_from_slice(request.as_bytes());
    inbox.add(request.len());
    assert_eq!(inbox.read(1 << 16, 100), Received::Request);
    let mut out = Vec::new();
    write_request(&mut out, inbox.head(), mode, via, PEER);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_goes_through_without_what_means_one_connection() {
    let fields = "X-A: 1\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nProxy: x\r\nProxy-Connection: y\r\n";
    let expected = "GET /a?b HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\n\r\n";
    assert_eq!(written(fields, Forwarded::Off, false), expected);
}

#[test]
fn what_the_client_says_of_itself_is_replaced() {
    let fields = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
        Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nx-forwarded-prefix: /evil\r\n";
    let text = written(fields, Forwarded::Replace, true);
    let own = "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop\r\nvia: 1.1 {}\r\n\r\n";
    let own = own.replace("{}", via_name());
    assert_eq!(text, format!("GET /a?b HTTP/1.1\r\nHost: shop\r\n{own}"));
}

#[test]
fn or_appended_to() {
    let fields = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nx-forwarded-for: 5.6.7.8\r\n";
    let text = written(fields, Forwarded::Append, false);
    let own = "X-Forwarded-Proto: https\r\nx-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.1\r\nx-forwarded-host: shop\r\n\r\n";
    let own = own.replace("{}", via_name());
    assert_eq!(text, format!("GET /a?b HTTP/1.1\r\nHost: shop\r\n{own}"));
}

#[test]
fn an_answer_to_head_has_a_length_and_no_body() {
    let answer = Response::new(Bytes::from_static(b"hello"));
    for (is_head, body) in [(false, "hello"), (true, "")] {
        let mut out = Vec::new();
        write_answer(&mut out, &answer, is_head, b"today");
        let expected = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ndate: today\r\n\r\n{body}");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
