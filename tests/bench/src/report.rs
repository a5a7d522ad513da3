//! What a run printed and kept: tables for people, JSON for whoever calculates again.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

/// A table with a title; all columns but the first are numbers.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) notes: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            ..Self::default()
        }
    }

    /// As Markdown, aligned.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([self.columns[column].chars().count()])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("\n### {}\n\n", self.title);
        let line = |text: &mut String, cells: &mut dyn Iterator<Item = &str>| {
            for (column, cell) in cells.enumerate() {
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let (left, right) = if column == 0 { ("", &*pad) } else { (&*pad, "") };
                // Writing to a string cannot fail.
                let _ = write!(text, "| {left}{cell}{right} ");
            }
            text.push_str("|\n");
        };
        line(&mut text, &mut self.columns.iter().copied());
        for (column, width) in widths.iter().enumerate() {
            let dashes = "-".repeat(width + 1);
            text.push_str(&if column == 0 {
                format!("|{dashes}-")
            } else {
                format!("|{dashes}:")
            });
        }
        text.push_str("|\n");
        for row in &self.rows {
            line(&mut text, &mut row.iter().map(String::as_str));
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }
}

/// Everything that a run found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) machine: String,
    pub(crate) versions: Vec<String>,
    pub(crate) scenarios: serde_json::Map<String, Value>,
    pub(crate) notes: Vec<String>,
}

/// The middle one.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

pub(crate) fn number(value: f64, digits: usize) -> String {
    if value.is_finite() {
        format!("{value:.digits$}")
    } else {
        "-".to_owned()
    }
}
