//! Which pool serves a request.
//!
//! Owns the matching of host and path. It must not know what a pool does.

use std::rc::Rc;

use super::pool::WorkerPool;
use crate::{config, http1::Head};

/// A route with its pool.
pub(super) struct Route {
    pub(super) rule: config::Route,
    pub(super) pool: Rc<WorkerPool>,
}

/// The first route that takes this request. Its host and path are looked for only if a route asks for one.
#[inline]
pub(super) fn find<'a>(routes: &'a [Route], head: &Head) -> Option<&'a Rc<WorkerPool>> {
    match routes.first() {
        Some(first) if first.rule.host.is_none() && first.rule.path_prefix.is_none() => Some(&first.pool),
        _ => find_at(routes, head.host(), head.path()),
    }
}

/// The first route that takes a request for this host (lower or upper case, without port) and path.
#[inline]
pub(super) fn find_at<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a Rc<WorkerPool>> {
    routes
        .iter()
        .find(|route| takes(&route.rule, host, path))
        .map(|route| &route.pool)
}

/// Whether a rule takes requests for this host and path.
pub fn takes(rule: &config::Route, host: &str, path: &str) -> bool {
    let host_fits = rule
        .host
        .as_deref()
        .is_none_or(|pattern| host_matches(pattern, host));
    host_fits
        && rule
            .path_prefix
            .as_deref()
            .is_none_or(|prefix| path_matches(prefix, path))
}

/// `*.example.com` takes every name below example.com, at any depth, and not example.com itself.
fn host_matches(pattern: &str, host: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix('*') else {
        return pattern.eq_ignore_ascii_case(host);
    };
    host.len() > suffix.len()
        && host.as_bytes()[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
}

/// Whole segments: `/api` takes `/api` and `/api/x`, not `/apix`; `/api/` takes only what is below.
fn path_matches(prefix: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_matches_whole_segments() {
        assert!(path_matches("/api", "/api"));
        assert!(path_matches("/api", "/api/x"));
        assert!(!path_matches("/api", "/apix"));
        assert!(path_matches("/api/", "/api/x"));
        assert!(!path_matches("/api/", "/api"));
        assert!(path_matches("/", "/anything"));
    }

    #[test]
    fn a_wildcard_host_matches_names_below_it_only() {
        assert!(host_matches("*.example.com", "a.EXAMPLE.com"));
        assert!(host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", "badexample.com"));
        assert!(host_matches("shop.example", "Shop.Example"));
        assert!(!host_matches("shop.example", ""));
    }
}
