//! Sends each request to the backend with the fewest requests in flight.
use trimtab_policy::prelude::*;

#[derive(Default)]
struct MyPolicy;

impl Policy for MyPolicy {
    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        pool.ready().min_by_key(|backend| backend.active()).into()
    }
}

policy!(MyPolicy);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{Trial, pool, with_host};

    #[test]
    fn the_backend_with_the_fewest_requests_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("c"));
        with_host(|host| host.active = vec![3, 1, 0]);
        assert_eq!(trial.pick(), Some("b"));
    }
}
