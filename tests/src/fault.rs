//! One bad backend of three, in five ways, and what clients see of it.
//!
//! Backends are processes of their own here, since one that is frozen or killed takes everything in it along. Owns the
//! faults, the load and its figures. It must not judge them.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{Client, DEADLINE, Port, Setup, within};

/// How a backend can be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends, and its connections with it.
    Killed,
    /// The process is there, its sockets too, and nothing moves.
    Frozen,
    /// Each answer is a 503.
    Unavailable,
    /// Each answer takes two seconds longer.
    Slow,
    /// Connections are refused, those that were there too.
    Refusing,
}

/// All of them.
pub const FAULTS: [Fault; 5] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Unavailable,
    Fault::Slow,
    Fault::Refusing,
];

/// How long each part of a measurement takes. Longer than anything that is slow here.
const PART: Duration = Duration::from_secs(4);
/// Clients, each with one connection.
const CLIENTS: usize = 16;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_secs(2);
/// A backend that has not answered until then is one of those that are slow or frozen.
const TRY_TIMEOUT: &str = "1s";

impl Fault {
    /// In a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Unavailable => "answers 503",
            Self::Slow => "answers 2 s later",
            Self::Refusing => "refuses",
        }
    }

    /// The least configuration that keeps it from clients: all else as it is by default.
    #[must_use]
    pub fn setup(self, origins: &Origins) -> Setup {
        let setup = Setup::new().backends(origins.addresses());
        match self {
            // Nobody can say after what time an answer will never come but those who know the backend.
            Self::Frozen => setup.pool(&format!("retry = {{ try_timeout = {TRY_TIMEOUT:?} }}")),
            _ => setup,
        }
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many there were.
    pub requests: usize,
    /// Not answered with 200.
    pub failed: usize,
    /// The first of those in words.
    pub failures: Vec<String>,
    latencies: Vec<Duration>,
}

impl Figures {
    /// Above [`Self::row`].
    pub const HEADER: &str =
        "one backend of three | requests | failed | p50 ms | p99 ms | max ms\n---|---|---|---|---|---";

    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        sorted
            .get(at)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }

    /// A line of a table.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        let (requests, failed) = (self.requests, self.failed);
        let (p50, p99, most) = (self.at(0.5), self.at(0.99), self.at(1.0));
        format!("{name} | {requests} | {failed} | {p50:.1} | {p99:.1} | {most:.0}")
    }

    fn add(&mut self, latency: Duration, failure: Option<String>) {
        self.requests += 1;
        self.latencies.push(latency);
        if let Some(failure) = failure {
            self.failed += 1;
            if self.failures.len() < 10 {
                self.failures.push(failure);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
        self.failures.truncate(10);
    }
}

/// Three backends, each a process.
#[derive(Debug)]
pub struct Origins(Vec<Process>);

#[derive(Debug)]
struct Process {
    child: Child,
    /// Which nobody else gets when it is killed.
    port: Port,
}

impl Origins {
    /// Starts them: the program is one whose argument `origin` calls [`serve`] with the address after it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(program: &Path) -> Self {
        let mut origins = Vec::new();
        for _ in 0..3 {
            let port = Port::new();
            let mut child = Command::new(program)
                .args(["origin", &port.address().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("a backend");
            let mut line = String::new();
            let mut output = BufReader::new(child.stdout.take().expect("its output"));
            let reading = within("a listener", DEADLINE, output.read_line(&mut line)).await;
            reading.expect("a line");
            assert_eq!(line, "listens\n");
            origins.push(Process { child, port });
        }
        Self(origins)
    }

    fn addresses(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|origin| origin.port.address().to_string())
    }

    /// Has the first one be bad from now on.
    async fn inflict(&mut self, fault: Fault) {
        let child = &mut self.0[0].child;
        let word = match fault {
            Fault::Killed => return child.kill().await.expect("it was there"),
            Fault::Frozen => {
                let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
                return kill_process(pid.expect("it is there"), Signal::STOP).expect("a signal");
            }
            Fault::Unavailable => "503\n",
            Fault::Slow => "slow\n",
            Fault::Refusing => "refuse\n",
        };
        let input = child.stdin.as_mut().expect("its input");
        input.write_all(word.as_bytes()).await.expect("it reads");
    }
}

/// What clients at this address see while all is well, and from the moment on when a backend no longer is.
pub async fn measure(address: SocketAddr, origins: &mut Origins, fault: Fault) -> (Figures, Figures) {
    let (phase, _) = watch::channel(0_usize);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(ask(address, phase.subscribe())))
        .collect();
    sleep(PART).await;
    // What begins after this may meet the fault, and counts to it.
    phase.send_replace(1);
    origins.inflict(fault).await;
    sleep(PART).await;
    phase.send_replace(2);
    let mut all = (Figures::default(), Figures::default());
    for client in clients {
        let (healthy, ill) = client.await.expect("a client");
        all.0.merge(healthy);
        all.1.merge(ill);
    }
    all
}

/// One client. A request counts to the phase in which it ends, so that one under way meets the fault, too.
async fn ask(address: SocketAddr, phase: watch::Receiver<usize>) -> (Figures, Figures) {
    let mut figures = [Figures::default(), Figures::default()];
    let mut kept = None;
    while *phase.borrow() < 2 {
        let began = Instant::now();
        let answer = async {
            let mut client: Client = match kept.take() {
                Some(client) => client,
                None => Client::try_connect(address).await?,
            };
            client.send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let response = client.try_response().await?;
            if response.field("connection") != Some("close") {
                kept = Some(client);
            }
            Ok::<_, std::io::Error>(response)
        };
        let failure = match answer.await {
            Ok(response) if response.status == 200 && response.is_complete => None,
            Ok(response) => Some(response.head),
            Err(error) => Some(error.to_string()),
        };
        let at = (*phase.borrow()).min(1);
        figures[at].add(began.elapsed(), failure);
        sleep(PAUSE).await;
    }
    let [healthy, ill] = figures;
    (healthy, ill)
}

/// A backend that can be told to be bad, by a word on its input. It says that it listens, and ends with its input.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(address: &str) -> Result<(), String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mood, _) = watch::channel(String::new());
    let mut output = tokio::io::stdout();
    let said = output.write_all(b"listens\n").await;
    said.and(output.flush().await)
        .map_err(|error| error.to_string())?;
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    let mut listening = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(listening.as_ref()) => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(answer(stream, mood.subscribe()));
                }
            }
            word = words.next_line() => match word {
                Ok(Some(word)) if word == "refuse" => {
                    // With all connections. The port is that of whoever started this, who does not listen.
                    listening = None;
                    connections.abort_all();
                }
                Ok(Some(word)) => { mood.send_replace(word); }
                _ => return Ok(()),
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn answer(mut stream: TcpStream, mood: watch::Receiver<String>) {
    let mut unread = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        unread.extend_from_slice(&buffer[..count]);
        while let Some(at) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            unread.drain(..at + 4);
            let mood = mood.borrow().clone();
            if mood == "slow" {
                sleep(SLOW).await;
            }
            let status = if mood == "503" {
                "503 Service Unavailable"
            } else {
                "200 OK"
            };
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
