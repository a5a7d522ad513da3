//! The floor over many backends: each request of a connection goes to another backend, over a connection that is kept there.
//!
//! What that costs by itself, every balancer pays that does not keep to one backend: as many sockets as there are backends take
//! turns, and few of them are in the processor's caches. No byte is looked at: what a client sends after it was answered is its
//! next request.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use rustix::event::{PollFd, PollFlags};

use super::{LISTENER, PIECE, Place, Poll, would_block};

struct Client {
    stream: TcpStream,
    /// Who answers it.
    backend: Option<usize>,
    is_answered: bool,
}

struct Backend {
    stream: TcpStream,
    /// Which one it is a connection to.
    number: usize,
    client: Option<usize>,
}

/// Tokens are places in these, and the lowest bit tells which one it is.
struct Spread {
    poll: Poll,
    place: Place,
    clients: Vec<Option<Client>>,
    backends: Vec<Option<Backend>>,
    /// Connections to each backend that nobody uses.
    spare: Vec<Vec<usize>>,
    turn: usize,
    piece: Vec<u8>,
}

pub(super) fn run(place: Place, listener: &TcpListener) -> io::Result<()> {
    let poll = Poll::new()?;
    poll.add(listener, LISTENER, false)?;
    let mut spread = Spread {
        poll,
        place,
        clients: Vec::new(),
        backends: Vec::new(),
        spare: vec![Vec::new(); place.count.into()],
        turn: 0,
        piece: vec![0; PIECE],
    };
    let mut ready = Vec::new();
    loop {
        spread.poll.wait(None, &mut ready)?;
        for event in ready.drain(..) {
            match (event.token, event.token >> 1) {
                (LISTENER, _) => {
                    if let Ok((stream, _)) = listener.accept() {
                        spread.admit(stream)?;
                    }
                }
                (token, at) if token & 1 == 0 => spread.hear_client(at),
                (_, at) => spread.hear_backend(at),
            }
        }
    }
}

impl Spread {
    fn admit(&mut self, stream: TcpStream) -> io::Result<()> {
        prepare(&stream)?;
        let at = vacant(&mut self.clients);
        self.poll.add(&stream, at << 1, false)?;
        self.clients[at] = Some(Client {
            stream,
            backend: None,
            is_answered: false,
        });
        Ok(())
    }

    /// A connection to the backend whose turn it is.
    fn take(&mut self) -> io::Result<usize> {
        let number = self.turn;
        self.turn = (self.turn + 1) % self.spare.len();
        if let Some(spare) = self.spare[number].pop() {
            return Ok(spare);
        }
        let port = self.place.backends + number as u16;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        prepare(&stream)?;
        let at = vacant(&mut self.backends);
        self.poll.add(&stream, at << 1 | 1, false)?;
        self.backends[at] = Some(Backend {
            stream,
            number,
            client: None,
        });
        Ok(at)
    }

    fn give_back(&mut self, at: usize) {
        if let Some(backend) = &mut self.backends[at] {
            backend.client = None;
            self.spare[backend.number].push(at);
        }
    }

    fn hear_client(&mut self, at: usize) {
        // It may have ended earlier in this batch of events.
        let Some(client) = &mut self.clients[at] else {
            return;
        };
        if std::mem::take(&mut client.is_answered)
            && let Some(backend) = client.backend.take()
        {
            self.give_back(backend);
        }
        match self.pass_on(at) {
            Ok(()) => {}
            Err(error) if would_block(&error) => {}
            Err(_) => self.end(at),
        }
    }

    fn pass_on(&mut self, at: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[at] else {
            return Ok(());
        };
        let read = some(client.stream.read(&mut self.piece)?)?;
        let backend = match client.backend {
            Some(backend) => backend,
            None => self.take()?,
        };
        if let (Some(client), Some(to)) = (&mut self.clients[at], &mut self.backends[backend]) {
            (client.backend, to.client) = (Some(backend), Some(at));
            write_all(&mut to.stream, &self.piece[..read])?;
        }
        Ok(())
    }

    fn hear_backend(&mut self, at: usize) {
        let Some(backend) = &mut self.backends[at] else {
            return;
        };
        let read = match backend.stream.read(&mut self.piece).and_then(some) {
            Err(error) if would_block(&error) => return,
            read => read,
        };
        let client = backend.client.and_then(|client| self.clients[client].as_mut());
        let (Ok(read), Some(client)) = (read, client) else {
            return self.lose(at);
        };
        client.is_answered = true;
        if write_all(&mut client.stream, &self.piece[..read]).is_err() {
            self.lose(at);
        }
    }

    /// A client has gone, and what it waits for goes with it.
    fn end(&mut self, at: usize) {
        if let Some(backend) = self.clients[at].take().and_then(|client| client.backend) {
            self.backends[backend] = None;
        }
    }

    /// A connection to a backend has ended, and with it the client's that it is for.
    fn lose(&mut self, at: usize) {
        let Some(lost) = self.backends[at].take() else {
            return;
        };
        match lost.client {
            Some(client) => self.clients[client] = None,
            None => self.spare[lost.number].retain(|&spare| spare != at),
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

fn vacant<T>(places: &mut Vec<Option<T>>) -> usize {
    places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    })
}

fn some(read: usize) -> io::Result<usize> {
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// Everybody else waits as well, which small requests never come to.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if would_block(&error) => {
                rustix::event::poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
