//! The same over HTTP/2: eight requests at once on each of eight connections, then all answers.
//!
//! Owns what little of frames and fields that takes (RFC 9113, RFC 7541 without its table), so that a turn has the same
//! bytes in the same order each time.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use anyhow::{Context, Result, ensure};

use super::{CONNECTIONS, turns::PATIENCE};

/// Requests at once on a connection.
const EACH: usize = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const HEADER_BYTES: usize = 9;
/// `:status: 200` as all have it in their table.
const GOOD: u8 = 0x88;

/// Connections that stay.
pub(super) struct Streams {
    connections: Vec<Connection>,
    block: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    next: u32,
    unread: Vec<u8>,
}

impl Streams {
    pub(super) fn begin(port: u16, path: &str) -> Result<Self> {
        let connections = (0..CONNECTIONS / EACH).map(|_| Connection::open(port));
        // GET, http, and three fields as they are.
        let mut block = vec![0x82, 0x86];
        for (name, value) in [(4, path), (1, "lb.test")] {
            block.push(name);
            text(&mut block, value)?;
        }
        block.push(0);
        text(&mut block, "x-key")?;
        text(&mut block, "user-00001")?;
        Ok(Self {
            connections: connections.collect::<Result<_>>()?,
            block,
        })
    }

    /// So many times eight requests on each connection.
    pub(super) fn take(&mut self, turns: usize) -> Result<()> {
        for _ in 0..turns {
            for connection in &mut self.connections {
                connection.ask(&self.block)?;
            }
            for connection in &mut self.connections {
                connection.answers()?;
            }
        }
        Ok(())
    }
}

/// A text without Huffman's code.
fn text(block: &mut Vec<u8>, text: &str) -> Result<()> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    block.push(length.context("a text that is too long")?);
    block.extend_from_slice(text.as_bytes());
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // The window of the connection is as large as one may be, so that it is never waited for.
        let window = (i32::MAX as u32 - 65_535).to_be_bytes();
        let begin = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(WINDOW_UPDATE, 0, 0, &window),
        ];
        stream.write_all(&begin.concat())?;
        Ok(Self {
            stream,
            next: 1,
            unread: Vec::new(),
        })
    }

    fn ask(&mut self, block: &[u8]) -> Result<()> {
        let mut frames = Vec::new();
        for _ in 0..EACH {
            frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, self.next, block));
            self.next += 2;
        }
        Ok(self.stream.write_all(&frames)?)
    }

    /// Reads as many answers as there were requests, all of which have to be good.
    fn answers(&mut self) -> Result<()> {
        let mut left = EACH;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let Some((kind, flags, payload)) = self.take_frame() else {
                let read = self.stream.read(&mut buffer)?;
                ensure!(read > 0, "the balancer ended a connection");
                self.unread.extend_from_slice(&buffer[..read]);
                continue;
            };
            match kind {
                HEADERS => ensure!(payload.contains(&GOOD), "the balancer's answer is not 200"),
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                DATA | SETTINGS | WINDOW_UPDATE => {}
                other => anyhow::bail!("the balancer sent a frame of kind {other}"),
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                left -= 1;
            }
        }
        Ok(())
    }

    fn take_frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let [a, b, c, kind, flags, ..] = *self.unread.get(..HEADER_BYTES)? else {
            return None;
        };
        let end = HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.unread.get(HEADER_BYTES..end)?.to_vec();
        self.unread.drain(..end);
        Some((kind, flags, payload))
    }
}
