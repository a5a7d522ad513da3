//! A check's question and answer in HTTP/1.1, by hand.
//!
//! Owns the bytes of both. Answers are read as those of ordinary requests are, by `http1`, so a backend whose answers would
//! be refused there is not fit here. It must not know when or whom to ask.

use std::{io, ops::RangeInclusive};

use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::probe::{BODY_BYTES_MAX, Failure};
use crate::http1::{Chunks, Framing, Reply, skim_reply};

/// Of a head, and of those of interim answers before it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Read at once; a health endpoint's whole answer fits.
const READ_BYTES: usize = 4096;

/// Asks over a connection that is used for nothing else, and gives the status if it is as expected.
pub(super) async fn get<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &Request<()>,
    expected: &RangeInclusive<u16>,
) -> Result<u16, Failure> {
    stream
        .write_all(&written(request))
        .await
        .map_err(Failure::Broken)?;
    // With TLS, written is not sent.
    stream.flush().await.map_err(Failure::Broken)?;
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let (reply, body) = read_head(&mut stream, &mut bytes).await?;
    if !expected.contains(&reply.status) {
        return Err(Failure::Status {
            status: reply.status,
            expected: expected.clone(),
        });
    }
    bytes.drain(..body);
    read_body(&mut stream, reply.framing, bytes).await?;
    Ok(reply.status)
}

fn written(request: &Request<()>) -> Vec<u8> {
    let mut bytes = format!("GET {} HTTP/1.1\r\n", request.uri()).into_bytes();
    for (name, value) in request.headers() {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(piece);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The head of the answer, and where in the bytes that have come its body begins.
async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> Result<(Reply, usize), Failure> {
    let mut begin = 0;
    loop {
        while let Some(reply) = skim_reply(bytes.get(begin..).unwrap_or_default())? {
            begin += reply.len;
            // No other answer follows a change of protocols (RFC 9110, 15.2.2).
            if !reply.is_interim() || reply.status == 101 {
                return Ok((reply, begin));
            }
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(Failure::LongHead);
        }
        if read_more(stream, bytes).await? == 0 {
            return Err(ended());
        }
    }
}

/// Waits for the body, so that a backend that stops in the middle of its answer is found out.
async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    framing: Framing,
    mut bytes: Vec<u8>,
) -> Result<(), Failure> {
    let (mut chunks, mut read) = (Chunks::default(), 0);
    loop {
        let is_over = match framing {
            Framing::Chunked => {
                read += data_of(&mut chunks, &bytes)?;
                chunks.is_over()
            }
            Framing::Empty => true,
            Framing::Length(length) => {
                read += bytes.len();
                read as u64 >= length
            }
            Framing::Close => {
                read += bytes.len();
                false
            }
        };
        if is_over || read >= BODY_BYTES_MAX {
            return Ok(());
        }
        bytes.clear();
        if read_more(stream, &mut bytes).await? == 0 {
            return match framing {
                Framing::Close => Ok(()),
                _ => Err(ended()),
            };
        }
    }
}

/// How many bytes of data there are in this piece of a chunked body.
fn data_of(chunks: &mut Chunks, mut bytes: &[u8]) -> Result<usize, Failure> {
    let mut data = 0;
    loop {
        let (run, used) = chunks.next(bytes)?;
        let Some(run) = run else { return Ok(data) };
        data += run.len();
        bytes = bytes.get(used..).unwrap_or_default();
    }
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<usize, Failure> {
    bytes.reserve(READ_BYTES);
    stream.read_buf(bytes).await.map_err(Failure::Broken)
}

fn ended() -> Failure {
    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before it");
    Failure::Broken(error)
}
