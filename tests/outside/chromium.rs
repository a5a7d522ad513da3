//! A browser, without a window: loads a page with many parts over TLS and HTTP/2, and one that speaks WebSocket.

use std::{collections::BTreeMap, fmt::Write, path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use trimtab_tests::{Balancer, DEADLINE, Directory, RawOrigin, Setup, ok, tls::Authority, wait_until};

use crate::{
    program::{install, run, told},
    websocket::echo,
};

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

/// The browser, with everything that it keeps in this directory.
fn browser(directory: &Path) -> Command {
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
        .arg(format!("--user-data-dir={}", directory.join("browser").display()))
        // It believes no authority that is not in its own store; curl is there for that.
        .arg("--ignore-certificate-errors")
        .arg("--host-resolver-rules=MAP shop.test 127.0.0.1")
        .env("HOME", directory);
    browser
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
    let mut browser = browser(directory.path());
    browser
        // It waits until nothing moves any more, for so many milliseconds of its own time at most.
        .args(["--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("https://shop.test:{}/", balancer.address.port()));
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
    wait_until("the log is written", DEADLINE, || read().lines().count() >= parts).await;
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

/// A page that speaks WebSocket, and posts what it saw: what was sent back of a text, of many bytes and after that,
/// and the end that it made itself. Then the same server is asked where it takes nobody.
const TALK: &str =
    "<!doctype html><html><head><title>chat</title><link rel=icon href=data:,></head><body><script>
    const told = { echoed: [] };
    const tell = () => fetch('/told', { method: 'POST', body: JSON.stringify(told) });
    const large = new Uint8Array(1000000).map((_, at) => at % 251);
    const socket = new WebSocket('wss://' + location.host + '/chat');
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => socket.send('first');
    socket.onmessage = message => {
        if (message.data === 'first') {
            told.echoed.push(message.data);
            socket.send(large);
        } else if (message.data === 'last') {
            told.echoed.push(message.data);
            socket.close(4002, 'enough');
        } else {
            const bytes = new Uint8Array(message.data);
            told.echoed.push(bytes.length + ' ' + bytes.every((byte, at) => byte === large[at]));
            socket.send('last');
        }
    };
    socket.onclose = end => {
        told.closed = [end.wasClean, end.code, end.reason];
        const refused = new WebSocket('wss://' + location.host + '/refused');
        refused.onclose = end => {
            told.refused = [end.wasClean, end.code];
            tell();
        };
    };
    </script></body></html>";

/// A browser that stays until this is dropped, with the processes that it has started.
struct Open(Child);

impl Drop for Open {
    fn drop(&mut self) {
        let group = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // Nothing is left to be done about one that is gone.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The page tells when it is done, so nobody waits for the browser, whose own idea of that is not to be relied on.
#[tokio::test]
async fn chromium_speaks_websocket_over_tls() {
    install("chromium").await;
    let chat = echo().await;
    let pages = RawOrigin::start(|mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.send(ok(if request.starts_with("GET ") { TALK } else { "" }))
                .await;
        }
    })
    .await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let routes = "route = [{ path_prefix = \"/chat\", pool = \"chat\" }, \
                  { path_prefix = \"/refused\", pool = \"chat\" }, { pool = \"main\" }]";
    let setup = Setup::to(pages.address())
        .listener("tls = { certificates = [{ cert = \"shop.pem\" }] }")
        .listener(routes)
        .rest(&format!("[pool.chat]\nbackends = [\"{}\"]", chat.address));
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let mut browser = browser(directory.path());
    browser
        // Without something to do it would end at once.
        .arg("--remote-debugging-port=0")
        .arg(format!("https://shop.test:{}/", balancer.address.port()))
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let _open = Open(browser.spawn().unwrap());
    pages.wait_for("}").await;
    let received = pages.received();
    let (_, told) = received.rsplit_once("\r\n\r\n").unwrap();
    let expected = "{\"echoed\":[\"first\",\"1000000 true\",\"last\"],\
                    \"closed\":[true,4002,\"enough\"],\"refused\":[false,1006]}";
    assert_eq!(told, expected);
    assert_eq!(balancer.count(|worker| &worker.upgrades), 1);
    wait_until("the tunnel has ended", DEADLINE, || {
        let view = balancer.view_of("chat");
        view.pool.snapshot().members[0].backend.active() == 0
    })
    .await;
}
