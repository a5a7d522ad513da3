//! Gives each tenant a shard of a few backends, chosen as if by shuffling, and least connections within it.
//!
//! A tenant who overloads or poisons its backends takes its own shard down, and of other tenants only those whose shard is
//! the very same: with 2 of 8 backends one in 28, with 4 of 20 one in 4845. Whoever shares some backends goes on with the
//! others. Shards come from rendezvous hashing, so a backend that joins or leaves changes few of them; one that is down
//! stays in its shards, since moving would carry the trouble to others. With nobody of the shard up, requests are refused.
//!
//! Cost: a hash for each backend. Settings: `size`, default 2. The tenant is the pool's `hash_on`. Weights are not looked
//! at. It fits many small tenants: one that makes up much of the load overloads its shard by itself.
//! Sources: MacCarthaigh, "Workload isolation using shuffle-sharding" (Amazon Builders' Library); cortex pull request 3090
//! (shuffling, not neighbours on a ring); loki pull request 21325 on when it does not fit.
#![forbid(unsafe_code)]

use std::cmp::Reverse;

use serde::Deserialize;
use trimtab_policy::{hash, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { size: 2 }
    }
}

#[derive(Default)]
struct ShuffleSharding {
    config: Config,
}

impl Policy for ShuffleSharding {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        if self.config.size == 0 {
            return Err("`size` is 0, but must be at least 1".into());
        }
        Ok(())
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let rank = |backend: &Backend<'_>| Reverse(hash::pair(request.key(), backend.id()));
        let mut shard: Vec<Backend<'_>> = pool.iter().collect();
        if self.config.size < shard.len() {
            shard.select_nth_unstable_by_key(self.config.size, rank);
            shard.truncate(self.config.size);
        }
        let ready = shard.into_iter().filter(|backend| pool.is_ready(backend.index()));
        match ready.min_by_key(|backend| (backend.active(), rank(backend))) {
            Some(backend) => backend.into(),
            None => request.reject(503),
        }
    }
}

policy!(ShuffleSharding);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn twenty() -> PoolBuilder {
        pool((0..20).map(|index| index.to_string()))
    }

    fn keyed(trial: &mut Trial, key: u64) -> Option<String> {
        let mut facts = trial.facts();
        facts.key = key;
        trial.ask(facts).map(str::to_owned)
    }

    /// All that a tenant gets while its shard fills up.
    fn shard(trial: &mut Trial, tenant: u64) -> BTreeSet<String> {
        with_host(|host| host.active = vec![0; 20]);
        let mut shard = BTreeSet::new();
        for _ in 0..20 {
            let name = keyed(trial, tenant).unwrap();
            with_host(|host| host.active[name.parse::<usize>().unwrap()] += 1);
            shard.insert(name);
        }
        shard
    }

    fn trial() -> Trial {
        Trial::configured(native(), r#"{"size": 4}"#, twenty())
    }

    #[test]
    fn a_tenant_gets_its_shard_and_nothing_else() {
        let mut trial = trial();
        for tenant in 0..100 {
            assert_eq!(shard(&mut trial, tenant).len(), 4);
        }
    }

    #[test]
    fn hardly_any_two_tenants_share_a_whole_shard() {
        let mut trial = trial();
        let shards: BTreeSet<_> = (0..100).map(|tenant| shard(&mut trial, tenant)).collect();
        assert!(shards.len() >= 98, "{}", shards.len());
    }

    #[test]
    fn trouble_is_not_carried_to_other_backends() {
        let mut trial = trial();
        let mine = shard(&mut trial, 7);
        let sick = mine.iter().fold(twenty(), |pool, name| pool.down(name));
        trial.update(sick);
        assert_eq!(keyed(&mut trial, 7), None);
        assert_eq!(with_host(|host| host.rejected), Some(503));
        let well = (0..100)
            .filter(|&tenant| keyed(&mut trial, tenant).is_some())
            .count();
        assert!(well >= 98, "{well} of 100 are served");
    }

    #[test]
    fn an_empty_shard_is_refused() {
        assert!(
            native()
                .configure(r#"{"size": 0}"#)
                .unwrap_err()
                .contains("`size`")
        );
    }
}
