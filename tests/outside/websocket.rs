//! WebSocket by what people have: libcurl as a client, and the server of Python's `websockets` as a backend.
//! What is within frames is Autobahn's to judge; here both ends agree, break off and refuse in their own ways.

use serde_json::{Value, json};
use tokio::process::Command;
use trimtab_tests::{Balancer, DEADLINE, Directory, Setup, tls::Authority, wait_until};

use crate::program::{Server, here, install, run, told, tools};

fn program(name: &str) -> Command {
    let mut command = Command::new(tools().join("websocket/bin/python"));
    command.arg(here().join("websocket").join(name));
    command
}

/// A server that sends back what comes.
pub(crate) async fn echo() -> Server {
    install("websocket").await;
    Server::start(&mut program("echo.py")).await
}

/// What libcurl sees at a URL.
async fn curl(url: &str, options: &[&str]) -> Value {
    let output = run(program("client.py").arg(url).args(options)).await;
    let seen = serde_json::from_slice(&output.stdout);
    seen.unwrap_or_else(|_| panic!("{}", told(&output)))
}

/// What there is to see of a server that agrees.
fn all() -> Value {
    json!({
        "status": 101,
        "text": ["text", "Größe"],
        "binary": ["binary", "00ff0d0a0d0a"],
        "ping": ["pong", "are you there"],
        "empty": "text",
        "large": ["binary", 3_072_000, true],
        "own close": ["close", 4002, "enough", true],
        "close of the server": ["close", 4001, "as asked", true],
    })
}

/// That no tunnel is left, of so many in all.
async fn expect_ended(balancer: &Balancer, tunnels: u64) {
    assert_eq!(balancer.count(|worker| &worker.upgrades), tunnels);
    wait_until("the tunnels have ended", DEADLINE, || {
        balancer.view().pool.snapshot().members[0].backend.active() == 0
    })
    .await;
}

#[tokio::test]
async fn curl_has_its_messages_sent_back_over_plain_text() {
    let origin = echo().await;
    let balancer = Setup::to(origin.address.to_string()).start().await;
    let url = format!("ws://{}/", balancer.address);
    assert_eq!(curl(&url, &[]).await, all());
    expect_ended(&balancer, 2).await;
}

#[tokio::test]
async fn curl_has_its_messages_sent_back_over_tls() {
    let origin = echo().await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let ca = format!("CAINFO={}", directory.write("ca.pem", &authority.pem).display());
    let setup =
        Setup::to(origin.address.to_string()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let port = balancer.address.port();
    let resolve = format!("RESOLVE=shop.test:{port}:127.0.0.1");
    let seen = curl(&format!("wss://shop.test:{port}/"), &[&ca, &resolve]).await;
    assert_eq!(seen, all());
    expect_ended(&balancer, 2).await;
}

/// The same as without the balancer.
#[tokio::test]
async fn curl_is_told_that_a_backend_refuses() {
    let origin = echo().await;
    let balancer = Setup::to(origin.address.to_string()).start().await;
    let direct = curl(&format!("ws://{}/refused", origin.address), &[]).await;
    let seen = curl(&format!("ws://{}/refused", balancer.address), &[]).await;
    assert_eq!(seen, json!({ "failed": [22, "Refused WebSocket upgrade: 403"] }));
    assert_eq!(seen, direct);
    expect_ended(&balancer, 0).await;
}

/// The backend then has an ordinary request, and says that it wants an upgrade.
#[tokio::test]
async fn curl_is_told_that_the_balancer_allows_no_upgrade() {
    let origin = echo().await;
    let balancer = Setup::to(origin.address.to_string())
        .listener("upgrades = []")
        .start()
        .await;
    let seen = curl(&format!("ws://{}/", balancer.address), &[]).await;
    assert_eq!(seen, json!({ "failed": [22, "Refused WebSocket upgrade: 426"] }));
    expect_ended(&balancer, 0).await;
}
