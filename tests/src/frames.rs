//! A client of HTTP/2 that sends exactly the frames it is given and shows those that came back.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{DEADLINE, within};

/// How a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    #![allow(missing_docs, reason = "RFC 9113, 6, has the words")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of HEADERS, DATA and CONTINUATION.
pub mod flag {
    #![allow(missing_docs, reason = "RFC 9113, 6, has the words")]
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const BOTH: u8 = 5;
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
    /// Without the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error of a RST_STREAM or a GOAWAY.
    #[must_use]
    pub fn error(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// The status of a response's HEADERS, if it is one that has a number of its own in HPACK.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.payload.first()? & 0x7f {
            8 => Some(200),
            9 => Some(204),
            12 => Some(400),
            13 => Some(404),
            14 => Some(500),
            _ => None,
        }
    }
}

/// A frame as bytes.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK has them when nothing is indexed and nothing is compressed.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An HPACK integer with a prefix of seven bits.
fn push_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The fields of an ordinary GET, with these after them.
#[must_use]
pub fn get_fields<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let pseudo = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ];
    [&pseudo[..], more].concat()
}

/// A connection of frames.
#[derive(Debug)]
pub struct Framed {
    stream: TcpStream,
}

impl Framed {
    /// Connects and begins, with empty settings.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", DEADLINE, TcpStream::connect(address)).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let mut framed = Self { stream };
        framed.send(PREFACE).await;
        framed.send(frame(kind::SETTINGS, 0, 0, &[])).await;
        framed
    }

    /// Sends all of it. True unless the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("sending", DEADLINE, self.stream.write_all(bytes.as_ref()))
            .await
            .is_ok()
    }

    /// Sends a GET on this stream.
    pub async fn get(&mut self, stream: u32, more: &[(&str, &str)]) -> bool {
        let block = block(&get_fields(more));
        self.send(frame(kind::HEADERS, flag::BOTH, stream, &block)).await
    }

    /// The next frame; `None` at the connection's end, however it ends.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        let reading = within("a frame", DEADLINE, self.stream.read_exact(&mut header));
        reading.await.ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        let reading = within("a payload", DEADLINE, self.stream.read_exact(&mut payload));
        reading.await.ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            payload,
        })
    }

    /// Reads until a frame of this kind comes; `None` if the connection ends before.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Everything up to the connection's end.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
