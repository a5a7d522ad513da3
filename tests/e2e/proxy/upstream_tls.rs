//! TLS with backends: who is believed, what is asked for and shown, what is spoken inside, and what changed files do.

use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Setup, get,
    tls::{Authority, Signed, TlsOrigin},
    wait_until, within,
};

/// An authority, and a directory with its certificate in `ca.pem`.
struct House {
    authority: Authority,
    directory: Directory,
}

impl House {
    fn new() -> Self {
        let house = Self {
            authority: Authority::new(),
            directory: Directory::new(),
        };
        house.directory.write("ca.pem", &house.authority.pem);
        house
    }

    /// A server's certificate for the address of all origins here.
    fn server(&self) -> Signed {
        self.authority.server(["127.0.0.1"])
    }

    fn keep(&self, name: &str, signed: &Signed) {
        let both = format!("{}{}", signed.cert, signed.key);
        self.directory.replace(&format!("{name}.pem"), both);
    }

    async fn start(&self, setup: &Setup) -> Balancer {
        let started = Balancer::start(setup.text(), self.directory.path()).await;
        started.unwrap_or_else(|error| panic!("{error}\n{}", setup.text()))
    }

    /// A balancer over a file that is watched.
    async fn filed(&self, setup: &Setup) -> Balancer {
        let file = self.directory.write("trimtab.toml", setup.text());
        let started = Balancer::start_file(file).await;
        started.unwrap_or_else(|error| panic!("{error}"))
    }
}

fn to(origin: &TlsOrigin, table: &str) -> Setup {
    Setup::to(origin.address()).pool(&format!("tls = {{ {table} }}"))
}

const TRUST: &str = "ca = \"ca.pem\"";
const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";

#[tokio::test]
async fn a_backend_with_tls_is_reached_by_both_ways_and_its_connections_are_kept() {
    let house = House::new();
    let origin = TlsOrigin::start(&house.server(), &["http/1.1"], None).await;
    let balancer = house.start(&to(&origin, TRUST)).await;
    let mut client = Client::connect(balancer.address).await;
    let own = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nown";
    for _ in 0..3 {
        assert_eq!(client.ask(own).await.text(), "own");
    }
    for _ in 0..3 {
        assert_eq!(client.ask(CHUNKED).await.text(), "hi");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 2, "one of each way: {seen:?}");
    assert!(seen.iter().all(|seen| seen.requests.len() == 3), "{seen:?}");
    // Each way has sessions of its own to go on with, but here they are the same.
    assert!(seen[1].is_resumed, "{seen:?}");
}

#[tokio::test]
async fn bodies_that_fill_all_buffers_arrive_whole_both_ways() {
    let house = House::new();
    let origin = TlsOrigin::start(&house.server(), &[], None).await;
    let balancer = house.start(&to(&origin, TRUST)).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut client = Client::connect(balancer.address).await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    client.send(&body).await;
    let response = client.response().await;
    assert!(response.is_complete && response.body == body);
    // One of 40 KB is an ordinary request, by our own way.
    let short = &body[..40_000];
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
            short.len()
        ))
        .await;
    client.send(short).await;
    assert!(client.response().await.body == short);
}

#[tokio::test]
async fn a_backend_that_cannot_prove_who_it_is_gets_no_request() {
    let house = House::new();
    let stranger = Authority::new();
    for (signed, why) in [
        (stranger.server(["127.0.0.1"]), "another authority"),
        (house.authority.server(["127.0.0.2"]), "another address"),
        (house.authority.server(["shop.test"]), "only a name"),
        (house.authority.client(7), "a client's certificate"),
    ] {
        let origin = TlsOrigin::start(&signed, &[], None).await;
        let setup = to(&origin, TRUST).top("log.access = \"access.log\"");
        let balancer = house.start(&setup).await;
        assert_eq!(get(balancer.address, "/").await.status, 502, "{why}");
        // By the library's way too.
        let mut client = Client::connect(balancer.address).await;
        assert_eq!(client.ask(CHUNKED).await.status, 502, "{why}");
        assert_eq!(origin.requests(), Vec::<String>::new(), "{why}");
        balancer.stop().await;
        let log = std::fs::read_to_string(house.directory.path().join("access.log")).unwrap();
        assert!(
            log.contains("cannot connect: TLS: invalid peer certificate"),
            "{why}: {log}"
        );
        // It is only that.
        let balancer = house.start(&to(&origin, "verify = false")).await;
        assert_eq!(get(balancer.address, "/").await.status, 200, "{why}");
    }
}

#[tokio::test]
async fn without_a_file_the_systems_authorities_are_asked_and_these_are_none() {
    let house = House::new();
    let origin = TlsOrigin::start(&house.server(), &[], None).await;
    match Balancer::start(to(&origin, "").text(), house.directory.path()).await {
        Ok(balancer) => assert_eq!(get(balancer.address, "/").await.status, 502),
        // A machine may have none.
        Err(error) => assert!(error.to_string().contains("name a file of them: ca"), "{error}"),
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_goes_to_the_next_backend_when_a_certificate_is_wrong() {
    let house = House::new();
    let bad = TlsOrigin::start(&house.authority.server(["127.0.0.9"]), &[], None).await;
    let good = TlsOrigin::start(&house.server(), &[], None).await;
    let setup = to(&bad, TRUST)
        .backend(good.address())
        .pool("policy = \"round-robin\"");
    let balancer = house.start(&setup).await;
    for _ in 0..4 {
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (0, 4));
    assert!(bad.failed() > 0);
}

#[tokio::test]
async fn a_backend_is_asked_for_its_name_and_held_to_it() {
    let house = House::new();
    let shop = house.authority.server(["shop.test"]);
    let origin = TlsOrigin::start(&shop, &[], None).await;
    let asked = |name: &str| to(&origin, &format!("{TRUST}, server_name = \"{name}\""));
    let balancer = house.start(&asked("shop.test")).await;
    assert_eq!(get(balancer.address, "/").await.status, 200);
    assert_eq!(origin.seen()[0].name.as_deref(), Some("shop.test"));
    let balancer = house.start(&asked("other.test")).await;
    assert_eq!(get(balancer.address, "/").await.status, 502);
    // An address is not sent along, and has to be in the certificate.
    let numeric = TlsOrigin::start(&house.server(), &[], None).await;
    let balancer = house.start(&to(&numeric, TRUST)).await;
    assert_eq!(get(balancer.address, "/").await.status, 200);
    assert_eq!(numeric.seen()[0].name, None);
}

#[tokio::test]
async fn a_backend_that_asks_is_shown_our_certificate() {
    let house = House::new();
    let origin = TlsOrigin::start(&house.server(), &[], Some(&house.authority)).await;
    let balancer = house.start(&to(&origin, TRUST)).await;
    assert_eq!(get(balancer.address, "/").await.status, 502);
    assert_eq!(origin.requests(), Vec::<String>::new());
    house.keep("own", &house.authority.client(1));
    let balancer = house
        .start(&to(&origin, &format!("{TRUST}, cert = \"own.pem\"")))
        .await;
    assert_eq!(get(balancer.address, "/").await.status, 200);
    assert!(origin.seen().last().unwrap().shows_certificate);
}

#[tokio::test]
async fn what_is_spoken_is_what_the_pool_says_or_with_auto_the_backend() {
    let house = House::new();
    for (protocol, offered, spoken) in [
        ("http1", &["h2", "http/1.1"][..], Some("HTTP/1.1 GET /x")),
        ("http1", &[][..], Some("HTTP/1.1 GET /x")),
        ("h2", &["h2", "http/1.1"][..], Some("HTTP/2.0 GET https://test/x")),
        ("h2", &["http/1.1"][..], None),
        ("h2", &[][..], None),
        (
            "auto",
            &["h2", "http/1.1"][..],
            Some("HTTP/2.0 GET https://test/x"),
        ),
        ("auto", &["http/1.1"][..], Some("HTTP/1.1 GET /x")),
        ("auto", &[][..], Some("HTTP/1.1 GET /x")),
    ] {
        let origin = TlsOrigin::start(&house.server(), offered, None).await;
        let setup = to(&origin, TRUST).pool(&format!("protocol = \"{protocol}\""));
        let balancer = house.start(&setup).await;
        let mut client = Client::connect(balancer.address).await;
        let status = if spoken.is_some() { 200 } else { 502 };
        for _ in 0..2 {
            assert_eq!(client.get("/x").await.status, status, "{protocol} {offered:?}");
        }
        let spoken: Vec<_> = spoken.into_iter().collect();
        assert_eq!(origin.requests(), spoken.repeat(2), "{protocol} {offered:?}");
        if status == 200 {
            assert_eq!(
                origin.seen().len(),
                1,
                "one connection for both: {protocol} {offered:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_upgrade_on_an_auto_pool_is_asked_for_over_http1() {
    let house = House::new();
    let origin = TlsOrigin::start(&house.server(), &["h2", "http/1.1"], None).await;
    let balancer = house.start(&to(&origin, TRUST).pool("protocol = \"auto\"")).await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/first").await.status, 200);
    client
        .send(
            "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\nearly",
        )
        .await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(&client.exactly(5).await, b"early");
    let spoken: Vec<_> = origin.seen().into_iter().map(|seen| seen.protocol).collect();
    assert_eq!(spoken, [Some("h2".to_owned()), Some("http/1.1".to_owned())]);
}

#[tokio::test]
async fn checks_are_over_tls_and_as_strict() {
    use trimtab::pool::State;
    let house = House::new();
    let good = TlsOrigin::start(&house.server(), &["h2", "http/1.1"], None).await;
    let bad = TlsOrigin::start(&house.authority.server(["127.0.0.9"]), &[], None).await;
    for kind in ["kind = \"http\"", "kind = \"tcp\""] {
        for protocol in ["http1", "auto"] {
            let setup = to(&good, TRUST)
                .backend(bad.address())
                .pool(&format!("protocol = \"{protocol}\""))
                .pool(&format!(
                    "health = {{ {kind}, interval = \"100ms\", fall = 1, rise = 1 }}"
                ))
                .pool("panic_threshold = 0");
            let balancer = house.start(&setup).await;
            let reason = || {
                let view = balancer.view();
                let found = view
                    .supervisor
                    .checks()
                    .into_iter()
                    .find(|(id, _)| *id == balancer.id(1));
                found.map(|(_, check)| check.reason).unwrap_or_default()
            };
            wait_until("the bad one is down", DEADLINE, || {
                balancer.state(1) == State::Down
            })
            .await;
            wait_until("its certificate is why", DEADLINE, || {
                reason().contains("TLS: invalid peer certificate")
            })
            .await;
            wait_until("the good one is checked", DEADLINE, || {
                let checks = balancer.view().supervisor.checks();
                checks.iter().any(|(id, check)| *id == balancer.id(0) && check.ok)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn replaced_files_are_used_without_a_restart_and_old_connections_no_more() {
    let house = House::new();
    let stranger = Authority::new();
    let origin = TlsOrigin::start(&house.server(), &[], Some(&stranger)).await;
    house.keep("own", &house.authority.client(1));
    let setup = to(&origin, &format!("{TRUST}, cert = \"own.pem\""));
    let balancer = house.filed(&setup).await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 502);
    house.keep("own", &stranger.client(1));
    within("the new certificate is shown", DEADLINE, async {
        while client.get("/").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Whoever signed the backend's certificate is trusted no more, so its kept connection is not either.
    assert_eq!(client.get("/kept").await.status, 200);
    house.directory.replace("ca.pem", &stranger.pem);
    within("the connection is given up", DEADLINE, async {
        while client.get("/late").await.status != 502 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_that_is_wrong_with_the_files_is_told_at_once() {
    let house = House::new();
    house.keep("own", &house.authority.client(1));
    let other = house.authority.client(2);
    house.directory.write("other.key", &other.key);
    house.directory.write("empty.pem", "");
    let text = Setup::to("127.0.0.1:1".to_owned())
        .pool("tls = { ca = \"missing.pem\" }")
        .listener("route = [{ host = \"a\", pool = \"main\" }, { host = \"b\", pool = \"b\" }, { pool = \"c\" }]")
        .rest(
            "[pool.b]\nbackends = [\"127.0.0.1:1\"]\ntls = { ca = \"empty.pem\" }\n\
             [pool.c]\nbackends = [\"127.0.0.1:1\"]\ntls = { ca = \"ca.pem\", cert = \"own.pem\", key = \"other.key\" }",
        )
        .text();
    let started = Balancer::start(text, house.directory.path()).await;
    let error = started.err().expect("a refusal").to_string();
    for told in [
        "pool.main.tls.ca = \"missing.pem\": cannot be read",
        "pool.b.tls.ca = \"empty.pem\": has no certificate in it",
        "pool.c.tls.key = \"other.key\": is not the key of the certificate in",
    ] {
        assert!(error.contains(told), "{told}\nin\n{error}");
    }
}
