//! Sends writes to the primary and reads to the replicas; a client that just wrote reads from the primary too.
//!
//! GET, HEAD and OPTIONS are reads, all else writes. Replicas lag, so a client would not find what it has just written: the
//! application sets a cookie with its answer to a write (`Set-Cookie: wrote=1; Max-Age=3`), and while it lasts reads are
//! treated as writes. The cookie and not this policy remembers, since the next request may meet another worker or node.
//! Without a healthy replica the primary serves reads; without a primary, writes are refused: a replica must not take them.
//!
//! Cost: the method, a cookie for reads, a delegated choice. Settings: `cookie`, default `wrote`; empty: none. Backends have
//! the label `role`: `primary` or `replica`.
//! Source: kamal-proxy pull request 127 (the same rule, with the cookie set by the proxy).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    cookie: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cookie: "wrote".into(),
        }
    }
}

#[derive(Default)]
struct ReadWriteSplit {
    config: Config,
}

impl ReadWriteSplit {
    fn may_lag(&self, request: &Request) -> bool {
        let reads = matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS");
        reads && (self.config.cookie.is_empty() || request.cookie(&self.config.cookie).is_none())
    }
}

impl Policy for ReadWriteSplit {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        Ok(())
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let of_role = |role: &str| {
            pool.delegate_to(Algorithm::LeastConnections, |backend| {
                backend.label("role") == Some(role)
            })
        };
        let replica = if self.may_lag(request) {
            of_role("replica")
        } else {
            None
        };
        match replica.or_else(|| of_role("primary")) {
            Some(backend) => backend.into(),
            None => request.reject(503),
        }
    }
}

policy!(ReadWriteSplit);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn three() -> PoolBuilder {
        pool(["p", "r1", "r2"])
            .label("p", "role", "primary")
            .label("r1", "role", "replica")
            .label("r2", "role", "replica")
    }

    fn ask(pool: PoolBuilder, method: &str, cookie: Option<&str>) -> Option<String> {
        let mut trial = Trial::new(native(), pool);
        with_host(|host| {
            host.method = method.into();
            host.cookies = cookie.map(|name| (name.into(), "1".into())).into_iter().collect();
            host.active = vec![0, 2, 1];
        });
        trial.pick().map(str::to_owned)
    }

    #[test]
    fn reads_go_to_the_replica_with_the_fewest_requests() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(ask(three(), method, None).as_deref(), Some("r2"), "{method}");
        }
    }

    #[test]
    fn all_else_goes_to_the_primary() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "get", "PURGE"] {
            assert_eq!(ask(three(), method, None).as_deref(), Some("p"), "{method}");
        }
    }

    #[test]
    fn who_just_wrote_reads_what_it_wrote() {
        assert_eq!(ask(three(), "GET", Some("wrote")).as_deref(), Some("p"));
        assert_eq!(ask(three(), "GET", Some("other")).as_deref(), Some("r2"));
    }

    #[test]
    fn the_primary_stands_in_for_replicas_and_nobody_for_it() {
        assert_eq!(
            ask(three().down("r1").down("r2"), "GET", None).as_deref(),
            Some("p")
        );
        assert_eq!(ask(three().down("p"), "POST", None), None);
        assert_eq!(with_host(|host| host.rejected), Some(503));
        assert_eq!(ask(three().down("p"), "GET", None).as_deref(), Some("r2"));
    }
}
