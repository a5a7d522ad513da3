//! A report as one page: text, tables and plots, for a browser that has no network and runs no scripts.
//!
//! Owns the page's order and its tables. Plots are drawn in `html/`. It must not compute a figure: what is shown is in
//! the report.
//!
//! Invariant: the page depends on its arguments alone, and refers to nothing outside of itself.

mod bars;
mod heat;
mod lines;
mod scale;
mod svg;

use std::fmt::Write;

use super::report::{Cost, PolicyReport, Report};
use svg::escaped;

/// Colours and measures, for light and for dark.
const STYLE: &str = include_str!("html/style.css");
/// Colours of policies in the style sheet; more policies than that repeat them with broken lines.
pub(super) const COLOURS: usize = 8;
/// Rows of the table of backends.
const ROWS_MAX: usize = 200;

/// The page. With `costs` it also shows what decisions cost on this machine, and is another one each time.
pub fn page(report: &Report, costs: Option<&[Cost]>) -> String {
    let mut page = String::new();
    let title = escaped(&report.title);
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n<header>\n<p class=\"kind\">trimtab simulate</p>\n<h1>{title}</h1>\n\
         <p class=\"setup\">{}</p>\n</header>\n",
        escaped(&report.setup())
    );
    summary(&mut page, report);
    latency(&mut page, report);
    over_time(&mut page, report);
    backends(&mut page, report);
    if let Some(costs) = costs {
        cost(&mut page, report, costs);
    }
    notes(&mut page, report);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn section(page: &mut String, title: &str, lead: &str) {
    let _ = write!(
        page,
        "<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n"
    );
}

fn figure(page: &mut String, class: &str, caption: &str, drawing: &str) {
    let _ = write!(
        page,
        "<figure class=\"{class}\">\n<figcaption>{caption}</figcaption>\n{drawing}</figure>\n"
    );
}

/// Which colour is which policy.
fn legend(page: &mut String, report: &Report) {
    page.push_str("<ul class=\"legend\">\n");
    for (place, policy) in report.policies.iter().enumerate() {
        let _ = writeln!(
            page,
            "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><path class=\"line {}\" d=\"M1 5H27\"/></svg>{}</li>",
            class_of(place),
            escaped(&policy.name)
        );
    }
    page.push_str("</ul>\n");
}

/// The style of a policy's lines and bars.
pub(super) fn class_of(place: usize) -> String {
    let broken = if place >= COLOURS { " broken" } else { "" };
    format!("c{}{broken}", place % COLOURS)
}

/// A column of the summary: its head, what it says of a policy, and whether the least is the best.
struct Column {
    head: &'static str,
    unit: &'static str,
    value: fn(&PolicyReport) -> Option<f64>,
    digits: Digits,
    best: Best,
}

#[derive(Clone, Copy)]
enum Digits {
    Milliseconds,
    Two,
    Percent,
    Whole,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Best {
    Least,
    Most,
    None,
}

const COLUMNS: [Column; 12] = [
    column(
        "p50",
        "ms",
        |policy| Some(policy.latency.p50_ms),
        Digits::Milliseconds,
        Best::Least,
    ),
    column(
        "p90",
        "ms",
        |policy| Some(policy.latency.p90_ms),
        Digits::Milliseconds,
        Best::Least,
    ),
    column(
        "p99",
        "ms",
        |policy| Some(policy.latency.p99_ms),
        Digits::Milliseconds,
        Best::Least,
    ),
    column(
        "p99.9",
        "ms",
        |policy| Some(policy.latency.p999_ms),
        Digits::Milliseconds,
        Best::Least,
    ),
    column(
        "mean",
        "ms",
        |policy| Some(policy.latency.mean_ms),
        Digits::Milliseconds,
        Best::Least,
    ),
    column(
        "errors",
        "%",
        |policy| Some(errors_percent(policy)),
        Digits::Percent,
        Best::Least,
    ),
    column(
        "retries",
        "",
        |policy| Some(policy.retries as f64),
        Digits::Whole,
        Best::None,
    ),
    column(
        "load max/mean",
        "",
        |policy| Some(policy.imbalance.max_over_mean),
        Digits::Two,
        Best::Least,
    ),
    column(
        "load cv",
        "",
        |policy| Some(policy.imbalance.variation),
        Digits::Two,
        Best::Least,
    ),
    column(
        "same backend",
        "%",
        |policy| Some(policy.homes?.same_percent),
        Digits::Percent,
        Best::Most,
    ),
    column(
        "same zone",
        "%",
        |policy| policy.same_zone_percent,
        Digits::Percent,
        Best::Most,
    ),
    column(
        "faults",
        "",
        |policy| Some(policy.faults.values().sum::<u64>() as f64),
        Digits::Whole,
        Best::None,
    ),
];

const fn column(
    head: &'static str,
    unit: &'static str,
    value: fn(&PolicyReport) -> Option<f64>,
    digits: Digits,
    best: Best,
) -> Column {
    Column {
        head,
        unit,
        value,
        digits,
        best,
    }
}

fn errors_percent(policy: &PolicyReport) -> f64 {
    let all = policy.answered + policy.errors.all;
    policy.errors.all as f64 * 100.0 / all.max(1) as f64
}

impl Digits {
    fn show(self, number: f64) -> String {
        match self {
            Self::Milliseconds => scale::milliseconds(number),
            Self::Two => format!("{number:.2}"),
            Self::Percent if number > 0.0 && number < 0.01 => "<0.01".to_owned(),
            Self::Percent if number == 0.0 => "0".to_owned(),
            Self::Percent => format!("{number:.2}"),
            Self::Whole => scale::grouped(number),
        }
    }
}

fn summary(page: &mut String, report: &Report) {
    let shown: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| {
            report
                .policies
                .iter()
                .any(|policy| (column.value)(policy).is_some())
        })
        .collect();
    page.push_str("<section>\n<div class=\"wide\"><table class=\"summary\">\n<thead><tr><th></th>");
    for column in &shown {
        let unit = match column.unit {
            "" => String::new(),
            unit => format!(" <span>{unit}</span>"),
        };
        let _ = write!(page, "<th>{}{unit}</th>", column.head);
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (place, policy) in report.policies.iter().enumerate() {
        let _ = write!(
            page,
            "<tr><th scope=\"row\"><i class=\"dot {}\"></i>{}</th>",
            class_of(place),
            escaped(&policy.name)
        );
        for column in &shown {
            let Some(value) = (column.value)(policy) else {
                page.push_str("<td>–</td>");
                continue;
            };
            let class = if is_best(column, value, report) {
                " class=\"best\""
            } else {
                ""
            };
            let _ = write!(page, "<td{class}>{}</td>", column.digits.show(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

/// The best of a column as shown, unless all are.
fn is_best(column: &Column, value: f64, report: &Report) -> bool {
    let shown = |value| column.digits.show(value);
    let others = || report.policies.iter().filter_map(column.value);
    let best = match column.best {
        Best::None => return false,
        Best::Least => others().fold(f64::INFINITY, f64::min),
        Best::Most => others().fold(f64::NEG_INFINITY, f64::max),
    };
    shown(value) == shown(best) && others().any(|other| shown(other) != shown(best))
}

fn latency(page: &mut String, report: &Report) {
    section(
        page,
        "Latency",
        "From a request's arrival to its answer, retries and the network included. Requests that failed are not in it.",
    );
    legend(page, report);
    page.push_str("<div class=\"pair\">\n");
    figure(page, "half", "Percentiles", &bars::percentiles(report));
    figure(
        page,
        "half",
        "Share of the requests that took no longer",
        &lines::distribution(report),
    );
    page.push_str("</div>\n</section>\n");
}

fn over_time(page: &mut String, report: &Report) {
    section(page, "Over time", "What arrives is the same for all policies.");
    legend(page, report);
    figure(
        page,
        "full",
        "99th percentile of the latency",
        &lines::tail_over_time(report),
    );
    page.push_str("<div class=\"pair\">\n");
    figure(
        page,
        "half",
        "Imbalance: deviation of the backends' load, as a multiple of its average",
        &lines::variation(report),
    );
    figure(
        page,
        "half",
        "Requests a second that arrive",
        &lines::arrivals(report),
    );
    if report.policies.iter().any(|policy| policy.errors.all > 0) {
        figure(page, "half", "Failed requests a second", &lines::errors(report));
        figure(page, "half", "Median of the latency", &lines::median(report));
    }
    page.push_str("</div>\n");
    if !report.marks.is_empty() {
        page.push_str("<ol class=\"marks\">\n");
        for mark in &report.marks {
            let at = scale::seconds(mark.at_s);
            let _ = writeln!(page, "<li><b>{at}</b> {}</li>", escaped(&mark.text));
        }
        page.push_str("</ol>\n");
    }
    page.push_str("</section>\n");
}

fn backends(page: &mut String, report: &Report) {
    section(
        page,
        "Backends",
        "A row is a backend, from left to right is time. <b>Load</b>: requests in flight for each that it can work on; \
         above 1 some wait. <b>Share</b>: of the requests, as a multiple of an equal share.",
    );
    page.push_str("<div class=\"scales\">\n");
    page.push_str(&heat::scale("load", &heat::LOAD));
    page.push_str(&heat::scale("share", &heat::SHARE));
    page.push_str("</div>\n");
    for (place, policy) in report.policies.iter().enumerate() {
        let _ = write!(
            page,
            "<h3><i class=\"dot {}\"></i>{}</h3>\n<div class=\"pair\">\n",
            class_of(place),
            escaped(&policy.name)
        );
        figure(page, "half", "Load", &heat::load(report, policy));
        figure(page, "half", "Share", &heat::share(report, policy));
        page.push_str("</div>\n");
    }
    table_of_backends(page, report);
    page.push_str("</section>\n");
}

fn table_of_backends(page: &mut String, report: &Report) {
    page.push_str("<details>\n<summary>Figures of each backend</summary>\n");
    for policy in &report.policies {
        let _ = write!(
            page,
            "<h3>{}</h3>\n<div class=\"wide\"><table>\n<thead><tr><th></th><th>attempts</th>\
             <th>share <span>%</span></th><th>load</th><th>failed <span>%</span></th></tr></thead>\n<tbody>\n",
            escaped(&policy.name)
        );
        for backend in policy.backends.iter().take(ROWS_MAX) {
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{}</td></tr>",
                escaped(&backend.name),
                scale::grouped(backend.sent as f64),
                backend.share_percent,
                backend.load,
                Digits::Percent.show(backend.failed_percent)
            );
        }
        page.push_str("</tbody>\n</table></div>\n");
        if policy.backends.len() > ROWS_MAX {
            let _ = writeln!(page, "<p>And {} more.</p>", policy.backends.len() - ROWS_MAX);
        }
    }
    page.push_str("</details>\n");
}

fn cost(page: &mut String, report: &Report, costs: &[Cost]) {
    section(
        page,
        "Cost of a decision",
        "Measured on the machine that simulated, at every 64th decision: the host's part, the call into the component, and \
         whatever else the machine did. The only figures here that are others in the next run.",
    );
    page.push_str("<div class=\"pair\">\n");
    figure(page, "half", "Nanoseconds", &bars::costs(report, costs));
    page.push_str("</div>\n</section>\n");
}

fn notes(page: &mut String, report: &Report) {
    page.push_str("<section>\n<h2>Notes</h2>\n<ul class=\"notes\">\n");
    for policy in &report.policies {
        let errors = &policy.errors;
        let counts = [
            (errors.answered, "answered with a status from 500"),
            (errors.unreachable, "without a backend that could be reached"),
            (errors.timed_out, "without an answer in time"),
            (errors.no_backend, "without a usable backend"),
            (errors.rejected, "refused by the policy"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let mut words: Vec<String> = counts
            .map(|(count, what)| format!("{} {what}", scale::grouped(*count as f64)))
            .collect();
        let chosen = policy.host_chose.iter();
        words.extend(chosen.map(|(reason, count)| {
            format!("{} decided by the host ({reason})", scale::grouped(*count as f64))
        }));
        if let Some(fault) = &policy.last_fault {
            words.push(format!("last fault: {fault}"));
        }
        if !words.is_empty() {
            let (name, words) = (escaped(&policy.name), escaped(&words.join(", ")));
            let _ = writeln!(page, "<li><b>{name}</b>: {words}</li>");
        }
    }
    let _ = write!(
        page,
        "<li>Load max/mean and cv: of the backends that are there and alive, in each {} of the run, averaged.</li>\n\
         <li>The same scenario and seed ({}) give the same page to the last byte{}.</li>\n</ul>\n</section>\n",
        scale::seconds(report.bucket_s),
        report.seed,
        if report.warm_up_s > 0.0 {
            format!(
                "; requests of the first {} are not counted",
                scale::seconds(report.warm_up_s)
            )
        } else {
            String::new()
        }
    );
}
