//! What the simulations of the example policies have to show.
//!
//! Owns the claims, as bounds on the report of `examples/NAME/scenario.toml`, and the sentence that is printed of each. The
//! reports are the same to the last bit on every run, so a bound that holds once holds until the policy, the host or the
//! scenario changes.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A report of `trimtab simulate --json`.
pub(crate) struct Report(Value);

/// What one policy of it came to.
struct Figures<'a>(&'a Value);

/// Whether a report shows the effect.
type Judge = fn(&Report) -> Result<Effect>;

/// The examples with a scenario.
pub(crate) const EFFECTS: [(&str, Judge); 9] = [
    ("canary-by-header", canary),
    ("cost-aware", cost),
    ("deadline-aware", deadline),
    ("peer-aware", peers),
    ("prefix-affinity", prefix),
    ("shuffle-sharding", shards),
    ("sticky-bounded", sticky),
    ("warm-up", warm_up),
    ("zone-spill", zone),
];

/// What was seen, and whether it is what the policy claims.
pub(crate) struct Effect {
    seen: String,
    is_shown: bool,
}

impl Effect {
    /// The sentence.
    ///
    /// # Errors
    /// When it is not what the policy claims.
    pub(crate) fn shown(self) -> Result<String> {
        if self.is_shown {
            return Ok(self.seen);
        }
        bail!(
            "the simulation does not show what the policy claims: {}",
            self.seen
        )
    }
}

impl Report {
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json)
            .map(Self)
            .context("the report is no JSON")
    }

    fn of(&self, policy: &str) -> Result<Figures<'_>> {
        let policies = self.0["policies"].as_array().context("a report has policies")?;
        let found = policies.iter().find(|report| report["name"] == policy);
        found
            .map(Figures)
            .with_context(|| format!("no policy `{policy}` in the report"))
    }
}

impl Figures<'_> {
    fn number(&self, pointer: &str) -> Result<f64> {
        let value = self.0.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("no number at {pointer} in the report"))
    }

    fn p99_ms(&self) -> Result<f64> {
        self.number("/latency/p99_ms")
    }

    fn p90_ms(&self) -> Result<f64> {
        self.number("/latency/p90_ms")
    }

    /// Of requests whose key came before, those that went where it went last.
    fn same_home_percent(&self) -> Result<f64> {
        self.number("/homes/same_percent")
    }

    fn errors(&self) -> Result<f64> {
        self.number("/errors/all")
    }

    /// Share of the attempts that went to a group's backends.
    fn share_percent(&self, group: &str) -> Result<f64> {
        let backends = self.0["backends"].as_array().context("a report has backends")?;
        let of_group = |backend: &&Value| {
            let name = backend["name"].as_str().and_then(|name| name.rsplit_once('-'));
            name.is_some_and(|(own, _)| own == group)
        };
        let shares = backends
            .iter()
            .filter(of_group)
            .filter_map(|backend| backend["share_percent"].as_f64());
        Ok(shares.sum())
    }

    /// Of the answers, those that took longer.
    fn later_than_percent(&self, ms: f64) -> Result<f64> {
        let quantiles = self
            .0
            .pointer("/latency/quantiles")
            .and_then(Value::as_array)
            .context("quantiles")?;
        let is_in_time = |quantile: &&Value| quantile["ms"].as_f64().is_some_and(|at| at <= ms);
        let percents = quantiles
            .iter()
            .filter(is_in_time)
            .filter_map(|quantile| quantile["percent"].as_f64());
        Ok(100.0 - percents.fold(0.0, f64::max))
    }
}

fn canary(report: &Report) -> Result<Effect> {
    let (own, plain) = (report.of("canary")?, report.of("least-connections")?);
    let (share, unasked) = (own.share_percent("next")?, plain.share_percent("next")?);
    let same = own.same_home_percent()?;
    Ok(Effect {
        seen: format!(
            "{share:.1} % of the requests meet the release (least-connections {unasked:.1} %; same backend {same:.0} %)"
        ),
        is_shown: (4.0..6.0).contains(&share),
    })
}

fn cost(report: &Report) -> Result<Effect> {
    let mean = |figures: &Figures<'_>| -> Result<f64> {
        let grams = [("hydro", 40.0), ("gas", 350.0), ("coal", 700.0)];
        grams
            .iter()
            .map(|(group, grams)| Ok(figures.share_percent(group)? / 100.0 * grams))
            .sum()
    };
    let (own, plain) = (report.of("cost-aware")?, report.of("least-connections")?);
    let (cost, usual) = (mean(&own)?, mean(&plain)?);
    let (late, usually) = (own.p99_ms()?, plain.p99_ms()?);
    Ok(Effect {
        seen: format!(
            "{cost:.0} g CO2 per kWh on the average and p99 {late:.0} ms; least-connections {usual:.0} g, {usually:.0} ms"
        ),
        is_shown: cost < usual * 0.6 && late < usually * 1.2,
    })
}

fn deadline(report: &Report) -> Result<Effect> {
    let late = |name: &str| report.of(name)?.later_than_percent(60.0);
    let (own, two, ewma) = (
        late("deadline-aware")?,
        late("random-two-choices")?,
        late("peak-ewma")?,
    );
    let refused = report.of("deadline-aware")?.number("/errors/rejected")?;
    Ok(Effect {
        seen: format!(
            "{own:.2} % of the answers come after 60 ms, {refused} requests are refused; random-two-choices {two:.2} %, \
             peak-ewma {ewma:.2} %"
        ),
        is_shown: own < ewma * 0.5 && own < two * 0.5 && refused < 600.0,
    })
}

fn peers(report: &Report) -> Result<Effect> {
    let late = |name: &str| report.of(name)?.p99_ms();
    let (own, herd) = (late("peer-aware")?, late("least-connections")?);
    Ok(Effect {
        seen: format!(
            "p99 {own:.0} ms with news of 200 ms; least-connections, which believes them, {herd:.0} ms"
        ),
        is_shown: own * 5.0 < herd,
    })
}

fn prefix(report: &Report) -> Result<Effect> {
    let (own, hash, least) = (
        report.of("prefix-affinity")?,
        report.of("plain-hash")?,
        report.of("least-connections")?,
    );
    let (same, by_chance) = (own.same_home_percent()?, least.same_home_percent()?);
    let (late, hashed, spread) = (own.p99_ms()?, hash.p99_ms()?, least.p99_ms()?);
    Ok(Effect {
        seen: format!(
            "{same:.0} % of the requests go where their prefix went before (least-connections {by_chance:.0} %), p99 {late:.0} ms \
             (plain hash {hashed:.0} ms, least-connections {spread:.0} ms)"
        ),
        is_shown: same > 2.0 * by_chance && late < hashed * 0.5 && late < spread * 1.5,
    })
}

fn shards(report: &Report) -> Result<Effect> {
    let (own, plain) = (report.of("shuffle-sharding")?, report.of("least-connections")?);
    let (late, drowned) = (own.p90_ms()?, plain.p90_ms()?);
    let (errors, all) = (own.errors()?, plain.errors()?);
    Ok(Effect {
        seen: format!(
            "p90 {late:.0} ms and {errors} errors; least-connections {drowned:.0} ms and {all} errors"
        ),
        is_shown: late < 100.0 && drowned > late * 10.0,
    })
}

fn sticky(report: &Report) -> Result<Effect> {
    let own = report.of("sticky-bounded")?;
    let (hash, bounded, least) = (
        report.of("plain-hash")?,
        report.of("consistent-hash")?,
        report.of("least-connections")?,
    );
    let (same, built_in) = (own.same_home_percent()?, bounded.same_home_percent()?);
    let (late, hashed) = (own.p99_ms()?, hash.p99_ms()?);
    Ok(Effect {
        seen: format!(
            "{same:.0} % stay where they were and p99 {late:.0} ms; consistent-hash {built_in:.0} %, {:.0} ms; plain hash \
             {:.0} %, {hashed:.0} ms; least-connections {:.0} %, {:.0} ms",
            bounded.p99_ms()?,
            hash.same_home_percent()?,
            least.same_home_percent()?,
            least.p99_ms()?
        ),
        is_shown: same > built_in * 1.5 && late < hashed * 0.7,
    })
}

fn warm_up(report: &Report) -> Result<Effect> {
    let late = |name: &str| report.of(name)?.later_than_percent(100.0);
    let (own, turns, least) = (late("warm-up")?, late("round-robin")?, late("least-connections")?);
    let share = report.of("warm-up")?.share_percent("cold")?;
    Ok(Effect {
        seen: format!(
            "{own:.2} % of the answers take over 100 ms; least-connections {least:.2} %, round-robin {turns:.1} %; the cold \
             ones end up with {share:.0} % of the requests"
        ),
        is_shown: own < least && own < turns * 0.2 && share > 5.0,
    })
}

fn zone(report: &Report) -> Result<Effect> {
    let (own, never, plain) = (
        report.of("zone-spill")?,
        report.of("never-leaves")?,
        report.of("least-connections")?,
    );
    let same = |figures: &Figures<'_>| figures.number("/same_zone_percent");
    let (near, usual) = (same(&own)?, same(&plain)?);
    let (late, queued, usually) = (own.p99_ms()?, never.p99_ms()?, plain.p99_ms()?);
    Ok(Effect {
        seen: format!(
            "{near:.0} % stay in the zone and p99 {late:.0} ms; never leaving it {queued:.0} ms; least-connections {usual:.0} %, \
             {usually:.0} ms"
        ),
        is_shown: near > usual * 1.5 && late < queued * 0.5,
    })
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn figures_are_read_from_a_report() {
        let json = br#"{"policies": [{"name": "a", "latency": {"p99_ms": 5.0, "quantiles": [
            {"percent": 50.0, "ms": 1.0}, {"percent": 90.0, "ms": 60.0}, {"percent": 99.0, "ms": 61.0}]},
            "backends": [{"name": "web-1:80", "share_percent": 40.0}, {"name": "web-2:80", "share_percent": 10.0},
            {"name": "web-b-1:80", "share_percent": 50.0}]}]}"#;
        let report = Report::parse(json).unwrap();
        let figures = report.of("a").unwrap();
        assert_eq!(figures.p99_ms().unwrap(), 5.0);
        assert_eq!(figures.later_than_percent(60.0).unwrap(), 10.0);
        assert_eq!(figures.share_percent("web").unwrap(), 50.0);
        assert!(report.of("b").is_err() && figures.errors().is_err());
    }
}
