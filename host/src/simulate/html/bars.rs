//! Plots of bars: percentiles side by side, and the cost of decisions.

use super::{
    class_of,
    scale::{Scale, grouped, milliseconds},
    svg::{Drawing, Frame, HALF, escaped, short},
};
use crate::simulate::report::{Cost, PolicyReport, Report};

/// More policies leave no room for a number on each bar.
const NUMBERED_MAX: usize = 4;
/// The part of a group's width that its bars take.
const FILLED: f64 = 0.84;

type Percentile = (&'static str, fn(&PolicyReport) -> f64);

const PERCENTILES: [Percentile; 4] = [
    ("p50", |policy| policy.latency.p50_ms),
    ("p90", |policy| policy.latency.p90_ms),
    ("p99", |policy| policy.latency.p99_ms),
    ("p99.9", |policy| policy.latency.p999_ms),
];

/// A group of bars for each percentile, a bar for each policy.
pub(super) fn percentiles(report: &Report) -> String {
    let mut drawing = Drawing::new(HALF, "Percentiles of the latency");
    let frame = drawing.frame;
    let values: Vec<f64> = PERCENTILES
        .iter()
        .flat_map(|(_, read)| report.policies.iter().map(read))
        .collect();
    let least = values
        .iter()
        .copied()
        .filter(|value| *value > 0.0)
        .fold(f64::INFINITY, f64::min);
    // The axis begins below the shortest bar, which would otherwise be none.
    let y = Scale::log(
        values
            .iter()
            .copied()
            .chain([least / 2.0])
            .collect::<Vec<_>>()
            .into_iter(),
    );
    drawing.y_axis(y, "milliseconds, logarithmic");
    let group = (frame.width - frame.left - frame.right) / PERCENTILES.len() as f64;
    let width = group * FILLED / report.policies.len().max(1) as f64;
    let floor = frame.y(0.0);
    for (number, (name, read)) in PERCENTILES.iter().enumerate() {
        let left = frame.left + group * (number as f64 + (1.0 - FILLED) / 2.0);
        for (place, policy) in report.policies.iter().enumerate() {
            let (value, x) = (read(policy), left + width * place as f64);
            let top = frame.y(y.place(value));
            drawing.add(&format!(
                "<rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"1.5\"><title>{}: {name} {} ms</title></rect>",
                class_of(place),
                short(x + 1.0),
                short(top),
                short((width - 2.0).max(0.5)),
                short(floor - top),
                escaped(&policy.name),
                milliseconds(value)
            ));
            if report.policies.len() <= NUMBERED_MAX {
                drawing.add(&format!(
                    "<text class=\"number\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    short(x + width / 2.0),
                    short(top - 4.0),
                    compact(value)
                ));
            }
        }
        drawing.add(&format!(
            "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            short(frame.left + group * (number as f64 + 0.5)),
            short(floor + 18.0)
        ));
    }
    drawing.add(&format!(
        "<path class=\"base\" d=\"M{} {}H{}\"/>",
        short(frame.left),
        short(floor),
        short(frame.width - frame.right)
    ));
    drawing.end()
}

/// Two to three digits, for a narrow place.
fn compact(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.1}"),
        ..1000.0 => format!("{ms:.0}"),
        ..10_000.0 => format!("{:.1}k", ms / 1000.0),
        _ => format!("{:.0}k", ms / 1000.0),
    }
}

/// A lying bar for each policy.
pub(super) fn costs(report: &Report, costs: &[Cost]) -> String {
    const ROW: f64 = 30.0;
    let rows = report.policies.len() as f64;
    let frame = Frame {
        left: 170.0,
        right: 60.0,
        top: 6.0,
        bottom: 44.0,
        height: rows * ROW + 50.0,
        ..HALF
    };
    let mut drawing = Drawing::new(frame, "Cost of a decision");
    let x = Scale::from_zero(costs.iter().filter_map(|cost| cost.ns));
    drawing.x_axis(x, "nanoseconds a decision");
    for (place, (policy, cost)) in report.policies.iter().zip(costs).enumerate() {
        let top = frame.top + place as f64 * ROW;
        let ns = cost.ns.unwrap_or(0.0);
        let right = frame.x(x.place(ns));
        drawing.add(&format!(
            "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"1.5\"/>\
             <text class=\"number\" x=\"{}\" y=\"{}\">{}</text>",
            short(frame.left - 8.0),
            short(top + ROW / 2.0 + 4.0),
            escaped(&policy.name),
            class_of(place),
            short(frame.left),
            short(top + 5.0),
            short(right - frame.left),
            short(ROW - 10.0),
            short(right + 6.0),
            short(top + ROW / 2.0 + 4.0),
            grouped(ns)
        ));
    }
    drawing.end()
}
