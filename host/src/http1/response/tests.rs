//! Responses as they are judged, and as the client gets them.

use super::*;

const RULES: Rules<'static> = Rules {
    is_head: false,
    closes: false,
    via: true,
    date: b"today",
    cookie: None,
};

fn read(text: &str, rules: &Rules<'_>) -> Result<Option<(Reply, String)>, Malformed> {
    let mut out = Vec::new();
    let reply = read_reply(text.as_bytes(), rules, &mut out)?;
    Ok(reply.map(|reply| (reply, String::from_utf8(out).unwrap())))
}

fn framing(fields: &str, status: u16) -> Result<Framing, Malformed> {
    let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
    read(&text, &RULES).map(|reply| reply.expect("a whole head").0.framing)
}

#[test]
fn a_head_is_written_as_the_client_gets_it() {
    let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nContent-Length: 5\r\n\r\nhello";
    let (reply, head) = read(text, &RULES).unwrap().unwrap();
    assert_eq!(reply.len, text.len() - 5);
    assert!(!reply.keeps_alive);
    let expected =
        "HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\nvia: 1.1 {}\r\ndate: today\r\n\r\n";
    assert_eq!(head, expected.replace("{}", crate::http1::via_name()));
    let cookie = Rules {
        cookie: Some("a=b; Path=/"),
        ..RULES
    };
    let (_, with_cookie) = read(text, &cookie).unwrap().unwrap();
    assert_eq!(
        with_cookie,
        head.replace("today\r\n", "today\r\nset-cookie: a=b; Path=/\r\n")
    );
    let (_, head) = read(
        "HTTP/1.1 200\r\nDate: now\r\n\r\n",
        &Rules {
            closes: true,
            via: false,
            ..RULES
        },
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nDate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn a_body_ends_where_rfc_9112_says() {
    assert_eq!(framing("content-length: 5\r\n", 200), Ok(Framing::Length(5)));
    assert_eq!(
        framing("content-length: 5\r\ncontent-length: 5\r\n", 200),
        Ok(Framing::Length(5))
    );
    assert_eq!(framing("content-length: 0\r\n", 200), Ok(Framing::Empty));
    assert_eq!(
        framing("transfer-encoding: Chunked\r\n", 200),
        Ok(Framing::Chunked)
    );
    assert_eq!(framing("", 200), Ok(Framing::Close));
    assert_eq!(framing("content-length: 5\r\n", 204), Ok(Framing::Empty));
    assert_eq!(framing("content-length: 5\r\n", 304), Ok(Framing::Empty));
    let head = Rules {
        is_head: true,
        ..RULES
    };
    let (reply, _) = read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &head)
        .unwrap()
        .unwrap();
    assert!(reply.framing == Framing::Empty && reply.keeps_alive);
}

#[test]
fn what_readers_could_disagree_about_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: \r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "x y: 1\r\n",
        "x: 1\r\n y\r\n",
    ] {
        assert!(framing(fields, 200).is_err(), "{fields:?}");
    }
    assert!(read("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &RULES).is_err());
    assert!(read("HTTP/1.1 099 OK\r\n\r\n", &RULES).is_err());
}

#[test]
fn connections_are_kept_as_the_version_and_the_field_say() {
    let keeps = |text: &str| read(text, &RULES).unwrap().unwrap().0.keeps_alive;
    assert!(keeps("HTTP/1.1 204 X\r\n\r\n"));
    assert!(!keeps("HTTP/1.1 204 X\r\nconnection: Close\r\n\r\n"));
    assert!(!keeps("HTTP/1.0 204 X\r\n\r\n"));
    assert!(keeps("HTTP/1.0 204 X\r\nconnection: Keep-Alive\r\n\r\n"));
    assert!(!keeps("HTTP/1.1 200 X\r\n\r\n"), "its body ends with it");
}

#[test]
fn nothing_is_written_before_the_head_is_whole_or_of_an_interim_one() {
    let text = "HTTP/1.1 200 OK\r\nx: y\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(read(&text[..end], &RULES), Ok(None), "{end}");
    }
    let (reply, head) = read("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", &RULES)
        .unwrap()
        .unwrap();
    assert!(reply.is_interim() && head.is_empty());
}
