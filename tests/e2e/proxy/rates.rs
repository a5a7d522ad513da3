//! Who comes too often. Rates are one an hour here, so that bursts are all there is, however fast a test runs.

use trimtab_tests::{
    Balancer, Client, DEADLINE, RawOrigin, Setup,
    frames::{Framed, kind},
    get, ok, wait_until,
};

/// Not ordinary, so the library has it.
const UNUSUAL: &str = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
const ORDINARY: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn counted(balancer: &Balancer) -> [u64; 4] {
    let views = balancer.handle().listener_views();
    let counters = &views[0].counters;
    [
        counters.total(|worker| &worker.requests_over),
        counters.total(|worker| &worker.requests_over_of_client),
        counters.total(|worker| &worker.connections_over),
        counters.total(|worker| &worker.connections_over_of_client),
    ]
}

#[tokio::test]
async fn requests_above_the_rate_get_429_and_when_to_come_again_on_both_ways() {
    for request in [ORDINARY, UNUSUAL] {
        for (key, counts) in [("requests", [2, 0, 0, 0]), ("client_requests", [0, 2, 0, 0])] {
            let origin = RawOrigin::answering(ok("")).await;
            let balancer = Setup::to(origin.address())
                .listener(&format!("rates = {{ {key} = \"1/h\", {key}_burst = 3 }}"))
                .start()
                .await;
            let mut client = Client::connect(balancer.address).await;
            let mut statuses = Vec::new();
            for _ in 0..5 {
                let response = client.ask(request).await;
                if response.status == 429 {
                    let seconds = response.field("retry-after").and_then(|text| text.parse().ok());
                    assert!(
                        seconds.is_some_and(|seconds: u32| (3000..=3600).contains(&seconds)),
                        "{}",
                        response.head
                    );
                    assert_eq!(response.text(), "too many requests\n");
                }
                statuses.push(response.status);
            }
            assert_eq!(statuses, [200, 200, 200, 429, 429], "{request} {key}");
            assert_eq!(origin.requests(), 3, "what is refused reaches nobody");
            assert_eq!(counted(&balancer), counts);
        }
    }
}

#[tokio::test]
async fn a_request_that_changes_its_way_is_counted_once() {
    let backend = trimtab_tests::Origin::start("a").await;
    let balancer = Setup::to(backend.address())
        .pool("protocol = \"h2\"")
        .listener("rates = { client_requests = \"1/h\", client_requests_burst = 1 }")
        .start()
        .await;
    // Nobody speaks HTTP/2 there, so it fails, but not for coming too often.
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.ask(ORDINARY).await.status, 502);
    assert_eq!(client.ask(ORDINARY).await.status, 429);
}

#[tokio::test]
async fn each_request_of_http2_counts() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("rates = { client_requests = \"1/h\", client_requests_burst = 2 }")
        .start()
        .await;
    let mut framed = Framed::connect(balancer.address).await;
    let mut statuses = Vec::new();
    for stream in [1, 3, 5] {
        framed.get(stream, &[]).await;
        statuses.push(framed.until(kind::HEADERS).await.unwrap().status());
    }
    // 429 has no number of its own in HPACK.
    assert_eq!(statuses, [Some(200), Some(200), None]);
    assert_eq!(counted(&balancer), [0, 1, 0, 0]);
}

#[tokio::test]
async fn connections_above_the_rate_are_closed_at_once() {
    for (key, counts) in [
        ("connections", [0, 0, 1, 0]),
        ("client_connections", [0, 0, 0, 1]),
    ] {
        for protocol in ["http", "tcp"] {
            let origin = RawOrigin::answering(ok("")).await;
            let balancer = Setup::to(origin.address())
                .listener(&format!(
                    "protocol = \"{protocol}\"\nrates = {{ {key} = \"1/h\", {key}_burst = 2 }}"
                ))
                .start()
                .await;
            let mut first = Client::connect(balancer.address).await;
            let mut second = Client::connect(balancer.address).await;
            for client in [&mut first, &mut second] {
                assert_eq!(client.get("/").await.status, 200);
            }
            assert_eq!(Client::connect(balancer.address).await.until_closed().await, "");
            assert_eq!(first.get("/").await.status, 200, "those that are in go on");
            assert_eq!(counted(&balancer), counts, "{key} {protocol}");
        }
    }
}

#[tokio::test]
async fn a_client_is_who_the_proxy_in_front_says() {
    let origin = RawOrigin::answering(ok("")).await;
    let rates = "rates = { client_requests = \"1/h\", client_requests_burst = 1 }";
    let balancer = Setup::to(origin.address())
        .listener(rates)
        .listener("forwarded = \"append\"")
        .start()
        .await;
    let from = |list: &str, more: &str| {
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {list}\r\n{more}\r\n")
    };
    let mut client = Client::connect(balancer.address).await;
    for (list, status) in [
        ("10.0.0.1", 200),
        ("10.0.0.2", 200),
        ("10.0.0.9, 10.0.0.1", 429),
        ("10.0.0.1, 10.0.0.9", 200),
    ] {
        assert_eq!(client.ask(from(list, "")).await.status, status, "{list}");
    }
    assert_eq!(client.ask(from("10.0.0.2", "te: trailers\r\n")).await.status, 429);

    let direct = Setup::to(origin.address()).listener(rates).start().await;
    let mut client = Client::connect(direct.address).await;
    assert_eq!(client.ask(from("10.0.0.1", "")).await.status, 200);
    assert_eq!(
        client.ask(from("10.0.0.2", "")).await.status,
        429,
        "anybody may write that"
    );
}

#[tokio::test]
async fn a_client_is_who_the_proxy_protocol_says() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("rates = { client_connections = \"1/h\", client_connections_burst = 1 }")
        .listener("proxy_protocol = { trusted = [\"127.0.0.1\"] }")
        .start()
        .await;
    let mut seen = Vec::new();
    for source in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        let mut client = Client::connect(balancer.address).await;
        client
            .send(format!("PROXY TCP4 {source} 10.9.9.9 1000 80\r\n{ORDINARY}"))
            .await;
        seen.push(client.try_response().await.ok().map(|response| response.status));
    }
    assert_eq!(seen, [Some(200), Some(200), None]);
}

#[tokio::test]
async fn rates_that_stay_keep_their_count_over_a_reload() {
    let origin = RawOrigin::answering(ok("")).await;
    let setup = |burst: u32, more: &str| {
        let rates = format!("rates = {{ requests = \"1/h\", requests_burst = {burst} }}");
        Setup::to(origin.address()).listener(&rates).listener(more)
    };
    let balancer = setup(2, "").start().await;
    for status in [200, 200, 429] {
        assert_eq!(get(balancer.address, "/").await.status, status);
    }
    balancer.replace(&setup(2, "via = false")).await.unwrap();
    assert_eq!(get(balancer.address, "/").await.status, 429);
    balancer.replace(&setup(3, "")).await.unwrap();
    assert_eq!(
        get(balancer.address, "/").await.status,
        200,
        "a new bucket is full"
    );
}

#[tokio::test]
async fn a_rate_holds_over_workers() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .listener("rates = { requests = \"1/h\", requests_burst = 20 }")
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(Client::connect(balancer.address).await);
    }
    let mut let_in = 0;
    for _ in 0..10 {
        for client in &mut clients {
            let_in += usize::from(client.get("/").await.status == 200);
        }
    }
    // One request after the other, over both workers' connections, and what each did not know of the other's.
    assert!((20..30).contains(&let_in), "{let_in}");
    wait_until("the others are counted", DEADLINE, || {
        counted(&balancer)[0] == 160 - let_in as u64
    })
    .await;
}
