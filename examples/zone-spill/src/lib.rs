//! Least connections among the backends of the balancer's own zone; of all zones while its own is busy.
//!
//! Traffic between zones costs money and time, so it is worth something to stay; but a zone with few backends, or with
//! most of the clients, would be overloaded. While the zone's own backends have on the average fewer than `spill_at`
//! requests in flight, they serve alone. From there on everybody is asked, and since the busy ones lose by least
//! connections, only the surplus leaves the zone. Without a healthy backend in the zone, all others serve.
//!
//! Cost: one column and a delegated choice. Settings: `zone`, the own one, and `spill_at`, default 8. Backends say where
//! they are by the label `zone`; weights count.
//! Sources: Envoy's zone-aware routing (envoy pull request 174), which goes by the numbers of hosts; skipper issue 4289 and
//! Linkerd's HAZL, which go by load, as here.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    zone: String,
    spill_at: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zone: String::new(),
            spill_at: 8,
        }
    }
}

#[derive(Default)]
struct ZoneSpill {
    config: Config,
    /// Which backends are in the own zone.
    is_near: Vec<bool>,
}

impl ZoneSpill {
    fn is_busy(&self, pool: &Pool) -> bool {
        let active = pool.active_all();
        let near = pool
            .ready_indices()
            .iter()
            .map(|&index| index as usize)
            .filter(|&index| self.is_near[index]);
        let (count, load) = near.fold((0, 0), |(count, load), index| {
            (count + 1, load + u64::from(active[index]))
        });
        load >= count * u64::from(self.config.spill_at)
    }
}

impl Policy for ZoneSpill {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match &self.config {
            Config { zone, .. } if zone.is_empty() => {
                Err("`zone` is missing: the value of the own backends' label `zone`".into())
            }
            Config { spill_at: 0, .. } => Err("`spill_at` is 0, but must be at least 1".into()),
            _ => Ok(()),
        }
    }

    fn update(&mut self, pool: &Pool) {
        self.is_near = pool
            .iter()
            .map(|backend| backend.label("zone") == Some(&self.config.zone))
            .collect();
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        let is_busy = self.is_busy(pool);
        let fits = |backend: Backend<'_>| is_busy || self.is_near[backend.index()];
        pool.delegate_to(Algorithm::LeastConnections, fits).into()
    }
}

policy!(ZoneSpill);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn four() -> PoolBuilder {
        pool(["a1", "a2", "b1", "b2"])
            .label("a1", "zone", "a")
            .label("a2", "zone", "a")
            .label("b1", "zone", "b")
    }

    fn trial() -> Trial {
        Trial::configured(native(), r#"{"zone": "a", "spill_at": 3}"#, four())
    }

    fn pick(trial: &mut Trial, active: [u32; 4]) -> Option<&str> {
        with_host(|host| host.active = active.to_vec());
        trial.pick()
    }

    #[test]
    fn a_zone_with_room_serves_itself() {
        let mut trial = trial();
        assert_eq!(pick(&mut trial, [3, 2, 0, 0]), Some("a2"));
    }

    #[test]
    fn only_the_surplus_of_a_busy_zone_leaves_it() {
        let mut trial = trial();
        assert_eq!(pick(&mut trial, [3, 3, 0, 1]), Some("b1"));
        assert_eq!(pick(&mut trial, [3, 4, 5, 4]), Some("a1"));
    }

    #[test]
    fn a_zone_without_backends_is_served_by_the_others() {
        let mut trial = trial();
        trial.update(four().down("a1").down("a2"));
        assert_eq!(pick(&mut trial, [0, 0, 2, 1]), Some("b2"));
    }

    #[test]
    fn the_zone_has_to_be_named() {
        assert!(native().configure("{}").unwrap_err().contains("`zone`"));
    }
}
