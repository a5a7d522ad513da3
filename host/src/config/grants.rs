//! Grants: what of a request a policy may read.
//!
//! Owns the levels of a grant and which of them a name gets. It must not read a file (`file/grants.rs` does) nor know
//! what answers a guest gets (`policy/grants.rs` does).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much of a fact a policy may know. In this order: whatever depends on two facts gets the lesser grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grant {
    /// The file says nothing, and so nothing is granted: a component that imports it is refused.
    Unsaid,
    /// A component may import it, and gets none, an empty text or 0.
    Deny,
    /// Only its hash: for telling values apart, not for keeping them secret.
    Hash,
    /// The value.
    Allow,
}

/// A grant for each of many names, and one for those not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// By name: of headers in lower case, of cookies exactly.
    pub named: BTreeMap<String, Grant>,
    /// Key `"*"`: of the others.
    pub others: Grant,
}

impl Listed {
    /// The same grant for every name.
    pub fn every(grant: Grant) -> Self {
        Self {
            named: BTreeMap::new(),
            others: grant,
        }
    }

    /// The grant of this name.
    pub fn of(&self, name: &str) -> Grant {
        self.named.get(name).copied().unwrap_or(self.others)
    }

    /// What is granted of every name there could be.
    pub fn least(&self) -> Grant {
        self.named.values().copied().fold(self.others, Grant::min)
    }

    /// What is granted of some name.
    pub fn most(&self) -> Grant {
        self.named.values().copied().fold(self.others, Grant::max)
    }
}

/// `[policy.NAME.grants]`. It is also in logs of decisions, whose format changes with it (`policy/record/event.rs`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Key `headers`. `cookie` follows `cookies`, and `host` never gets more than `authority`.
    pub headers: Listed,
    /// Key `cookies`.
    pub cookies: Listed,
    /// Key `client`: the client's address.
    pub client: Grant,
    /// Key `method`.
    pub method: Grant,
    /// Key `authority`.
    pub authority: Grant,
    /// Key `path`.
    pub path: Grant,
    /// Key `query`.
    pub query: Grant,
    /// Key `load`: requests in flight, latency and throughput of the pool's backends. Allow or deny.
    pub load: Grant,
}

impl Grants {
    /// Everything: for policies of those who run the balancer, built-ins among them.
    pub fn everything() -> Self {
        Self {
            headers: Listed::every(Grant::Allow),
            cookies: Listed::every(Grant::Allow),
            client: Grant::Allow,
            method: Grant::Allow,
            authority: Grant::Allow,
            path: Grant::Allow,
            query: Grant::Allow,
            load: Grant::Allow,
        }
    }

    /// What a tenant's component gets unless the file says more: enough to balance by load and to stick to clients, and
    /// nothing that could tell who the clients are or what they want.
    pub fn for_tenants() -> Self {
        Self {
            headers: Listed::every(Grant::Unsaid),
            cookies: Listed::every(Grant::Unsaid),
            client: Grant::Hash,
            method: Grant::Allow,
            authority: Grant::Allow,
            path: Grant::Unsaid,
            query: Grant::Unsaid,
            load: Grant::Allow,
        }
    }

    /// The grant of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Grant {
        match name {
            // The field has all of them at once.
            "cookie" => self.cookies.least(),
            "host" => self.headers.of(name).min(self.authority),
            _ => self.headers.of(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_holds_another_fact_gets_no_more_than_that() {
        let mut grants = Grants::everything();
        assert_eq!(
            (grants.header("cookie"), grants.header("host")),
            (Grant::Allow, Grant::Allow)
        );
        grants.cookies.named.insert("session".to_owned(), Grant::Deny);
        grants.authority = Grant::Hash;
        assert_eq!(
            (grants.header("cookie"), grants.header("host")),
            (Grant::Deny, Grant::Hash)
        );
        assert_eq!(grants.header("accept"), Grant::Allow);
    }
}
