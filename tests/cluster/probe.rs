//! Clients that ask again and again.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::lab::{Lab, SHARED, inside};

/// An answer of one node between two of the other that are no further apart than this proves that both answered: a move there and
/// back takes longer.
const TOO_QUICK: Duration = Duration::from_millis(250);

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    /// The node that answered.
    pub(crate) by: Option<char>,
}

/// A client in a namespace.
pub(crate) struct Probe {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Probe {
    /// Asks at this pace.
    pub(crate) fn start(
        lab: &Lab,
        host: &str,
        pace: Duration,
        mut ask: impl FnMut() -> Option<char> + Send + 'static,
    ) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let watched = is_over.clone();
        let answered = Arc::new(AtomicUsize::new(0));
        let counted = answered.clone();
        let thread = inside(lab.space(host), move || {
            let mut samples = Vec::new();
            while !watched.load(Relaxed) {
                let begun = Instant::now();
                let by = ask();
                counted.fetch_add(usize::from(by.is_some()), Relaxed);
                samples.push(Sample {
                    begun,
                    ended: Instant::now(),
                    by,
                });
                std::thread::park_timeout(pace.saturating_sub(begun.elapsed()));
            }
            samples
        });
        Self {
            is_over,
            answered,
            thread,
        }
    }

    /// Waits for the first answer.
    pub(crate) fn wait(&self, lab: &Lab) {
        lab.wait_until("somebody answers", |_| self.answered.load(Relaxed) > 0);
    }

    pub(crate) fn stop(self) -> Vec<Sample> {
        self.is_over.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// Each time on a new connection. A request that takes longer than `patience` has failed.
pub(crate) fn anew(patience: Duration) -> impl FnMut() -> Option<char> + Send + 'static {
    at(SHARED.into(), patience)
}

/// The same, at this address.
pub(crate) fn at(address: IpAddr, patience: Duration) -> impl FnMut() -> Option<char> + Send + 'static {
    move || ask(address, patience)
}

/// On one connection for as long as the node keeps it.
pub(crate) fn keeping(patience: Duration) -> impl FnMut() -> Option<char> + Send + 'static {
    let mut kept: Option<Kept> = None;
    move || {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Kept(connect(SHARED.into(), patience)?),
        };
        connection.send()?;
        let (by, is_kept) = connection.receive_whole()?;
        kept = is_kept.then_some(connection);
        by
    }
}

/// A connection for more than one request.
pub(crate) struct Kept(TcpStream);

impl Kept {
    pub(crate) fn open(address: IpAddr, patience: Duration) -> Self {
        Self(connect(address, patience).expect("somebody listens"))
    }

    pub(crate) fn ask(&mut self) -> Option<char> {
        self.send()?;
        self.receive()
    }

    pub(crate) fn send(&mut self) -> Option<()> {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: lab\r\n\r\n").ok()
    }

    /// Who answers.
    pub(crate) fn receive(&mut self) -> Option<char> {
        self.receive_whole()?.0
    }

    /// Who answers, if it is well; and whether the node goes on with the connection.
    fn receive_whole(&mut self) -> Option<(Option<char>, bool)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).ok()?;
            head.extend(byte);
        }
        let mut body = [0];
        self.0.read_exact(&mut body).ok()?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let by = head.starts_with("http/1.1 200").then_some(char::from(body[0]));
        Some((by, !head.contains("connection: close")))
    }
}

fn connect(address: IpAddr, patience: Duration) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Who answers.
pub(crate) fn ask(address: IpAddr, patience: Duration) -> Option<char> {
    let mut stream = connect(address, patience)?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let is_good = answer.starts_with(b"HTTP/1.1 200");
    answer.last().map(|byte| char::from(*byte)).filter(|_| is_good)
}

/// Whether nobody there says anything: no answer, and no refusal either.
pub(crate) fn is_silent(address: IpAddr, patience: Duration) -> bool {
    let connected = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), patience);
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

/// How often the address changed hands, as these saw it.
pub(crate) fn moves(seen: &[&[Sample]]) -> usize {
    let mut answered: Vec<_> = seen.iter().flat_map(|samples| answers(samples)).collect();
    answered.sort_by_key(|sample| sample.begun);
    let owners = answered.windows(2);
    owners.filter(|pair| pair[0].by != pair[1].by).count()
}

/// Answers of one node while the other answered too, as the two judges saw it.
pub(crate) fn dual(judges: [&[Sample]; 2]) -> usize {
    let within = |inner: &[Sample], outer: &[Sample]| {
        let outer: Vec<_> = answers(outer).collect();
        let is_between = |sample: &&Sample| {
            // In the order of time, so the last before and the first after stand side by side.
            let at = outer.partition_point(|other| other.ended <= sample.begun);
            let before = at.checked_sub(1).and_then(|at| outer.get(at));
            let after = outer[at..].iter().find(|other| other.begun >= sample.ended);
            before
                .zip(after)
                .is_some_and(|(before, after)| after.begun - before.ended < TOO_QUICK)
        };
        answers(inner).filter(is_between).count()
    };
    within(judges[0], judges[1]) + within(judges[1], judges[0])
}

fn answers(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(|sample| sample.by.is_some())
}
