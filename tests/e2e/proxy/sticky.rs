//! Sessions that stay with their backend.

use std::collections::BTreeSet;

use trimtab::sticky::Outcome;
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, Origin, Response, Setup, ask_admin, wait_until};

/// Ordinary requests take the one way, those with this the other.
const UNUSUAL: &str = "te: trailers\r\n";

/// Two origins behind a policy that sends each request elsewhere.
async fn stage(sticky: &str) -> ([Origin; 2], Setup) {
    let origins = [Origin::start("a").await, Origin::start("b").await];
    let setup = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"")
        .pool(&format!("sticky = {{ {sticky} }}"));
    (origins, setup)
}

async fn ask(balancer: &Balancer, cookie: &str, more: &str) -> Response {
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{cookie}{more}\r\n");
    Client::connect(balancer.address).await.ask(request).await
}

/// The field that a client sends for what it was told to keep.
fn cookie(response: &Response) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    format!("cookie: theme=dark; {}\r\n", set.split(';').next().unwrap())
}

fn total(balancer: &Balancer, outcome: Outcome) -> u64 {
    balancer.view().pool.sticky().unwrap().total(outcome)
}

#[tokio::test]
async fn a_client_comes_back_to_its_backend_on_both_ways() {
    let (_origins, setup) = stage("").await;
    let balancer = setup.start().await;
    for more in ["", UNUSUAL] {
        let first = ask(&balancer, "", more).await;
        let set = first.field("set-cookie").unwrap();
        assert!(
            set.starts_with("trimtab=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
            "{set}"
        );
        let cookie = cookie(&first);
        for more in ["", UNUSUAL, "", UNUSUAL, ""] {
            let again = ask(&balancer, &cookie, more).await;
            assert_eq!(again.text(), first.text());
            assert_eq!(again.field("set-cookie"), None, "it has one");
        }
    }
    let others: BTreeSet<_> = [ask(&balancer, "", "").await, ask(&balancer, "", "").await]
        .map(|response| response.text())
        .into();
    assert_eq!(others.len(), 2, "the policy decides for those without a cookie");
    assert_eq!(
        (total(&balancer, Outcome::Kept), total(&balancer, Outcome::New)),
        (10, 4)
    );
}

#[tokio::test]
async fn a_cookie_that_is_not_ours_is_none() {
    let (_origins, setup) = stage("").await;
    let balancer = setup.start().await;
    let other = setup.start().await;
    let foreign = cookie(&ask(&other, "", "").await);
    let forged = format!("cookie: trimtab={}\r\n", "0".repeat(64));
    for (number, cookie) in [
        &foreign[..],
        &forged,
        "cookie: trimtab=\r\n",
        "cookie: trimtab=127.0.0.1:1\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        for more in ["", UNUSUAL] {
            let response = ask(&balancer, cookie, more).await;
            assert_eq!(response.status, 200);
            assert!(response.field("set-cookie").is_some(), "{cookie}");
        }
        assert_eq!(total(&balancer, Outcome::Refused), 2 * (number as u64 + 1));
    }
}

#[tokio::test]
async fn a_backend_that_drains_keeps_its_sessions_and_gets_no_others() {
    let (_origins, setup) = stage("").await;
    let balancer = setup.start().await;
    let first = ask(&balancer, "", "").await;
    let (cookie, name) = (cookie(&first), first.text());
    let index = usize::from(name == "b");
    let pool = balancer.view().pool;
    pool.set_draining(balancer.id(index), true, std::time::Instant::now());
    assert_eq!(ask(&balancer, &cookie, "").await.text(), name);
    for _ in 0..4 {
        assert_ne!(ask(&balancer, "", "").await.text(), name);
    }
}

#[tokio::test]
async fn a_backend_that_cannot_serve_loses_its_sessions() {
    for more in ["", UNUSUAL] {
        let (origins, setup) = stage("").await;
        let balancer = setup.start().await;
        let first = ask(&balancer, "", more).await;
        let old = cookie(&first);
        let index = usize::from(first.text() == "b");
        balancer
            .view()
            .pool
            .set_down(balancer.id(index), true, std::time::Instant::now());
        let moved = ask(&balancer, &old, more).await;
        assert_ne!(moved.text(), first.text());
        let new = cookie(&moved);
        assert_eq!(ask(&balancer, &new, more).await.text(), moved.text());
        assert_eq!(total(&balancer, Outcome::Moved), 1);
        drop(origins);
    }
}

#[tokio::test]
async fn a_backend_that_fails_loses_the_session_of_that_request() {
    for more in ["", UNUSUAL] {
        let good = Origin::start("good").await;
        let dead = Origin::start("dead").await;
        let setup = Setup::new()
            .backends([dead.address(), good.address()])
            .pool("policy = \"round-robin\"\nsticky = {}");
        let balancer = setup.start().await;
        let mut first = ask(&balancer, "", more).await;
        while first.text() != "dead" {
            first = ask(&balancer, "", more).await;
        }
        let old = cookie(&first);
        dead.kill();
        let moved = ask(&balancer, &old, more).await;
        assert_eq!((moved.status, moved.text()), (200, "good".to_owned()));
        assert_eq!(ask(&balancer, &cookie(&moved), more).await.text(), "good");
    }
}

#[tokio::test]
async fn a_backend_that_is_gone_loses_its_sessions_and_the_others_keep_theirs() {
    let (origins, setup) = stage("").await;
    let balancer = setup.start().await;
    let responses = [ask(&balancer, "", "").await, ask(&balancer, "", "").await];
    let one = Setup::to(origins[0].address()).pool("policy = \"round-robin\"\nsticky = {}");
    balancer.replace(&one).await.unwrap();
    for response in &responses {
        let after = ask(&balancer, &cookie(response), "").await;
        assert_eq!(after.text(), "a");
        let is_moved = response.text() == "b";
        assert_eq!(after.field("set-cookie").is_some(), is_moved);
    }
}

#[tokio::test]
async fn sessions_outlast_the_process_with_a_key_or_a_state_directory() {
    let directory = Directory::new();
    directory.write("sessions.key", "0123456789abcdef0123456789abcdef\n");
    for (sticky, top) in [
        ("key = \"sessions.key\"", ""),
        ("", "state = { directory = \"state\" }"),
    ] {
        let (_origins, setup) = stage(sticky).await;
        let text = setup.top(top).text();
        let start = || Balancer::start(text.clone(), directory.path());
        let balancer = start().await.unwrap();
        let first = ask(&balancer, "", "").await;
        balancer.stop().await;
        let balancer = start().await.unwrap();
        for _ in 0..3 {
            let again = ask(&balancer, &cookie(&first), "").await;
            assert_eq!(
                (again.text(), again.field("set-cookie")),
                (first.text(), None),
                "{sticky}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_is_too_short_is_refused_where_it_is_named() {
    let directory = Directory::new();
    directory.write("sessions.key", "short");
    let (_origins, setup) = stage("key = \"sessions.key\"").await;
    let refused = Balancer::start(setup.text(), directory.path())
        .await
        .err()
        .unwrap();
    let told = refused.to_string();
    assert!(
        told.contains("pool.main.sticky.key = \"sessions.key\": expected 32 bytes of secret at least"),
        "{told}"
    );
}

#[tokio::test]
async fn a_session_is_kept_over_a_reload_of_something_else() {
    let (_origins, setup) = stage("").await;
    let balancer = setup.start().await;
    let first = ask(&balancer, "", "").await;
    balancer
        .replace(&setup.clone().pool("connect_timeout = \"2s\""))
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&balancer, &cookie(&first), "").await.text(), first.text());
    }
}

#[tokio::test]
async fn explain_and_the_access_log_say_who_chose() {
    let directory = Directory::new();
    let (_origins, setup) = stage("").await;
    let setup = setup.with_admin().top("log = { access = \"access.log\" }");
    let balancer = Balancer::start(setup.text(), directory.path()).await.unwrap();
    let first = ask(&balancer, "", "").await;
    let cookie = cookie(&first);
    ask(&balancer, &cookie, "").await;
    let admin = balancer.handle().admin().unwrap();
    let asked = cookie
        .trim()
        .replace(' ', "%20")
        .replace(';', "%3B")
        .replace('=', "%3D");
    let told = ask_admin(admin, &format!("/v1/explain?header={asked}"))
        .await
        .text();
    assert!(told.contains("\"chosen_by\": \"sticky\""), "{told}");
    let told = ask_admin(admin, "/v1/explain?path=/").await.text();
    assert!(told.contains("\"chosen_by\": \"policy\""), "{told}");
    let log = directory.path().join("access.log");
    wait_until("both are logged", DEADLINE, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"chosen_by\":\"policy\"") && text.contains("\"chosen_by\":\"sticky\"")
    })
    .await;
    let metrics = ask_admin(admin, "/metrics").await.text();
    for line in [
        "trimtab_pool_sticky_total{pool=\"main\",outcome=\"kept\"} 1",
        "trimtab_pool_sticky_total{pool=\"main\",outcome=\"new\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}
