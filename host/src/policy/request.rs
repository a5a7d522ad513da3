//! What a pick knows about its request.
//!
//! Owns the reading of request heads for policies: hash keys, headers, cookies, query parameters. It must not know
//! components; guests get at these functions through `imports.rs`.
//!
//! Invariant: hashes are the same on every balancer and in every version (XXH3 of the raw bytes), because sessions
//! stick to them.

use std::net::IpAddr;

use http::{HeaderMap, header, request::Parts};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HashOn;

/// The numbers that are passed to `pick`.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Hash of what the pool's `hash_on` names.
    pub key: u64,
    /// Fresh random bits.
    pub random: u64,
    /// The client's address, mapped to IPv6.
    pub client: u128,
    /// Monotonic time in microseconds.
    pub now_us: u64,
}

/// The backends that earlier attempts of a request went to, by id, since indices change under a long request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    ids: [u64; Self::MAX],
    len: u8,
}

impl Tried {
    /// More attempts than this are never made (`config::Retry`).
    const MAX: usize = 10;

    /// Remembers a backend; one beyond the tenth is not remembered.
    pub fn push(&mut self, id: u64) {
        if let Some(slot) = self.ids.get_mut(usize::from(self.len)) {
            *slot = id;
            self.len += 1;
        }
    }

    /// Whether an attempt went to this backend.
    #[inline]
    pub fn contains(&self, id: u64) -> bool {
        self.ids[..usize::from(self.len)].contains(&id)
    }

    /// Attempts made so far.
    #[inline]
    pub fn attempts(&self) -> u32 {
        u32::from(self.len)
    }
}

/// A client's address as policies see it: IPv4 mapped into IPv6.
pub fn client_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The hash key of a request: of the first source that it has, `random` if it has none.
pub fn key_of(sources: &[HashOn], head: &Parts, client: u128, random: u64) -> u64 {
    let first = sources.iter().find_map(|source| match source {
        HashOn::ClientIp => Some(xxh3_64(&client.to_be_bytes())),
        HashOn::Header(name) => header_hash(&head.headers, name),
        HashOn::Cookie(name) => cookie(&head.headers, name).map(|value| xxh3_64(value.as_bytes())),
        HashOn::Query(name) => {
            query_parameter(head.uri.query()?, name).map(|value| xxh3_64(value.as_bytes()))
        }
        HashOn::Path => Some(xxh3_64(head.uri.path().as_bytes())),
        HashOn::Host => {
            let host = host_of(authority(head)).to_ascii_lowercase();
            (!host.is_empty()).then(|| xxh3_64(host.as_bytes()))
        }
    });
    first.unwrap_or(random)
}

pub(super) fn header_hash(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name).map(|value| xxh3_64(value.as_bytes()))
}

/// Host and port as the client addressed it: the target's authority if it has one, else the Host header (RFC 9112, 3.3).
pub(crate) fn authority(head: &Parts) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
    }
}

/// An authority without its port and trailing dot. Brackets of an IPv6 address stay.
pub(crate) fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// The value of the first cookie of this name (RFC 6265, 5.4: pairs separated by semicolons).
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|field| field.to_str().ok());
    fields
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// The raw value of the first query parameter of this name; empty for a name without `=`.
fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .into_iter()
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, fields: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn key_comes_from_the_first_source_that_the_request_has() {
        let sources = [
            HashOn::Header("x-user".into()),
            HashOn::Cookie("sid".into()),
            HashOn::Query("id".into()),
            HashOn::ClientIp,
        ];
        let key = |head: &Parts| key_of(&sources, head, 7, 99);
        assert_eq!(
            key(&head("/?id=3", &[("x-user", "ann"), ("cookie", "sid=1")])),
            xxh3_64(b"ann")
        );
        assert_eq!(key(&head("/?id=3", &[("cookie", "a=b; sid=1")])), xxh3_64(b"1"));
        assert_eq!(key(&head("/?x=1&id=3", &[])), xxh3_64(b"3"));
        assert_eq!(key(&head("/", &[])), xxh3_64(&7u128.to_be_bytes()));
    }

    #[test]
    fn a_request_without_any_source_gets_a_random_key() {
        assert_eq!(
            key_of(&[HashOn::Header("x-user".into())], &head("/", &[]), 7, 99),
            99
        );
    }

    #[test]
    fn host_is_compared_without_port_and_trailing_dot() {
        assert_eq!(host_of("shop.example:8080"), "shop.example");
        assert_eq!(host_of("shop.example."), "shop.example");
        assert_eq!(host_of("[::1]:80"), "[::1]");
        assert_eq!(host_of("[::1]"), "[::1]");
        assert_eq!(host_of(""), "");
    }

    #[test]
    fn tried_remembers_ten_and_never_panics_beyond() {
        let mut tried = Tried::default();
        (1..=12).for_each(|id| tried.push(id));
        assert!(tried.contains(10) && !tried.contains(11) && !tried.contains(0));
        assert_eq!(tried.attempts(), 10);
    }
}
