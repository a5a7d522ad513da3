//! Least connections over all nodes, which believes the others less, the older their word is.
//!
//! Of its own requests a node knows everything. What the others have in flight it knows as they said it last
//! (`load_view = "cluster"`): with news of 20 ms their sum is what to go by, with news of a second it is wrong, and to go by it
//! sends all nodes to the backends that were idle then. So each backend counts with its own requests, and with the others'
//! as much as their age allows: the part `e^(-age / believe_ms)` of what they said of it, and for the rest what they have on the average.
//! A node that hears of nobody is left with its own requests, as without peers. Backends that are equally good take turns by
//! chance, so that nodes that know the same do not all choose the same.
//!
//! Cost: three columns, and a list of the best. Settings: `believe_ms`, default 50: the age at which a third is believed. About as long as a
//! request takes: what was in flight longer ago has ended since.
//! Sources: Mitzenmacher, "How useful is old information?" (2000), which shows the herd and that old load is to be discounted by its
//! age; Dahlin, "Interpreting stale load information" (2000), whose estimate is this one.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{decayed, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    believe_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { believe_ms: 50 }
    }
}

#[derive(Default)]
struct PeerAware {
    config: Config,
}

impl PeerAware {
    /// How much of what is so old still holds, 0 to 1.
    fn trust(&self, age_ms: u32) -> f64 {
        decayed(age_ms.into(), self.config.believe_ms.into())
    }
}

impl Policy for PeerAware {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match self.config.believe_ms {
            0 => Err("`believe_ms` is 0, but must be at least 1".into()),
            _ => Ok(()),
        }
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let (own, others, ages) = (
            pool.own_active_all(),
            pool.others_active_all(),
            pool.others_age_ms_all(),
        );
        let (mut told, mut capacity) = (0.0, 0.0);
        for backend in pool.ready() {
            told += f64::from(others[backend.index()]);
            capacity += f64::from(backend.capacity());
        }
        // One more request, as if it had been sent there.
        let load = |backend: Backend<'_>| {
            let (index, size) = (backend.index(), f64::from(backend.capacity()));
            let trust = self.trust(ages[index]);
            let believed = trust * f64::from(others[index]) + (1.0 - trust) * told * size / capacity;
            (f64::from(own[index]) + believed + 1.0) / size
        };
        let mut least = f64::INFINITY;
        let mut best = Vec::new();
        for backend in pool.ready() {
            let load = load(backend);
            if load < least {
                least = load;
                best.clear();
            }
            if load == least {
                best.push(backend.index());
            }
        }
        let chance = request.random().checked_rem(best.len() as u64);
        chance.map(|place| best[place as usize]).into()
    }
}

policy!(PeerAware);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    /// Of each backend: this node's requests, the others', and how old that is.
    fn pick(pool: PoolBuilder, load: [(u32, Option<(u32, u32)>); 3]) -> Option<String> {
        let mut trial = Trial::configured(native(), "{}", pool);
        with_host(|host| {
            host.active = load
                .iter()
                .map(|(own, others)| own + others.map_or(0, |(active, _)| active))
                .collect();
            host.others = load.iter().map(|(_, others)| *others).collect();
        });
        trial.pick().map(str::to_owned)
    }

    fn three() -> PoolBuilder {
        pool(["a", "b", "c"])
    }

    #[test]
    fn fresh_words_count_as_much_as_what_this_node_sees() {
        let load = [(0, Some((6, 2))), (2, Some((0, 2))), (1, Some((5, 2)))];
        assert_eq!(pick(three(), load).as_deref(), Some("b"));
    }

    #[test]
    fn of_old_words_its_own_requests_are_left() {
        let load = [(0, Some((6, 900))), (2, Some((0, 900))), (1, Some((5, 900)))];
        assert_eq!(pick(three(), load).as_deref(), Some("a"));
    }

    #[test]
    fn a_backend_of_which_the_word_is_old_is_not_taken_to_be_idle() {
        let load = [(0, Some((4, 0))), (0, Some((0, 900))), (0, Some((1, 0)))];
        assert_eq!(
            pick(three(), load).as_deref(),
            Some("c"),
            "the average is more than 1"
        );
    }

    #[test]
    fn without_peers_it_is_least_connections() {
        let load = [(2, None), (1, None), (3, None)];
        assert_eq!(pick(three(), load).as_deref(), Some("b"));
        assert_eq!(pick(three().down("b"), load).as_deref(), Some("a"));
        assert_eq!(pick(three().weight("c", 4), load).as_deref(), Some("c"));
    }

    #[test]
    fn equals_are_chosen_by_chance() {
        let mut trial = Trial::configured(native(), "{}", three());
        let mut seen: Vec<String> = (0..60).filter_map(|_| trial.pick().map(str::to_owned)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["a", "b", "c"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let refusal = native().configure(r#"{"believe_ms": 0}"#).unwrap_err();
        assert!(refusal.contains("at least 1"), "{refusal}");
    }
}
