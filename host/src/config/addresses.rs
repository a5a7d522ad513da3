//! Addresses, host names and paths: what of them a file may say.
//!
//! Each function answers with the value or with what was expected. Nothing is resolved here, so a name may well lead
//! nowhere; whether it does is known when the balancer starts, not when a laptop checks the file.

use std::net::{Ipv6Addr, SocketAddr};

use super::mistakes::excerpt;

/// RFC 1035, 2.3.4, in the dotted form.
const NAME_BYTES_MAX: usize = 253;
/// RFC 1035, 2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// A socket that can be listened on. Names are refused: which of its addresses would be meant?
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let hint = match text.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() => {
            return Err(format!(
                "expected an IP address before the port, like \"0.0.0.0:{port}\" for all of IPv4"
            ));
        }
        _ => "expected an IP address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\"",
    };
    text.parse().map_err(|_| hint.to_owned())
}

/// A backend's address. Answers with the form that two spellings of one address share.
pub(super) fn backend(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(port_range())
        } else {
            Ok(address.to_string())
        };
    }
    if text.contains("://") || text.contains('/') {
        return Err("expected only a host and a port, without a scheme and a path".to_owned());
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err("expected a port after the host, like \"10.0.0.1:8080\"".to_owned());
    };
    if name.contains(':') {
        return Err("expected brackets around an IPv6 address, like \"[::1]:8080\"".to_owned());
    }
    if !is_host_name(name) {
        return Err("expected \"address:port\", \"[v6]:port\" or \"name:port\"".to_owned());
    }
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(format!(
            "{}:{port}",
            name.trim_end_matches('.').to_ascii_lowercase()
        )),
        _ => Err(port_range()),
    }
}

/// A name whose addresses are looked up, with the port of all of them.
pub(super) fn name_and_port(text: &str) -> Result<(String, u16), String> {
    let canonical = backend(text)?;
    let split = canonical.rsplit_once(':');
    let split = split.filter(|(name, _)| name.parse::<std::net::IpAddr>().is_err() && !name.starts_with('['));
    let named = split.and_then(|(name, port)| Some((name.to_owned(), port.parse().ok()?)));
    named.ok_or_else(|| {
        "expected a name, like \"shop.internal:8080\"; addresses belong into backends".to_owned()
    })
}

/// The name of a service (RFC 2782).
pub(super) fn service(text: &str) -> Result<String, String> {
    let is_service = text.starts_with('_') && text.split('.').count() > 2 && is_host_name(text);
    match is_service {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected a service, like \"_http._tcp.shop.internal\"".to_owned()),
    }
}

fn port_range() -> String {
    "expected a port from 1 to 65535".to_owned()
}

/// A route's host, in the form that requests are compared with: lower case, no trailing dot.
pub(super) fn route_host(text: &str) -> Result<String, String> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let bare = host.strip_prefix("*.").unwrap_or(&host);
    if is_host_name(bare) || (bare == host && is_bracketed_v6(&host)) {
        return Ok(host);
    }
    Err(if host == "*" {
        "expected a name; leave `host` out to take every host"
    } else if host.bytes().any(|byte| !byte.is_ascii()) {
        "expected the ASCII form of the name (punycode, \"xn--…\")"
    } else if bare.contains(':') {
        "expected a host without a port and a scheme"
    } else {
        "expected a host like \"shop.example\" or \"*.shop.example\""
    }
    .to_owned())
}

/// Whom a certificate is for: a name, or an address.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() || is_host_name(text) {
        return Ok(text.trim_end_matches('.').to_ascii_lowercase());
    }
    Err("expected a name without a port, like \"shop.internal\", or an IP address".to_owned())
}

/// A route's prefix; `None` for `/`, which takes every path.
pub(super) fn route_prefix(text: &str) -> Result<Option<String>, String> {
    if text == "/" {
        return Ok(None);
    }
    let path = path(text)?;
    // `/api/` could mean "not /api itself", which this matching cannot do; better to say so than to guess.
    match path.strip_suffix('/') {
        Some(short) => Err(format!(
            "expected no `/` at the end: \"{}\" takes everything below it too",
            excerpt(short)
        )),
        None => Ok(Some(path)),
    }
}

/// A path that may stand in a request line, without a query.
pub(super) fn path(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if text.starts_with('/') && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("expected a path that begins with `/`, without spaces, `?` and `#`".to_owned())
}

/// What may stand in a `Host` field.
pub(super) fn host_field(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if (is_host_name(host)
        || is_bracketed_v6(host)
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4()))
        && port.is_none_or(is_port)
    {
        return Ok(text.to_owned());
    }
    Err("expected a host, with or without a port".to_owned())
}

fn is_bracketed_v6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// Whether this is a name, with the underscore that container networks use. An IPv4 address is one too for a route, and
/// `300.1.1.1`, whose last label is a number, is neither.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let ends_in_number = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(is_label)
        && (!ends_in_number || text.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_spellings_of_one_address_are_one() {
        for (one, other) in [
            ("[::0001]:80", "[::1]:80"),
            ("Shop.Example.:80", "shop.example:80"),
        ] {
            assert_eq!(backend(one), backend(other));
        }
        for good in ["10.0.0.1:80", "a:1", "my_app.internal:65535"] {
            assert_eq!(backend(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn backend_needs_a_host_and_a_port() {
        for (bad, said) in [
            ("", "a port after"),
            ("10.0.0.1", "a port after"),
            ("10.0.0.1:0", "from 1 to 65535"),
            ("a:+80", "from 1 to 65535"),
            ("a:65536", "from 1 to 65535"),
            ("::1:80", "brackets"),
            ("http://a:80", "without a scheme"),
            ("300.1.1.1:80", "address:port"),
            ("-a:80", "address:port"),
            (":80", "address:port"),
        ] {
            let message = backend(bad).expect_err(bad);
            assert!(message.contains(said), "{bad}: {message}");
        }
    }

    #[test]
    fn route_host_is_compared_in_lower_case_without_the_last_dot() {
        for (text, host) in [
            ("Shop.Example.", "shop.example"),
            ("*.A.b", "*.a.b"),
            ("[::1]", "[::1]"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(route_host(text).as_deref(), Ok(host));
        }
        for bad in [
            "",
            "*",
            "a.*.b",
            "a:80",
            "*.[::1]",
            "bücher.example",
            "a b",
            ".",
            "a..b",
        ] {
            assert!(route_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefix_matches_whole_segments_so_it_ends_in_one() {
        assert_eq!(route_prefix("/"), Ok(None));
        assert_eq!(route_prefix("/api"), Ok(Some("/api".to_owned())));
        for bad in ["", "api", "/api/", "/a b", "/a?b", "/ä"] {
            assert!(route_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_takes_no_names() {
        assert!(listen("[::]:8080").is_ok());
        for bad in ["localhost:80", "0.0.0.0", "80", "", ":http"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
        assert!(listen(":80").is_err_and(|message| message.contains("0.0.0.0:80")));
    }

    #[test]
    fn host_field_may_have_a_port() {
        for good in ["a.example", "a.example:80", "[::1]", "[::1]:80", "10.0.0.1:80"] {
            assert_eq!(host_field(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "a:b", "a\r\nx: y", "::1"] {
            assert!(host_field(bad).is_err(), "{bad}");
        }
    }
}
