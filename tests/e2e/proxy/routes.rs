//! Which pool serves a request.

use trimtab_tests::{Client, Origin, Setup};

const ROUTES: &str = r#"route = [
  { host = "api.example", path_prefix = "/v1", pool = "other" },
  { host = "*.wild.example", pool = "other" },
  { path_prefix = "/static", pool = "other" },
  { host = "shop.example", pool = "main" },
]"#;

#[tokio::test]
async fn the_first_route_for_host_and_path_wins() {
    let origins = Origin::start_all(["main", "other"]).await;
    let balancer = Setup::to(origins[0].address())
        .listener(&ROUTES.replace('\n', ""))
        .rest(&format!("[pool.other]\nbackends = [{:?}]", origins[1].address()))
        .start()
        .await;
    for (host, target, expected) in [
        ("api.example", "/v1", "other"),
        ("api.example", "/v1/users?x=/", "other"),
        ("API.example:8080", "/v1/", "other"),
        ("api.example.", "/v1", "other"),
        ("api.example", "/v10", "404"),
        ("api.example", "/", "404"),
        ("a.wild.example", "/", "other"),
        ("a.b.wild.example", "/", "other"),
        ("wild.example", "/", "404"),
        ("anything", "/static/x", "other"),
        ("shop.example", "/staticx", "main"),
        ("shop.example", "/", "main"),
        ("shop.example", "/?/static", "main"),
        ("ignored", "http://shop.example/", "main"),
        ("nobody", "/", "404"),
    ] {
        let mut client = Client::connect(balancer.address).await;
        let response = client
            .ask(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let found = response
            .field("x-origin")
            .map_or(response.status.to_string(), str::to_owned);
        assert_eq!(found, expected, "{host} {target}");
    }
}
