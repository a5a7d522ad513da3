//! A browser, without a window: loads a page with many parts over TLS and HTTP/2, and talks by a WebSocket.

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

/// Chromium, which writes down what the page came to.
fn browser(directory: &Directory, port: u16) -> Command {
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
    browser
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
    let mut browser = browser(&directory, port);
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

/// A page that talks by a WebSocket. A request that is answered when the WebSocket is over keeps the browser waiting.
const TALKING: &str = "<!doctype html><link rel=icon href=data:,><pre id=told></pre><script>
    const heard = [];
    const socket = new WebSocket(`wss://${location.host}/talk`, ['echo']);
    socket.onopen = () => { socket.send('first'); socket.send('x'.repeat(70000)); socket.send(new Uint8Array([0, 255])); };
    socket.onmessage = message => {
        heard.push(message.data.length ?? -message.data.size);
        if (heard.length === 3) socket.close(1000, 'done');
    };
    const closed = new Promise(done => { socket.onclose = done; });
    fetch('/over').then(() => closed).then(end => {
        document.getElementById('told').textContent =
            'told:' + JSON.stringify([heard, socket.protocol, end.code, end.wasClean]);
    });
    </script>";

/// What a server shows who has read the key (RFC 6455, 4.2.2).
fn accepted(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let seen = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    // Twenty bytes are six times three and two, so one sign is padding.
    let letters = seen.as_ref().chunks(3).flat_map(|part| {
        let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        (0..=part.len()).map(move |at| LETTERS[(bits >> (18 - 6 * at) & 63) as usize])
    });
    letters.map(char::from).chain(['=']).collect()
}

/// Says what it hears, to the end.
async fn echo(peer: &mut trimtab_tests::Peer) -> Option<()> {
    loop {
        let begin = peer.exactly(2).await?;
        let length = match begin[1] & 0x7f {
            126 => peer.exactly(2).await?,
            127 => peer.exactly(8).await?,
            length => vec![length],
        };
        let count = length
            .iter()
            .fold(0, |count, byte| count << 8 | usize::from(*byte));
        let mask = peer.exactly(4).await?;
        let masked = peer.exactly(count).await?;
        let said: Vec<u8> = masked
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        let short = if length.len() == 1 { &[][..] } else { &length[..] };
        let head = [&[begin[0], begin[1] & 0x7f], short].concat();
        peer.send([head, said].concat()).await;
        if begin[0] & 0xf == 8 {
            return Some(());
        }
    }
}

#[tokio::test]
async fn chromium_talks_by_a_websocket_over_tls() {
    install("chromium").await;
    let over = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let origin = RawOrigin::start(move |mut peer| {
        let over = over.clone();
        async move {
            while let Some(request) = peer.head().await {
                let target = request.split(' ').nth(1).unwrap_or_default();
                if target == "/talk" {
                    let mut fields = request.lines().filter_map(|line| line.split_once(": "));
                    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
                    let agreed = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: {}\r\nsec-websocket-protocol: echo\r\n\r\n",
                        accepted(key.map_or("", |(_, key)| key))
                    );
                    peer.send(agreed).await;
                    let _ = echo(&mut peer).await;
                    over.add_permits(1);
                    return;
                }
                if target == "/over" {
                    let _ = over.acquire().await;
                }
                let length = TALKING.len();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html";
                peer.send(format!("{head}\r\ncontent-length: {length}\r\n\r\n{TALKING}"))
                    .await;
            }
        }
    })
    .await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let output = run(&mut browser(&directory, balancer.address.port())).await;
    let dom = String::from_utf8_lossy(&output.stdout);
    let expected = "told:[[5,70000,-2],\"echo\",1000,true]";
    assert!(dom.contains(expected), "{expected}\n{}", told(&output));
}
