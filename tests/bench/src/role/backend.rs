//! Backends: `GET /N` is answered with N bytes, the first of which name the backend; a request's body is read and counted
//! for nothing.
//!
//! Cheap enough not to be what is measured, for one core serves them and the load.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::{Poll, listen, would_block};

const HEAD_MAX: usize = 8192;
const BODY_MAX: usize = 8 << 20;
const PIECE: usize = 65_536;

/// Where backends listen, and how they call themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) count: u16,
    /// The number of the first one.
    pub(crate) first: u16,
}

/// Which requests are answered late, and by how much.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delay {
    pub(crate) every: u64,
    pub(crate) by: Duration,
}

struct Connection {
    stream: TcpStream,
    backend: usize,
    input: Vec<u8>,
    /// Bytes of a request's body that have not come.
    owed: usize,
    head: Vec<u8>,
    body: usize,
    sent: usize,
    closes: bool,
    is_busy: bool,
}

struct Backends {
    poll: Poll,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// The number of the first one.
    first: usize,
    body: Vec<u8>,
    delay: Delay,
    requests: u64,
    late: BinaryHeap<Reverse<(Instant, usize)>>,
}

pub(crate) fn run(place: Place, delay: Delay) -> io::Result<()> {
    let Place { port, count, first } = place;
    super::raise_file_limit()?;
    let listeners: io::Result<Vec<TcpListener>> = (port..port + count).map(listen).collect();
    let mut backends = Backends {
        poll: Poll::new()?,
        listeners: listeners?,
        connections: Vec::new(),
        free: Vec::new(),
        first: usize::from(first),
        body: (0..BODY_MAX).map(|at| b'a' + (at % 23) as u8).collect(),
        delay,
        requests: 0,
        late: BinaryHeap::new(),
    };
    for (token, listener) in backends.listeners.iter().enumerate() {
        backends.poll.add(listener, token, false)?;
    }
    let mut ready = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let next = backends.late.peek();
        let timeout = next.map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
        backends.poll.wait(timeout, &mut ready)?;
        for event in ready.drain(..) {
            if event.token < backends.listeners.len() {
                backends.accept(event.token)?;
                continue;
            }
            let index = event.token - backends.listeners.len();
            if backends.go_on(index, event.read, &mut piece).is_err() {
                backends.end(index);
            }
        }
        backends.answer_late();
    }
}

impl Backends {
    fn accept(&mut self, backend: usize) -> io::Result<()> {
        while let Ok((stream, _)) = self.listeners[backend].accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poll.add(&stream, self.listeners.len() + index, false)?;
            self.connections[index] = Some(Connection {
                stream,
                backend,
                input: Vec::new(),
                owed: 0,
                head: Vec::new(),
                body: 0,
                sent: 0,
                closes: false,
                is_busy: false,
            });
        }
        Ok(())
    }

    fn end(&mut self, index: usize) {
        if self.connections[index].take().is_some() {
            self.free.push(index);
        }
    }

    fn answer_late(&mut self) {
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((_, index))) = self.late.pop() else {
                break;
            };
            if self.send(index).is_err() {
                self.end(index);
            }
        }
    }

    fn go_on(&mut self, index: usize, read: bool, piece: &mut [u8]) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        if read {
            match connection.stream.read(piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let body = connection.owed.min(count);
                    connection.owed -= body;
                    connection.input.extend_from_slice(&piece[body..count]);
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if !connection.is_busy || connection.sent == connection.head.len() + connection.body {
            return self.next(index);
        }
        let is_late = self.late.iter().any(|Reverse((_, late))| *late == index);
        if is_late || connection.owed > 0 {
            Ok(())
        } else {
            self.send(index)
        }
    }

    /// Takes the next request, if it has come.
    fn next(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        connection.is_busy = false;
        if connection.input.is_empty() {
            return Ok(());
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(&connection.input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if connection.input.len() < HEAD_MAX => return Ok(()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let size = request.path.and_then(|path| path.get(1..)?.parse().ok());
        let value = |name: &str| {
            let field = request
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name));
            field.and_then(|field| std::str::from_utf8(field.value).ok())
        };
        let owed: usize = value("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        connection.closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        connection.body = size.filter(|size| (8..=BODY_MAX).contains(size)).unwrap_or(1024) - 5;
        connection.head.clear();
        write!(
            connection.head,
            "HTTP/1.1 200 OK\r\nServer: b\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{}\r\nB{:04}",
            connection.body + 5,
            if connection.closes {
                "Connection: close\r\n"
            } else {
                ""
            },
            self.first + connection.backend
        )?;
        let here = owed.min(connection.input.len() - length);
        connection.input.drain(..length + here);
        connection.owed = owed - here;
        (connection.sent, connection.is_busy) = (0, true);
        self.requests += 1;
        if self.delay.every > 0 && self.requests.is_multiple_of(self.delay.every) {
            self.late.push(Reverse((Instant::now() + self.delay.by, index)));
            return Ok(());
        }
        if owed > here { Ok(()) } else { self.send(index) }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let token = self.listeners.len() + index;
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        let (head, total) = (connection.head.len(), connection.head.len() + connection.body);
        while connection.sent < total {
            let of_head = &connection.head[connection.sent.min(head)..];
            let of_body = &self.body[connection.sent.saturating_sub(head)..connection.body];
            match connection
                .stream
                .write_vectored(&[IoSlice::new(of_head), IoSlice::new(of_body)])
            {
                Ok(sent) => connection.sent += sent,
                Err(error) if would_block(&error) => {
                    return self.poll.change(&connection.stream, token, true, true);
                }
                Err(error) => return Err(error),
            }
        }
        if connection.body > PIECE {
            self.poll.change(&connection.stream, token, true, false)?;
        }
        if connection.closes {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.next(index)
    }
}
