//! What one client may send.

use trimtab_tests::{Client, RawOrigin, Response, Setup, get, ok};

async fn ask(limits: &str, request: String) -> (Response, usize) {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener(&format!("limits = {{ {limits} }}"))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    let response = client.ask(request).await;
    assert_eq!(get(balancer.address, "/").await.status, 200, "others are served");
    (response, origin.requests() - 1)
}

fn with_fields(count: usize) -> String {
    let fields: String = (0..count)
        .map(|number| format!("x-{number}: {number}\r\n"))
        .collect();
    format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")
}

#[tokio::test]
async fn too_many_fields_are_refused_with_431() {
    let (response, passed) = ask("headers = 20", with_fields(19)).await;
    assert_eq!((response.status, passed), (200, 1), "host and 19 are 20");
    let (response, passed) = ask("headers = 20", with_fields(20)).await;
    assert_eq!((response.status, passed), (431, 0));
}

#[tokio::test]
async fn the_default_number_of_fields_is_100() {
    assert_eq!(ask("", with_fields(99)).await.0.status, 200);
    assert_eq!(ask("", with_fields(100)).await.0.status, 431);
}

#[tokio::test]
async fn too_large_fields_are_refused_with_431() {
    let sized = |size: usize| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(size));
    let (response, passed) = ask("header_bytes = \"8KiB\"", sized(8000)).await;
    assert_eq!((response.status, passed), (200, 1));
    let (response, passed) = ask("header_bytes = \"8KiB\"", sized(9000)).await;
    assert_eq!((response.status, passed), (431, 0));
}

#[tokio::test]
async fn a_too_long_target_is_refused_with_414() {
    let sized = |size: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(size));
    let (response, passed) = ask("header_bytes = \"8KiB\"", sized(8000)).await;
    assert_eq!((response.status, passed), (200, 1));
    let (response, passed) = ask("header_bytes = \"8KiB\"", sized(20_000)).await;
    assert_eq!((response.status, passed), (414, 0));
}

#[tokio::test]
async fn a_target_beyond_what_any_server_takes_is_refused_with_414() {
    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(70_000));
    let (response, passed) = ask("header_bytes = \"1MiB\"", request).await;
    assert_eq!((response.status, passed), (414, 0));
}

#[tokio::test]
async fn a_head_may_arrive_byte_by_byte() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.status, 200);
}
