//! Uploads, promotions and what is kept.

use super::{asking::mask, *};
use crate::policy::{builtin_component, digest};

const WASM: &str = "Content-Type: application/wasm\r\n";

fn component() -> &'static [u8] {
    builtin_component("ip-hash").unwrap()
}

async fn upload(handle: &Handle, path: &str, wasm: &[u8]) -> Answered {
    with_body(handle, &format!("POST {path}"), WASM, wasm).await
}

async fn post(handle: &Handle, path: &str, body: &str) -> Answered {
    with_body(handle, &format!("POST {path}"), JSON, body).await
}

#[tokio::test]
async fn a_component_is_uploaded_promoted_and_rolled_back() {
    let server = start().await;
    let handle = server.handle();
    let uploaded = upload(handle, "/v1/policies?pool=shop", component()).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.body);
    let uploaded = uploaded.json();
    assert_eq!(uploaded["digest"], digest(component()));
    assert_eq!(uploaded["fits_pool"], "shop");
    assert_eq!(uploaded["bytes"], component().len());
    assert_eq!(uploaded["observes"], false);
    assert_eq!(uploaded["imports"][0], "trimtab:policy/request@0.1.1");
    let again = upload(handle, "/v1/policies", component()).await.json();
    assert_eq!(
        (&again["known"], &again["fits_pool"]),
        (&true.into(), &Value::Null)
    );

    let order = format!(r#"{{"digest": {}}}"#, uploaded["version"]);
    let promoted = post(handle, "/v1/pools/shop/policy", &order).await;
    assert_eq!(promoted.status, 200, "{}", promoted.body);
    assert_eq!(promoted.json()["pinned"], true);
    let shown = get(handle, "/v1/pools/shop").await.json();
    assert_eq!(shown["policy"]["digest"], uploaded["digest"]);
    let back = with_body(handle, "POST /v1/pools/shop/policy/rollback", "", "").await;
    assert_eq!(back.status, 200, "{}", back.body);
    assert_eq!(back.json()["pinned"], false);
    let forth = post(handle, "/v1/pools/shop/policy/rollback", &order).await;
    assert_eq!(forth.json()["digest"], uploaded["digest"]);
    stop(server).await;
}

#[tokio::test]
async fn mistakes_in_an_order_change_nothing_and_are_told() {
    let server = start().await;
    let handle = server.handle();
    let before = get(handle, "/v1/pools/shop").await.json()["policy"]["digest"].clone();
    let path = "/v1/pools/shop/policy";
    for (order, status, reason) in [
        ("{", 400, "is not JSON"),
        ("[]", 400, "must be a JSON object"),
        ("{}", 422, "digest: required"),
        (r#"{"digest": 7}"#, 422, "digest = 7"),
        (r#"{"digest": "abc"}"#, 404, "is no digest"),
        (r#"{"digest": "0123456789ab"}"#, 404, "no kept version"),
        (
            r#"{"digest": "0123456789ab", "config": 1}"#,
            422,
            "config = 1: expected an object",
        ),
        (
            r#"{"digest": "0123456789ab", "now": true}"#,
            422,
            "now = true: unknown key",
        ),
    ] {
        let answer = post(handle, path, order).await;
        assert_eq!(answer.status, status, "{order}: {}", answer.body);
        assert!(answer.error().contains(reason), "{order}: {}", answer.body);
    }
    let nowhere = post(handle, "/v1/pools/shoe/policy", "{}").await;
    assert_eq!(nowhere.status, 404);
    let nothing_before = with_body(handle, "POST /v1/pools/shop/policy/rollback", "", "").await;
    assert_eq!(nothing_before.status, 404);
    assert_eq!(
        get(handle, "/v1/pools/shop").await.json()["policy"]["digest"],
        before
    );
    stop(server).await;
}

#[tokio::test]
async fn what_is_no_component_is_refused_and_not_kept() {
    let server = start().await;
    let handle = server.handle();
    let text = upload(handle, "/v1/policies?pool=shop", b"text").await;
    assert_eq!(text.status, 422);
    assert!(
        text.error().contains("not a WebAssembly component"),
        "{}",
        text.body
    );
    let json = with_body(handle, "POST /v1/policies", JSON, component()).await;
    assert_eq!(json.status, 415);
    assert_eq!(
        upload(handle, "/v1/policies?pool=shoe", component()).await.status,
        404
    );
    assert_eq!(
        upload(handle, "/v1/policies?force=1", component()).await.status,
        400
    );
    let origin = format!("{WASM}Origin: http://evil.example\r\n");
    let page = with_body(handle, "POST /v1/policies", &origin, component()).await;
    assert_eq!(page.status, 403);
    assert_eq!(
        get(handle, "/v1/policies").await.json()["uploads"],
        Value::Array(Vec::new())
    );
    stop(server).await;
}

#[tokio::test]
async fn an_upload_that_says_that_it_is_too_large_is_not_read() {
    let server = start().await;
    let handle = server.handle();
    let bytes_max = handle.component_bytes_max();
    let head = |length: usize| {
        format!("POST /v1/policies HTTP/1.1\r\nHost: localhost\r\n{WASM}Content-Length: {length}\r\n\r\n")
    };
    let answer = send(handle, head(bytes_max + 1)).await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains(&bytes_max.to_string()), "{}", answer.body);
    stop(server).await;
}

#[tokio::test]
async fn an_upload_whose_length_is_not_said_is_read_only_so_far() {
    let directory = std::env::temp_dir();
    let text = format!("compile.size = \"64KiB\"\n{}", config());
    let server = Server::start(Source::Text { text, directory }, Compiler::InProcess)
        .await
        .unwrap();
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let request = format!(
        "POST /v1/policies HTTP/1.1\r\nHost: localhost\r\n{WASM}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}",
        chunk.repeat(5)
    );
    assert_eq!(send(server.handle(), request).await.status, 413);
    stop(server).await;
}

#[tokio::test]
async fn the_shape_of_policies_is_that_of_the_golden_file() {
    let server = start().await;
    let handle = server.handle();
    let uploaded = upload(handle, "/v1/policies", component()).await.json();
    let order = format!(r#"{{"digest": {}, "config": {{}}}}"#, uploaded["digest"]);
    assert_eq!(post(handle, "/v1/pools/shop/policy", &order).await.status, 200);
    let mut policies = get(handle, "/v1/policies").await.json();
    mask(&mut policies);
    let told = serde_json::to_string_pretty(&policies).unwrap();
    golden("policies.json", &format!("{told}\n"));
    stop(server).await;
}
