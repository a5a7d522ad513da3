//! Load on a port of the loopback: closed loop (each connection asks again as soon as it is answered), or open loop
//! (requests fall due by a Poisson process, and latency counts from when a request was due, so that a balancer that
//! stops for a while cannot hide it: no coordinated omission).
//!
//! Owns what a request and a good answer are. What is measured of the balancer meanwhile, the driver knows: it is told the
//! window's ends by lines on standard error.

mod answer;
mod slicing;

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Poll, Ready, dial, would_block};
use answer::{Parsed, parse};
pub(crate) use slicing::Slice;
use slicing::{Slicing, histogram};

const PIECE: usize = 256 << 10;
/// Connections that are begun before the others are looked at again.
const DIALS: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
    /// Requests a second, for an open loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Several, separated by commas, are asked for at random.
    #[arg(long, default_value = "/1024")]
    pub(crate) path: String,
    /// `{key}` in it becomes the number of the request's key.
    #[arg(long, default_value = "lb.test")]
    pub(crate) host: String,
    /// Bytes of a body to send with each request.
    #[arg(long, default_value_t = 0)]
    pub(crate) upload: usize,
    /// One request a connection.
    #[arg(long)]
    pub(crate) close: bool,
    /// So many values of the header x-key.
    #[arg(long, default_value_t = 1024)]
    pub(crate) keys: usize,
    /// Ends with one request on each connection, and keeps them for so many seconds.
    #[arg(long)]
    pub(crate) hold: Option<f64>,
    /// The window consists of slices of so many seconds, for what is changed many times within it.
    #[arg(long)]
    pub(crate) slice: Option<f64>,
}

impl Order {
    /// The load of S1 on a port.
    pub(crate) fn usual(port: u16) -> Self {
        Self {
            port,
            connections: 64,
            seconds: 1.0,
            warm_up: 0.4,
            rate: None,
            path: "/1024".to_owned(),
            host: "lb.test".to_owned(),
            upload: 0,
            close: false,
            keys: 1024,
            hold: None,
            slice: None,
        }
    }
}

/// What came of it, within the window. Times in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Figures {
    pub(crate) ok: u64,
    pub(crate) not_2xx: u64,
    pub(crate) refused: u64,
    /// Connections that ended with a request outstanding.
    pub(crate) reset: u64,
    pub(crate) malformed: u64,
    /// Requests that fell due and found no connection.
    pub(crate) unsent: u64,
    pub(crate) opened: u64,
    pub(crate) alive: usize,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Answers by backend.
    pub(crate) backends: Vec<u64>,
    /// With [`Order::slice`], of each that is over.
    pub(crate) slices: Vec<Slice>,
}

impl Figures {
    pub(crate) fn failed(&self) -> u64 {
        self.not_2xx + self.refused + self.reset + self.malformed
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Idle,
    /// Sent so many bytes of the request.
    Sending(usize),
    Head,
    /// So many bytes are missing.
    Body(u64),
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    head: Vec<u8>,
    due: Instant,
    request: usize,
    status: u16,
    has_served: bool,
    /// The balancer has said that it ends with this answer.
    closes: bool,
}

struct Load {
    order: Order,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    idle: Vec<usize>,
    requests: Vec<Vec<u8>>,
    next: usize,
    figures: Figures,
    times: Histogram<u64>,
    slicing: Option<Slicing>,
    is_measuring: bool,
    served: usize,
}

/// Runs to the end of the window. `window` is told when it begins (`M`), when all connections have served (`H`, with
/// [`Order::hold`]), when another slice begins (`S`, with [`Order::slice`]), and when it ends (`E`).
pub(crate) fn run(order: Order, mut window: impl FnMut(char)) -> io::Result<Figures> {
    super::raise_file_limit()?;
    let start = Instant::now();
    let begin = start + Duration::from_secs_f64(order.warm_up);
    let mut load = Load {
        poll: Poll::new()?,
        connections: (0..order.connections).map(|_| None).collect(),
        idle: Vec::new(),
        requests: requests(&order),
        next: 0,
        figures: Figures::default(),
        times: histogram()?,
        slicing: Slicing::new(&order, begin)?,
        is_measuring: false,
        served: 0,
        order,
    };
    let mut end = begin + Duration::from_secs_f64(load.order.seconds);
    let mut since = begin;
    let mut random = fastrand::Rng::with_seed(1);
    let mut due = start;
    let (mut ready, mut piece, mut is_held) = (Vec::new(), vec![0; PIECE], false);
    loop {
        let now = Instant::now();
        if !load.is_measuring && now >= begin {
            load.is_measuring = true;
            load.figures = Figures::default();
            load.times.reset();
            since = now;
            window('M');
        }
        if let Some(slice) = load.slicing.as_mut().and_then(|slicing| slicing.turn(now)) {
            load.figures.slices.push(slice);
            window('S');
        }
        if now >= end {
            break;
        }
        load.dial_again();
        let mut wake = if load.is_measuring { end } else { begin };
        if let Some(rate) = load.order.rate {
            while due <= now && load.start_due(due) {
                due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            }
            if !load.idle.is_empty() {
                wake = wake.min(due);
            }
        }
        let wait = wake
            .saturating_duration_since(Instant::now())
            .min(Duration::from_millis(5));
        load.poll.wait(Some(wait), &mut ready)?;
        for event in ready.drain(..) {
            load.serve(event, &mut piece);
        }
        if load.order.hold.is_some() && !is_held && load.served == load.order.connections {
            is_held = true;
            end = Instant::now() + Duration::from_secs_f64(load.order.hold.unwrap_or_default());
            window('H');
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    window('E');
    // Requests that are due and have no connection. With an idle one they were due in this last turn only.
    if load.idle.is_empty() {
        let late = Instant::now().saturating_duration_since(due).as_secs_f64();
        load.figures.unsent = (load.order.rate.unwrap_or_default() * late) as u64;
    }
    Ok(load.figures(seconds))
}

fn requests(order: &Order) -> Vec<Vec<u8>> {
    let method = if order.upload > 0 { "POST" } else { "GET" };
    let paths: Vec<&str> = order.path.split(',').collect();
    // In turn, a size would meet the same backends again and again.
    let mut random = fastrand::Rng::with_seed(2);
    (0..order.keys.max(1))
        .map(|key| {
            let path = paths[random.usize(..paths.len())];
            let host = order.host.replace("{key}", &key.to_string());
            let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Key: user-{key:05}\r\n");
            if order.close {
                text.push_str("Connection: close\r\n");
            }
            if order.upload > 0 {
                text.push_str(&format!("Content-Length: {}\r\n", order.upload));
            }
            text.push_str("\r\n");
            let mut bytes = text.into_bytes();
            bytes.resize(bytes.len() + order.upload, b'u');
            bytes
        })
        .collect()
}

impl Load {
    fn figures(mut self, seconds: f64) -> Figures {
        let at = |quantile| self.times.value_at_quantile(quantile) as f64 / 1000.0;
        self.figures.seconds = seconds;
        self.figures.alive = self.connections.iter().flatten().count();
        self.figures.mean_us = self.times.mean() / 1000.0;
        (self.figures.p50_us, self.figures.p90_us) = (at(0.5), at(0.9));
        (self.figures.p99_us, self.figures.p999_us) = (at(0.99), at(0.999));
        self.figures.max_us = self.times.max() as f64 / 1000.0;
        self.figures
    }

    fn dial_again(&mut self) {
        if self.poll.is_full() {
            return;
        }
        let absent = (0..self.connections.len()).filter(|&index| self.connections[index].is_none());
        let absent: Vec<usize> = absent.take(DIALS).collect();
        for index in absent {
            let stream = dial(self.order.port);
            let added = stream.and_then(|stream| self.poll.add(&stream, index, true).map(|()| stream));
            let Ok(stream) = added else {
                self.figures.refused += u64::from(self.is_measuring);
                continue;
            };
            self.figures.opened += u64::from(self.is_measuring);
            self.connections[index] = Some(Connection {
                stream,
                phase: Phase::Connecting,
                head: Vec::new(),
                due: Instant::now(),
                request: 0,
                status: 0,
                has_served: false,
                closes: false,
            });
        }
    }

    /// False if no connection is free.
    fn start_due(&mut self, due: Instant) -> bool {
        while let Some(index) = self.idle.pop() {
            if self.connections[index]
                .as_ref()
                .is_some_and(|known| known.phase == Phase::Idle)
            {
                self.start(index, due);
                return true;
            }
        }
        false
    }

    fn start(&mut self, index: usize, due: Instant) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        connection.request = self.next % self.requests.len();
        connection.due = due;
        connection.phase = Phase::Sending(0);
        connection.head.clear();
        self.next += 1;
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let request = &self.requests[connection.request];
        while let Phase::Sending(sent) = connection.phase {
            match connection.stream.write(&request[sent..]) {
                Ok(more) if sent + more < request.len() => connection.phase = Phase::Sending(sent + more),
                Ok(_) => {
                    connection.phase = Phase::Head;
                    if sent > 0 {
                        drop(self.poll.change(&connection.stream, index, true, false));
                    }
                }
                Err(error) if would_block(&error) => {
                    drop(self.poll.change(&connection.stream, index, true, true));
                    return;
                }
                Err(_) => return self.fail(index),
            }
        }
    }

    /// A connection ended.
    fn fail(&mut self, index: usize) {
        let Some(connection) = self.connections[index].take() else {
            return;
        };
        if self.is_measuring {
            match connection.phase {
                Phase::Connecting => self.figures.refused += 1,
                Phase::Idle => {}
                Phase::Sending(_) | Phase::Head | Phase::Body(_) => self.figures.reset += 1,
            }
        }
    }

    fn serve(&mut self, event: Ready, piece: &mut [u8]) {
        let index = event.token;
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        if connection.phase == Phase::Connecting {
            let is_refused = !matches!(connection.stream.take_error(), Ok(None));
            if is_refused || self.poll.change(&connection.stream, index, true, false).is_err() {
                return self.fail(index);
            }
            connection.phase = Phase::Idle;
            return self.begin(index);
        }
        if event.write {
            self.send(index);
        }
        if event.read {
            self.read(index, piece);
        }
    }

    /// A connection is free.
    fn begin(&mut self, index: usize) {
        let has_served = self.connections[index]
            .as_ref()
            .is_some_and(|known| known.has_served);
        if self.order.hold.is_some() && has_served {
            return;
        }
        if self.order.rate.is_some() {
            self.idle.push(index);
        } else {
            self.start(index, Instant::now());
        }
    }

    fn read(&mut self, index: usize, piece: &mut [u8]) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let count = match connection.stream.read(piece) {
            Ok(0) => return self.fail(index),
            Ok(count) => count,
            Err(error) if would_block(&error) => return,
            Err(_) => return self.fail(index),
        };
        let missing = match connection.phase {
            Phase::Body(missing) => missing.checked_sub(count as u64),
            Phase::Head => {
                connection.head.extend_from_slice(&piece[..count]);
                match parse(&connection.head) {
                    Parsed::Partial => return,
                    Parsed::Wrong => None,
                    Parsed::Whole {
                        status,
                        missing,
                        backend,
                        closes,
                    } => {
                        (connection.status, connection.closes) = (status, closes);
                        if self.is_measuring {
                            self.figures
                                .backends
                                .resize(self.figures.backends.len().max(backend + 1), 0);
                            self.figures.backends[backend] += 1;
                        }
                        missing
                    }
                }
            }
            // An answer to nothing, or before the request has been sent.
            Phase::Connecting | Phase::Idle | Phase::Sending(_) => None,
        };
        if self.is_measuring {
            self.figures.bytes += count as u64;
        }
        match missing {
            None => {
                self.figures.malformed += u64::from(self.is_measuring);
                self.connections[index] = None;
            }
            Some(0) => self.answered(index),
            Some(missing) => connection.phase = Phase::Body(missing),
        }
    }

    fn answered(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        if self.is_measuring {
            let took = connection.due.elapsed().as_nanos() as u64;
            self.times.saturating_record(took.max(1));
            if let Some(slicing) = &mut self.slicing {
                slicing.record(connection.due, took.max(1));
            }
            if (200..300).contains(&connection.status) {
                self.figures.ok += 1;
            } else {
                self.figures.not_2xx += 1;
            }
        }
        self.served += usize::from(!connection.has_served);
        connection.has_served = true;
        connection.phase = Phase::Idle;
        if self.order.close || connection.closes {
            self.connections[index] = None;
        } else {
            self.begin(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mixed_in_no_order() {
        let order = Order {
            path: "/10,/20".to_owned(),
            host: "{key}.test".to_owned(),
            keys: 1000,
            ..Order::usual(1)
        };
        let requests = requests(&order);
        let small = |request: &Vec<u8>| request.starts_with(b"GET /10 HTTP/1.1\r\nHost: ");
        let share = requests.iter().filter(|request| small(request)).count();
        assert!((400..600).contains(&share), "{share}");
        let even = requests
            .iter()
            .step_by(2)
            .filter(|request| small(request))
            .count();
        assert!((200..300).contains(&even), "{even}");
        assert!(requests[7].ends_with(b"\r\nHost: 7.test\r\nX-Key: user-00007\r\n\r\n"));
    }
}
