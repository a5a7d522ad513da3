//! Plots of lines: the distribution of latencies, and what changes over time.

use super::{
    class_of,
    scale::Scale,
    svg::{Drawing, FULL, Frame, HALF},
};
use crate::simulate::report::{PolicyReport, Report};

/// Beyond, a distribution is of a handful of requests.
const TAIL_REQUESTS: f64 = 10.0;
/// The axis of a distribution begins where so many requests are faster.
const FASTEST_PERCENT: f64 = 5.0;

/// The share of requests by their latency, each further nine as wide as the one before.
pub(super) fn distribution(report: &Report) -> String {
    let mut drawing = Drawing::new(HALF, "Distribution of latencies");
    let counted = report.policies.iter().map(|policy| policy.answered).max();
    let counted = counted.unwrap_or(0) as f64;
    let high = 100.0 - 100.0 * (TAIL_REQUESTS / counted.max(1.0)).clamp(0.000_9, 0.1);
    let y = Scale::Nines { high };
    let points = |policy: &PolicyReport| {
        let quantiles = policy.latency.quantiles.clone().into_iter();
        quantiles.filter(move |point| point.percent <= high)
    };
    // The fastest requests are of no interest, and would have most of a logarithmic axis.
    let shown = report.policies.iter().flat_map(points);
    let shown = shown.filter(|point| point.percent >= FASTEST_PERCENT);
    let shown: Vec<f64> = shown.map(|point| point.ms).collect();
    let x = Scale::log(shown.iter().copied());
    drawing.y_axis(y, "requests");
    drawing.x_axis(x, "milliseconds, logarithmic");
    for (place, policy) in report.policies.iter().enumerate() {
        let line = points(policy).map(|point| Some((x.place(point.ms), y.place(point.percent))));
        drawing.line(&class_of(place), line);
    }
    drawing.end()
}

type Read<'a> = &'a dyn Fn(&PolicyReport) -> Vec<Option<f64>>;

/// A line for each policy over time.
fn over_time(
    report: &Report,
    frame: Frame,
    (title, unit): (&str, &str),
    is_log: bool,
    read: Read<'_>,
) -> String {
    let mut drawing = Drawing::new(frame, title);
    let series: Vec<Vec<Option<f64>>> = report.policies.iter().map(read).collect();
    let values = series.iter().flatten().flatten().copied();
    let y = if is_log {
        Scale::log(values)
    } else {
        Scale::from_zero(values)
    };
    let x = time(report);
    drawing.y_axis(y, unit);
    drawing.x_axis(x, "seconds");
    drawing.marks(&report.marks, x);
    for (place, values) in series.iter().enumerate() {
        drawing.line(&class_of(place), points(report, values, (x, y)));
    }
    drawing.end()
}

/// The middles of the buckets.
fn points<'a>(
    report: &Report,
    values: &'a [Option<f64>],
    (x, y): (Scale, Scale),
) -> impl Iterator<Item = Option<(f64, f64)>> + use<'a> {
    let bucket_s = report.bucket_s;
    values.iter().enumerate().map(move |(bucket, value)| {
        let at_s = (bucket as f64 + 0.5) * bucket_s;
        value.map(|value| (x.place(at_s), y.place(value)))
    })
}

/// The axis of time.
pub(super) fn time(report: &Report) -> Scale {
    Scale::Linear {
        low: 0.0,
        high: report.span_s,
    }
}

pub(super) fn tail_over_time(report: &Report) -> String {
    let words = ("99th percentile over time", "milliseconds, logarithmic");
    over_time(report, FULL, words, true, &|policy| policy.series.p99_ms.clone())
}

pub(super) fn median(report: &Report) -> String {
    let words = ("Median over time", "milliseconds");
    over_time(report, HALF, words, false, &|policy| policy.series.p50_ms.clone())
}

pub(super) fn variation(report: &Report) -> String {
    let words = ("Imbalance over time", "load cv");
    over_time(report, HALF, words, false, &|policy| {
        policy.series.variation.clone()
    })
}

pub(super) fn errors(report: &Report) -> String {
    let words = ("Failed requests over time", "a second");
    let read = |policy: &PolicyReport| policy.series.errors.iter().copied().map(Some).collect();
    over_time(report, HALF, words, false, &read)
}

/// The same for all, so one line.
pub(super) fn arrivals(report: &Report) -> String {
    let mut drawing = Drawing::new(HALF, "Arrivals over time");
    let rate = report.policies.first().map(|policy| &policy.series.rate);
    let rate: Vec<Option<f64>> = rate.into_iter().flatten().copied().map(Some).collect();
    let (x, y) = (time(report), Scale::from_zero(rate.iter().flatten().copied()));
    drawing.y_axis(y, "a second");
    drawing.x_axis(x, "seconds");
    drawing.marks(&report.marks, x);
    drawing.line("plain", points(report, &rate, (x, y)));
    drawing.end()
}
