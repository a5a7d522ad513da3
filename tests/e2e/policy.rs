//! Every built-in policy under real requests: shares, stickiness, and what a weight of zero means.

use std::collections::BTreeMap;

use trimtab_tests::{Balancer, Client, Origin, Setup};

const BUILT_IN: [&str; 10] = [
    "round-robin",
    "weighted-round-robin",
    "least-connections",
    "least-response-time",
    "least-bandwidth",
    "ip-hash",
    "consistent-hash",
    "content-hash",
    "random-two-choices",
    "peak-ewma",
];
/// Those that send a client, or a key, to the same backend again and again.
const STICKY: [&str; 3] = ["ip-hash", "consistent-hash", "content-hash"];

async fn three(policy: &str) -> (Vec<Origin>, Setup) {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let setup = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool(&format!("policy = {policy:?}"));
    (origins, setup)
}

/// Asks so many times on one connection.
async fn ask(balancer: &Balancer, times: usize) {
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..times {
        assert_eq!(client.get("/").await.status, 200);
    }
}

fn shares(origins: &[Origin]) -> Vec<u64> {
    origins.iter().map(Origin::hits).collect()
}

/// Where each of these keys goes.
async fn map(balancer: &Balancer, keys: impl IntoIterator<Item = usize>) -> BTreeMap<usize, String> {
    let mut client = Client::connect(balancer.address).await;
    let mut map = BTreeMap::new();
    for key in keys {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: user-{key}\r\n\r\n");
        let response = client.ask(request).await;
        assert_eq!(response.status, 200);
        map.insert(key, response.text());
    }
    map
}

#[tokio::test]
async fn every_built_in_policy_serves_and_makes_the_choices_itself() {
    for policy in BUILT_IN {
        let (origins, setup) = three(policy).await;
        let balancer = setup.start().await;
        ask(&balancer, 60).await;
        assert_eq!(shares(&origins).iter().sum::<u64>(), 60, "{policy}");
        let deployment = balancer.view().deployment;
        assert_eq!(deployment.candidate.spec.name, policy);
        assert_eq!(deployment.total(|stats| &stats.decisions), 60, "{policy}");
        for reason in trimtab::policy::Reason::ALL {
            assert_eq!(
                deployment.total(|stats| stats.host(reason)),
                0,
                "{policy}: the host chose, {reason:?}"
            );
        }
        if !STICKY.contains(&policy) {
            assert!(
                shares(&origins).iter().all(|share| *share > 0),
                "{policy} leaves one out: {:?}",
                shares(&origins)
            );
        }
    }
}

#[tokio::test]
async fn a_backend_of_weight_zero_receives_nothing_whatever_the_policy() {
    for policy in BUILT_IN {
        let origins = Origin::start_all(["a", "b", "c"]).await;
        let balancer = Setup::new()
            .backend(origins[0].address())
            .backend_with(&origins[1].address(), "weight = 0")
            .backend(origins[2].address())
            .pool(&format!("policy = {policy:?}\nhash_on = \"header:x-user\""))
            .start()
            .await;
        map(&balancer, 0..60).await;
        assert_eq!(origins[1].hits(), 0, "{policy}");
        assert_eq!(origins[0].hits() + origins[2].hits(), 60, "{policy}");
    }
}

#[tokio::test]
async fn round_robin_is_exactly_even() {
    let (origins, setup) = three("round-robin").await;
    let balancer = setup.start().await;
    ask(&balancer, 90).await;
    assert_eq!(shares(&origins), [30, 30, 30]);
}

#[tokio::test]
async fn weighted_round_robin_honours_weights_exactly() {
    let origins = Origin::start_all(["heavy", "light"]).await;
    let balancer = Setup::new()
        .backend_with(&origins[0].address(), "weight = 3")
        .backend(origins[1].address())
        .pool("policy = \"weighted-round-robin\"")
        .start()
        .await;
    ask(&balancer, 80).await;
    assert_eq!(shares(&origins), [60, 20]);
}

#[tokio::test]
async fn least_connections_honours_weights() {
    let origins = Origin::start_all(["heavy", "light"]).await;
    let balancer = Setup::new()
        .backend_with(&origins[0].address(), "weight = 3")
        .backend(origins[1].address())
        .pool("policy = \"least-connections\"")
        .start()
        .await;
    // Requests that stay: the load is then exactly what was placed.
    let mut clients = Vec::new();
    for placed in 1..=40 {
        let mut client = Client::connect(balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
        trimtab_tests::wait_until("it is placed", trimtab_tests::DEADLINE, || {
            origins[0].in_flight() + origins[1].in_flight() == placed
        })
        .await;
    }
    let placed = (origins[0].in_flight(), origins[1].in_flight());
    assert!((29..=31).contains(&placed.0), "{placed:?}");
    for origin in &origins {
        origin.release();
    }
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn least_connections_avoids_the_busy_backend() {
    let (origins, setup) = three("least-connections").await;
    let balancer = setup.start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        held.push(client);
        trimtab_tests::wait_until("it is placed", trimtab_tests::DEADLINE, || {
            origins.iter().map(Origin::in_flight).sum::<usize>() == held.len()
        })
        .await;
    }
    let busy: Vec<bool> = origins.iter().map(|origin| origin.in_flight() > 0).collect();
    ask(&balancer, 30).await;
    for (origin, busy) in origins.iter().zip(busy) {
        assert_eq!(origin.hits(), if busy { 0 } else { 30 }, "{}", origin.name());
        origin.release();
    }
}

#[tokio::test]
async fn ip_hash_sends_one_client_always_to_the_same_backend() {
    let (origins, setup) = three("ip-hash").await;
    let balancer = setup.start().await;
    for _ in 0..20 {
        ask(&balancer, 2).await;
    }
    let mut shares = shares(&origins);
    shares.sort_unstable();
    assert_eq!(shares, [0, 0, 40]);
}

#[tokio::test]
async fn hashing_a_header_is_stable_and_spreads_values() {
    for (pool, rest) in [
        ("policy = \"consistent-hash\"\nhash_on = \"header:x-user\"", ""),
        (
            "policy = \"by-user\"",
            "[policy.by-user]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-user\" }",
        ),
    ] {
        let origins = Origin::start_all(["a", "b", "c"]).await;
        let balancer = Setup::new()
            .backends(origins.iter().map(Origin::address))
            .pool(pool)
            .rest(rest)
            .start()
            .await;
        let first = map(&balancer, 0..300).await;
        let again = map(&balancer, 0..300).await;
        assert_eq!(first, again, "{pool} is stable");
        for share in shares(&origins) {
            assert!((100..=340).contains(&share), "{pool}: {:?}", shares(&origins));
        }
    }
}

#[tokio::test]
async fn consistent_hash_moves_only_the_keys_of_a_backend_that_leaves() {
    let (origins, setup) = three("consistent-hash").await;
    let setup = setup.pool("hash_on = \"header:x-user\"");
    let balancer = setup.start().await;
    let before = map(&balancer, 0..300).await;
    let fewer = Setup::new()
        .backends(origins[..2].iter().map(Origin::address))
        .pool("policy = \"consistent-hash\"\nhash_on = \"header:x-user\"");
    balancer.replace(&fewer).await.unwrap();
    let after = map(&balancer, 0..300).await;
    for (key, origin) in &before {
        if origin != "c" {
            assert_eq!(&after[key], origin, "key {key} moved without need");
        }
    }
    assert!(after.values().all(|origin| origin != "c"));
    balancer.replace(&setup).await.unwrap();
    assert_eq!(map(&balancer, 0..300).await, before, "and all come back");
}

#[tokio::test]
async fn two_balancers_hash_alike() {
    let (_origins, setup) = three("consistent-hash").await;
    let setup = setup.pool("hash_on = \"header:x-user\"");
    let (one, two) = (setup.start().await, setup.clone().workers(2).start().await);
    assert_eq!(map(&one, 0..100).await, map(&two, 0..100).await);
}
