//! Least connections by price: a backend that costs twice as much takes a request only when it is less than half as busy.
//!
//! Each backend's requests in flight, this one included, are multiplied by what it costs; the smallest product for its
//! weight wins. So the cheapest serve alone while there is little to do, the others join one after the other as load
//! grows, and when all are busy shares are inverse to the costs. Nobody is overloaded to save money.
//!
//! Cost: one column. Settings: `label`, default `cost`: the label that has the price, a number above 0 in any unit
//! (money per hour, g CO2 per kWh); `cost`, default 1, of backends without it; `power`, default 1, 1 to 4: 2 makes a
//! doubled price count four times. Labels change by a reload, for instance by a script that asks the power grid.
//! Sources: Maji et al., "Bringing carbon awareness to multi-cloud application delivery" (HotCarbon 2023), found by karmada
//! issue 3917; OmniRoute issue 8917.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    label: String,
    cost: f64,
    power: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            label: "cost".into(),
            cost: 1.0,
            power: 1,
        }
    }
}

#[derive(Default)]
struct CostAware {
    config: Config,
    /// Of each backend, to its power and for its weight.
    prices: Vec<f64>,
}

impl Policy for CostAware {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match self.config {
            Config { cost, .. } if !is_price(cost) => Err(format!("`cost` is {cost}, but must be above 0")),
            Config { power, .. } if !(1..=4).contains(&power) => {
                Err(format!("`power` is {power}, but must be 1 to 4"))
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, pool: &Pool) {
        let Config { label, cost, power } = &self.config;
        let of_label =
            |backend: Backend<'_>| backend.label(label)?.parse().ok().filter(|&cost| is_price(cost));
        let price = |backend: Backend<'_>| {
            let own = of_label(backend).unwrap_or(*cost);
            // By hand: the library's powers may differ in their last bit from one platform to another.
            (0..*power).map(|_| own).product::<f64>() / f64::from(backend.capacity().max(1))
        };
        self.prices = pool.iter().map(price).collect();
    }

    fn pick(&mut self, _request: &Request, pool: &Pool) -> Pick {
        let active = pool.active_all();
        let cost = |index: usize| (f64::from(active[index]) + 1.0) * self.prices[index];
        let ready = pool.ready().map(|backend| (cost(backend.index()), backend));
        let cheapest = ready.min_by(|(one, a), (other, b)| one.total_cmp(other).then(a.id().cmp(&b.id())));
        cheapest.map(|(_, backend)| backend).into()
    }
}

fn is_price(cost: f64) -> bool {
    cost.is_finite() && cost > 0.0
}

policy!(CostAware);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::testing::{PoolBuilder, Shares, Trial, pool};

    fn three() -> PoolBuilder {
        pool(["green", "grey", "coal"])
            .label("green", "gco2", "100")
            .label("grey", "gco2", "200")
            .label("coal", "gco2", "400")
    }

    fn run(settings: &str, in_flight: usize) -> Shares {
        Trial::configured(native(), settings, three()).run_overlapping(7000, in_flight)
    }

    #[test]
    fn with_little_to_do_the_cheapest_serves_alone() {
        assert_eq!(run(r#"{"label": "gco2"}"#, 0).share("green"), 1.0);
    }

    #[test]
    fn under_load_shares_are_inverse_to_the_costs() {
        let shares = run(r#"{"label": "gco2"}"#, 700);
        for (name, want) in [("green", 4.0 / 7.0), ("grey", 2.0 / 7.0), ("coal", 1.0 / 7.0)] {
            assert!(
                (shares.share(name) - want).abs() < 0.01,
                "{name}: {}",
                shares.share(name)
            );
        }
    }

    #[test]
    fn a_higher_power_is_stricter() {
        let shares = run(r#"{"label": "gco2", "power": 2}"#, 700);
        assert!(
            (shares.share("coal") - 1.0 / 21.0).abs() < 0.01,
            "{}",
            shares.share("coal")
        );
    }

    #[test]
    fn a_weight_is_so_many_backends() {
        let mut trial = Trial::new(native(), pool(["a", "b"]).weight("b", 3));
        assert!((trial.run_overlapping(4000, 400).share("b") - 0.75).abs() < 0.01);
    }

    #[test]
    fn a_price_is_above_nothing() {
        for settings in [r#"{"cost": 0}"#, r#"{"cost": -1}"#, r#"{"power": 5}"#] {
            assert!(
                native().configure(settings).unwrap_err().contains("must be"),
                "{settings}"
            );
        }
    }
}
