//! The one form of a request's path and host, which route, policy and backend all see.
//!
//! Owns what is brought into it, and what has no such form because readers would disagree about it (RFC 3986, 6.2.2).
//! The query is nobody's to change. It must not know where a request goes.
//!
//! Invariant: the form of a form is itself, and nothing is decoded twice.

use std::borrow::Cow;

use crate::config::Paths;

/// A path in its one form: repeated slashes are one, dot segments are walked, and what need not be encoded is not.
///
/// # Errors
/// Why it has none.
pub(crate) fn settle_path(path: &str, paths: Paths) -> Result<Cow<'_, str>, &'static str> {
    if paths == Paths::AsSent || is_settled(path) {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        // `*`, which is a path of its own.
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, paths)?;
    let settled = walk(&decoded)?;
    Ok(if settled == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(settled)
    })
}

/// Whether there is nothing to look at, as in nearly all paths.
#[inline]
pub(super) fn is_settled(path: &str) -> bool {
    let mut last = 0;
    path.bytes().all(|byte| {
        let is_plain = byte < 0x7f
            && byte > b' '
            && !matches!(byte, b'%' | b'\\' | b'#')
            && !(last == b'/' && matches!(byte, b'/' | b'.'));
        last = byte;
        is_plain
    })
}

/// Decodes what RFC 3986, 2.3 calls unreserved, and refuses what backends decode into something else than they route.
fn decode(path: &str, paths: Paths) -> Result<String, &'static str> {
    let bytes = path.as_bytes();
    let mut decoded = String::with_capacity(path.len());
    let (mut at, mut last) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let digits = (bytes.get(at + 1), bytes.get(at + 2));
                let (Some(high), Some(low)) = (digits.0.and_then(digit), digits.1.and_then(digit)) else {
                    return Err("a percent sign in the path that encodes nothing");
                };
                let value = (high * 16 + low) as u8;
                check_encoded(value, last, paths)?;
                if value.is_ascii_alphanumeric() || b"-._~".contains(&value) {
                    decoded.push(char::from(value));
                } else {
                    decoded.push_str(path.get(at..at + 3).unwrap_or_default());
                }
                (at, last) = (at + 3, value);
            }
            b'\\' => return Err("a backslash in the path"),
            b'#' => return Err("a fragment in the target"),
            byte if byte <= b' ' || byte >= 0x7f => return Err("a path with bytes that have to be encoded"),
            byte => {
                decoded.push(char::from(byte));
                (at, last) = (at + 1, 0);
            }
        }
    }
    Ok(decoded)
}

/// `last` is the encoded byte right before this one, or 0.
fn check_encoded(value: u8, last: u8, paths: Paths) -> Result<(), &'static str> {
    let is_overlong = matches!(value, 0xc0 | 0xc1 | 0xf5..)
        || (last == 0xe0 && matches!(value, 0x80..0xa0))
        || (last == 0xf0 && matches!(value, 0x80..0x90));
    match value {
        _ if is_overlong => Err("an overlong character in the path"),
        0..b' ' | 0x7f => Err("an encoded control character in the path"),
        b'/' | b'\\' if paths == Paths::Strict => Err("an encoded slash in the path"),
        _ => Ok(()),
    }
}

fn digit(byte: &u8) -> Option<u32> {
    char::from(*byte).to_digit(16)
}

/// Walks dot segments and leaves repeated slashes out.
fn walk(path: &str) -> Result<String, &'static str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or("a path that leads above its root")?;
            }
            segment => kept.push(segment),
        }
    }
    let mut walked = String::with_capacity(path.len());
    for segment in &kept {
        walked.push('/');
        walked.push_str(segment);
    }
    if ends_open || kept.is_empty() {
        walked.push('/');
    }
    Ok(walked)
}

/// What a host with its port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostForm {
    /// Lower case, and no port that goes without saying.
    Settled,
    /// Another way to say one.
    Other,
    /// None.
    Bad,
}

/// Judges a Host field's value, or a target's authority.
#[inline]
pub(crate) fn host_form(host: &[u8]) -> HostForm {
    let mut form = HostForm::Settled;
    let mut has_port = false;
    for byte in host {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {}
            b'A'..=b'Z' => form = HostForm::Other,
            b':' | b'[' | b']' => has_port = true,
            byte if b"~%!$&'()*+;=".contains(byte) => {}
            _ => return HostForm::Bad,
        }
    }
    if has_port {
        let Some((name, port)) = split_port(host) else {
            return HostForm::Bad;
        };
        if port.is_some_and(|port| matches!(port, b"" | b"80" | b"443")) || name.ends_with(b".") {
            form = HostForm::Other;
        }
    } else if host.ends_with(b".") {
        form = HostForm::Other;
    }
    form
}

/// Name and port. `None` of what is no host.
fn split_port(host: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = match host.first() {
        Some(b'[') => {
            let end = host.iter().position(|byte| *byte == b']')? + 1;
            let address = std::str::from_utf8(host.get(1..end - 1)?).ok()?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            end
        }
        _ => host.iter().position(|byte| *byte == b':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at_checked(end)?;
    if name.iter().any(|byte| b"[]".contains(byte)) && name.first() != Some(&b'[') {
        return None;
    }
    let Some((colon, port)) = rest.split_first() else {
        return Some((name, None));
    };
    let is_port = *colon == b':'
        && port.iter().all(u8::is_ascii_digit)
        && port.len() <= 5
        && port
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
            <= 65_535;
    is_port.then_some((name, Some(port)))
}

/// A host in its one form. `scheme` says which port goes without saying.
pub(crate) fn settle_host(host: &str, scheme: &str) -> String {
    let (name, port) = split_port(host.as_bytes()).unwrap_or((host.as_bytes(), None));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let name = text(name.strip_suffix(b".").unwrap_or(name));
    let usual: &[u8] = if scheme == "https" { b"443" } else { b"80" };
    match port {
        Some(port) if !port.is_empty() && port != usual => format!("{name}:{}", text(port)),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (path, form) in [
            ("/", "/"),
            ("/a/b;c=d/e.f", "/a/b;c=d/e.f"),
            ("/a/../admin", "/admin"),
            ("/./a/.", "/a/"),
            ("//admin", "/admin"),
            ("/a//b///", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/%61dm%69n", "/admin"),
            ("/a/%2e%2E/admin", "/admin"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a/...", "/..a/..."),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/caf%e9", "/caf%e9"),
            ("*", "*"),
        ] {
            assert_eq!(settle_path(path, Paths::Strict).as_deref(), Ok(form), "{path}");
            assert_eq!(
                settle_path(form, Paths::Strict).as_deref(),
                Ok(form),
                "again: {form}"
            );
            assert!(!is_settled(path) || path == form, "{path}");
        }
    }

    #[test]
    fn what_readers_see_differently_has_none() {
        for path in [
            "/..",
            "/a/../..",
            "/%2e%2e%2fadmin",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/%0a",
            "/%7f",
            "/%zz",
            "/%",
            "/%4",
            "/%c0%ae",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/a#b",
            "/\u{e9}",
            "/a b",
        ] {
            assert!(settle_path(path, Paths::Strict).is_err(), "{path}");
            assert!(!is_settled(path), "{path}");
            assert_eq!(settle_path(path, Paths::AsSent).as_deref(), Ok(path));
        }
        assert_eq!(
            settle_path("/@a%2fb//c", Paths::EncodedSlashes).as_deref(),
            Ok("/@a%2fb/c")
        );
        assert!(settle_path("/a%00", Paths::EncodedSlashes).is_err());
    }

    #[test]
    fn a_host_has_one_form() {
        for (host, form) in [
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example.:8080", "shop.example:8080"),
            ("shop.example:80", "shop.example"),
            ("shop.example:", "shop.example"),
            ("[::1]:80", "[::1]"),
        ] {
            assert_eq!(host_form(host.as_bytes()), HostForm::Other, "{host}");
            assert_eq!(settle_host(host, "http"), form);
            assert_eq!(host_form(form.as_bytes()), HostForm::Settled, "{form}");
        }
        assert_eq!(settle_host("a:443", "https"), "a");
        assert_eq!(settle_host("a:443", "http"), "a:443");
        for host in [
            "a, b", "a/b", "u@a", "a b", "a:x", "a:65536", "a:1:2", "[::1", "::1]", "[g]", "[::1]a", "a[b]:1",
        ] {
            assert_eq!(host_form(host.as_bytes()), HostForm::Bad, "{host}");
        }
    }
}
