//! Sends requests that agree in a part of their content to the same backend: a header, a cookie, a query parameter, or
//! the path. Layer 7 only.
//!
//! Consistent hashing: a change of the pool moves only the values of the backend that came or went. A request without
//! the value goes to a backend at random, by weight.
//!
//! Cost: constant; a header by its hash, else one string. Choose it for caches (path) and sessions (cookie).
//! Settings, at most one: `header`, `cookie`, `query` (names), `path = true` (the default), `path_segments = N` (the
//! first N segments of the path). Values are compared as sent: nothing is decoded.
//! Source: Karger et al., "Consistent hashing and random trees" (1997).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{hash, hash::Ring, prelude::*};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    header: Option<String>,
    cookie: Option<String>,
    query: Option<String>,
    path: Option<bool>,
    path_segments: Option<usize>,
}

/// The part of a request that decides.
#[derive(Default)]
enum Content {
    Header(String),
    Cookie(String),
    Query(String),
    #[default]
    Path,
    PathSegments(usize),
}

impl TryFrom<Config> for Content {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let path = config.path.map(|on| {
            if on {
                Ok(Self::Path)
            } else {
                Err("`path` can only be true".into())
            }
        });
        let chosen = [
            config.header.map(|name| Ok(Self::Header(name))),
            config.cookie.map(|name| Ok(Self::Cookie(name))),
            config.query.map(|name| Ok(Self::Query(name))),
            path,
            config.path_segments.map(|count| match count {
                0 => Err("`path_segments` is 0, but must be at least 1".into()),
                _ => Ok(Self::PathSegments(count)),
            }),
        ];
        let mut chosen = chosen.into_iter().flatten();
        match (chosen.next(), chosen.next()) {
            (content, None) => content.unwrap_or(Ok(Self::Path)),
            _ => Err("only one of `header`, `cookie`, `query`, `path`, `path_segments` can decide".into()),
        }
    }
}

impl Content {
    fn key(&self, request: &Request) -> Option<u64> {
        let value = match self {
            Self::Header(name) => return request.header_hash(name),
            Self::Cookie(name) => request.cookie(name)?,
            Self::Query(name) => parameter(&request.query()?, name)?.to_owned(),
            Self::Path => request.path(),
            Self::PathSegments(count) => leading(&request.path(), *count).to_owned(),
        };
        Some(hash::bytes(value.as_bytes()))
    }
}

/// The value of the first parameter of this name; empty when it has no `=`.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|&(known, _)| known == name).map(|(_, value)| value)
}

/// The path up to the end of its segment `count`: the slash after it is the `count + 1`st.
fn leading(path: &str, count: usize) -> &str {
    path.match_indices('/')
        .nth(count)
        .map_or(path, |(end, _)| &path[..end])
}

#[derive(Default)]
struct ContentHash {
    content: Content,
    ring: Ring,
}

impl Policy for ContentHash {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.content = settings.read::<Config>()?.try_into()?;
        Ok(())
    }

    fn update(&mut self, pool: &Pool) {
        self.ring.follow(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let key = self.content.key(request).unwrap_or_else(|| request.random());
        self.ring.find(key, |index| pool.is_ready(index)).into()
    }
}

policy!(ContentHash);

#[cfg(test)]
mod tests {
    use super::{leading, native, parameter};
    use trimtab_policy::testing::{FakeHost, PoolBuilder, Trial, pool, with_host};

    fn ten() -> PoolBuilder {
        pool((0..10).map(|index| index.to_string()))
    }

    /// How many backends serve 200 requests for which the host was set up so.
    fn backends(settings: &str, set_up: fn(&mut FakeHost, usize)) -> usize {
        let mut trial = Trial::configured(native(), settings, ten());
        let mut names: Vec<String> = (0..200)
            .map(|n| {
                with_host(|host| set_up(host, n));
                trial.pick().unwrap().to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        names.len()
    }

    fn pairs(name: &str, value: String) -> Vec<(String, String)> {
        vec![(name.into(), value)]
    }

    #[test]
    fn equal_values_go_to_one_backend_and_others_spread() {
        let header = r#"{"header": "X-User"}"#;
        assert_eq!(
            backends(header, |host, _| host.headers = pairs("x-user", "ann".into())),
            1
        );
        assert_eq!(
            backends(header, |host, n| host.headers = pairs("x-user", n.to_string())),
            10
        );
        let cookie = r#"{"cookie": "sid"}"#;
        assert_eq!(
            backends(cookie, |host, _| host.cookies = pairs("sid", "1".into())),
            1
        );
        assert_eq!(
            backends(cookie, |host, n| host.cookies = pairs("sid", n.to_string())),
            10
        );
        let query = r#"{"query": "user"}"#;
        assert_eq!(
            backends(query, |host, n| host.query = Some(format!("n={n}&user=ann"))),
            1
        );
        assert_eq!(
            backends(query, |host, n| host.query = Some(format!("user={n}&n=1"))),
            10
        );
        assert_eq!(backends("{}", |host, n| host.path = format!("/a/{n}")), 10);
        assert_eq!(
            backends(r#"{"path_segments": 1}"#, |host, n| host.path = format!("/a/{n}")),
            1
        );
    }

    #[test]
    fn a_request_without_the_value_goes_anywhere() {
        for settings in [
            r#"{"header": "x-user"}"#,
            r#"{"cookie": "sid"}"#,
            r#"{"query": "user"}"#,
        ] {
            assert_eq!(
                backends(settings, |host, _| host.query = Some("users=1".into())),
                10
            );
        }
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        with_host(|host| host.tried = vec![true, false]);
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("b"));
    }

    #[test]
    fn a_failed_backend_is_avoided_and_gets_its_values_back() {
        let mut trial = Trial::new(native(), ten());
        let home = trial.pick().unwrap().to_owned();
        trial.update(ten().down(&home));
        assert_ne!(trial.pick(), Some(home.as_str()));
        trial.update(ten());
        assert_eq!(trial.pick(), Some(home.as_str()));
    }

    #[test]
    fn parts_are_cut_at_their_ends() {
        assert_eq!(parameter("a=1&b=2&b=3", "b"), Some("2"));
        assert_eq!(parameter("a&b", "a"), Some(""));
        assert_eq!(parameter("ab=1", "a"), None);
        assert_eq!(leading("/a/b/c", 1), "/a");
        assert_eq!(leading("/a/b/c", 2), "/a/b");
        assert_eq!(leading("/a", 3), "/a");
    }

    #[test]
    fn contradictory_settings_are_refused() {
        let refused = |settings: &str| native().configure(settings).unwrap_err();
        assert!(refused(r#"{"header": "a", "cookie": "b"}"#).starts_with("only one of"));
        assert!(refused(r#"{"path": false}"#).contains("`path`"));
        assert!(refused(r#"{"path_segments": 0}"#).contains("`path_segments`"));
        assert!(refused(r#"{"heder": "a"}"#).contains("unknown key `heder`"));
    }
}
