//! The figures side by side, with the goals of `../budget.toml`.

use std::fmt::{Display, Formatter, Result};

/// One policy's medians in nanoseconds; picks by size of the pool.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) pick_ns: [f64; 4],
    pub(crate) native_ns: [f64; 4],
    pub(crate) build_ns: f64,
    pub(crate) update_ns: f64,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

/// The goal for a policy's picks at 3, 100, 1000 and 10 000 backends, where there is one; infinite at sizes without.
fn goals(name: &str) -> Option<[f64; 4]> {
    let budget: toml::Table =
        toml::from_str(include_str!("../budget.toml")).expect("it is in the repository");
    let given = budget.get("pick_ns")?.get(name)?.as_array()?;
    let mut goals = [f64::INFINITY; 4];
    for (goal, given) in goals.iter_mut().zip(given) {
        *goal = given.as_integer()? as f64;
    }
    Some(goals)
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "\nPicks in ns at 3 / 100 / 1000 / 10 000 backends, `!` above the goal; build and update in us\n"
        )?;
        writeln!(
            f,
            "| {:22} | {:>7} | {:>7} | {:>7} | {:>7} | {:>22} | {:>26} | {:>8} | {:>11} |",
            "policy", "3", "100", "1000", "10 000", "goal", "native", "build", "update 1000"
        )?;
        writeln!(
            f,
            "|{:-<24}|{:->9}|{:->9}|{:->9}|{:->9}|{:->24}|{:->28}|{:->10}|{:->13}|",
            "", ":", ":", ":", ":", ":", ":", ":", ":"
        )?;
        for row in &self.rows {
            let goals = goals(&row.name);
            let pick = |place: usize| {
                let missed = goals.is_some_and(|goals| row.pick_ns[place] > goals[place]);
                format!("{:.0}{}", row.pick_ns[place], if missed { "!" } else { " " })
            };
            let list = |nanos: [f64; 4]| {
                let of = nanos.map(|nanos| {
                    if nanos.is_finite() {
                        format!("{nanos:.0}")
                    } else {
                        "-".to_owned()
                    }
                });
                of.join(" / ")
            };
            writeln!(
                f,
                "| {:22} | {:>7} | {:>7} | {:>7} | {:>7} | {:>22} | {:>26} | {:>8.1} | {:>11.1} |",
                row.name,
                pick(0),
                pick(1),
                pick(2),
                pick(3),
                goals.map(list).unwrap_or_default(),
                list(row.native_ns),
                row.build_ns / 1000.0,
                row.update_ns / 1000.0,
            )?;
        }
        Ok(())
    }
}
