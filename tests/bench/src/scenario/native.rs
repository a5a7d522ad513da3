//! What the sandbox costs a whole request: least connections by the component, and by the host's own version of it.
//!
//! Owns the comparison: the same program twice, by turns. One has a component that fails whenever it is told outcomes, so
//! that after five of them the host decides by its native code alone, as it does for every policy that fails
//! (`Policy::Native`). How much it did is looked up afterwards. It must not know how either of them decides.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::{Bench, FEW, usual};
use crate::{
    admin,
    child::{self, Priority},
    peer::Started,
    report::{Table, median, number},
};

const PEERS: [&str; 2] = ["trimtab-lc", "trimtab-native"];
/// Rounds for each of other scenarios: there are only two to measure, and little between them.
const MORE: usize = 3;

/// Of one pair of windows.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pair {
    /// Processor time of a request, to the nanosecond.
    component_us: f64,
    native_us: f64,
    failed: u64,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let seconds = bench.extent.seconds;
    let started = bench.start(&PEERS, &FEW, Priority::Usual)?;
    let [component, native] = &started[..] else {
        return Ok(());
    };
    let ask = |peer: &Started| -> Result<(f64, u64)> {
        let window = child::load(&usual(peer, seconds), Priority::Usual, Some(peer.pid()), || {})?;
        let (ok, failed) = (window.figures.ok.max(1), window.figures.failed());
        Ok((window.ran_seconds * 1e6 / ok as f64, failed))
    };
    // Its breaker opens.
    ask(native)?;
    let before = decisions(native)?;
    let mut pairs = Vec::new();
    for round in 0..bench.extent.rounds * MORE {
        let (component, native) = if round % 2 == 0 {
            let component = ask(component)?;
            (component, ask(native)?)
        } else {
            let native = ask(native)?;
            (ask(component)?, native)
        };
        pairs.push(Pair {
            component_us: component.0,
            native_us: native.0,
            failed: component.1 + native.1,
        });
    }
    let after = decisions(native)?;
    let share = (after.1 - before.1) / (after.0 - before.0);
    let table = table(&pairs, share);
    bench.tell("native", &table, json!({ "native_share": share, "pairs": pairs }))
}

/// Those that the policy was to make, and those that the host made for it.
fn decisions(peer: &Started) -> Result<(f64, f64)> {
    let metric = |name: &str| admin::metric(peer.port + 1, name).with_context(|| name.to_owned());
    Ok((
        metric("trimtab_policy_decisions_total")?,
        metric("trimtab_policy_fallbacks_total")?,
    ))
}

fn table(pairs: &[Pair], share: f64) -> Table {
    let columns = [
        "least connections",
        "CPU us/request, component",
        "native",
        "adds us",
        "+-",
        "pairs",
        "% native of native",
        "failed",
    ];
    let mut table = Table::new(
        "A whole request of S1, by the component and by native code",
        &columns,
    );
    let mut adds: Vec<f64> = pairs
        .iter()
        .map(|pair| pair.component_us - pair.native_us)
        .collect();
    adds.sort_by(f64::total_cmp);
    table.rows.push(vec![
        "trimtab".to_owned(),
        number(median(pairs.iter().map(|pair| pair.component_us)), 2),
        number(median(pairs.iter().map(|pair| pair.native_us)), 2),
        number(median(adds.iter().copied()), 2),
        number(error(&adds), 2),
        pairs.len().to_string(),
        number(100.0 * share, 2),
        pairs.iter().map(|pair| pair.failed).sum::<u64>().to_string(),
    ]);
    table.notes.push(
        "\"Adds\" is the median of the pairs' differences, and beside it its standard error by their middle half. The native \
         side is the host's fallback, which finds that its policy is absent first: some nanoseconds more than native code \
         would take that is all there is."
            .to_owned(),
    );
    table
}

/// The standard error of a median, by how far the middle half of the sorted values spreads: the others may be anything on
/// a machine that naps.
fn error(sorted: &[f64]) -> f64 {
    let quarter = sorted.len() / 4;
    let (Some(low), Some(high)) = (sorted.get(quarter), sorted.iter().rev().nth(quarter)) else {
        return f64::NAN;
    };
    1.25 * (high - low) / 1.349 / (sorted.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_component_adds_is_the_middle_of_differences() {
        let pair = |component_us, native_us| Pair {
            component_us,
            native_us,
            failed: 1,
        };
        let table = table(&[pair(10.0, 9.0), pair(12.0, 11.5), pair(30.0, 28.0)], 0.9999);
        let expected = ["trimtab", "12.00", "11.50", "1.00"].map(str::to_owned);
        assert_eq!(table.rows[0][..4], expected);
        assert_eq!(table.rows[0][5..], ["3", "99.99", "3"].map(str::to_owned));
    }

    #[test]
    fn far_off_values_do_not_widen_the_error() {
        let near = [1.0, 2.0, 3.0, 4.0, 5.0];
        let far = [-900.0, 2.0, 3.0, 4.0, 500.0];
        assert_eq!(error(&near), error(&far));
        assert!((error(&near) - 1.25 * 2.0 / 1.349 / 5f64.sqrt()).abs() < 1e-9);
        assert!(error(&[]).is_nan());
    }
}
