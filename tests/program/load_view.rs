//! Three nodes with very different shares of the load: how well least connections does with and without the load of the others.
//!
//! `cargo test -p trimtab --test program load_view -- --nocapture` prints the table of `host/docs/peers.md`: of another build of the program
//! if `TRIMTAB` names one, and with a line for `examples/peer-aware` if `PEER_AWARE` says where its component is.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use trimtab_tests::{Client, DEADLINE, Directory, LONG, Port, ask_admin, within};

use crate::{PROGRAM, cluster::free};

const BACKENDS: usize = 120;
/// Clients of each node: 90, 5 and 5 percent.
const CLIENTS: [usize; 3] = [90, 5, 5];
const REQUESTS_EACH: usize = 8;
/// How long a backend has one, in milliseconds: so much, and up to as much again.
const HELD_MS: u64 = 600;
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// A backend that serves one request at a time, and lets the others wait.
struct Backend {
    address: SocketAddr,
    in_flight: Arc<AtomicU64>,
    met_busy: Arc<AtomicU64>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            in_flight: Arc::default(),
            met_busy: Arc::default(),
        };
        let (in_flight, met_busy) = (backend.in_flight.clone(), backend.met_busy.clone());
        let place = Arc::new(tokio::sync::Mutex::new(()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (in_flight, met_busy, place) = (in_flight.clone(), met_busy.clone(), place.clone());
                tokio::spawn(async move { serve(stream, (&in_flight, &met_busy), &place).await });
            }
        });
        backend
    }
}

/// Answers requests of a connection until it ends.
async fn serve(
    mut stream: TcpStream,
    (in_flight, met_busy): (&AtomicU64, &AtomicU64),
    place: &tokio::sync::Mutex<()>,
) -> Option<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok()?;
            head.push(byte[0]);
        }
        head.clear();
        if in_flight.fetch_add(1, SeqCst) > 0 {
            met_busy.fetch_add(1, SeqCst);
        }
        {
            let _served = place.lock().await;
            tokio::time::sleep(Duration::from_millis(HELD_MS + any_below(HELD_MS))).await;
        }
        in_flight.fetch_sub(1, SeqCst);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .ok()?;
    }
}

/// What it is does not matter.
fn any_below(most: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) % most
}

struct Nodes {
    addresses: [SocketAddr; 3],
    admins: [SocketAddr; 3],
    processes: Vec<Child>,
    _directory: Directory,
    /// Which nobody else gets.
    _ports: [Port; 6],
}

impl Nodes {
    fn start(backends: &[Backend], pool: &str) -> Self {
        let directory = Directory::new();
        directory.write("peers.key", "a secret of at least thirty-two bytes\n");
        let ports = [(); 6].map(|()| Port::new());
        let [a, b, c, x, y, z] = ports.each_ref().map(Port::address);
        let (addresses, admins, peers) = ([a, b, c], [x, y, z], free::<3>());
        let listed: Vec<String> = backends
            .iter()
            .map(|backend| backend.address.to_string())
            .collect();
        let start = |node: usize| {
            let file = directory.write(
                &format!("{node}.toml"),
                format!(
                    "workers = 1\nadmin = {{ listen = \"{}\" }}\n[[listener]]\nlisten = \"{}\"\n[pool.main]\n\
                     backends = {listed:?}\n{pool}\n[peers]\nlisten = \"{}\"\n\
                     key_file = \"peers.key\"\ninterval = \"20ms\"\nothers = {:?}\n",
                    admins[node],
                    addresses[node],
                    peers[node],
                    peers.map(|peer| peer.to_string()),
                ),
            );
            let mut command = Command::new(std::env::var_os("TRIMTAB").unwrap_or(PROGRAM.into()));
            command
                .arg("run")
                .arg(file)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().unwrap()
        };
        Self {
            processes: (0..3).map(start).collect(),
            addresses,
            admins,
            _directory: directory,
            _ports: ports,
        }
    }

    /// Until each serves and has heard the two others.
    async fn ready(&self) {
        for admin in self.admins {
            let is_ready = async {
                loop {
                    if Client::try_connect(admin).await.is_ok() {
                        let told = ask_admin(admin, "/v1/peers").await.text();
                        if told.matches("\"fresh\":true").count() + told.matches("\"fresh\": true").count()
                            == 2
                        {
                            return;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            };
            within("three nodes that have heard each other", DEADLINE, is_ready).await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What a run came to.
struct Run {
    requests: usize,
    met_busy: u64,
    /// Of the most loaded backend over all backends' mean, averaged over time.
    skew: f64,
    latencies: Vec<Duration>,
}

impl Run {
    fn percentile(&self, percent: usize) -> u128 {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)].as_millis()
    }

    fn line(&self, name: &str) -> String {
        format!(
            "| {name} | {} | {} ({:.0} %) | {:.2} | {} ms | {} ms |",
            self.requests,
            self.met_busy,
            self.met_busy as f64 * 100.0 / self.requests as f64,
            self.skew,
            self.percentile(50),
            self.percentile(99),
        )
    }
}

/// With these lines in the table of the pool.
async fn run(pool: &str) -> Run {
    let mut backends = Vec::new();
    for _ in 0..BACKENDS {
        backends.push(Backend::start().await);
    }
    let nodes = Nodes::start(&backends, pool);
    nodes.ready().await;
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let mut clients = tokio::task::JoinSet::new();
    for (address, count) in nodes.addresses.into_iter().zip(CLIENTS) {
        for _ in 0..count {
            let latencies = latencies.clone();
            clients.spawn(async move {
                // Not all at once: they would never be so.
                tokio::time::sleep(Duration::from_millis(any_below(HELD_MS))).await;
                let mut client = Client::connect(address).await;
                for _ in 0..REQUESTS_EACH {
                    let began = Instant::now();
                    assert_eq!(client.get("/").await.status, 200);
                    latencies.lock().unwrap().push(began.elapsed());
                }
            });
        }
    }
    let (mut sum, mut samples) = (0.0, 0);
    let all = async {
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    Some(ended) => ended.unwrap(),
                    None => return,
                },
                () = tokio::time::sleep(SAMPLE_EVERY) => {
                    let in_flight = backends.iter().map(|backend| backend.in_flight.load(SeqCst));
                    let (total, most) = in_flight.fold((0, 0), |(total, most), one| (total + one, one.max(most)));
                    // Not while the last ones end.
                    if total as usize * 10 > CLIENTS.iter().sum::<usize>() * 9 {
                        sum += most as f64 * BACKENDS as f64 / total as f64;
                        samples += 1;
                    }
                }
            }
        }
    };
    within("all requests", LONG, all).await;
    let mut latencies = latencies.lock().unwrap().clone();
    latencies.sort_unstable();
    Run {
        requests: latencies.len(),
        met_busy: backends.iter().map(|backend| backend.met_busy.load(SeqCst)).sum(),
        skew: sum / f64::from(samples.max(1)),
        latencies,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_see_each_others_load_send_fewer_requests_to_busy_backends() {
    let blind = run("load_view = \"node\"").await;
    let seeing = run("load_view = \"cluster\"").await;
    println!("| `load_view` | requests | met a busy backend | max / mean in flight | p50 | p99 |");
    println!("|---|---|---|---|---|---|");
    println!("{}", blind.line("`node`"));
    println!("{}", seeing.line("`cluster`"));
    if let Some(component) = std::env::var_os("PEER_AWARE") {
        // Believed for about as long as a backend takes for a request.
        let policy = format!(
            "policy = \"peers\"\n[policy.peers]\ncomponent = {component:?}\nconfig = {{ believe_ms = {} }}",
            HELD_MS * 3 / 2
        );
        println!("{}", run(&policy).await.line("`cluster`, `peer-aware`"));
    }
    let expected = CLIENTS.iter().sum::<usize>() * REQUESTS_EACH;
    assert_eq!((blind.requests, seeing.requests), (expected, expected));
    assert!(
        seeing.met_busy * 3 < blind.met_busy * 2,
        "{} of {expected} met a busy backend with the view, {} without",
        seeing.met_busy,
        blind.met_busy
    );
}
