//! A table's bars as a drawing (SVG) that is readable on light and dark pages.
//!
//! Owns the look. What is drawn of which table, the scenarios say.

use std::fmt::Write;

use super::Table;

const WIDTH: f64 = 760.0;
/// Where bars begin at least, and where the longest ends; beyond is room for its number.
const LEFT: f64 = 150.0;
/// About as wide as a letter of a name is.
const LETTER: f64 = 7.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 62.0;
const BAR: f64 = 17.0;
const GAP: f64 = 9.0;
/// Letters of a title that fit into a line.
const TITLE_MAX: usize = 104;

const STYLE: &str = "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.title{font-weight:600}.note{fill:#59636e;font-size:12px}.axis{stroke:#d1d9e0}.span{stroke:#1f2328;stroke-width:1.2}\
.own{fill:#0969da}.floor{fill:#818b98}.peer{fill:#b3bcc5}.second{opacity:.45}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.note{fill:#9198a1}.axis{stroke:#3d444d}.span{stroke:#f0f6fc}\
.own{fill:#4493f8}.floor{fill:#9198a1}.peer{fill:#656c76}}";

/// What of a table is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// A bar for each of these columns.
    bars: Vec<&'static str>,
    /// What the bars measure, and which end is the better one.
    axis: String,
    /// Columns with the least and the most of the first bar.
    span: Option<(&'static str, &'static str)>,
}

impl Plot {
    /// Of figures that are better when they are less.
    pub(crate) fn cheapest(bars: &[&'static str], what: &str) -> Self {
        Self {
            bars: bars.to_vec(),
            axis: format!("{what}, less is better"),
            span: None,
        }
    }

    /// Of figures that are better when they are more.
    pub(crate) fn fastest(bars: &[&'static str], what: &str) -> Self {
        Self {
            axis: format!("{what}, more is better"),
            ..Self::cheapest(bars, what)
        }
    }

    /// Shows how far rounds were apart.
    pub(crate) fn between(mut self, least: &'static str, most: &'static str) -> Self {
        self.span = Some((least, most));
        self
    }
}

/// The drawing, if the table has one.
pub(crate) fn draw(table: &Table) -> Option<String> {
    let plot = table.plot.as_ref()?;
    let columns = plot.bars.iter().copied().chain(plot.span.map(|(_, most)| most));
    let most = columns
        .flat_map(|column| (0..table.rows.len()).filter_map(move |row| table.value(row, column)))
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let bars = Bars {
        table,
        plot,
        most,
        left: left(table),
    };
    let (group, left, mut body) = (bars.group(), bars.left, String::new());
    for row in 0..table.rows.len() {
        bars.row(&mut body, row, TOP + group * row as f64);
    }
    let floor = TOP + group * table.rows.len() as f64;
    let height = floor + 10.0;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" role=\"img\" \
         aria-label=\"{title}\">\n<style>{STYLE}</style>\n{}<text class=\"note\" x=\"8\" y=\"48\">{}</text>\n{body}\
         <path class=\"axis\" d=\"M{left} {}V{floor:.1}\"/>\n</svg>\n",
        heading(&table.title),
        escaped(&note(plot)),
        TOP - 4.0,
        title = escaped(&table.title),
    ))
}

/// Where bars begin: right of the longest name.
fn left(table: &Table) -> f64 {
    let names = table.rows.iter().filter_map(|row| row.first());
    let longest = names.map(|name| name.chars().count()).max().unwrap_or_default();
    LEFT.max(16.0 + LETTER * longest as f64)
}

struct Bars<'a> {
    table: &'a Table,
    plot: &'a Plot,
    most: f64,
    left: f64,
}

impl Bars<'_> {
    fn x(&self, value: f64) -> f64 {
        self.left + value.max(0.0) / self.most * (RIGHT - self.left)
    }

    /// The height of a row.
    fn group(&self) -> f64 {
        BAR * self.plot.bars.len() as f64 + GAP
    }

    fn row(&self, body: &mut String, row: usize, top: f64) {
        let name = self.table.rows[row].first().map_or("", String::as_str);
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            self.left - 8.0,
            top + self.group() / 2.0,
            escaped(name)
        );
        for (place, column) in self.plot.bars.iter().enumerate() {
            let Some(value) = self.table.value(row, column) else {
                continue;
            };
            let (y, end) = (top + BAR * place as f64, self.x(value));
            let span = self.plot.span.filter(|_| place == 0);
            let span = span.and_then(|(least, most)| {
                Some((
                    self.x(self.table.value(row, least)?),
                    self.x(self.table.value(row, most)?),
                ))
            });
            let pale = if place > 0 { " second" } else { "" };
            let line = span.map_or(String::new(), |(least, most)| {
                let middle = y + BAR / 2.0 - 1.0;
                format!("<path class=\"span\" d=\"M{least:.1} {middle:.1}H{most:.1}\"/>")
            });
            let _ = writeln!(
                body,
                "<rect class=\"{}{pale}\" x=\"{}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>{line}\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                class(name),
                self.left,
                end - self.left,
                BAR - 2.0,
                span.map_or(end, |(_, most)| most.max(end)) + 6.0,
                y + BAR - 5.0,
                self.table.cell(row, column)
            );
        }
    }
}

fn note(plot: &Plot) -> String {
    let mut note = plot.axis.clone();
    if let [first, second] = plot.bars[..] {
        note = format!("{note}; full: {first}, pale: {second}");
    }
    if plot.span.is_some() {
        note.push_str("; the line: least and most of all rounds");
    }
    note
}

/// The title, on two lines if it is long.
fn heading(title: &str) -> String {
    let cut = if title.len() > TITLE_MAX {
        title.get(..TITLE_MAX).and_then(|begin| begin.rfind(' '))
    } else {
        None
    };
    let (first, second) = cut.map_or((title, ""), |cut| title.split_at(cut));
    let lines = [(14, first), (30, second)];
    let of = |(y, line): (u32, &str)| {
        format!(
            "<text class=\"title\" x=\"8\" y=\"{y}\">{}</text>\n",
            escaped(line.trim())
        )
    };
    lines
        .into_iter()
        .filter(|(_, line)| !line.is_empty())
        .map(of)
        .collect()
}

fn class(name: &str) -> &'static str {
    if name.starts_with("trimtab") {
        "own"
    } else if name.starts_with("floor") || name.starts_with('(') {
        "floor"
    } else {
        "peer"
    }
}

/// Text that means itself in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, &str)]) -> Table {
        let mut table = Table::new("S1: a & b", &["balancer", "us", "most"]);
        table.rows = rows
            .iter()
            .map(|&(name, us, most)| vec![name.to_owned(), us.to_owned(), most.to_owned()])
            .collect();
        table.plot = Some(Plot::cheapest(&["us"], "us a request").between("us", "most"));
        table
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let drawing = draw(&table(&[
            ("trimtab-lc", "10.00", "10.00"),
            ("nginx", "20.00", "20.00"),
        ]))
        .unwrap();
        assert!(
            drawing.contains("class=\"own\" x=\"150\" y=\"62.0\" width=\"245.0\""),
            "{drawing}"
        );
        assert!(
            drawing.contains("class=\"peer\" x=\"150\" y=\"88.0\" width=\"490.0\""),
            "{drawing}"
        );
    }

    #[test]
    fn a_figure_that_is_missing_has_no_bar() {
        let drawing = draw(&table(&[("trimtab-lc", "10.00", "12.00"), ("nginx", "-", "-")])).unwrap();
        assert_eq!(drawing.matches("<rect").count(), 1);
        assert!(drawing.contains(">nginx</text>"));
    }

    #[test]
    fn bars_begin_right_of_the_longest_name() {
        let name = "a balancer with a name of forty letters.";
        let drawing = draw(&table(&[(name, "20.00", "20.00"), ("b", "10.00", "10.00")])).unwrap();
        assert!(
            drawing.contains("x=\"296\" y=\"62.0\" width=\"344.0\""),
            "{drawing}"
        );
        assert!(
            drawing.contains("x=\"288\" y=\"75.0\" text-anchor=\"end\">a balancer"),
            "{drawing}"
        );
    }

    #[test]
    fn titles_mean_themselves() {
        assert!(
            draw(&table(&[("a", "1", "1")]))
                .unwrap()
                .contains("S1: a &amp; b")
        );
    }

    #[test]
    fn a_table_without_figures_has_no_drawing() {
        assert_eq!(draw(&table(&[("a", "-", "-")])), None);
    }
}
