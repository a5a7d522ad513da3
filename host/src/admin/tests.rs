//! The admin listener as its clients see it, in front of a whole balancer.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    control::Handle,
    policy::Compiler,
    server::{Server, Source},
};

mod asking;
mod exposition;
mod versions;

/// Nobody listens there, and without checks and requests nobody connects.
const DEAD: [&str; 2] = ["127.0.0.1:1", "127.0.0.1:2"];
const QUOTED: &str = r#"a\"b"#;

/// Two pools, the first of a tenant, the second with a name that needs escaping.
fn config() -> String {
    format!(
        r#"
        workers = 1
        drain = "0s"
        admin.listen = "127.0.0.1:0"
        [[listener]]
        listen = "127.0.0.1:0"
        [[listener.route]]
        path_prefix = "/other"
        pool = "{QUOTED}"
        [[listener.route]]
        host = "shop.example"
        pool = "shop"
        [tenant.team]
        hosts = ["shop.example"]
        cpu = 10
        [pool.shop]
        tenant = "team"
        policy = "round-robin"
        backends = [{{ address = "{}", zone = "east" }}, "{}"]
        [pool."{QUOTED}"]
        policy = "round-robin"
        backends = ["{}"]
        "#,
        DEAD[0], DEAD[1], DEAD[0]
    )
}

async fn start() -> Server {
    let source = Source::Text {
        text: config(),
        directory: std::env::temp_dir(),
    };
    Server::start(source, Compiler::InProcess)
        .await
        .expect("a good configuration")
}

async fn stop(server: Server) {
    server.handle().stop().await;
    server.join().await;
}

/// Status, head and body of the answer.
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().expect("an error").to_owned()
    }
}

/// Sends bytes as they are and reads to the end.
async fn send(handle: &Handle, request: impl AsRef<[u8]>) -> Answered {
    let address = handle.admin().expect("admin is on");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_ref()).await.expect("is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("is answered");
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await;
    let answer = answer.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    Answered {
        status: status.expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

async fn get(handle: &Handle, path: &str) -> Answered {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    send(handle, &request).await
}

async fn with_body(handle: &Handle, line: &str, more: &str, body: impl AsRef<[u8]>) -> Answered {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
    );
    send(handle, [head.as_bytes(), body].concat()).await
}

const JSON: &str = "Content-Type: application/json\r\n";

async fn patch(handle: &Handle, path: &str, body: &str) -> Answered {
    with_body(handle, &format!("PATCH {path}"), JSON, body).await
}

/// Compares with a golden file, or writes it when UPDATE_GOLDEN=1.
fn golden(name: &str, told: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/admin")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, told).expect("can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file");
    assert!(
        told == expected,
        "{name}\n--- expected\n{expected}--- told\n{told}"
    );
}
