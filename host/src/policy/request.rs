//! What a pick knows about its request.
//!
//! Owns the numbers that describe a request, above all its hash key. It must not know components; guests read the head
//! through `imports.rs`.
//!
//! Invariant: hashes are the same on every balancer and in every version (XXH3 of the raw bytes), because sessions
//! stick to them.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::{config::HashOn, http1::Head};

/// The numbers that are passed to `pick`.
#[derive(Clone, Copy, Debug, Default)]
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

impl Facts {
    /// Those of a pick that counts for nothing.
    pub(super) fn of_trial(now_us: u64) -> Self {
        Self {
            key: fastrand::u64(..),
            random: fastrand::u64(..),
            client: 1,
            now_us,
        }
    }
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

    /// The backends, in order.
    pub fn ids(&self) -> &[u64] {
        &self.ids[..usize::from(self.len)]
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
pub fn key_of(sources: &[HashOn], head: &Head, client: u128, random: u64) -> u64 {
    let first = sources.iter().find_map(|source| key_from(source, head, client));
    first.unwrap_or(random)
}

/// The hash of one source, if the request has it.
pub fn key_from(source: &HashOn, head: &Head, client: u128) -> Option<u64> {
    match source {
        HashOn::ClientIp => Some(xxh3_64(&client.to_be_bytes())),
        HashOn::Header(name) => field_hash(head, name),
        HashOn::Cookie(name) => head.cookie(name).map(|value| xxh3_64(value.as_bytes())),
        HashOn::Query(name) => head.query_parameter(name).map(|value| xxh3_64(value.as_bytes())),
        HashOn::Path => Some(xxh3_64(head.path().as_bytes())),
        HashOn::Host => {
            let host = head.host().to_ascii_lowercase();
            (!host.is_empty()).then(|| xxh3_64(host.as_bytes()))
        }
    }
}

pub(super) fn field_hash(head: &Head, name: &str) -> Option<u64> {
    head.field(name).map(xxh3_64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, fields: &[(&'static str, &str)]) -> Head {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Head::from_parts(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn key_comes_from_the_first_source_that_the_request_has() {
        let sources = [
            HashOn::Header("x-user".into()),
            HashOn::Cookie("sid".into()),
            HashOn::Query("id".into()),
            HashOn::ClientIp,
        ];
        let key = |head: &Head| key_of(&sources, head, 7, 99);
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
    fn tried_remembers_ten_and_never_panics_beyond() {
        let mut tried = Tried::default();
        (1..=12).for_each(|id| tried.push(id));
        assert!(tried.contains(10) && !tried.contains(11) && !tried.contains(0));
        assert_eq!(tried.attempts(), 10);
    }
}
