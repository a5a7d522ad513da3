//! J: route, policy and backend see one path.

use trimtab_tests::{Origin, Setup, get, ok};

use crate::stage::Stage;

fn ask(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")
}

async fn becomes(judge: &Stage, target: &str, form: &str) {
    assert_eq!(judge.passed(ask(target)).await.target, form, "{target}");
}

#[tokio::test]
async fn j01_j03_a_path_has_one_form_at_the_backend() {
    let judge = Stage::new().await;
    for (target, form) in [
        ("/a/../admin", "/admin"),
        ("/./admin", "/admin"),
        ("//admin", "/admin"),
        ("/a//b/./c/..", "/a/b/"),
        ("/%61dmin", "/admin"),
        ("/x/%2e%2E/admin", "/admin"),
        ("/%252e%252e/admin", "/%252e%252e/admin"),
        ("/%25%36%31", "/%2561"),
        ("http://a//admin/", "/admin/"),
        ("/a%20b", "/a%20b"),
    ] {
        becomes(&judge, target, form).await;
    }
}

#[tokio::test]
async fn j01_a_route_sees_the_path_that_the_backend_sees() {
    let (open, closed) = (Origin::start("open").await, Origin::start("closed").await);
    let balancer = Setup::to(open.address())
        .listener("route = [{ path_prefix = \"/admin\", pool = \"closed\" }, { pool = \"main\" }]")
        .rest(&format!("[pool.closed]\nbackends = [{:?}]", closed.address()))
        .start()
        .await;
    for path in [
        "/admin",
        "//admin",
        "/x/../admin",
        "/./admin/x",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/x/..//admin",
    ] {
        assert_eq!(get(balancer.address, path).await.text(), "closed", "{path}");
    }
    assert_eq!(get(balancer.address, "/adminx").await.text(), "open");
    assert_eq!(open.hits(), 1);
}

#[tokio::test]
async fn j01_a_policy_sees_the_path_that_the_backend_sees() {
    let origins = Origin::start_all(["a", "b", "c", "d"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"consistent-hash\"\nhash_on = \"path\"")
        .start()
        .await;
    for number in 0..20 {
        let first = get(balancer.address, &format!("/item/{number}")).await.text();
        for other in [
            format!("//item/{number}"),
            format!("/x/../item/{number}"),
            format!("/%69tem/./{number}"),
        ] {
            assert_eq!(get(balancer.address, &other).await.text(), first, "{other}");
        }
    }
}

#[tokio::test]
async fn j02_j05_j06_what_readers_see_differently_is_refused() {
    let judge = Stage::new().await;
    for target in [
        "/%2e%2e%2fadmin",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%00",
        "/%0d%0a",
        "/a\\b",
        "/..\\admin",
        "/%c0%ae%c0%ae/",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%zz",
        "/%",
        "/%4",
        "/..",
        "/a/../../b",
        "/%2e%2e/a",
    ] {
        judge.refused(ask(target), &[400]).await;
    }
    judge
        .refused(b"GET /\xc0\xaf HTTP/1.1\r\nhost: a\r\n\r\n", &[400])
        .await;
    judge
        .refused("GET /\u{e9} HTTP/1.1\r\nhost: a\r\n\r\n", &[400])
        .await;
    // By the listener's own word.
    let slashes = "paths = \"encoded-slashes\"";
    assert_eq!(
        Stage::with(slashes, ok("").as_str())
            .await
            .passed(ask("/@scope%2fname"))
            .await
            .target,
        "/@scope%2fname"
    );
    Stage::with(slashes, ok("").as_str())
        .await
        .refused(ask("/a%00"), &[400])
        .await;
    assert_eq!(
        Stage::with("paths = \"as-sent\"", ok("").as_str())
            .await
            .passed(ask("//a/../%2e"))
            .await
            .target,
        "//a/../%2e"
    );
}

#[tokio::test]
async fn j04_j09_parameters_and_queries_reach_the_backend_as_they_are() {
    let judge = Stage::new().await;
    for target in [
        "/a;x=1/b;y=2",
        "/a?a=1&a=2;b=3",
        "/a?x=%2e%2e%2f&y=//",
        "/a?%zz",
        "/a?b?c",
        "/a;..;/b",
    ] {
        becomes(&judge, target, target).await;
    }
}

#[tokio::test]
async fn j08_method_overrides_mean_nothing_here() {
    let judge = Stage::new().await;
    let fields = "x-http-method-override: DELETE\r\nx-method-override: PUT\r\nx-http-method: TRACE";
    let request = judge
        .passed(format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(
        (request.method.as_str(), request.all("x-http-method-override")),
        ("POST", vec!["DELETE"])
    );
}
