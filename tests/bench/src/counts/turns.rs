//! Requests in turns: one on each connection, then all answers. So every run asks the same in the same order.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Ask, CONNECTIONS};

/// A balancer under valgrind is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const HEAD_MAX: usize = 16 << 10;

/// Connections that stay, or as many new ones in each turn.
pub(super) struct Turns {
    port: u16,
    connections: Vec<TcpStream>,
    closes: bool,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Turns {
    pub(super) fn begin(port: u16, ask: Ask) -> Result<Self> {
        let method = if ask.upload > 0 { "POST" } else { "GET" };
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: lb.test\r\nX-Key: user-00001\r\n",
            ask.path
        );
        if ask.upload > 0 {
            head.push_str(&format!("Content-Length: {}\r\n", ask.upload));
        }
        if ask.close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.resize(request.len() + ask.upload, b'u');
        Ok(Self {
            port,
            connections: Vec::new(),
            closes: ask.close,
            request,
            buffer: vec![0; 256 << 10],
        })
    }

    /// So many times one request on each connection.
    pub(super) fn take(&mut self, turns: usize) -> Result<()> {
        for _ in 0..turns {
            while self.connections.len() < CONNECTIONS {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.connections.push(stream);
            }
            for connection in &mut self.connections {
                connection.write_all(&self.request)?;
            }
            for connection in &mut self.connections {
                answer(connection, &mut self.buffer)?;
            }
            if self.closes {
                for mut connection in self.connections.drain(..) {
                    let rest = connection.read(&mut self.buffer)?;
                    ensure!(rest == 0, "the balancer says more than the answer");
                }
            }
        }
        Ok(())
    }
}

/// Reads one answer, which has to be a good one.
fn answer(connection: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    let (mut left, length) = loop {
        let read = connection.read(&mut buffer[filled..HEAD_MAX])?;
        ensure!(read > 0, "the balancer ended a connection");
        filled += read;
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = response.parse(&buffer[..filled])? else {
            ensure!(filled < HEAD_MAX, "an answer's head does not end");
            continue;
        };
        ensure!(
            response.code == Some(200),
            "the balancer answered {:?}",
            response.code
        );
        let field = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let size: usize = std::str::from_utf8(field.context("an answer without a length")?.value)?.parse()?;
        break (size, length);
    };
    left -= filled - length;
    while left > 0 {
        let end = left.min(buffer.len());
        let read = connection.read(&mut buffer[..end])?;
        ensure!(read > 0, "the balancer ended an answer");
        left -= read;
    }
    Ok(())
}
