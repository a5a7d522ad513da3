//! Sends a share of the clients, and whoever asks for it, to the backends of a new release.
//!
//! A backend of the release has the label `release = "NAME"`. A request with the header `x-release: NAME` goes there, one
//! that names anything else does not. Of all others `percent` do, by the pool's key: a client stays on its side, raising
//! the percentage moves clients in one direction only, and another release draws other clients. On either side the
//! backend with the fewest connections serves. A side without healthy backends is served by the other.
//!
//! Cost: one string of the request and a delegated choice. Settings: `release`, default `next`; `percent`, default 0;
//! `header`, default `x-release`.
//! Sources: ingress-nginx's canary annotations and its pull request 6890 (the same users, another seed for each release).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{hash, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    release: String,
    percent: f64,
    header: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            release: "next".into(),
            percent: 0.0,
            header: "x-release".into(),
        }
    }
}

#[derive(Default)]
struct CanaryByHeader {
    config: Config,
}

impl CanaryByHeader {
    fn is_drawn(&self, key: u64) -> bool {
        let seed = hash::bytes(self.config.release.as_bytes());
        let drawn = hash::pair(seed, key) % 10_000;
        (drawn as f64) < self.config.percent * 100.0
    }
}

impl Policy for CanaryByHeader {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        if !(0.0..=100.0).contains(&self.config.percent) {
            return Err(format!(
                "`percent` is {}, but must be 0 to 100",
                self.config.percent
            ));
        }
        Ok(())
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let Config { release, header, .. } = &self.config;
        let asked = request.header(header);
        let is_canary = asked.map_or_else(|| self.is_drawn(request.key()), |asked| asked == *release);
        let side = |backend: Backend<'_>| (backend.label("release") == Some(release)) == is_canary;
        let chosen = pool.delegate_to(Algorithm::LeastConnections, side);
        chosen
            .or_else(|| pool.delegate_to(Algorithm::LeastConnections, |_| true))
            .into()
    }
}

policy!(CanaryByHeader);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn three() -> PoolBuilder {
        pool(["a", "b", "c"])
            .label("b", "release", "next")
            .label("c", "release", "next")
    }

    fn ask(trial: &mut Trial, release: Option<&str>, key: u64) -> String {
        with_host(|host| {
            host.headers = release
                .map(|name| ("x-release".into(), name.into()))
                .into_iter()
                .collect();
        });
        let mut facts = trial.facts();
        facts.key = key;
        trial.ask(facts).unwrap().to_owned()
    }

    /// Who of 10,000 clients is in the canary.
    fn canary(settings: &str, pool: PoolBuilder) -> Vec<bool> {
        let mut trial = Trial::configured(native(), settings, pool);
        (0..10_000).map(|key| ask(&mut trial, None, key) != "a").collect()
    }

    #[test]
    fn who_asks_for_a_release_gets_its_least_loaded_backend() {
        let mut trial = Trial::new(native(), three());
        with_host(|host| host.active = vec![0, 5, 3]);
        assert_eq!(ask(&mut trial, Some("next"), 1), "c");
        trial.update(three().down("c"));
        assert_eq!(ask(&mut trial, Some("next"), 1), "b");
    }

    #[test]
    fn who_asks_for_another_gets_none_of_it() {
        let mut trial = Trial::configured(native(), r#"{"percent": 100}"#, three());
        assert_eq!(ask(&mut trial, Some("stable"), 1), "a");
        assert_ne!(ask(&mut trial, None, 1), "a");
    }

    #[test]
    fn nobody_gets_it_unasked_at_0_percent() {
        assert!(canary("{}", three()).iter().all(|is_in| !is_in));
    }

    #[test]
    fn a_share_of_the_clients_gets_it() {
        let count = canary(r#"{"percent": 2.5}"#, three())
            .iter()
            .filter(|is_in| **is_in)
            .count();
        assert!((200..300).contains(&count), "{count} of 10,000");
    }

    #[test]
    fn raising_the_percentage_moves_nobody_back() {
        let few = canary(r#"{"percent": 10}"#, three());
        let more = canary(r#"{"percent": 30}"#, three());
        assert!(few.iter().zip(&more).all(|(few, more)| *more || !few));
    }

    #[test]
    fn another_release_draws_other_clients() {
        let next = canary(r#"{"percent": 10}"#, three());
        let renamed = pool(["a", "b", "c"])
            .label("b", "release", "later")
            .label("c", "release", "later");
        let later = canary(r#"{"percent": 10, "release": "later"}"#, renamed);
        let both = next
            .iter()
            .zip(&later)
            .filter(|(next, later)| **next && **later)
            .count();
        assert!(both < 200, "{both} of about 1000 are the same");
    }

    #[test]
    fn a_side_without_backends_is_served_by_the_other() {
        let mut trial = Trial::new(native(), three().down("a"));
        assert_ne!(ask(&mut trial, None, 1), "a");
        trial.update(three().down("b").down("c"));
        assert_eq!(ask(&mut trial, Some("next"), 1), "a");
    }

    #[test]
    fn more_than_everybody_is_refused() {
        assert!(
            native()
                .configure(r#"{"percent": 101}"#)
                .unwrap_err()
                .contains("`percent`")
        );
    }
}
