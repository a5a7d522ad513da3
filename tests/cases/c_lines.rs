//! C: request line, target and host.

use trimtab_tests::{
    Balancer, Directory, Origin, Setup, ok,
    tls::{Authority, shake},
};

use crate::stage::Stage;

fn line(line: &str) -> String {
    format!("{line}\r\nhost: a\r\n\r\n")
}

#[tokio::test]
async fn c01_controls_and_double_spaces_in_the_line_are_refused() {
    let judge = Stage::new().await;
    for bad in [
        "GET /\n HTTP/1.1",
        "GET /\r HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\x0b HTTP/1.1",
        "GET /\x0c HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / a HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /\x7f HTTP/1.1",
    ] {
        judge.refused(line(bad), &[400]).await;
    }
}

#[tokio::test]
async fn c02_c03_versions_that_are_not_spoken_are_refused() {
    let judge = Stage::new().await;
    for version in [
        "HTTP/1.32",
        "HTTP/1.1 ",
        "HTTP/2.0",
        "HTTP/3",
        "HTTP/4294967295.255",
        "HTTP/0.9",
        "HTTP/1.2",
        "http/1.1",
        "HTTP/01.1",
        "HTTP/1",
        "HTTP/1.",
        "",
    ] {
        judge
            .refused(line(&format!("GET / {version}")), &[400, 505])
            .await;
    }
    judge.refused("GET /\r\n", &[400]).await;
    judge.refused("GET /\r\n\r\n", &[400]).await;
}

#[tokio::test]
async fn c04_a_method_is_a_token_and_passes_if_unknown() {
    let judge = Stage::new().await;
    for method in ["G(T", "GE\0T", "G\u{e9}T", "\"GET\"", "G:T", "G/T", "G{}T"] {
        judge.refused(line(&format!("{method} / HTTP/1.1")), &[400]).await;
    }
    for method in ["BREW", "PROPFIND", "get", "M-SEARCH"] {
        assert_eq!(
            judge.passed(line(&format!("{method} / HTTP/1.1"))).await.method,
            method
        );
    }
}

#[tokio::test]
async fn c05_a_line_over_the_limit_is_refused() {
    let limits = "limits = { header_bytes = \"8KiB\" }";
    Stage::with(limits, ok("").as_str())
        .await
        .refused(line(&format!("GET /{} HTTP/1.1", "a".repeat(20_000))), &[414])
        .await;
}

#[tokio::test]
async fn c06_a_request_has_one_host_that_is_one() {
    let judge = Stage::new().await;
    for fields in [
        "x: y",
        "host: a\r\nhost: a",
        "host: a\r\nhost: b",
        "host: a, b",
        "host: u@a",
        "host: a b",
        "host: a\0",
        "host: a/b",
        "host: a?b",
        "host: a#b",
        "host: http://a",
        "host: a:b",
        "host: a:65536",
        "host: a:1:2",
        "host: [::1",
        "host: ::1]",
        "host: [a]",
        "host: a\u{e9}",
        "host: a\\b",
        "host: <a>",
        "host : a",
    ] {
        judge
            .refused(format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"), &[400])
            .await;
    }
}

#[tokio::test]
async fn c07_the_host_of_an_absolute_target_counts() {
    let judge = Stage::new().await;
    let request = judge
        .passed("GET http://real.example/x?y HTTP/1.1\r\nhost: other\r\n\r\n")
        .await;
    assert_eq!(
        (request.target.as_str(), request.all("host")),
        ("/x?y", vec!["real.example"])
    );
    assert_eq!(request.all("x-forwarded-host"), ["real.example"]);
}

#[tokio::test]
async fn c08_a_target_that_is_no_address_is_refused() {
    let judge = Stage::new().await;
    for target in [
        "http:///x",
        "http://u@a/",
        "http://u:p@a/",
        "http://a:b/",
        "http://a:65536/",
        "http://[::1/",
        "http://::1]/",
        "http://[g]/",
        "a/b",
        "?x",
        "http://a b/",
    ] {
        judge
            .refused(line(&format!("GET {target} HTTP/1.1")), &[400])
            .await;
    }
}

#[tokio::test]
async fn c10_a_fragment_is_refused() {
    let judge = Stage::new().await;
    for target in ["/#", "/a#b", "/a?b#c", "http://a/#b"] {
        judge
            .refused(line(&format!("GET {target} HTTP/1.1")), &[400])
            .await;
    }
}

#[tokio::test]
async fn c11_j07_a_host_has_one_form_before_it_is_routed() {
    let judge = Stage::new().await;
    for (host, form) in [
        ("SHOP.Example", "shop.example"),
        ("shop.example.", "shop.example"),
        ("shop.example:80", "shop.example"),
        ("Shop.example.:80", "shop.example"),
        ("shop.example:8080", "shop.example:8080"),
    ] {
        let request = judge
            .passed(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        assert_eq!(
            (request.all("host"), request.all("x-forwarded-host")),
            (vec![form], vec![form])
        );
        let request = judge
            .passed(format!("GET http://{host}/ HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        assert_eq!(request.all("host"), [form]);
    }
}

#[tokio::test]
async fn c12_a_host_other_than_the_handshakes_is_served_by_its_own_route() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let authority = Authority::new();
    let directory = Directory::new();
    let signed = authority.server(["one.test", "two.test"]);
    directory.write("both.pem", signed.cert + &signed.key);
    // What clients have to show is the same for all hosts of a listener, so there is nobody to slip past.
    let setup = Setup::to(one.address())
        .listener("tls = { certificates = [{ cert = \"both.pem\" }] }")
        .listener(
            "route = [{ host = \"one.test\", pool = \"main\" }, { host = \"two.test\", pool = \"two\" }]",
        )
        .rest(&format!("[pool.two]\nbackends = [{:?}]", two.address()));
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let config = authority.trusted(&["http/1.1"], None);
    let mut client = shake(balancer.address, "one.test", config).await.unwrap();
    let response = client.ask("GET / HTTP/1.1\r\nhost: two.test\r\n\r\n").await;
    assert_eq!((response.status, response.text()), (200, "two".into()));
}
