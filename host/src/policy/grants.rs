//! What a policy with restricted grants gets to know.
//!
//! Owns the answers that stand for what a policy may not read, and the check of a component's imports against its
//! grants. A policy that may read everything has no [`Restrictions`], and costs one branch.
//!
//! Invariant: what is not granted is never copied into the guest, whichever import asks for it.

use std::borrow::Cow;

use wasmtime::component::types::ComponentItem;
use xxhash_rust::xxh3::xxh3_64;

use super::{Facts, request::field_hash};
use crate::{
    config::{self, Grant, Grants, HashOn},
    http1::Head,
};

/// A clock that tells less than this tells a guest what others do.
const COARSE_CLOCK_US: u64 = 1000;

/// The grants of a policy that may not read everything.
#[derive(Debug)]
pub(super) struct Restrictions {
    grants: Grants,
    /// The pool hashes what the policy may not even know as a hash.
    hides_key: bool,
    /// Its code is a tenant's own.
    has_coarse_clock: bool,
    /// The request is one of a log, which has hashes in place of what the policy may only know as a hash.
    is_recorded: bool,
}

impl Restrictions {
    /// For a pool that hashes these; `None` where there is nothing to restrict.
    pub(super) fn of(spec: &config::Policy, hash_on: &[HashOn]) -> Option<Box<Self>> {
        let has_coarse_clock = spec.tenant.is_some() && !spec.source.is_builtin();
        if spec.grants == Grants::everything() && !has_coarse_clock {
            return None;
        }
        let grants = spec.grants.clone();
        let is_hidden = |source: &HashOn| of_source(&grants, source) < Grant::Hash;
        Some(Box::new(Self {
            hides_key: hash_on.iter().any(is_hidden),
            has_coarse_clock,
            is_recorded: false,
            grants,
        }))
    }

    /// For requests of a log: what is hashed there is not hashed again.
    pub(super) fn of_recorded(spec: &config::Policy) -> Option<Box<Self>> {
        let mut restrictions = Self::of(spec, &[])?;
        restrictions.is_recorded = true;
        Some(restrictions)
    }

    /// The facts as the policy may know them.
    pub(super) fn facts(&self, facts: &Facts) -> Facts {
        let clock_us = if self.has_coarse_clock { COARSE_CLOCK_US } else { 1 };
        Facts {
            key: if self.hides_key { facts.random } else { facts.key },
            client: match self.grants.client {
                Grant::Allow => facts.client,
                Grant::Hash if self.is_recorded => facts.client,
                Grant::Hash => xxh3_64(&facts.client.to_be_bytes()).into(),
                Grant::Deny | Grant::Unsaid => 0,
            },
            now_us: facts.now_us - facts.now_us % clock_us,
            random: facts.random,
        }
    }

    pub(super) fn header(&self, head: &Head, name: &str) -> Option<String> {
        match self.grants.header(&name.to_ascii_lowercase()) {
            Grant::Allow => text(head.field(name)?),
            Grant::Hash if self.is_recorded => text(head.field(name)?),
            Grant::Hash => Some(digits(head.field(name)?)),
            Grant::Deny | Grant::Unsaid => None,
        }
    }

    pub(super) fn header_hash(&self, head: &Head, name: &str) -> Option<u64> {
        match self.grants.header(&name.to_ascii_lowercase()) {
            Grant::Hash if self.is_recorded => u64::from_str_radix(&text(head.field(name)?)?, 16).ok(),
            Grant::Allow | Grant::Hash => field_hash(head, name),
            Grant::Deny | Grant::Unsaid => None,
        }
    }

    /// Whether a header tells the policy anything.
    pub(super) fn shows_header(&self, name: &str) -> bool {
        self.grants.header(&name.to_ascii_lowercase()) >= Grant::Hash
    }

    /// Whether a cookie tells the policy anything.
    pub(super) fn shows_cookie(&self, name: &str) -> bool {
        self.grants.cookies.of(name) >= Grant::Hash
    }

    /// What a log may have of a header: as much as the policy may know.
    pub(super) fn recorded_header<'a>(&self, head: &'a Head, name: &str) -> Option<Cow<'a, [u8]>> {
        match self.grants.header(&name.to_ascii_lowercase()) {
            Grant::Allow => head.field(name).map(Cow::Borrowed),
            Grant::Hash => Some(digits(head.field(name)?).into_bytes().into()),
            Grant::Deny | Grant::Unsaid => None,
        }
    }

    /// What a log may have of a cookie: as much as the policy may know.
    pub(super) fn recorded_cookie<'a>(&self, head: &'a Head, name: &str) -> Option<Cow<'a, str>> {
        match self.grants.cookies.of(name) {
            Grant::Allow => head.cookie(name).map(Cow::Borrowed),
            Grant::Hash => Some(digits(head.cookie(name)?.as_bytes()).into()),
            Grant::Deny | Grant::Unsaid => None,
        }
    }

    pub(super) fn cookie(&self, head: &Head, name: &str) -> Option<String> {
        // Before it is looked for, so that time tells nothing either.
        match self.grants.cookies.of(name) {
            Grant::Hash if self.is_recorded => head.cookie(name).map(str::to_owned),
            grant => (grant >= Grant::Hash).then(|| as_granted(grant, head.cookie(name)))?,
        }
    }

    pub(super) fn method(&self, head: &Head) -> String {
        as_granted(self.grants.method, Some(head.method())).unwrap_or_default()
    }

    pub(super) fn authority(&self, head: &Head) -> String {
        as_granted(self.grants.authority, Some(head.authority())).unwrap_or_default()
    }

    pub(super) fn path(&self, head: &Head) -> String {
        as_granted(self.grants.path, Some(head.path())).unwrap_or_default()
    }

    pub(super) fn query(&self, head: &Head) -> Option<String> {
        as_granted(self.grants.query, head.query())
    }

    pub(super) fn hides_load(&self) -> bool {
        self.grants.load < Grant::Allow
    }
}

/// The numbers of a request as this policy is told them, for a pool that hashes these.
pub fn facts_told(spec: &config::Policy, hash_on: &[HashOn], facts: &Facts) -> Facts {
    let restrictions = Restrictions::of(spec, hash_on);
    restrictions.map_or(*facts, |restrictions| restrictions.facts(facts))
}

/// What a hash of this tells.
fn of_source(grants: &Grants, source: &HashOn) -> Grant {
    match source {
        HashOn::ClientIp => grants.client,
        HashOn::Header(name) => grants.header(name),
        HashOn::Cookie(name) => grants.cookies.of(name),
        HashOn::Query(_) => grants.query,
        HashOn::Path => grants.path,
        HashOn::Host => grants.authority,
    }
}

fn as_granted(grant: Grant, value: Option<&str>) -> Option<String> {
    match grant {
        Grant::Allow => value.map(str::to_owned),
        Grant::Hash => value.map(|value| digits(value.as_bytes())),
        Grant::Deny | Grant::Unsaid => None,
    }
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// The hash that stands for a value.
fn digits(value: &[u8]) -> String {
    format!("{:016x}", xxh3_64(value))
}

/// What a component imports although the file says nothing about it: as `path (grants.path)`.
pub(super) fn unsaid(
    engine: &wasmtime::Engine,
    imports: impl Iterator<Item = ComponentItem>,
    grants: &Grants,
) -> Vec<String> {
    let mut unsaid = Vec::new();
    for item in imports {
        let ComponentItem::ComponentInstance(interface) = item else {
            continue;
        };
        for (function, _) in interface.exports(engine) {
            if let Some((key, Grant::Unsaid)) = needs(function, grants) {
                unsaid.push(format!("{function} (grants.{key})"));
            }
        }
    }
    unsaid
}

/// The grant that a function of ours needs to answer, by its key.
fn needs(function: &str, grants: &Grants) -> Option<(&'static str, Grant)> {
    Some(match function {
        "header" | "header-hash" => ("headers", grants.headers.most()),
        "cookie" => ("cookies", grants.cookies.most()),
        "method" => ("method", grants.method),
        "authority" => ("authority", grants.authority),
        "path" => ("path", grants.path),
        "query" => ("query", grants.query),
        "active" | "active-total" | "active-all" | "active-changes" | "latency-us" | "latency-us-all"
        | "throughput" | "throughput-all" | "own-active" | "own-active-all" | "others-active"
        | "others-active-all" | "others-age-ms" | "others-age-ms-all" => ("load", grants.load),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    fn restricted(change: impl FnOnce(&mut Grants), hash_on: &[HashOn]) -> Option<Box<Restrictions>> {
        let mut grants = Grants::everything();
        change(&mut grants);
        let spec = config::Policy {
            grants,
            ..fixture::spec("p")
        };
        Restrictions::of(&spec, hash_on)
    }

    const FACTS: Facts = Facts {
        key: 1,
        random: 2,
        client: 0xffff_7f00_0001,
        now_us: 1_234_567,
    };

    #[test]
    fn a_policy_that_may_read_everything_has_no_restrictions() {
        assert!(restricted(|_| (), &[HashOn::ClientIp]).is_none());
    }

    #[test]
    fn a_key_is_random_where_what_it_hashes_is_not_granted() {
        let key = |grant, source: HashOn| {
            let restrictions = restricted(
                |grants| {
                    grants.load = Grant::Deny;
                    grants.client = grant;
                    grants.path = grant;
                    grants.query = grant;
                    grants.authority = grant;
                    grants.cookies.others = grant;
                    grants.headers.others = grant;
                },
                &[source],
            );
            restrictions.unwrap().facts(&FACTS).key
        };
        let sources = [
            HashOn::ClientIp,
            HashOn::Header("x".into()),
            HashOn::Cookie("x".into()),
            HashOn::Query("x".into()),
            HashOn::Path,
            HashOn::Host,
        ];
        for source in sources {
            assert_eq!(key(Grant::Deny, source.clone()), FACTS.random, "{source:?}");
            assert_eq!(key(Grant::Hash, source.clone()), FACTS.key, "{source:?}");
        }
    }

    #[test]
    fn a_client_is_an_address_a_hash_or_nobody() {
        let client = |grant| {
            let restrictions = restricted(
                |grants| {
                    grants.load = Grant::Deny;
                    grants.client = grant;
                },
                &[],
            );
            restrictions.unwrap().facts(&FACTS).client
        };
        assert_eq!(client(Grant::Allow), FACTS.client);
        assert_eq!(
            client(Grant::Hash),
            u128::from(xxh3_64(&FACTS.client.to_be_bytes()))
        );
        assert_eq!((client(Grant::Deny), client(Grant::Unsaid)), (0, 0));
    }

    #[test]
    fn every_live_number_is_load() {
        let contract = concat!(
            include_str!("../../../wit/nodes.wit"),
            include_str!("../../../wit/pool.wit")
        );
        let functions = contract.lines().filter_map(|line| line.split_once(": func("));
        let of_load = functions.filter(|(name, _)| {
            let grant = needs(name.trim(), &Grants::everything());
            grant.is_some_and(|(key, _)| key == "load")
        });
        // All but `len`, `usable`, `delegate` and `delegate-to`.
        assert_eq!(of_load.count(), 8 + 6);
    }
}
