//! S10: answers of mixed sizes, and what is slow now and then: whom does an algorithm keep away from it?

use anyhow::Result;
use serde_json::json;

use super::{Bench, Samples, middle, usual, value};
use crate::{
    child::{Priority, Running},
    report::{Plot, Table, number},
    role::load::{Figures, Order},
};

const PEERS: [&str; 11] = [
    "trimtab-rr",
    "trimtab-lc",
    "trimtab-p2c",
    "trimtab-lrt",
    "trimtab-ewma",
    "nginx-rr",
    "nginx-lc",
    "nginx-p2c",
    "haproxy-rr",
    "haproxy-lc",
    "haproxy-p2c",
];
const COLUMNS: [&str; 7] = [
    "balancer",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "% to the slow one",
    "failed, unsent",
];
/// Of ten answers seven are small, two of 10 KB, and one of 100 KB.
const SIZES: &str = "/1024,/1024,/1024,/1024,/1024,/1024,/1024,/10240,/10240,/102400";
const RATE: f64 = 4000.0;
const SLOW_MS: u64 = 20;
/// Ports of a hundred backends, and of three.
const HUNDRED: u16 = 11_000;
const THREE: u16 = 9201;

/// Which backends there are: the last one is slow.
struct Ground {
    name: &'static str,
    port: u16,
    count: u16,
    /// Of its answers, one in so many.
    every: u64,
    about: &'static str,
}

const GROUNDS: [Ground; 2] = [
    Ground {
        name: "s10",
        port: HUNDRED,
        count: 100,
        every: 1,
        about: "one backend of a hundred is slow",
    },
    Ground {
        name: "s10-answers",
        port: THREE,
        count: 3,
        every: 33,
        about: "one answer of a hundred is slow, those of one backend of three",
    },
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    GROUNDS.iter().try_for_each(|ground| measure(bench, ground))
}

fn measure(bench: &mut Bench<'_>, ground: &Ground) -> Result<()> {
    let last = ground.count - 1;
    let (every, slow_ms) = (ground.every.to_string(), SLOW_MS.to_string());
    let _fast = backends(bench, ground.port, last, &[])?;
    let first = last.to_string();
    let late = ["--first", &first, "--late-every", &every, "--late-ms", &slow_ms];
    let _slow = backends(bench, ground.port + last, 1, &late)?;
    let ports: Vec<u16> = (ground.port..ground.port + ground.count).collect();
    let started = bench.start(&PEERS, &ports, Priority::RealTime)?;
    let seconds = bench.extent.seconds * 1.5;
    let order = |peer: &_| Order {
        rate: Some(RATE),
        path: SIZES.to_owned(),
        ..usual(peer, seconds)
    };
    let samples = bench.rounds(&started, order, Priority::RealTime)?;
    let title = format!(
        "S10: {RATE} requests/s, Poisson, for 1, 10 and 100 KB; {} ({SLOW_MS} ms); us, absolute",
        ground.about
    );
    let table = table(title, &samples, usize::from(last));
    bench.tell(ground.name, &table, json!({ "samples": value(&samples) }))
}

fn backends(bench: &Bench<'_>, port: u16, count: u16, more: &[&str]) -> Result<Running> {
    let mut command = vec![
        std::env::current_exe()?.display().to_string(),
        "backend".to_owned(),
        port.to_string(),
        count.to_string(),
    ];
    command.extend(more.iter().map(|&word| word.to_owned()));
    let log = bench.tools.folder.join(format!("backend-{port}.log"));
    Running::start(&command, ("1", Priority::RealTime), &[], &log)
}

fn table(title: String, samples: &Samples, slow: usize) -> Table {
    let mut table = Table::new(title, &COLUMNS);
    for (name, of) in samples {
        let at = |which: fn(&Figures) -> f64| number(middle(of, |sample| which(&sample.figures)), 0);
        let failed: u64 = of
            .iter()
            .map(|sample| sample.figures.failed() + sample.figures.unsent)
            .sum();
        table.rows.push(vec![
            (*name).to_owned(),
            at(|figures| figures.p50_us),
            at(|figures| figures.p90_us),
            at(|figures| figures.p99_us),
            at(|figures| figures.p999_us),
            number(100.0 * middle(of, |sample| share(&sample.figures, slow)), 2),
            failed.to_string(),
        ]);
    }
    table.sort_by("p99");
    table.plot = Some(Plot::cheapest(&["p99", "p99.9"], "microseconds"));
    table
}

/// Of all answers, those of this backend.
fn share(figures: &Figures, backend: usize) -> f64 {
    let all: u64 = figures.backends.iter().sum();
    let own = figures.backends.get(backend).copied().unwrap_or_default();
    own as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_share_is_of_all_answers() {
        let figures = Figures {
            backends: vec![60, 39, 1],
            ..Figures::default()
        };
        assert_eq!(share(&figures, 2), 0.01);
        // It has not been heard of.
        assert_eq!(share(&figures, 7), 0.0);
        assert_eq!(share(&Figures::default(), 0), 0.0);
    }

    #[test]
    fn the_best_p99_is_first() {
        let of = |p99_us: f64| {
            vec![super::super::Sample {
                figures: Figures {
                    p99_us,
                    ..Figures::default()
                },
                cpu_seconds: 0.0,
                cpu_us_per_request: 0.0,
                own_share: 0.0,
                other_share: 0.0,
            }]
        };
        let samples = Samples::from([("a", of(300.0)), ("b", of(200.0))]);
        let table = table("S10".to_owned(), &samples, 0);
        assert_eq!(table.rows[0][..4], ["b", "0", "0", "200"].map(str::to_owned));
    }
}
