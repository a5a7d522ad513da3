//! Scripts for varnishtest, a client and a backend of few words that say each byte of HTTP/1.1, frame of HTTP/2 and header
//! of the PROXY protocol themselves. Each is a file of `varnishtest/`.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
    process::Command,
};
use trimtab_tests::{Directory, Setup};

use crate::program::{here, install, run, told};

/// Runs one, with the listener's lines that it needs.
async fn script(name: &str, listener: &str) {
    install("varnishtest").await;
    let directory = Directory::new();
    // The script's backend listens where the script says, so it cannot let the system choose a port.
    let backend = directory.path().join("backend");
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let path = backend.clone();
    let passing = tokio::spawn(async move {
        while let Ok((mut from, _)) = front.accept().await {
            let path = path.clone();
            tokio::spawn(async move {
                let Ok(mut to) = UnixStream::connect(path).await else {
                    return;
                };
                // How a connection ends is the script's business.
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    // A script has one backend, which is now this and then that one.
    let setup = Setup::to(address.to_string())
        .listener(listener)
        .pool("outlier = \"off\"");
    let balancer = setup.start().await;
    let mut program = Command::new("varnishtest");
    program
        .args(["-t", "60", "-D", &format!("balancer={}", balancer.address)])
        .args(["-D", &format!("origin={}", backend.display())])
        .arg(here().join("varnishtest").join(format!("{name}.vtc")))
        .current_dir(directory.path());
    let output = run(&mut program).await;
    passing.abort();
    assert!(output.status.success(), "{}", told(&output));
}

#[tokio::test]
async fn framing() {
    script("framing", "").await;
}

#[tokio::test]
async fn pipelining() {
    script("pipelining", "").await;
}

#[tokio::test]
async fn keepalive() {
    script("keepalive", "").await;
}

#[tokio::test]
async fn expecting_100() {
    script("continue", "").await;
}

#[tokio::test]
async fn chunked() {
    script("chunked", "").await;
}

#[tokio::test]
async fn head() {
    script("head", "").await;
}

#[tokio::test]
async fn hops() {
    script("hops", "").await;
}

#[tokio::test]
async fn backend() {
    script("backend", "").await;
}

#[tokio::test]
async fn http2() {
    script("http2", "").await;
}

#[tokio::test]
async fn proxy() {
    script("proxy", "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }").await;
}

#[tokio::test]
async fn limits() {
    script("limits", "limits = { header_timeout = \"500ms\" }").await;
}

#[tokio::test]
async fn upgrade() {
    script("upgrade", "").await;
}

#[test]
fn every_script_is_run() {
    let scripts = std::fs::read_dir(here().join("varnishtest")).unwrap();
    let source = include_str!("varnishtest.rs");
    for script in scripts {
        let name = script.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".vtc").unwrap();
        assert!(source.contains(&format!("script(\"{name}\", ")), "{name}");
    }
}
