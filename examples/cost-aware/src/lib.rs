//! The cheapest backend that has room; when none has, the one that is least full.
//!
//! A backend has room while it has fewer than `room` requests in flight for each unit of its weight. So the cheapest serve
//! alone while there is little to do, and the others join one after the other as load grows. Set `room` to what a backend
//! works on at a time: nobody is overloaded to save money, and beyond that it is least connections. Backends of one price
//! share by least connections.
//!
//! Cost: one column. Settings: `room`, default 8; `label`, default `cost`: the label that has the price, a number above 0 in
//! any unit (money per hour, g CO2 per kWh); `cost`, default 1, of backends without it. Labels change by a reload, for
//! instance by a script that asks the power grid.
//! Sources: Maji et al., "Bringing carbon awareness to multi-cloud application delivery" (HotCarbon 2023), found by karmada
//! issue 3917; OmniRoute issue 8917. A first version here weighted connections by price, and overloaded the cheapest: its
//! simulation showed that.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    room: u32,
    label: String,
    cost: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            room: 8,
            label: "cost".into(),
            cost: 1.0,
        }
    }
}

#[derive(Default)]
struct CostAware {
    config: Config,
    /// Of each backend.
    costs: Vec<f64>,
}

impl Policy for CostAware {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match self.config {
            Config { room: 0, .. } => Err("`room` is 0, but must be at least 1".into()),
            Config { cost, .. } if !is_price(cost) => Err(format!("`cost` is {cost}, but must be above 0")),
            _ => Ok(()),
        }
    }

    fn update(&mut self, pool: &Pool) {
        let Config { label, cost, .. } = &self.config;
        let of_label =
            |backend: Backend<'_>| backend.label(label)?.parse().ok().filter(|&cost| is_price(cost));
        self.costs = pool
            .iter()
            .map(|backend| of_label(backend).unwrap_or(*cost))
            .collect();
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        let active = pool.active_all();
        // Capacities are a hundred times the weight when fully ramped up.
        let room = |backend: Backend<'_>| u64::from(self.config.room) * u64::from(backend.capacity());
        let has_room = |backend: Backend<'_>| u64::from(active[backend.index()]) * 100 < room(backend);
        let cost = |backend: Backend<'_>| self.costs[backend.index()];
        let cheapest = pool
            .ready()
            .filter(|&backend| has_room(backend))
            .map(cost)
            .min_by(f64::total_cmp);
        let serves = |backend: Backend<'_>| {
            cheapest.is_none_or(|cheapest| has_room(backend) && cost(backend) <= cheapest)
        };
        pool.delegate_to(Algorithm::LeastConnections, serves).into()
    }
}

fn is_price(cost: f64) -> bool {
    cost.is_finite() && cost > 0.0
}

policy!(CostAware);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    const SETTINGS: &str = r#"{"label": "gco2", "room": 4}"#;

    fn three() -> PoolBuilder {
        pool(["coal", "grey", "green"])
            .label("green", "gco2", "100")
            .label("grey", "gco2", "200")
            .label("coal", "gco2", "400")
    }

    fn pick(pool: PoolBuilder, active: [u32; 3]) -> Option<String> {
        let mut trial = Trial::configured(native(), SETTINGS, pool);
        with_host(|host| host.active = active.to_vec());
        trial.pick().map(str::to_owned)
    }

    #[test]
    fn the_cheapest_serves_while_it_has_room() {
        assert_eq!(pick(three(), [0, 0, 3]).as_deref(), Some("green"));
        assert_eq!(pick(three().down("green"), [0, 0, 3]).as_deref(), Some("grey"));
    }

    #[test]
    fn the_next_one_joins_when_it_has_none() {
        assert_eq!(pick(three(), [0, 0, 4]).as_deref(), Some("grey"));
        assert_eq!(pick(three(), [0, 4, 4]).as_deref(), Some("coal"));
    }

    #[test]
    fn when_nobody_has_room_price_counts_no_more() {
        assert_eq!(pick(three(), [5, 4, 6]).as_deref(), Some("grey"));
    }

    #[test]
    fn backends_of_one_price_share() {
        let same = pool(["a", "b", "c"]).label("c", "gco2", "2");
        assert_eq!(pick(same, [2, 1, 0]).as_deref(), Some("b"));
    }

    #[test]
    fn a_weight_is_so_much_more_room_and_a_ramp_less() {
        assert_eq!(
            pick(three().weight("green", 3), [0, 0, 11]).as_deref(),
            Some("green")
        );
        assert_eq!(
            pick(three().ramp("green", 50), [0, 0, 2]).as_deref(),
            Some("grey")
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for settings in [r#"{"cost": 0}"#, r#"{"cost": -1}"#, r#"{"room": 0}"#] {
            assert!(
                native().configure(settings).unwrap_err().contains("must be"),
                "{settings}"
            );
        }
    }
}
