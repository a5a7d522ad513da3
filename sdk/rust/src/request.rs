//! The request being decided.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};

use crate::hash;
use crate::host;
use crate::policy::Pick;
use crate::pool::clamp;

/// What a pick knows about its request without asking: the arguments of `pick` in `wit/picker.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Hash of what the pool's `hash_on` names.
    pub key: u64,
    /// 64 fresh random bits.
    pub random: u64,
    /// The client's address, upper half.
    pub client_hi: u64,
    /// The client's address, lower half.
    pub client_lo: u64,
    /// 0 for the first attempt, then 1, 2, ...
    pub attempt: u32,
    /// Monotonic microseconds from an arbitrary start.
    pub now_us: u64,
}

/// The request being decided. The facts are free; strings ask the host, 40 to 60 ns each, so prefer
/// [`header_hash`](Request::header_hash) where only equality matters. Names of headers are compared without case.
#[derive(Debug)]
pub struct Request {
    facts: Facts,
    dice: Cell<u64>,
}

impl Request {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            facts,
            dice: Cell::new(facts.random),
        }
    }

    /// 64-bit hash of what the pool's `hash_on` names (the client's address by default); random when the request lacks
    /// it, so that keyless requests spread evenly.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.facts.key
    }

    /// 64 random bits, the same whenever asked within one pick.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.facts.random
    }

    /// 64 random bits, others at every call: the SplitMix64 sequence that starts at [`random`](Request::random).
    #[must_use]
    pub fn roll(&self) -> u64 {
        self.dice.set(self.dice.get().wrapping_add(hash::GOLDEN));
        hash::mix(self.dice.get())
    }

    /// The client's address; an IPv4 client's as IPv4.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        let (hi, lo) = self.client_bits();
        Ipv6Addr::from(u128::from(hi) << 64 | u128::from(lo)).to_canonical()
    }

    /// The client's address as the upper and lower 64 of its 128 bits, IPv4 in the mapped form `::ffff:a.b.c.d`.
    #[must_use]
    pub fn client_bits(&self) -> (u64, u64) {
        (self.facts.client_hi, self.facts.client_lo)
    }

    /// 0 for the first attempt, then 1, 2, ... for retries.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    /// Monotonic time in microseconds, from an arbitrary start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.facts.now_us
    }

    /// Whether an earlier attempt of this request went to the backend with this index.
    #[must_use]
    pub fn tried(&self, index: usize) -> bool {
        self.facts.attempt > 0 && host::request::tried(clamp(index))
    }

    /// The first header field of this name, where it is valid UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        host::request::header(name)
    }

    /// Hash of the first header field of this name: equal values have equal hashes, on every balancer.
    #[must_use]
    pub fn header_hash(&self, name: &str) -> Option<u64> {
        host::request::header_hash(name)
    }

    /// `GET`, `POST`, ...
    #[must_use]
    pub fn method(&self) -> String {
        host::request::method()
    }

    /// Host and port as the client addressed it; may be empty.
    #[must_use]
    pub fn authority(&self) -> String {
        host::request::authority()
    }

    /// The path as sent, without the query.
    #[must_use]
    pub fn path(&self) -> String {
        host::request::path()
    }

    /// What follows the first `?`.
    #[must_use]
    pub fn query(&self) -> Option<String> {
        host::request::query()
    }

    /// The first cookie of this name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        host::request::cookie(name)
    }

    /// Refuses the request with a status of 400 to 599: `return request.reject(503);` sheds load.
    #[must_use = "return it, or the request is refused only if the policy happens to have no opinion"]
    pub fn reject(&self, status: u16) -> Pick {
        host::request::reject(status);
        Pick::NoOpinion
    }

    /// Why this pick was made, in a few words for the access log. About 60 ns: leave it out of the common path.
    pub fn note(&self, reason: &str) {
        host::diagnostics::note(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Request};

    #[test]
    fn a_mapped_client_reads_as_ipv4() {
        let facts = Facts {
            client_lo: 0xffff_0a00_0001,
            ..Facts::default()
        };
        assert_eq!(Request::new(facts).client().to_string(), "10.0.0.1");
    }

    #[test]
    fn rolls_differ_and_repeat_for_the_same_request() {
        let rolls = || {
            let request = Request::new(Facts {
                random: 7,
                ..Facts::default()
            });
            [request.roll(), request.roll()]
        };
        assert_eq!(rolls(), rolls());
        assert_ne!(rolls()[0], rolls()[1]);
    }
}
