//! Rules of what happens to header fields on their way through.

use super::*;
use crate::config::Limits;

fn listener(forwarded: Forwarded) -> Listener {
    Listener {
        name: "web".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        protocol: crate::config::Protocol::Http,
        tls: None,
        peek_sni: false,
        proxy_protocol: None,
        http2: None,
        forwarded,
        paths: crate::config::Paths::Strict,
        underscores: Underscores::Drop,
        upgrades: Vec::new(),
        connect: false,
        via: true,
        limits: Limits {
            connections: None,
            header_bytes: 65_536,
            headers: 100,
            header_timeout: std::time::Duration::from_secs(10),
            idle_timeout: std::time::Duration::from_secs(75),
            body_timeout: std::time::Duration::from_secs(30),
            body_rate_min: 0,
            tunnel_timeout: std::time::Duration::from_secs(30),
            half_closed_timeout: std::time::Duration::from_secs(30),
        },
        rates: None,
        routes: Vec::new(),
    }
}

fn head(fields: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::builder().uri("/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn forward(mode: Forwarded, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    for_backend(
        &head(fields),
        &listener(mode),
        &HeaderValue::from_static("192.0.2.7"),
        "http",
    )
}

fn checked(head: &Parts) -> Result<(), Error> {
    check(head, &Glance::at(head), &listener(Forwarded::Off))
}

fn all<'a>(fields: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    fields
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect()
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let sent = forward(
        Forwarded::Off,
        &[
            ("host", "a"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy", "http://evil"),
            ("x-kept", "1"),
        ],
    );
    let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "via", "x-kept"]);
}

#[test]
fn connection_cannot_take_away_what_frames_or_addresses_a_message() {
    let fields = [
        ("host", "a"),
        ("content-length", "3"),
        ("connection", "host, content-length, x-forwarded-for"),
    ];
    let sent = forward(Forwarded::Replace, &fields);
    assert_eq!(all(&sent, "host"), ["a"]);
    assert_eq!(all(&sent, "content-length"), ["3"]);
    assert_eq!(all(&sent, "x-forwarded-for"), ["192.0.2.7"]);
}

#[test]
fn forwarded_fields_of_clients_are_replaced_or_appended_to_or_left_alone() {
    let fields = [
        ("host", "shop.example"),
        ("x-forwarded-for", "10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
    ];
    let replaced = forward(Forwarded::Replace, &fields);
    assert_eq!(all(&replaced, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(all(&replaced, "x-forwarded-proto"), ["http"]);
    assert_eq!(all(&replaced, "x-forwarded-host"), ["shop.example"]);
    let appended = forward(Forwarded::Append, &fields);
    assert_eq!(all(&appended, "x-forwarded-for"), ["10.1.1.1, 192.0.2.7"]);
    assert_eq!(all(&appended, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&appended, "x-forwarded-host"), ["evil.example"]);
    let off = forward(Forwarded::Off, &fields);
    assert_eq!(all(&off, "x-forwarded-for"), ["10.1.1.1"]);
}

#[test]
fn via_is_appended_to_the_one_that_is_there() {
    let sent = forward(Forwarded::Off, &[("host", "a"), ("via", "1.0 fred")]);
    assert_eq!(all(&sent, "via"), ["1.0 fred", &format!("1.1 {}", via_name())]);
}

#[test]
fn trailers_are_asked_for_when_the_client_does() {
    let sent = forward(
        Forwarded::Off,
        &[("host", "a"), ("te", "trailers"), ("connection", "te")],
    );
    assert_eq!(all(&sent, "te"), ["trailers"]);
    assert_eq!(all(&sent, "connection"), ["te"]);
}

#[test]
fn a_request_needs_exactly_one_sensible_host() {
    assert!(checked(&head(&[("host", "a.example:80")])).is_ok());
    assert!(checked(&head(&[("host", "[::1]:80")])).is_ok());
    assert!(matches!(checked(&head(&[])), Err(Error::BadRequest(_))));
    assert!(matches!(
        checked(&head(&[("host", "a"), ("host", "a")])),
        Err(Error::BadRequest(_))
    ));
    for host in ["a, b", "a/b", "user@a", "a b"] {
        assert!(
            matches!(checked(&head(&[("host", host)])), Err(Error::BadRequest(_))),
            "{host}"
        );
    }
}

#[test]
fn only_continue_may_be_expected() {
    assert!(checked(&head(&[("host", "a"), ("expect", "100-Continue")])).is_ok());
    assert!(matches!(
        checked(&head(&[("host", "a"), ("expect", "200-ok")])),
        Err(Error::Expectation)
    ));
}

#[test]
fn responses_lose_hop_by_hop_fields_and_gain_via() {
    let mut fields = head(&[("connection", "x-internal"), ("x-internal", "1"), ("x-kept", "1")]).headers;
    for_client(&mut fields, &listener(Forwarded::Replace), Version::HTTP_11);
    assert!(!fields.contains_key("connection") && !fields.contains_key("x-internal"));
    assert_eq!(all(&fields, "via"), [format!("1.1 {}", via_name())]);
    assert_eq!(all(&fields, "x-kept"), ["1"]);
}
