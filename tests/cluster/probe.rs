//! Clients that ask again and again, each time on a new connection.

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
    /// Asks at this pace; a request that takes longer than `patience` has failed.
    pub(crate) fn start(lab: &Lab, host: &str, pace: Duration, patience: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let watched = is_over.clone();
        let answered = Arc::new(AtomicUsize::new(0));
        let counted = answered.clone();
        let thread = inside(lab.space(host), move || {
            let mut samples = Vec::new();
            while !watched.load(Relaxed) {
                let begun = Instant::now();
                let by = ask(SHARED.into(), patience);
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

/// Who answers.
pub(crate) fn ask(address: IpAddr, patience: Duration) -> Option<char> {
    let address = SocketAddr::from((address, 80));
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let is_good = answer.starts_with(b"HTTP/1.1 200");
    answer.last().map(|byte| char::from(*byte)).filter(|_| is_good)
}

/// How often the address changed hands, as the judges saw it.
pub(crate) fn moves(judges: [&[Sample]; 2]) -> usize {
    let mut answered: Vec<_> = judges
        .iter()
        .flat_map(|samples| samples.iter())
        .filter(|sample| sample.by.is_some())
        .collect();
    answered.sort_by_key(|sample| sample.begun);
    let owners = answered.windows(2);
    owners.filter(|pair| pair[0].by != pair[1].by).count()
}
