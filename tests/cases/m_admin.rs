//! M: the operator's side. Most is in `e2e/reload.rs` and the configuration's own tests.

use trimtab_tests::{Client, RawOrigin, Setup, get, ok};

#[tokio::test]
async fn m01_clients_do_not_reach_the_admin_interface() {
    let origin = RawOrigin::answering(ok("backend")).await;
    let balancer = Setup::to(origin.address()).with_admin().start().await;
    for path in ["/metrics", "/v1/pools", "/v1/policies", "/healthz", "/v1/explain"] {
        assert_eq!(get(balancer.address, path).await.text(), "backend", "{path}");
    }
}

#[tokio::test]
async fn m05_no_client_can_make_a_metric() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).with_admin().start().await;
    let admin = balancer.handle().admin().expect("an admin listener");
    let series = async || get(admin, "/metrics").await.text().lines().count();
    get(balancer.address, "/").await;
    let before = series().await;
    for number in 0..200 {
        let request =
            format!("M{number} /path/{number} HTTP/1.1\r\nhost: host-{number}\r\nx-{number}: 1\r\n\r\n");
        assert_eq!(
            Client::connect(balancer.address).await.ask(request).await.status,
            200
        );
    }
    assert_eq!(series().await, before);
}
