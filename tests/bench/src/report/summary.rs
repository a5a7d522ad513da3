//! One table of what counts in all scenarios, a column for each balancer.
//!
//! Owns which figure of a scenario that is. It must not calculate any: they are those of the scenarios' own tables.

use super::{Table, number};

/// What their names begin with.
const BALANCERS: [&str; 7] = [
    "floor", "trimtab", "nginx", "haproxy", "envoy", "pingora", "caddy",
];

/// Which of a balancer's rows count.
#[derive(Clone, Copy)]
enum Rows {
    /// The first one that is no program.
    Usual,
    /// That of a program.
    Program,
    /// The one with the least.
    Least,
    /// All, together, and the figures of several columns.
    All(&'static [&'static str]),
}

/// What is told, of which table, from which column.
const FIGURES: [(&str, &str, &str, Rows); 18] = [
    ("S1: CPU us/request", "s1", "CPU us/request", Rows::Usual),
    ("S2: a program adds, us", "s2", "us over native", Rows::Program),
    ("S3: p99 over direct, us", "s3", "p99", Rows::Usual),
    (
        "S4: 100 KB down, GB/CPU s",
        "s4-down-100k",
        "GB by CPU second",
        Rows::Usual,
    ),
    (
        "S4: 1 MB down, GB/CPU s",
        "s4-down-1m",
        "GB by CPU second",
        Rows::Usual,
    ),
    (
        "S4: 100 KB up, GB/CPU s",
        "s4-up-100k",
        "GB by CPU second",
        Rows::Usual,
    ),
    (
        "S4: 1 MB up, GB/CPU s",
        "s4-up-1m",
        "GB by CPU second",
        Rows::Usual,
    ),
    ("S5: CPU us/connection", "s5", "CPU us/request", Rows::Usual),
    ("S6: CPU us/request", "s6", "CPU us/request", Rows::Usual),
    ("S7: idle, MiB resident", "s7-idle", "3: RSS", Rows::Usual),
    (
        "S7: KiB/idle connection",
        "s7-connections",
        "9 900: KiB each",
        Rows::Usual,
    ),
    (
        "S7: 1 000 backends add, us",
        "s7-backends",
        "adds us",
        Rows::Usual,
    ),
    (
        "S8: failed",
        "s8",
        "reset",
        Rows::All(&["not 2xx", "refused", "reset"]),
    ),
    ("S9: TLS adds, us", "s9-kept", "TLS adds", Rows::Usual),
    (
        "S9: CPU us/handshake",
        "s9-handshakes",
        "CPU us/request",
        Rows::Usual,
    ),
    ("S10: best p99, us", "s10", "p99", Rows::Least),
    ("S10: best p99.9, us", "s10", "p99.9", Rows::Least),
    ("S11: a second worker, x", "s11", "2 by 1", Rows::Usual),
];

/// The table; figures of scenarios that did not run are left out.
pub(super) fn of(tables: &[(String, Table)]) -> Table {
    let mut columns = vec!["what"];
    columns.extend(BALANCERS);
    let mut summary = Table::new("All in one table", &columns);
    for (what, name, column, rows) in FIGURES {
        let Some((_, table)) = tables.iter().find(|(known, _)| known == name) else {
            continue;
        };
        let mut row = vec![what.to_owned()];
        row.extend(BALANCERS.map(|balancer| figure(table, balancer, column, rows)));
        summary.rows.push(row);
    }
    summary
}

fn figure(table: &Table, balancer: &str, column: &str, rows: Rows) -> String {
    let name = |row: usize| table.rows[row].first().map_or("", String::as_str);
    let is_program = |row: usize| name(row).ends_with("-lua") || name(row).ends_with("-program");
    let mut own = (0..table.rows.len()).filter(|&row| name(row).starts_with(balancer));
    let cell = |row: usize| table.cell(row, column).to_owned();
    let found = match rows {
        Rows::Usual => own.find(|&row| !is_program(row)).map(cell),
        Rows::Program => own.find(|&row| is_program(row)).map(cell),
        Rows::Least => own
            .min_by(|&a, &b| {
                let value = |row| table.value(row, column).unwrap_or(f64::INFINITY);
                value(a).total_cmp(&value(b))
            })
            .map(cell),
        Rows::All(columns) => {
            let values =
                own.flat_map(|row| columns.iter().filter_map(move |column| table.value(row, column)));
            let values: Vec<f64> = values.collect();
            (!values.is_empty()).then(|| number(values.iter().sum(), 0))
        }
    };
    found
        .filter(|found| !found.is_empty())
        .unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&'static str], rows: &[&[&str]]) -> Table {
        let mut table = Table::new("t", columns);
        table.rows = rows
            .iter()
            .map(|row| row.iter().map(|&cell| cell.to_owned()).collect())
            .collect();
        table
    }

    /// The row of the summary that begins so.
    fn row(tables: &[(String, Table)], what: &str) -> Vec<String> {
        let summary = of(tables);
        let row = summary.rows.into_iter().find(|row| row[0].starts_with(what));
        row.unwrap()
    }

    #[test]
    fn a_program_is_told_by_its_own_row_only() {
        let columns = ["balancer", "CPU us/request", "us over native"];
        let s2 = table(
            &columns,
            &[
                &["floor", "9", "-"],
                &["trimtab-rr", "10", "-"],
                &["trimtab-program", "11", "0.60"],
                &["nginx-lua", "15", "3.50"],
            ],
        );
        let tables = [("s1".to_owned(), s2.clone()), ("s2".to_owned(), s2)];
        assert_eq!(
            row(&tables, "S2"),
            ["S2: a program adds, us", "-", "0.60", "3.50", "-", "-", "-", "-"]
        );
        assert_eq!(
            row(&tables, "S1: CPU"),
            ["S1: CPU us/request", "9", "10", "-", "-", "-", "-", "-"]
        );
    }

    #[test]
    fn the_best_of_a_balancers_algorithms_counts() {
        let s10 = table(
            &["balancer", "p99"],
            &[&["nginx-rr", "9000"], &["nginx-lc", "700"], &["nginx-p2c", "-"]],
        );
        assert_eq!(row(&[("s10".to_owned(), s10)], "S10: best p99,")[3], "700");
    }

    #[test]
    fn failures_of_all_changes_are_added_up() {
        let s8 = table(
            &["balancer, what", "not 2xx", "refused", "reset"],
            &[
                &["nginx-lc, reloads", "1", "2", "3"],
                &["nginx-lc, more", "0", "0", "10"],
                &["trimtab-lc, reloads", "0", "0", "0"],
            ],
        );
        let row = row(&[("s8".to_owned(), s8)], "S8");
        assert_eq!(row[2..5], ["0", "16", "-"].map(str::to_owned));
    }

    #[test]
    fn what_did_not_run_is_left_out() {
        assert!(of(&[]).rows.is_empty());
    }
}
