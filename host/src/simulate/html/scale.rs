//! From values to places on an axis, and to the words beside it.
//!
//! Pure functions; nothing here knows SVG.

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Equal distances.
    Linear { low: f64, high: f64 },
    /// Equal ratios.
    Log { low: f64, high: f64 },
    /// Percentages, each further nine as wide as the one before: 0, 90, 99, 99.9.
    Nines { high: f64 },
}

impl Scale {
    /// From 0 to a round number that has room for all of these.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most, 5);
        let high = (most / step).ceil().max(1.0) * step;
        Self::Linear { low: 0.0, high }
    }

    /// From the power of ten, or half of one, below these to the one above.
    pub(super) fn log(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.filter(|value| *value > 0.0 && value.is_finite());
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(0.0, f64::max);
        if low > high {
            return Self::Log { low: 1.0, high: 10.0 };
        }
        let (low, high) = (round_down(low), round_up(high));
        let high = if high <= low { low * 10.0 } else { high };
        Self::Log { low, high }
    }

    /// 0 at the beginning of the axis, 1 at its end.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => (value.max(low) / low).ln() / (high / low).ln(),
            Self::Nines { high } => nines(value.min(high)) / nines(high),
        };
        place.clamp(0.0, 1.0)
    }

    /// Values to be marked, with their words.
    pub(super) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { low, high } => {
                let step = step(high - low, 5);
                let count = ((high - low) / step + 0.001).floor() as usize;
                let values = (0..=count).map(|number| low + number as f64 * step);
                values.map(|value| (value, plain(value))).collect()
            }
            Self::Log { low, high } => {
                let decades = (high / low).log10();
                let parts: &[f64] = if decades <= 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let first = low.log10().floor() as i32;
                let last = high.log10().ceil() as i32;
                let values = (first..=last).flat_map(|power| {
                    let decade = 10f64.powi(power);
                    parts.iter().map(move |part| part * decade)
                });
                let inside = values.filter(|value| *value >= low * 0.999 && *value <= high * 1.001);
                let mut marked: Vec<f64> = inside.collect();
                // Powers of ten alone would leave a short axis with one or two words, so its ends have theirs too.
                if decades > 2.2 && decades <= 4.0 {
                    marked.retain(|value| *value > low * 1.001 && *value < high * 0.999);
                    marked.insert(0, low);
                    marked.push(high);
                }
                marked.into_iter().map(|value| (value, plain(value))).collect()
            }
            Self::Nines { high } => [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
                .into_iter()
                .filter(|value| *value <= high)
                .map(|value| (value, format!("{value} %")))
                .collect(),
        }
    }
}

fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// A round distance that divides a range into about so many parts.
fn step(range: f64, parts: u32) -> f64 {
    let rough = range / f64::from(parts);
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|round| round * power >= rough * 0.999);
    round.unwrap_or(10.0) * power
}

/// The next 1, 2 or 5 of a power of ten.
fn round_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let round = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|round| round * power <= value * 1.000_001);
    round.unwrap_or(1.0) * power
}

fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|round| round * power >= value * 0.999_999);
    round.unwrap_or(10.0) * power
}

/// A tick's number, without more digits than it has.
fn plain(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return grouped(value);
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// A whole number with thousands apart.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits of a time in milliseconds.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => grouped(ms),
    }
}

/// A time of the simulation.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{} ms", plain((seconds * 1e5).round() / 100.0)),
        ..10.0 => format!("{} s", plain((seconds * 100.0).round() / 100.0)),
        _ => format!("{} s", plain((seconds * 10.0).round() / 10.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn axes_end_at_round_numbers_and_mark_them() {
        let linear = Scale::from_zero([3.0, 17.0].into_iter());
        assert_eq!(linear, Scale::Linear { low: 0.0, high: 20.0 });
        assert_eq!(words(linear), ["0", "5", "10", "15", "20"]);
        let log = Scale::log([0.7, 43.0].into_iter());
        assert_eq!(log, Scale::Log { low: 0.5, high: 50.0 });
        assert_eq!(words(log), ["0.5", "1", "2", "5", "10", "20", "50"]);
        assert_eq!(
            words(Scale::log([2.1, 480.0].into_iter())),
            ["2", "10", "100", "500"]
        );
        assert_eq!(
            words(Scale::log([0.2, 4000.0].into_iter())),
            ["1", "10", "100", "1,000"]
        );
        assert_eq!(
            words(Scale::Nines { high: 99.95 }),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
        );
    }

    #[test]
    fn values_lie_where_their_axis_says() {
        assert_eq!(Scale::Linear { low: 0.0, high: 4.0 }.place(1.0), 0.25);
        let log = Scale::Log {
            low: 1.0,
            high: 100.0,
        };
        assert!((log.place(10.0) - 0.5).abs() < 1e-12 && log.place(0.0) == 0.0);
        let nines = Scale::Nines { high: 99.99 };
        assert!((nines.place(99.0) - 0.5).abs() < 1e-9 && nines.place(100.0) == 1.0);
    }

    #[test]
    fn an_axis_without_values_is_still_one() {
        assert_eq!(words(Scale::from_zero(std::iter::empty())).len(), 6);
        assert_eq!(
            words(Scale::log(std::iter::empty())).first().map(String::as_str),
            Some("1")
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 1234567.0].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
