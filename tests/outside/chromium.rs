//! A browser, without a window: loads a page with many parts over TLS and HTTP/2.

use std::{collections::BTreeMap, fmt::Write};

use tokio::process::Command;
use trimtab_tests::{Balancer, Directory, RawOrigin, Setup, tls::Authority, wait_until};

use crate::program::{install, run, told};

/// Parts of the page of each kind.
const EACH: usize = 60;
/// A picture of one dot.
const DOT: &str =
    "<svg xmlns='http://www.w3.org/2000/svg' width='3' height='1'><rect width='3' height='1'/></svg>";

/// The page. When all of it has been loaded, it writes down what it has, and by which protocol each part came.
fn page() -> String {
    let mut page =
        String::from("<!doctype html><html><head><title>shop</title><link rel=icon href=data:,>\n");
    for at in 0..EACH {
        let _ = writeln!(page, "<link rel=stylesheet href=/{at}.css>");
        let _ = writeln!(page, "<script src=/{at}.js></script>");
    }
    page += "</head><body>\n";
    for at in 0..EACH {
        let _ = writeln!(page, "<img src=/{at}.svg alt=''>");
    }
    page + "<pre id=told></pre><script>
        addEventListener('load', async () => {
            const posted = await (await fetch('/count', { method: 'POST', body: 'x'.repeat(100000) })).json();
            const parts = performance.getEntriesByType('resource');
            const by = parts.concat(performance.getEntriesByType('navigation')).map(part => part.nextHopProtocol);
            const pictures = [...document.images].filter(image => image.naturalWidth === 3).length;
            const styles = [...document.styleSheets].filter(sheet => sheet.cssRules.length === 1).length;
            document.getElementById('told').textContent = 'told:' + JSON.stringify(
                { pictures, styles, scripts: window.count, posted, parts: by.length, by: [...new Set(by)] });
        });
        </script></body></html>"
}

/// As the head says, whose body has been read.
fn posted_bytes(request: &str) -> String {
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap_or("0").to_owned()
}

fn answer(request: &str) -> String {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let kind = target.rsplit('.').next().unwrap_or_default();
    let (kind, body) = match kind {
        "css" => ("text/css", ".a { color: red }".to_owned()),
        "js" => (
            "text/javascript",
            "window.count = (window.count || 0) + 1".to_owned(),
        ),
        "svg" => ("image/svg+xml", DOT.to_owned()),
        _ if target == "/count" => ("text/plain", posted_bytes(request)),
        _ => ("text/html", page()),
    };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn chromium_loads_a_page_of_many_parts_over_http2() {
    install("chromium").await;
    let origin = RawOrigin::start(|mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.send(answer(&request)).await;
        }
    })
    .await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address())
        .top("log.access = \"access.log\"")
        .listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let port = balancer.address.port();
    let mut browser = Command::new("chromium");
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!(
            "--user-data-dir={}",
            directory.path().join("browser").display()
        ))
        // It believes no authority that is not in its own store; curl is there for that.
        .arg("--ignore-certificate-errors")
        .arg("--host-resolver-rules=MAP shop.test 127.0.0.1")
        // It waits until nothing moves any more, for so many milliseconds of its own time at most.
        .args(["--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("https://shop.test:{port}/"))
        .env("HOME", directory.path());
    let output = run(&mut browser).await;
    let dom = String::from_utf8_lossy(&output.stdout);
    let parts = 3 * EACH + 2;
    let expected = format!(
        "told:{{\"pictures\":{EACH},\"styles\":{EACH},\"scripts\":{EACH},\"posted\":100000,\"parts\":{parts},\"by\":[\"h2\"]}}"
    );
    assert!(dom.contains(&expected), "{expected}\n{}", told(&output));
    // The log agrees.
    let log = directory.path().join("access.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the log is written", trimtab_tests::DEADLINE, || {
        read().lines().count() >= parts
    })
    .await;
    let mut by: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for line in read().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let protocol = line["protocol"].as_str().unwrap_or_default().to_owned();
        *by.entry((protocol, line["status"].as_u64().unwrap()))
            .or_default() += 1;
    }
    assert_eq!(
        by.keys().cloned().collect::<Vec<_>>(),
        [("h2".to_owned(), 200)],
        "{by:?}"
    );
    let connections = balancer.count(|worker| &worker.http2_connections);
    assert!(connections <= 4, "{connections} connections for one page");
}
