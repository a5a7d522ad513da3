//! Heat maps: every backend over time.
//!
//! Owns the steps of their scales. All cells of a step are one path, so that a thousand backends are a small page.

use std::fmt::Write;

use super::{
    lines::time,
    svg::{Drawing, Frame, HALF, escaped, short},
};
use crate::simulate::report::{PolicyReport, Report};

/// More rows are averages of several backends.
const ROWS_MAX: usize = 64;
/// More rows have no room for names.
const NAMED_MAX: usize = 20;

/// A scale: cells below a bound have the class of its place, the others the last one.
pub(super) struct Steps {
    bounds: &'static [f64],
    class: char,
}

/// Requests in flight for each that a backend can work on.
pub(super) const LOAD: Steps = Steps {
    bounds: &[0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0],
    class: 'h',
};

/// Multiples of an equal share.
pub(super) const SHARE: Steps = Steps {
    bounds: &[0.1, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 8.0],
    class: 's',
};

impl Steps {
    fn step(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| *bound <= value)
    }
}

/// The colours and what they mean.
pub(super) fn scale(name: &str, steps: &Steps) -> String {
    const CELL: f64 = 38.0;
    let count = steps.bounds.len() + 1;
    let width = CELL * count as f64 + 60.0;
    let mut text = format!(
        "<svg class=\"scale\" viewBox=\"0 0 {} 34\" role=\"img\" aria-label=\"{name}\">\n\
         <text class=\"axis\" x=\"0\" y=\"13\">{name}</text>\n",
        short(width)
    );
    for step in 0..count {
        let x = 46.0 + CELL * step as f64;
        let _ = writeln!(
            text,
            "<rect class=\"{}{step}\" x=\"{}\" y=\"1\" width=\"{}\" height=\"15\"/>",
            steps.class,
            short(x),
            short(CELL)
        );
        if let Some(bound) = steps.bounds.get(step) {
            let _ = writeln!(
                text,
                "<text class=\"tick\" x=\"{}\" y=\"30\" text-anchor=\"middle\">{bound}</text>",
                short(x + CELL)
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

pub(super) fn load(report: &Report, policy: &PolicyReport) -> String {
    let columns = policy.series.load.iter();
    let columns = columns.map(|column| column.iter().map(|load| load.map(f64::from)).collect());
    map(report, policy, &LOAD, columns.collect())
}

pub(super) fn share(report: &Report, policy: &PolicyReport) -> String {
    let columns = policy.series.share.iter().zip(&policy.series.load);
    let relative = |(shares, loads): (&Vec<f32>, &Vec<Option<f32>>)| {
        // A backend is there if it has a load; one that is dead may still be asked.
        let here = loads.iter().flatten().count().max(1) as f64;
        let each = shares.iter().zip(loads);
        each.map(|(share, load)| {
            let is_there = load.is_some() || *share > 0.0;
            is_there.then(|| f64::from(*share) / 100.0 * here)
        })
        .collect()
    };
    map(report, policy, &SHARE, columns.map(relative).collect())
}

/// `columns`: for each bucket, a value of each backend.
fn map(report: &Report, policy: &PolicyReport, steps: &Steps, columns: Vec<Vec<Option<f64>>>) -> String {
    let backends = policy.backends.len();
    let rows = backends.min(ROWS_MAX);
    let row_height = (260.0 / rows.max(1) as f64).clamp(4.0, 22.0).floor();
    let has_names = rows == backends && rows <= NAMED_MAX;
    let frame = Frame {
        left: 86.0,
        top: 14.0,
        height: row_height * rows as f64 + 58.0,
        ..HALF
    };
    let mut drawing = Drawing::new(frame, &policy.name);
    let mut paths = vec![String::new(); steps.bounds.len() + 1];
    let cell = (frame.width - frame.left - frame.right) / columns.len().max(1) as f64;
    for row in 0..rows {
        let of_row = (row * backends / rows)..((row + 1) * backends / rows);
        let values: Vec<Option<usize>> = columns
            .iter()
            .map(|column| average(column.get(of_row.clone()).unwrap_or_default()))
            .map(|value| value.map(|value| steps.step(value)))
            .collect();
        let y = frame.top + row_height * row as f64;
        let mut from = 0;
        // Neighbours of one step are one rectangle.
        for part in values.chunk_by(|one, other| one == other) {
            if let Some(path) = part
                .first()
                .copied()
                .flatten()
                .and_then(|step| paths.get_mut(step))
            {
                let x = frame.left + cell * from as f64;
                let width = short(cell * part.len() as f64);
                let _ = write!(path, "M{} {}h{width}v{row_height}h-{width}z", short(x), short(y));
            }
            from += part.len();
        }
        if has_names {
            let name = policy.backends[row].name.trim_end_matches(":80");
            drawing.add(&format!(
                "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                short(frame.left - 7.0),
                short(y + row_height / 2.0 + 4.0),
                escaped(&shortened(name))
            ));
        }
    }
    for (step, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        drawing.add(&format!("<path class=\"{}{step}\" d=\"{path}\"/>", steps.class));
    }
    if !has_names {
        title_of_rows(&mut drawing, backends);
    }
    let x = time(report);
    drawing.x_axis(x, "seconds");
    drawing.marks(&report.marks, x);
    drawing.end()
}

fn title_of_rows(drawing: &mut Drawing, backends: usize) {
    let middle = short((drawing.frame.y(0.0) + drawing.frame.y(1.0)) / 2.0);
    drawing.add(&format!(
        "<text class=\"axis\" x=\"70\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 70 {middle})\">\
         {backends} backends</text>"
    ));
}

fn average(values: &[Option<f64>]) -> Option<f64> {
    let there = values.iter().flatten();
    let count = there.clone().count();
    (count > 0).then(|| there.sum::<f64>() / count as f64)
}

/// What fits beside a row.
fn shortened(name: &str) -> String {
    const CHARS_MAX: usize = 12;
    if name.chars().count() <= CHARS_MAX {
        return name.to_owned();
    }
    // The number at its end tells it from its like.
    let last: String = name.chars().rev().take(CHARS_MAX - 1).collect();
    format!("…{}", last.chars().rev().collect::<String>())
}
