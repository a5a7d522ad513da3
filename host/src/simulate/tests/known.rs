//! Results of queueing theory, at fixed seeds. Tolerances are some three standard errors of the runs' length.

use super::{only, run};

/// One backend that works on one request at a time.
fn single(distribution: &str) -> String {
    format!(
        "policies = [\"round-robin\"]\nrequests = 400000\nwarm_up = \"10s\"\narrivals = {{ rate = 70 }}\n\
         service = {{ {distribution} }}\nbackends = [{{ name = \"b\", concurrency = 1 }}]\n"
    )
}

fn assert_near(found: f64, expected: f64, percent: f64) {
    let off = (found / expected - 1.0).abs() * 100.0;
    assert!(off < percent, "{found} is {off:.1} % from {expected}");
}

#[test]
fn m_m_1_has_the_sojourn_time_of_the_formula() {
    // 1 / (mu - lambda), exponentially distributed: the p99 is ln 100 times the mean.
    let latency = only(&single("mean = \"10ms\"")).latency;
    assert_near(latency.mean_ms, 1000.0 / 30.0, 5.0);
    assert_near(latency.p50_ms, 1000.0 / 30.0 * 2f64.ln(), 5.0);
    assert_near(latency.p99_ms, 1000.0 / 30.0 * 100f64.ln(), 8.0);
}

#[test]
fn m_d_1_waits_half_as_long_as_m_m_1() {
    // Pollaczek and Khinchine: waiting is rho / (2 mu (1 - rho)).
    let latency = only(&single("distribution = \"constant\", mean = \"10ms\"")).latency;
    assert_near(latency.mean_ms, 10.0 + 10.0 * 0.7 / (2.0 * 0.3), 4.0);
}

#[test]
fn m_m_c_waits_as_erlang_says() {
    // Erlang C of 8 servers at 80 %: P(wait) = 0.418, the mean wait is that over c mu - lambda.
    let text = single("mean = \"10ms\"")
        .replace("rate = 70", "rate = 640")
        .replace("concurrency = 1", "concurrency = 8");
    let latency = only(&text).latency;
    let offered = 6.4f64;
    let term = |n: i32| (1..=n).fold(1.0, |product, step| product * offered / f64::from(step));
    let busy = term(8) * 8.0 / (8.0 - offered);
    let waits = busy / ((0..8).map(term).sum::<f64>() + busy);
    assert_near(latency.mean_ms, 10.0 + waits * 1000.0 / (800.0 - 640.0), 4.0);
}

#[test]
fn the_average_number_in_flight_is_rate_times_latency() {
    // Little's law.
    let text = single("mean = \"10ms\"");
    let policy = only(&text);
    assert_near(
        policy.backends[0].load,
        70.0 * policy.latency.mean_ms / 1000.0,
        4.0,
    );
}

#[test]
fn joining_the_shorter_queue_beats_two_choices_beat_turns_beat_chance() {
    // At 90 % of backends with one server each; each request has a client of its own, so ip-hash is chance.
    let text = "policies = [\"least-connections\", \"random-two-choices\", \"round-robin\", \"ip-hash\"]\n\
                requests = 150000\nwarm_up = \"5s\"\narrivals = { load = 0.9 }\nservice = { mean = \"10ms\" }\n\
                backends = [{ name = \"b\", count = 20, concurrency = 1 }]\n";
    let policies = run(text).report.policies;
    let means: Vec<f64> = policies.iter().map(|policy| policy.latency.mean_ms).collect();
    assert!(means.is_sorted(), "{means:?}");
    assert!(
        means[0] * 1.3 < means[1] && means[1] * 1.5 < means[2],
        "{means:?}"
    );
    // Turns smooth arrivals (Erlang-20); chance leaves them Poisson, so each backend is an M/M/1 at 90 %, but for the
    // unevenness of the ring, which only makes it worse.
    assert!(means[3] > 100.0 && means[2] < 100.0, "{means:?}");
}

#[test]
fn all_policies_meet_the_same_requests() {
    let text = "policies = [\"round-robin\", \"least-connections\"]\nrequests = 5000\narrivals = { rate = 100 }\n\
                service = { mean = \"1ms\" }\nbackends = [{ name = \"b\", count = 3, concurrency = 1000 }]\n";
    let policies = run(text).report.policies;
    // Nobody waits, so latency is the cost of the request, whoever serves it.
    assert_eq!(policies[0].latency.mean_ms, policies[1].latency.mean_ms);
    assert_eq!(policies[0].latency.quantiles, policies[1].latency.quantiles);
    assert_eq!(policies[0].series.rate, policies[1].series.rate);
}
