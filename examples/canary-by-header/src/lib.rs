//! Sends requests that ask for a release to the backends that run it, each time to the one with the fewest connections.
//!
//! A request says `x-release: NAME`, a backend has the label `release = "NAME"`. Requests that ask for nothing, or for what
//! nobody runs, go to the pool's `fallback`.
use trimtab_policy::prelude::*;

#[derive(Default)]
struct CanaryByHeader;

impl Policy for CanaryByHeader {
    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let Some(release) = request.header("x-release") else {
            return Pick::NoOpinion;
        };
        let runs_it = |backend: Backend<'_>| backend.label("release") == Some(&release);
        pool.delegate_to(Algorithm::LeastConnections, runs_it).into()
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

    fn ask(trial: &mut Trial, release: Option<&str>) -> Option<String> {
        with_host(|host| {
            host.headers = release
                .map(|name| ("x-release".into(), name.into()))
                .into_iter()
                .collect();
        });
        trial.pick().map(str::to_owned)
    }

    #[test]
    fn who_asks_for_a_release_gets_its_least_loaded_backend() {
        let mut trial = Trial::new(native(), three());
        with_host(|host| host.active = vec![0, 5, 3]);
        assert_eq!(ask(&mut trial, Some("next")).as_deref(), Some("c"));
        trial.update(three().down("c"));
        assert_eq!(ask(&mut trial, Some("next")).as_deref(), Some("b"));
    }

    #[test]
    fn everybody_else_is_left_to_the_host() {
        let mut trial = Trial::new(native(), three());
        assert_eq!(ask(&mut trial, None), None);
        assert_eq!(ask(&mut trial, Some("older")), None);
    }
}
