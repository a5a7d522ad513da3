//! A drawing with axes.
//!
//! Owns the frame of a plot: its measures, grid, ticks and titles. It must not know what is plotted. Colours are classes
//! of the style sheet, so that one drawing serves light and dark.

use std::fmt::Write;

use super::scale::Scale;
use crate::simulate::report::Mark;

/// A plot's area, in the drawing's units, which are pixels at full width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Half of the page.
pub(super) const HALF: Frame = Frame {
    width: 520.0,
    height: 300.0,
    left: 72.0,
    right: 14.0,
    top: 18.0,
    bottom: 44.0,
};

/// Its whole width.
pub(super) const FULL: Frame = Frame {
    width: 1064.0,
    ..HALF
};

impl Frame {
    pub(super) fn x(&self, place: f64) -> f64 {
        self.left + place * (self.width - self.left - self.right)
    }

    pub(super) fn y(&self, place: f64) -> f64 {
        self.height - self.bottom - place * (self.height - self.top - self.bottom)
    }
}

/// A drawing under way.
pub(super) struct Drawing {
    pub(super) frame: Frame,
    text: String,
}

impl Drawing {
    pub(super) fn new(frame: Frame, label: &str) -> Self {
        let text = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
            short(frame.width),
            short(frame.height),
            escaped(label)
        );
        Self { frame, text }
    }

    pub(super) fn add(&mut self, part: &str) {
        self.text.push_str(part);
        self.text.push('\n');
    }

    /// Horizontal lines with their words, and what they measure.
    pub(super) fn y_axis(&mut self, scale: Scale, title: &str) {
        let frame = self.frame;
        for (value, word) in scale.ticks() {
            let y = short(frame.y(scale.place(value)));
            let _ = writeln!(
                self.text,
                "<path class=\"grid\" d=\"M{} {y}H{}\"/><text class=\"tick\" x=\"{}\" y=\"{y}\" dy=\"4\" \
                 text-anchor=\"end\">{word}</text>",
                short(frame.left),
                short(frame.width - frame.right),
                short(frame.left - 7.0),
            );
        }
        let middle = short((frame.y(0.0) + frame.y(1.0)) / 2.0);
        let _ = writeln!(
            self.text,
            "<text class=\"axis\" x=\"12\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {middle})\">\
             {title}</text>"
        );
    }

    /// The line below, with its words, and what it measures.
    pub(super) fn x_axis(&mut self, scale: Scale, title: &str) {
        let frame = self.frame;
        let floor = frame.y(0.0);
        let last = scale.ticks().len().saturating_sub(1);
        for (number, (value, word)) in scale.ticks().into_iter().enumerate() {
            let place = scale.place(value);
            // The last word must not stick out of the drawing.
            let anchor = if number == last && place > 0.97 {
                "end"
            } else {
                "middle"
            };
            let x = short(frame.x(place));
            let _ = writeln!(
                self.text,
                "<path class=\"mark\" d=\"M{x} {}v5\"/><text class=\"tick\" x=\"{x}\" y=\"{}\" \
                 text-anchor=\"{anchor}\">{word}</text>",
                short(floor),
                short(floor + 18.0)
            );
        }
        let _ = writeln!(
            self.text,
            "<path class=\"base\" d=\"M{} {}H{}\"/><text class=\"axis\" x=\"{}\" y=\"{}\" \
             text-anchor=\"middle\">{title}</text>",
            short(frame.left),
            short(floor),
            short(frame.width - frame.right),
            short((frame.x(0.0) + frame.x(1.0)) / 2.0),
            short(frame.height - 6.0)
        );
    }

    /// A line through these points, broken where one is missing.
    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut is_begun = false;
        for point in points {
            let Some((x, y)) = point else {
                is_begun = false;
                continue;
            };
            let verb = if is_begun { 'L' } else { 'M' };
            let _ = write!(
                path,
                "{verb}{} {}",
                short(self.frame.x(x)),
                short(self.frame.y(y))
            );
            is_begun = true;
        }
        let _ = writeln!(self.text, "<path class=\"line {class}\" d=\"{path}\"/>");
    }

    /// Where something happens, by its number in the list of marks.
    pub(super) fn marks(&mut self, marks: &[Mark], scale: Scale) {
        let frame = self.frame;
        let mut last = f64::NEG_INFINITY;
        for (number, mark) in marks.iter().enumerate() {
            let x = frame.x(scale.place(mark.at_s));
            let _ = write!(
                self.text,
                "<path class=\"event\" d=\"M{} {}V{}\"/>",
                short(x),
                short(frame.y(0.0)),
                short(frame.y(1.0) - 4.0)
            );
            // Numbers that would lie on each other are left out; the list has them all.
            if x - last > 14.0 {
                last = x;
                let y = short(frame.y(1.0) - 7.0);
                let _ = writeln!(
                    self.text,
                    "<text class=\"event\" x=\"{}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
                    short(x),
                    number + 1
                );
            }
        }
    }

    pub(super) fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// A coordinate with one digit after the point at most.
pub(super) fn short(number: f64) -> String {
    let tenths = (number * 10.0).round() as i64;
    if tenths % 10 == 0 {
        format!("{}", tenths / 10)
    } else {
        format!("{:.1}", tenths as f64 / 10.0)
    }
}

/// Text that means itself in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}
