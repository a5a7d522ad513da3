//! One process takes over from another while clients ask, and what becomes of it when it does not serve.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, test_kill_process};
use tokio::net::TcpStream;
use trimtab_tests::{Client, DEADLINE, Directory, LONG, Load, Origin, RawOrigin, Setup, wait_until, within};

use crate::{PROGRAM, lineage::Lineage};

/// Clients of HTTP/2, and clients that open a connection for each request, until stopped.
struct Others {
    is_over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Others {
    fn start(address: SocketAddr) -> Self {
        let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let multiplexed = (0..3).map(|_| tokio::spawn(ask_by_http2(address, is_over.clone(), asked.clone())));
        let mut tasks: Vec<_> = multiplexed.collect();
        tasks.extend((0..3).map(|_| tokio::spawn(ask_anew(address, is_over.clone(), asked.clone()))));
        Self {
            is_over,
            asked,
            tasks,
        }
    }

    async fn more(&self, count: u64) {
        let wanted = self.asked.load(SeqCst) + count;
        let is_there =
            || self.asked.load(SeqCst) >= wanted || self.tasks.iter().any(|task| task.is_finished());
        wait_until("more answers", LONG, is_there).await;
    }

    /// Ends them; a client whose request failed has panicked.
    async fn stop(self) {
        self.is_over.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no request failed");
        }
    }
}

async fn http2(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask_by_http2(address: SocketAddr, is_over: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    let mut sender = http2(address).await;
    while !is_over.load(SeqCst) {
        let mut request = Request::get("http://shop.test/load")
            .body(Full::default())
            .unwrap();
        loop {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.unwrap();
                    asked.fetch_add(1, SeqCst);
                    break;
                }
                Err(mut error) => {
                    // After GOAWAY a client knows that this one was not looked at.
                    let unsent = error.take_message();
                    request =
                        unsent.unwrap_or_else(|| panic!("a request was lost: {:?}", error.into_error()));
                    sender = http2(address).await;
                }
            }
        }
    }
}

async fn ask_anew(address: SocketAddr, is_over: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    while !is_over.load(SeqCst) {
        let mut client = Client::connect(address).await;
        client.send("GET /load HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        asked.fetch_add(1, SeqCst);
    }
}

struct Stage {
    directory: Directory,
    origin: Origin,
    backend: String,
}

impl Stage {
    async fn new() -> Self {
        let origin = Origin::start("a").await;
        let stage = Self {
            directory: Directory::new(),
            backend: origin.address(),
            origin,
        };
        stage.configure("");
        stage
    }

    fn setup(&self, top: &str) -> Setup {
        Setup::to(self.backend.clone())
            .workers(2)
            .with_admin()
            .top("drain = \"1h\"")
            .top("log = { format = \"json\" }")
            .top(top)
    }

    fn configure(&self, top: &str) {
        self.directory.replace("trimtab.toml", self.setup(top).text());
    }
}

#[tokio::test]
async fn a_process_takes_over_under_load_and_no_request_is_lost() {
    let stage = Stage::new().await;
    let mut lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let address = lineage.listener();
    let load = Load::start(address, 16);
    let others = Others::start(address);
    for generation in 1..=3 {
        load.more(300).await;
        others.more(100).await;
        match generation {
            // By either way.
            1 => lineage.signal(Signal::USR2),
            _ => {
                let (status, text) = lineage.ask_admin("POST /v1/upgrade", "").await;
                assert_eq!(status, 200, "{text}");
            }
        }
        lineage.wait_for_serving(generation + 1).await;
        if generation == 1 {
            lineage.wait_for_the_first_to_end().await;
        }
    }
    load.more(300).await;
    others.more(100).await;
    assert_eq!(lineage.successors().len(), 3);
    load.stop().await.expect_no_failure();
    others.stop().await;
    let told = lineage.ask_admin("GET /v1/upgrade", "").await.1;
    assert!(
        told.contains(&format!("\"pid\": {}", lineage.current())),
        "{told}"
    );
    let others = lineage.successors();
    wait_until("only the last is left", DEADLINE, || {
        others[..2].iter().all(|pid| test_kill_process(*pid).is_err())
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_ends_with_its_next_answer() {
    let stage = Stage::new().await;
    let mut lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let mut idle = Client::connect(lineage.listener()).await;
    assert_eq!(idle.get("/").await.status, 200);
    // The library's way is another one: what is not ordinary goes it to the connection's end.
    let mut by_library = Client::connect(lineage.listener()).await;
    by_library
        .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_eq!(by_library.response().await.status, 200);
    let mut fresh = Client::connect(lineage.listener()).await;
    lineage.signal(Signal::USR2);
    lineage.wait_for("has taken over").await;
    for client in [&mut idle, &mut by_library, &mut fresh] {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
        assert_eq!(client.until_closed().await, "");
    }
    lineage.wait_for_the_first_to_end().await;
}

#[tokio::test]
async fn a_request_is_finished_by_the_process_that_has_it() {
    let stage = Stage::new().await;
    let mut lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let mut held = Client::connect(lineage.listener()).await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_until("it is with the origin", DEADLINE, || {
        stage.origin.in_flight() == 1
    })
    .await;
    lineage.signal(Signal::USR2);
    lineage.wait_for("has taken over").await;
    let mut new = Client::connect(lineage.listener()).await;
    assert_eq!(new.get("/").await.status, 200);
    assert!(lineage.first.try_wait().unwrap().is_none(), "it waits");
    stage.origin.release();
    assert_eq!(held.response().await.status, 200);
    lineage.wait_for_the_first_to_end().await;
}

#[tokio::test]
async fn a_tunnel_goes_on_in_the_process_that_has_it() {
    let mut stage = Stage::new().await;
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
            .await;
        while let Some(bytes) = peer.bytes().await {
            peer.send(bytes).await;
        }
    })
    .await;
    stage.backend = origin.address();
    let text = stage.setup("").listener("upgrades = [\"chat\"]").text();
    stage.directory.replace("trimtab.toml", text);
    let mut lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let mut tunnel = Client::connect(lineage.listener()).await;
    tunnel
        .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        .await;
    assert_eq!(tunnel.head().await.unwrap().status, 101);
    lineage.signal(Signal::USR2);
    lineage.wait_for("has taken over").await;
    for word in ["one", "other"] {
        tunnel.send(word).await;
        assert_eq!(tunnel.exactly(word.len()).await, word.as_bytes());
    }
    assert!(lineage.first.try_wait().unwrap().is_none(), "it waits");
    drop(tunnel);
    lineage.wait_for_the_first_to_end().await;
}

#[tokio::test]
async fn what_was_found_last_goes_over_even_if_its_source_is_gone() {
    let stage = Stage::new().await;
    let found = format!("[\"{}\"]", stage.origin.address());
    stage.directory.replace("found.json", found);
    let setup = Setup::new()
        .with_admin()
        .top("log = { format = \"json\" }")
        .rest("[pool.main.discover]\nfile = \"found.json\"");
    stage.directory.replace("trimtab.toml", setup.text());
    let lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    assert_eq!(
        Client::connect(lineage.listener()).await.get("/").await.status,
        200
    );
    fs::remove_file(stage.directory.path().join("found.json")).unwrap();
    assert_eq!(lineage.ask_admin("POST /v1/upgrade", "").await.0, 200);
    lineage.wait_for_serving(2).await;
    lineage.wait_for("1 backends are known").await;
    for _ in 0..8 {
        assert_eq!(
            Client::connect(lineage.listener()).await.get("/").await.status,
            200
        );
    }
}

#[tokio::test]
async fn a_process_that_does_not_serve_leaves_everything_as_it_was() {
    let stage = Stage::new().await;
    let directory = stage.directory.path();
    // Where it is installed, so that something else can be installed there.
    let program = directory.join("trimtab");
    fs::copy(PROGRAM, &program).unwrap();
    let lineage = Lineage::start(&program, &stage.directory).await;
    let load = Load::start(lineage.listener(), 8);
    load.more(100).await;
    // A mistake in the file; one that only starting finds; a program that is none of ours.
    for (top, script, reason) in [
        ("drain = \"never\"", None, "drain"),
        (
            "state = { directory = \"/proc/nowhere\" }",
            None,
            "state.directory",
        ),
        ("", Some("#!/bin/sh\nexit 3\n"), "exit status: 3"),
        ("", Some("#!/nowhere/at/all\n"), "cannot start"),
    ] {
        stage.configure(top);
        if let Some(script) = script {
            let new = stage.directory.write("new", script);
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(new, &program).unwrap();
        }
        let (status, text) = lineage.ask_admin("POST /v1/upgrade", "").await;
        assert_eq!(status, 422, "{text}");
        assert!(text.contains(reason), "{text}");
        let told = lineage.ask_admin("GET /v1/upgrade", "").await.1;
        assert!(told.contains(reason), "{told}");
        load.more(100).await;
    }
    let metrics = lineage.ask_admin("GET /metrics", "").await.1;
    assert!(
        metrics.contains("trimtab_process_upgrades_failed_total 4"),
        "{metrics}"
    );
    let new = stage.directory.path().join("new");
    fs::copy(PROGRAM, &new).unwrap();
    fs::rename(new, &program).unwrap();
    assert_eq!(lineage.ask_admin("POST /v1/upgrade", "").await.0, 200);
    load.more(100).await;
    load.stop().await.expect_no_failure();
    assert_eq!(lineage.successors().len(), 1);
}

#[tokio::test]
async fn another_number_of_workers_takes_over_every_socket() {
    let stage = Stage::new().await;
    let lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let load = Load::start(lineage.listener(), 8);
    for (generation, workers) in [1, 4].into_iter().enumerate() {
        let setup = stage.setup("").workers(workers);
        stage.directory.replace("trimtab.toml", setup.text());
        let (status, text) = lineage.ask_admin("POST /v1/upgrade", "").await;
        assert_eq!(status, 200, "{text}");
        lineage.wait_for_serving(generation + 2).await;
        let served = lineage.lines("trimtab runs").pop().unwrap();
        assert!(served.contains(&format!("\"workers\":{workers}")), "{served}");
        // Each is a connection of its own, and the kernel spreads them over the sockets.
        for _ in 0..64 {
            assert_eq!(
                Client::connect(lineage.listener()).await.get("/").await.status,
                200
            );
        }
        load.more(200).await;
    }
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn what_an_operator_said_of_a_backend_outlives_the_process() {
    let stage = Stage::new().await;
    let lineage = Lineage::start(Path::new(PROGRAM), &stage.directory).await;
    let backend = format!("/v1/pools/main/backends/{}", stage.origin.address());
    let body = r#"{"drain": true, "weight": 7}"#;
    let (status, text) = lineage.ask_admin(&format!("PATCH {backend}"), body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(lineage.ask_admin("POST /v1/upgrade", "").await.0, 200);
    lineage.wait_for_serving(2).await;
    let pool = lineage.ask_admin("GET /v1/pools/main", "").await.1;
    assert!(
        pool.contains("\"draining\"") && pool.contains("\"weight\": 7"),
        "{pool}"
    );
}

#[tokio::test]
async fn a_stop_ends_the_process_that_has_not_taken_over_yet() {
    let stage = Stage::new().await;
    let program = stage.directory.path().join("trimtab");
    fs::copy(PROGRAM, &program).unwrap();
    let mut lineage = Lineage::start(&program, &stage.directory).await;
    let pid_file = stage.directory.path().join("pid");
    let script = format!(
        "#!/bin/sh\necho $$ >{0}.new && mv {0}.new {0}\nexec cat\n",
        pid_file.display()
    );
    let new = stage.directory.write("new", script);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, &program).unwrap();
    lineage.signal(Signal::USR2);
    wait_until("it has begun", DEADLINE, || pid_file.exists()).await;
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    lineage.signal(Signal::TERM);
    lineage.wait_for_the_first_to_end().await;
    wait_until("it is gone", DEADLINE, || test_kill_process(pid).is_err()).await;
}

/// What the service manager heard next.
fn hear(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 200];
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[tokio::test]
async fn the_service_manager_opens_the_sockets_and_is_told() {
    let stage = Stage::new().await;
    let path = stage.directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = stage.setup("").text();
    let text = text.replacen(
        "name = \"main\"\nlisten = \"127.0.0.1:0\"",
        &format!("name = \"main\"\nlisten = \"{address}\""),
        1,
    );
    stage.directory.replace("trimtab.toml", text);
    // As a service manager does it: the first descriptor that is none of the usual ones.
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" run \"$1\"")
        .arg(PROGRAM)
        .arg(stage.directory.path().join("trimtab.toml"))
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    // A connection that came before the process waits for it.
    let mut early = Client::connect(address).await;
    let mut lineage = Lineage::of(command).await;
    assert_eq!(early.get("/").await.status, 200);
    assert_eq!(lineage.listener(), address);
    assert_eq!(hear(&manager), "READY=1");
    lineage.signal(Signal::HUP);
    let reloading = hear(&manager);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(hear(&manager), "READY=1");
    lineage.signal(Signal::USR2);
    lineage.wait_for("has taken over").await;
    assert_eq!(hear(&manager), format!("MAINPID={}", lineage.current()));
    assert_eq!(hear(&manager), "READY=1");
    drop(early);
    lineage.wait_for_the_first_to_end().await;
    assert_eq!(Client::connect(address).await.get("/").await.status, 200);
    lineage.signal(Signal::TERM);
    assert_eq!(hear(&manager), "STOPPING=1");
    let last = lineage.current();
    within("the end", DEADLINE, async {
        wait_until("it is gone", DEADLINE, || test_kill_process(last).is_err()).await;
    })
    .await;
}
