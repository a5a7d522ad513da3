//! Endpoints, their refusals, and what a change does.

use super::*;

#[tokio::test]
async fn live_and_ready_say_ok_while_serving() {
    let server = start().await;
    let handle = server.handle();
    let live = get(handle, "/livez").await;
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    let ready = get(handle, "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok\n"));
    stop(server).await;
}

#[tokio::test]
async fn a_pool_without_usable_backends_is_told_and_does_not_make_it_unready() {
    let server = start().await;
    let handle = server.handle();
    for backend in DEAD {
        let path = format!("/v1/pools/shop/backends/{backend}");
        assert_eq!(patch(handle, &path, r#"{"drain": true}"#).await.status, 200);
    }
    let ready = get(handle, "/readyz").await;
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (200, "ok\npool shop has no usable backend\n")
    );
    stop(server).await;
}

#[tokio::test]
async fn unready_is_503_and_live_stays_200() {
    let server = start().await;
    let handle = server.handle();
    handle.set_ready(false);
    assert_eq!(get(handle, "/readyz").await.status, 503);
    assert_eq!(get(handle, "/livez").await.status, 200);
    let reload = with_body(handle, "POST /v1/reload", "", "").await;
    assert_eq!(reload.status, 503);
    stop(server).await;
}

#[tokio::test]
async fn the_socket_is_free_again_after_the_stop() {
    let server = start().await;
    let address = server.handle().admin().unwrap();
    stop(server).await;
    let again = tokio::net::TcpListener::bind(address).await;
    assert!(again.is_ok(), "{again:?}");
}

#[tokio::test]
async fn an_address_in_use_is_named_as_that_of_admin() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = config().replacen("\"127.0.0.1:0\"", &format!("\"{address}\""), 1);
    let directory = std::env::temp_dir();
    let started = Server::start(Source::Text { text, directory }, Compiler::InProcess).await;
    let error = started.err().expect("is refused").to_string();
    let beginning = format!("admin.listen = \"{address}\": ");
    assert!(error.starts_with(&beginning), "{error}");
}

#[tokio::test]
async fn a_change_is_answered_with_what_the_backend_became() {
    let server = start().await;
    let handle = server.handle();
    // Percent-encoded, as addresses of IPv6 have to be.
    let path = "/v1/pools/shop/backends/127.0.0.1%3A1";
    let answer = patch(handle, path, r#"{"weight": 7, "drain": true}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let backend = answer.json();
    assert_eq!(backend["weight"], 7);
    assert_eq!(backend["state"], "draining");
    assert_eq!(backend["usable"], false);
    let shown = get(handle, "/v1/pools/shop").await.json();
    assert_eq!(shown["backends"][0], backend);
    let back = patch(handle, path, r#"{"drain": false}"#).await.json();
    assert_eq!((&back["state"], &back["weight"]), (&"ready".into(), &7.into()));
    stop(server).await;
}

#[tokio::test]
async fn every_mistake_in_a_change_is_named_with_key_and_value_and_changes_nothing() {
    let server = start().await;
    let handle = server.handle();
    let path = "/v1/pools/shop/backends/127.0.0.1:1";
    let body = r#"{"drain": "yes", "hurry": 1, "weight": 65536}"#;
    let answer = patch(handle, path, body).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.error(),
        "drain = \"yes\": expected true or false\n\
         hurry = 1: unknown key; there are weight and drain\n\
         weight = 65536: expected a whole number from 0 to 65535"
    );
    let partly = patch(handle, path, r#"{"weight": 9, "drain": 1}"#).await;
    assert_eq!(partly.status, 422);
    assert_eq!(patch(handle, path, "{}").await.status, 422);
    assert_eq!(patch(handle, path, "{").await.status, 400);
    assert_eq!(patch(handle, path, "[]").await.status, 400);
    let shown = get(handle, "/v1/pools/shop").await.json();
    assert_eq!(shown["backends"][0]["weight"], 1);
    stop(server).await;
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_names_what_does() {
    let server = start().await;
    let handle = server.handle();
    let pool = get(handle, "/v1/pools/shoe").await;
    assert_eq!(pool.status, 404);
    assert!(
        pool.error().ends_with("there are: a\"b, shop"),
        "{}",
        pool.error()
    );
    let backend = patch(handle, "/v1/pools/shop/backends/x:1", "{}").await;
    assert_eq!(backend.status, 404);
    assert!(
        backend.error().ends_with("it has: 127.0.0.1:1, 127.0.0.1:2"),
        "{}",
        backend.error()
    );
    assert_eq!(get(handle, "/").await.status, 404);
    stop(server).await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = start().await;
    let handle = server.handle();
    let reload = get(handle, "/v1/reload").await;
    assert_eq!(reload.status, 405);
    assert!(reload.head.contains("\r\nallow: post"), "{}", reload.head);
    let pools = with_body(handle, "DELETE /v1/pools", "", "").await;
    assert_eq!(pools.status, 405);
    assert!(pools.head.contains("\r\nallow: get, head"), "{}", pools.head);
    stop(server).await;
}

#[tokio::test]
async fn a_reload_reports_or_tells_every_mistake() {
    let server = start().await;
    let handle = server.handle();
    let good = with_body(handle, "POST /v1/reload", "", "").await;
    assert_eq!(good.status, 200, "{}", good.body);
    assert_eq!(good.json()["changed"], false);
    stop(server).await;
    let path = std::env::temp_dir().join(format!("trimtab-admin-{}.toml", std::process::id()));
    std::fs::write(&path, config()).unwrap();
    let server = Server::start(Source::File(path.clone()), Compiler::InProcess)
        .await
        .expect("starts");
    std::fs::write(&path, "workers = 0\ndrain = 1").unwrap();
    let bad = with_body(server.handle(), "POST /v1/reload", "", "").await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(bad.status, 422);
    assert!(bad.error().contains("workers = 0") && bad.error().contains("drain = 1"));
    stop(server).await;
}

#[tokio::test]
async fn web_pages_are_refused() {
    let server = start().await;
    let handle = server.handle();
    let rebound = "GET /v1/pools HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(handle, rebound).await.status, 403);
    let absolute = "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(send(handle, absolute).await.status, 403);
    let none = "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(send(handle, none).await.status, 400);
    let six = "GET /livez HTTP/1.1\r\nHost: [::1]:9901\r\nConnection: close\r\n\r\n";
    assert_eq!(send(handle, six).await.status, 200);
    let form = "Content-Type: text/plain\r\n";
    let line = "PATCH /v1/pools/shop/backends/127.0.0.1:1";
    let sent = with_body(handle, line, form, r#"{"weight": 1}"#).await;
    assert_eq!(sent.status, 415);
    assert_eq!(with_body(handle, line, "", r#"{"weight": 1}"#).await.status, 415);
    let origin = with_body(handle, "POST /v1/reload", "Origin: null\r\n", "").await;
    assert_eq!(origin.status, 403);
    stop(server).await;
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let server = start().await;
    let body = " ".repeat(64 * 1024 + 1);
    let answer = patch(server.handle(), "/v1/pools/shop/backends/127.0.0.1:1", &body).await;
    assert_eq!(answer.status, 413);
    stop(server).await;
}

#[tokio::test]
async fn silent_clients_give_their_places_back() {
    let server = start().await;
    let address = server.handle().admin().unwrap();
    let mut silent = Vec::new();
    for _ in 0..crate::admin::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(get(server.handle(), "/livez").await.status, 200);
    stop(server).await;
}

/// Numbers and versions differ from run to run; the shape may not.
pub(super) fn mask(value: &mut Value) {
    match value {
        Value::Number(_) => *value = 0.into(),
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(entries) => {
            for (key, value) in entries {
                if key == "version" || key == "digest" || key == "compiled_by" {
                    *value = "masked".into();
                }
                mask(value);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_shape_of_pools_is_that_of_the_golden_file() {
    let server = start().await;
    let mut pools = get(server.handle(), "/v1/pools").await.json();
    let version = pools["pools"][0]["policy"]["version"].clone();
    assert_eq!(version.as_str().map(str::len), Some(12));
    mask(&mut pools);
    let told = serde_json::to_string_pretty(&pools).unwrap();
    golden("pools.json", &format!("{told}\n"));
    stop(server).await;
}

#[tokio::test]
async fn the_shape_of_tenants_is_that_of_the_golden_file() {
    let server = start().await;
    let mut tenants = get(server.handle(), "/v1/tenants").await.json();
    let memory = &tenants["tenants"][0]["memory"];
    assert!(
        memory["bytes"].as_u64() > Some(1 << 16),
        "its guest has a memory: {memory}"
    );
    mask(&mut tenants);
    let told = serde_json::to_string_pretty(&tenants).unwrap();
    golden("tenants.json", &format!("{told}\n"));
    stop(server).await;
}

#[tokio::test]
async fn the_shape_of_listeners_is_that_of_the_golden_file() {
    let server = start().await;
    let mut listeners = get(server.handle(), "/v1/listeners").await.json();
    let address = server.handle().listeners()[0].1.to_string();
    assert_eq!(listeners["listeners"][0]["address"], address);
    listeners["listeners"][0]["address"] = "masked".into();
    mask(&mut listeners);
    let told = serde_json::to_string_pretty(&listeners).unwrap();
    golden("listeners.json", &format!("{told}\n"));
    stop(server).await;
}
