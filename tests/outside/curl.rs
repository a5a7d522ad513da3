//! curl, in each version of HTTP that it speaks. Debian's is built without WebSocket: see `websocket.rs`.

use tokio::process::Command;
use trimtab_tests::{Balancer, Directory, Origin, Setup, tls::Authority};

use crate::program::{install, run, told};

/// What curl says, with its own summary at the end: version of HTTP, status, and connections.
async fn curl(arguments: &[&str]) -> String {
    install("curl").await;
    let summary = "|%{http_version} %{http_code} %{num_connects}\n";
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--write-out",
            summary,
        ])
        .args(arguments);
    let output = run(&mut command).await;
    assert!(output.status.success(), "curl {arguments:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_is_served_in_each_version_over_plain_text() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let url = format!("http://{}/", balancer.address);
    assert_eq!(curl(&["--http1.1", &url]).await, "a|1.1 200 1\n");
    assert_eq!(curl(&["--http1.0", &url]).await, "a|1 200 1\n");
    assert_eq!(curl(&["--http2-prior-knowledge", &url]).await, "a|2 200 1\n");
    // It asks for an upgrade to h2c, which is not taken.
    assert_eq!(curl(&["--http2", &url]).await, "a|1.1 200 1\n");
}

#[tokio::test]
async fn curl_is_served_in_each_version_over_tls() {
    let origin = Origin::start("a").await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let ca = directory.write("ca.pem", &authority.pem).display().to_string();
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let port = balancer.address.port();
    let resolve = format!("shop.test:{port}:127.0.0.1");
    let url = format!("https://shop.test:{port}/");
    let common = ["--cacert", &ca, "--resolve", &resolve];
    for (versions, spoken) in [
        (&["--http2"][..], "2"),
        (&["--http1.1"], "1.1"),
        (&["--http2", "--tls-max", "1.2"], "2"),
        (&["--http2", "--tlsv1.3"], "2"),
    ] {
        // The second request is on the first one's connection.
        let arguments = [&common[..], versions, &[&url, &url]].concat();
        let expected = format!("a|{spoken} 200 1\na|{spoken} 200 0\n");
        assert_eq!(curl(&arguments).await, expected, "{versions:?}");
    }
    let body = directory.write("body", vec![b'x'; 3_000_000]);
    let body = format!("@{}", body.display());
    for version in ["--http2", "--http1.1"] {
        let arguments = [&common[..], &[version, "--data-binary", &body, &url]].concat();
        assert!(curl(&arguments).await.starts_with("a|"), "{version}");
    }
}
