//! The seam to the host's own code: health, faults, keys, zones, news of other balancers.

use super::{only, run};

const FOUR: &str = "\
requests = 20000
service = { mean = \"10ms\" }
[[backends]]
name = \"b\"
count = 4
concurrency = 8
";

fn four(policy: &str, more: &str) -> String {
    format!("policies = [\"{policy}\"]\narrivals = {{ load = 0.5 }}\n{FOUR}{more}")
}

#[test]
fn a_dead_backend_is_taken_out_by_checks_and_comes_back() {
    let events = "[[event]]\nat = \"2s\"\nuntil = \"6s\"\ngroup = \"b\"\ncount = 1\ndo = \"die\"\n";
    let health = "[pool.health]\nkind = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"100ms\"\n[pool]\noutlier = \"off\"\n";
    let share_at = |more: &str, at_s: f64| {
        let run = run(&four("round-robin", more));
        let place = (at_s / run.report.bucket_s) as usize;
        let series = run.report.policies[0].series.clone();
        (series.share[place][0], series.load[place][0])
    };
    let (share, load) = share_at(&format!("{events}{health}"), 4.0);
    assert_eq!((share, load), (0.0, None));
    assert!(share_at(&format!("{events}{health}"), 9.0).0 > 20.0);
    // Without checks and ejection it is asked again and again.
    let unchecked = format!("{events}[pool]\noutlier = \"off\"\n");
    assert!(share_at(&unchecked, 4.0).0 > 20.0);
    let tried = only(&four("round-robin", &unchecked));
    assert!(tried.errors.all < 5, "retries hide it: {:?}", tried.errors);
    assert!(tried.retries > 1000);
}

#[test]
fn a_backend_that_fails_real_requests_is_ejected_for_a_while() {
    let fails = "[[event]]\nat = \"1s\"\ngroup = \"b\"\ncount = 1\ndo = \"fail\"\n";
    let ejected = only(&four("round-robin", fails));
    let not_ejected = only(&four(
        "round-robin",
        &format!("{fails}[pool]\noutlier = \"off\"\n"),
    ));
    assert!(not_ejected.errors.answered > 4000, "{:?}", not_ejected.errors);
    assert!((5..50).contains(&ejected.errors.answered), "{:?}", ejected.errors);
}

#[test]
fn a_policy_that_fails_costs_no_request_and_is_rebuilt_after_the_breakers_pause() {
    let chaos = "policies = [\"mine\"]\narrivals = { load = 0.5 }\n".to_owned()
        + FOUR
        + "[policy.mine]\nbuiltin = \"chaos\"\nconfig = { fault = \"trap\", every = 50 }\n";
    let policy = only(&chaos);
    assert_eq!((policy.answered, policy.errors.all), (20_000, 0));
    let faults: u64 = policy.faults.values().sum();
    assert!(faults > 5, "{:?}", policy.faults);
    assert!(policy.host_chose["fault"] >= faults);
    assert!(policy.host_chose["rebuilding"] > 0 && policy.host_chose["breaker-open"] > 0);
    assert!(policy.last_fault.is_some());
}

#[test]
fn a_hash_keeps_keys_at_home_and_a_leaving_backend_moves_its_own_only() {
    let keys = "[keys]\ncount = 200\nin = \"header:x-user\"\n\
                [policy.hash]\nbuiltin = \"consistent-hash\"\nconfig = { balance = 0 }\n";
    let hashed = only(&four("hash", keys)).homes.unwrap();
    assert_eq!((hashed.moved, hashed.same_percent), (0, 100.0));
    let chance = "[keys]\ncount = 200\n";
    let chance = only(&four("random-two-choices", chance)).homes.unwrap();
    assert!((20.0..30.0).contains(&chance.same_percent), "{chance:?}");
    let leaves = format!("{keys}[[event]]\nat = \"5s\"\ngroup = \"b\"\ndo = \"leave\"\n");
    let moved = only(&four("hash", &leaves)).homes.unwrap().moved;
    assert!((20..=90).contains(&moved), "of 200 keys a quarter: {moved}");
}

#[test]
fn balancers_that_hear_nothing_of_each_other_herd_less_evenly_than_one() {
    let with = |balancers: &str| {
        let text = four("least-connections", balancers).replace("load = 0.5", "load = 0.85");
        only(&text).latency.mean_ms
    };
    let one = with("");
    let deaf = with("[balancers]\ncount = 8\n");
    let told = with("[balancers]\ncount = 8\ndigest = \"1ms\"\n");
    assert!(one < deaf && told < deaf, "{one} {told} {deaf}");
    let shared = with("[balancers]\nworkers = 8\n");
    assert!(shared < deaf, "{shared} {deaf}");
}

#[test]
fn zones_cost_their_distance_and_policies_may_be_told_their_own() {
    let text = "policies = [\"mine\"]\nrequests = 5000\narrivals = { load = 0.3 }\n\
                service = { distribution = \"constant\", mean = \"1ms\" }\n\
                backends = [{ name = \"a\", zone = \"a\", concurrency = 100 }, { name = \"b\", zone = \"b\", concurrency = 100 }]\n\
                balancers = { count = 2, zones = [\"a\", \"b\"] }\n\
                network = { round_trip = \"1ms\", between_zones = \"8ms\" }\n\
                [policy.mine]\nbuiltin = \"round-robin\"\n";
    let policy = only(text);
    let local = policy.same_zone_percent.unwrap();
    assert!((45.0..55.0).contains(&local), "{local}");
    let expected = 2.0 + 8.0 * (1.0 - local / 100.0);
    assert!(
        (policy.latency.mean_ms - expected).abs() < 0.01,
        "{}",
        policy.latency.mean_ms
    );
    let own = super::super::cast::admit(
        &crate::policy::Engine::new().unwrap(),
        &super::scenario(&text.replace(
            "\"round-robin\"",
            "\"round-robin\"\nconfig = { zone = \"{zone}\" }",
        )),
        &super::scenario(&text.replace(
            "\"round-robin\"",
            "\"round-robin\"\nconfig = { zone = \"{zone}\" }",
        ))
        .policies[0],
    );
    let own = own.unwrap_or_else(|error| panic!("{error}"));
    let settings = own
        .candidates
        .iter()
        .map(|candidate| candidate.spec.config_json.as_str());
    assert_eq!(
        settings.collect::<Vec<_>>(),
        ["{\"zone\":\"a\"}", "{\"zone\":\"b\"}"]
    );
}

#[test]
fn the_autoscaler_orders_backends_that_come_after_their_delay() {
    let text = "policies = [\"least-connections\"]\nrequests = 12000\narrivals = { rate = 380 }\n\
                service = { mean = \"10ms\" }\nbackends = [{ name = \"b\", count = 2, concurrency = 2 }]\n\
                [autoscale]\ngroup = \"b\"\nmax = 5\nevery = \"1s\"\ndelay = \"3s\"\nabove = 0.7\nbelow = 0.2\n";
    let run = run(text);
    let policy = &run.report.policies[0];
    let there = |at_s: f64| {
        let place = (at_s / run.report.bucket_s) as usize;
        policy.series.load[place].iter().flatten().count()
    };
    assert_eq!((there(3.5), there(4.6)), (2, 3));
    // The looks before the first came had ordered two more; five is the most.
    assert_eq!(there(25.0), 5);
    assert!(policy.latency.p50_ms < 30.0);
}

#[test]
fn a_hanging_backend_costs_the_time_out_and_no_retry() {
    let hangs = "[[event]]\nat = \"0s\"\ngroup = \"b\"\ncount = 1\ndo = \"hang\"\n[pool]\nresponse_timeout = \"200ms\"\n\
                 outlier = \"off\"\n";
    let policy = only(&four("round-robin", hangs));
    assert_eq!(policy.errors.timed_out, 5000);
    assert_eq!((policy.retries, policy.errors.all), (0, 5000));
    assert!(policy.latency.max_ms < 200.0);
}
