//! Which requests are ordinary, and what is read of them.

use super::*;

fn inbox(bytes: &[u8]) -> Inbox {
    let mut inbox = Inbox::default();
    inbox.space()[..bytes.len()].copy_from_slice(bytes);
    inbox.add(bytes.len());
    inbox
}

fn received(text: &str) -> Received {
    inbox(text.as_bytes()).read(1 << 16, 100)
}

#[test]
fn an_ordinary_request_is_read_in_place() {
    let mut inbox =
        inbox(b"POST /a/b?x=1 HTTP/1.1\r\nHost: shop:81\r\nX-N:  v \r\nContent-Length: 3\r\n\r\nabcGET ");
    assert_eq!(inbox.read(1 << 16, 100), Received::Request);
    assert_eq!(inbox.body(), b"abc");
    let head = inbox.head();
    assert_eq!(
        (head.method(), head.path(), head.query()),
        ("POST", "/a/b", Some("x=1"))
    );
    assert_eq!(
        (head.authority(), head.field("x-n")),
        ("shop:81", Some(&b"v"[..]))
    );
    assert!(inbox.finish(), "the next request has begun");
    assert_eq!(inbox.bytes(), b"GET ");
    assert_eq!(inbox.read(1 << 16, 100), Received::Part);
}

#[test]
fn a_body_may_come_later_into_the_inbox_or_past_it() {
    let head = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    let mut inbox = inbox(format!("{head}abc").as_bytes());
    assert_eq!(inbox.read(1 << 16, 100), Received::Request);
    assert_eq!((inbox.body(), inbox.rest()), (&b"abc"[..], 7));
    inbox.space()[..2].copy_from_slice(b"de");
    inbox.add(2);
    assert_eq!((inbox.body(), inbox.rest()), (&b"abcde"[..], 5));
    inbox.forget_body();
    inbox.skip(4);
    assert_eq!((inbox.body(), inbox.rest()), (&b""[..], 1));
    // What follows the body's last byte is the next request's.
    inbox.space()[..5].copy_from_slice(b"jGET ");
    inbox.add(5);
    assert_eq!((inbox.body(), inbox.rest()), (&b"j"[..], 0));
    inbox.forget_body();
    assert_eq!(
        inbox.body(),
        b"j",
        "of one that is over, what follows would be lost"
    );
    assert!(inbox.finish());
    assert_eq!(inbox.bytes(), b"GET ");
}

#[test]
fn a_request_is_ordinary_at_its_last_byte_and_not_before() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(received(&text[..end]), Received::Part, "{end}");
    }
    assert_eq!(received(text), Received::Request);
}

#[test]
fn what_changes_the_connection_or_is_ambiguous_is_left_to_the_library() {
    for fields in [
        "",
        "host: a\r\nhost: a",
        "host: a b",
        "host: A",
        "host: a.",
        "host: a:80",
        "host: a:x",
        "host: a\r\nx_y: 1",
        "host: a\r\ncontent-length: 00",
        "host: a,b",
        "host: a\r\ntransfer-encoding: chunked",
        "host: a\r\nexpect: 100-continue",
        "host: a\r\nupgrade: websocket",
        "host: a\r\nconnection: upgrade",
        "host: a\r\nconnection: keep-alive, x",
        "host: a\r\nte: trailers",
        "host: a\r\nhttp2-settings: x",
        "host: a\r\ncontent-length: +0",
        "host: a\r\ncontent-length: 0\r\ncontent-length: 0",
        "host: a\r\ncontent-length: 9999999999999999999",
        "host: a\r\nx y: 1",
        "host: a\r\n x: folded",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        assert_eq!(received(&request), Received::Unusual, "{fields:?}");
    }
    for line in [
        "CONNECT a:1 HTTP/1.1",
        "TRACE / HTTP/1.1",
        "get / HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /# HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET //a HTTP/1.1",
        "GET /a/../b HTTP/1.1",
        "GET /%61 HTTP/1.1",
        "GET /a%2fb HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "GET /a\"b HTTP/1.1",
        "GET / HTTP/1.0",
        "GET / HTTP/2.0",
        "PRI * HTTP/2.0",
        "GET /",
        "nonsense",
    ] {
        assert_eq!(
            received(&format!("{line}\r\nhost: a\r\n\r\n")),
            Received::Unusual,
            "{line}"
        );
    }
}

#[test]
fn limits_are_the_librarys_to_enforce() {
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(9000));
    let (part, whole) = (&request.as_bytes()[..8800], request.as_bytes());
    assert_eq!(inbox(whole).read(8 << 10, 100), Received::Unusual);
    assert_eq!(inbox(part).read(8 << 10, 100), Received::Unusual);
    assert_eq!(inbox(whole).read(16 << 10, 100), Received::Request);
    assert_eq!(inbox(whole).read(16 << 10, 1), Received::Unusual);
}

#[test]
fn an_inbox_grows_up_to_its_limit() {
    let mut inbox = Inbox::default();
    while inbox.grow(40 << 10) {
        let space = inbox.space().len();
        inbox.add(space);
    }
    assert_eq!(inbox.bytes().len(), 40 << 10);
    inbox.clear();
    assert!(inbox.is_empty() && inbox.space().len() == INITIAL_BYTES);
}

#[test]
fn arbitrary_bytes_never_panic() {
    let seed = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let mut inbox = inbox(&bytes);
        if inbox.read(1 << 16, 100) == Received::Request {
            let (head, size) = (inbox.head(), bytes.len());
            assert!(head.target().starts_with('/') && head.target().len() < size);
            assert!(head.fields().all(|(name, _)| !name.is_empty()));
            inbox.finish();
        }
    }
}
