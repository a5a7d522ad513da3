//! Backends that are found: by the DNS and in a file, while clients ask.

use std::{collections::BTreeSet, net::SocketAddr};

use trimtab::discovery::Report;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Load, Origin, RawOrigin, Setup, ask_admin,
    dns::{Dns, Trouble},
    get, ok, wait_until,
};

/// Origins on one port of several loopback addresses, as a name with several addresses needs them.
struct Fleet {
    origins: Vec<RawOrigin>,
    port: u16,
}

impl Fleet {
    async fn start(count: u8) -> Self {
        loop {
            let first = RawOrigin::answering_at("127.0.0.1:0", ok("1")).await.unwrap();
            let port = first.socket().port();
            let mut origins = vec![first];
            for number in 2..=count {
                let address = format!("127.0.0.{number}:{port}");
                // Another test may have this port at that address.
                if let Ok(origin) = RawOrigin::answering_at(&address, ok(&number.to_string())).await {
                    origins.push(origin);
                }
            }
            if origins.len() == usize::from(count) {
                return Self { origins, port };
            }
        }
    }

    fn at(&self, number: u8) -> String {
        format!("127.0.0.{number}:{}", self.port)
    }
}

fn setup(discover: &str) -> Setup {
    Setup::new()
        .workers(2)
        .pool("policy = \"round-robin\"")
        .rest(&format!(
            "[pool.main.discover]\n{discover}\ninterval_min = \"100ms\"\ntimeout = \"1s\""
        ))
}

fn by_name(fleet: &Fleet, dns: &Dns) -> Setup {
    let resolver = dns.address();
    setup(&format!(
        "dns = \"shop.test:{}\"\nresolver = [\"{resolver}\"]",
        fleet.port
    ))
}

fn addresses(balancer: &Balancer) -> Vec<String> {
    let snapshot = balancer.view().pool.snapshot();
    let members = snapshot.members.iter();
    members.map(|member| member.backend.address.to_string()).collect()
}

fn report(balancer: &Balancer) -> Report {
    balancer.view().discovery.unwrap().report()
}

async fn wait_for(balancer: &Balancer, wanted: &[String]) {
    wait_until("other backends", DEADLINE, || addresses(balancer) == wanted).await;
}

/// Who answers, over some requests.
async fn answers(address: SocketAddr) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for _ in 0..16 {
        let answer = get(address, "/").await;
        assert_eq!(answer.status, 200);
        found.insert(answer.text());
    }
    found
}

#[tokio::test]
async fn every_address_of_a_name_is_a_backend_and_changes_are_followed_under_load() {
    let (fleet, dns) = (Fleet::start(3).await, Dns::start().await);
    dns.set("shop.test", &["127.0.0.2", "127.0.0.1"]);
    let balancer = by_name(&fleet, &dns).start().await;
    assert_eq!(addresses(&balancer), [fleet.at(1), fleet.at(2)]);
    assert_eq!(
        answers(balancer.address).await,
        ["1", "2"].map(String::from).into()
    );
    let first = balancer.view().pool.snapshot().members[0].backend.clone();
    let load = Load::start(balancer.address, 8);
    load.more(200).await;
    for (set, wanted) in [
        (&["127.0.0.1", "127.0.0.2", "127.0.0.3"][..], &[1, 2, 3][..]),
        (&["127.0.0.1"], &[1]),
        (&["127.0.0.1", "127.0.0.3"], &[1, 3]),
        (&["127.0.0.2", "127.0.0.1"], &[1, 2]),
    ] {
        dns.set("shop.test", set);
        let wanted: Vec<String> = wanted.iter().map(|number| fleet.at(*number)).collect();
        wait_for(&balancer, &wanted).await;
        load.more(200).await;
    }
    let snapshot = balancer.view().pool.snapshot();
    let stayed = &snapshot.members[0].backend;
    assert!(
        std::sync::Arc::ptr_eq(&first, stayed),
        "who stays keeps its counters"
    );
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_connections() {
    let (fleet, dns) = (Fleet::start(2).await, Dns::start().await);
    dns.set("shop.test", &["127.0.0.1"]);
    let balancer = by_name(&fleet, &dns).workers(1).start().await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.text(), "1");
    dns.set("shop.test", &["127.0.0.1", "127.0.0.2"]);
    wait_for(&balancer, &[fleet.at(1), fleet.at(2)]).await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(fleet.origins[0].connections(), 1);
}

#[tokio::test]
async fn whatever_is_wrong_with_the_dns_the_last_good_set_stays() {
    let (fleet, dns) = (Fleet::start(2).await, Dns::start().await);
    dns.set("shop.test", &["127.0.0.1", "127.0.0.2"]);
    let balancer = by_name(&fleet, &dns).with_admin().start().await;
    let all = [fleet.at(1), fleet.at(2)];
    for (trouble, said) in [
        (Trouble::ServerFailure, "Server Failure"),
        (Trouble::NoSuchName, "has no address"),
        (Trouble::NoRecords, "has no address"),
        (Trouble::Silent, "no answer in"),
    ] {
        dns.set_trouble(trouble);
        let failures = report(&balancer).failures;
        wait_until("it is noticed", DEADLINE, || {
            let told = report(&balancer);
            told.failures > failures + 1
                && told
                    .error
                    .is_some_and(|error| error.to_lowercase().contains(&said.to_lowercase()))
        })
        .await;
        assert_eq!(addresses(&balancer), all, "{trouble:?}");
        assert_eq!(answers(balancer.address).await.len(), 2, "{trouble:?}");
        let admin = balancer.handle().admin().unwrap();
        let told = ask_admin(admin, "/v1/pools/main").await.text();
        assert!(told.contains("\"source\": \"dns shop.test:"), "{told}");
        assert!(!told.contains("\"last_error\": null"), "{told}");
        let metrics = ask_admin(admin, "/metrics").await.text();
        assert!(
            metrics.contains("trimtab_discovery_ok{pool=\"main\"} 0"),
            "{metrics}"
        );
        let series = metrics.lines().filter(|line| line.contains("pool=\"main\""));
        let charged = balancer.view().pool.config.series();
        assert_eq!(series.count() as u32, charged, "what a tenant is charged for");
        dns.set_trouble(Trouble::None);
        wait_until("it works again", DEADLINE, || report(&balancer).error.is_none()).await;
    }
    assert_eq!(report(&balancer).updates, 1);
}

#[tokio::test]
async fn a_pool_that_found_nothing_yet_answers_503_and_serves_when_it_has() {
    let (fleet, dns) = (Fleet::start(1).await, Dns::start().await);
    dns.set_trouble(Trouble::NoSuchName);
    let balancer = by_name(&fleet, &dns).start().await;
    assert_eq!(get(balancer.address, "/").await.status, 503);
    dns.set("shop.test", &["127.0.0.1"]);
    dns.set_trouble(Trouble::None);
    wait_for(&balancer, &[fleet.at(1)]).await;
    assert_eq!(answers(balancer.address).await.len(), 1);
}

#[tokio::test]
async fn an_answer_is_not_asked_for_again_before_its_time_to_live_is_over() {
    let (fleet, dns) = (Fleet::start(2).await, Dns::start().await);
    dns.set_ttl(3600);
    dns.set("shop.test", &["127.0.0.1"]);
    let long = by_name(&fleet, &dns).rest("interval_max = \"24h\"").start().await;
    let asked = dns.asked();
    // Another one asks all the time, which shows that time goes by.
    let other = by_name(&fleet, &dns)
        .rest("interval_max = \"100ms\"")
        .start()
        .await;
    wait_until("ten more", DEADLINE, || dns.asked() >= asked + 20).await;
    let mine = report(&other);
    assert_eq!(mine.failures, 0);
    dns.set("shop.test", &["127.0.0.2"]);
    wait_for(&other, &[fleet.at(2)]).await;
    let asked = dns.asked();
    wait_until("ten more", DEADLINE, || dns.asked() >= asked + 20).await;
    assert_eq!(addresses(&long), [fleet.at(1)], "it has not asked again");
}

#[tokio::test]
async fn an_answer_too_large_for_a_packet_comes_by_tcp() {
    let (fleet, dns) = (Fleet::start(1).await, Dns::start().await);
    let many: Vec<String> = (1..=120).map(|number| format!("127.0.1.{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    dns.set("shop.test", &many);
    let balancer = by_name(&fleet, &dns).start().await;
    assert_eq!(addresses(&balancer).len(), 120);
    assert!(dns.asked_by_tcp() > 0);
}

#[tokio::test]
async fn a_service_gives_ports_weights_and_tiers() {
    let dns = Dns::start().await;
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let port = |index: usize| origins[index].address().parse::<SocketAddr>().unwrap().port();
    dns.set("one.test", &["127.0.0.1"]);
    let service = "_http._tcp.shop.test";
    dns.set_service(
        service,
        &[
            (10, 5, port(0), "one.test"),
            (10, 0, port(1), "one.test"),
            (20, 1, port(2), "one.test"),
            // Its address is gone already.
            (10, 1, 9, "gone.test"),
        ],
    );
    let resolver = dns.address();
    let balancer = setup(&format!("srv = \"{service}\"\nresolver = [\"{resolver}\"]"))
        .start()
        .await;
    let snapshot = balancer.view().pool.snapshot();
    let of = |index: usize| {
        let address = origins[index].address();
        let member = snapshot
            .members
            .iter()
            .find(|member| *member.backend.address == address);
        member.map(|member| (member.weight, member.tier)).unwrap()
    };
    assert_eq!(snapshot.members.len(), 3);
    assert_eq!([of(0), of(1), of(2)], [(5, 0), (1, 0), (1, 1)]);
    assert_eq!(
        answers(balancer.address).await,
        ["a", "b"].map(String::from).into(),
        "the second tier waits"
    );
    dns.set_service(service, &[(1, 1, port(2), "one.test")]);
    wait_for(&balancer, &[origins[2].address()]).await;
    dns.set_service(service, &[(0, 0, 0, "")]);
    wait_until("no such service is no answer", DEADLINE, || {
        report(&balancer).error.is_some()
    })
    .await;
    assert_eq!(answers(balancer.address).await, ["c".to_owned()].into());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_by_a_backend_that_leaves() {
    let origins = Origin::start_all(["a", "b"]).await;
    let directory = Directory::new();
    directory.replace("backends.json", format!("[\"{}\"]", origins[0].address()));
    let path = directory.path().join("backends.json");
    let text = Setup::new()
        .rest(&format!("[pool.main.discover]\nfile = {path:?}"))
        .text();
    let balancer = Balancer::start(text, directory.path()).await.unwrap();
    let mut held = Client::connect(balancer.address).await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_until("it is with the origin", DEADLINE, || origins[0].in_flight() == 1).await;
    directory.replace("backends.json", format!("[\"{}\"]", origins[1].address()));
    wait_for(&balancer, &[origins[1].address()]).await;
    assert_eq!(get(balancer.address, "/").await.text(), "b");
    origins[0].release();
    assert_eq!(held.response().await.text(), "a");
}

#[tokio::test]
async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let address = |index: usize| origins[index].address();
    let directory = Directory::new();
    directory.replace(
        "found.toml",
        format!(
            "backends = [\n\"{}\",\n{{ address = \"{}\", weight = 3 }},\n]\n",
            address(0),
            address(1)
        ),
    );
    let text = Setup::new()
        .workers(2)
        .backend_with(&address(2), "tier = 1")
        .rest("[pool.main.discover]\nfile = \"found.toml\"")
        .text();
    let balancer = Balancer::start(text, directory.path()).await.unwrap();
    let sorted = |mut addresses: Vec<String>| {
        addresses.sort();
        addresses
    };
    let both = sorted(vec![address(0), address(1)]);
    let with_listed = [vec![address(2)], both.clone()].concat();
    assert_eq!(addresses(&balancer), with_listed, "what is listed comes first");
    let load = Load::start(balancer.address, 8);
    load.more(100).await;
    for (bad, said) in [
        (
            "backends = [\n\"127.0.0.1:80\",\n\"nonsense\"\n]",
            "found.toml:3: backends[1] = \"nonsense\"",
        ),
        ("backends = []", "expected at least one backend"),
        (
            "{\"backends\": [{\"address\": \"127.0.0.1:80\", \"weight\": 70000}]}",
            "found.toml:1: backends[0].weight = 70000",
        ),
        ("what is this", "found.toml:1"),
    ] {
        directory.replace("found.toml", bad);
        wait_until(said, DEADLINE, || {
            report(&balancer).error.is_some_and(|error| error.contains(said))
        })
        .await;
        assert_eq!(addresses(&balancer), with_listed);
    }
    std::fs::remove_file(directory.path().join("found.toml")).unwrap();
    wait_until("it is gone", DEADLINE, || {
        report(&balancer)
            .error
            .is_some_and(|error| error.contains("cannot be read"))
    })
    .await;
    assert_eq!(addresses(&balancer), with_listed);
    load.more(100).await;
    directory.replace("found.toml", format!("[\"{}\"]", address(1)));
    wait_for(&balancer, &[address(2), address(1)]).await;
    load.more(100).await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_reload_keeps_what_was_found_and_another_source_begins_with_it() {
    let (fleet, dns) = (Fleet::start(2).await, Dns::start().await);
    dns.set("shop.test", &["127.0.0.1", "127.0.0.2"]);
    let setup = by_name(&fleet, &dns);
    let balancer = setup.start().await;
    let (ids, asked) = ([balancer.id(0), balancer.id(1)], report(&balancer).updates);
    balancer
        .replace(&setup.clone().pool("panic_threshold = 10"))
        .await
        .unwrap();
    assert_eq!([balancer.id(0), balancer.id(1)], ids);
    assert_eq!(report(&balancer).updates, asked, "the source goes on");
    let wrong = Setup::new().workers(2).rest(&format!(
        "[pool.main.discover]\ndns = \"wrong.test:{}\"\nresolver = [\"{}\"]",
        fleet.port,
        dns.address()
    ));
    balancer.replace(&wrong).await.unwrap();
    assert_eq!(
        [balancer.id(0), balancer.id(1)],
        ids,
        "a mistake in a name takes nothing away"
    );
    assert!(report(&balancer).error.unwrap().contains("wrong.test"));
}
