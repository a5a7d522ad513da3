//! What a run printed and kept: tables and plots for people, JSON for whoever calculates again.

mod plot;
mod summary;

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use plot::Plot;

/// A table with a title; all columns but the first are numbers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) notes: Vec<String>,
    #[serde(skip)]
    pub(crate) plot: Option<Plot>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// What a row has in the column of this name.
    fn cell(&self, row: usize, column: &str) -> &str {
        let place = self.columns.iter().position(|name| *name == column);
        let cell = place.and_then(|place| self.rows.get(row)?.get(place));
        cell.map_or("", String::as_str)
    }

    fn value(&self, row: usize, column: &str) -> Option<f64> {
        self.cell(row, column).parse().ok()
    }

    /// Puts the least of a column first.
    pub(crate) fn sort_by(&mut self, column: &str) {
        let Some(place) = self.columns.iter().position(|name| *name == column) else {
            return;
        };
        let value = |row: &[String]| {
            row.get(place)
                .and_then(|cell| cell.parse().ok())
                .unwrap_or(f64::INFINITY)
        };
        self.rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
    }

    /// Puts the most of a column first.
    pub(crate) fn sort_down_by(&mut self, column: &str) {
        self.sort_by(column);
        self.rows.reverse();
    }

    /// As Markdown, aligned.
    pub(crate) fn render(&self) -> String {
        self.render_with(None)
    }

    /// The same, with a picture below its title.
    pub(crate) fn render_with(&self, image: Option<&str>) -> String {
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
        if let Some(image) = image {
            let _ = write!(text, "{image}\n\n");
        }
        let line = |text: &mut String, cells: &mut dyn Iterator<Item = &str>| {
            for (column, cell) in cells.enumerate() {
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let (left, right) = if column == 0 { ("", &*pad) } else { (&*pad, "") };
                // Writing to a string cannot fail.
                let _ = write!(text, "| {left}{cell}{right} ");
            }
            text.push_str("|\n");
        };
        line(&mut text, &mut self.columns.iter().map(String::as_str));
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
    /// As printed.
    pub(crate) tables: Vec<(String, Table)>,
    pub(crate) notes: Vec<String>,
}

impl Findings {
    /// What counts of every scenario that ran, in one table.
    pub(crate) fn summary(&self) -> Table {
        summary::of(&self.tables)
    }

    /// Writes what is there so far, and the plots beside it: of `all.json` and the scenario `s1`, `all.s1.svg`.
    pub(crate) fn write(&self, json: &Path) -> Result<()> {
        let put = |path: &Path, text: &str| fs::write(path, text).with_context(|| path.display().to_string());
        put(json, &serde_json::to_string(self)?)?;
        for (name, table) in &self.tables {
            if let Some(drawing) = plot::draw(table) {
                put(&json.with_extension(format!("{name}.svg")), &drawing)?;
            }
        }
        Ok(())
    }
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
