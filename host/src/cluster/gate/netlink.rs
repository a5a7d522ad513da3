//! Messages to the kernel and its answers, as far as gates need them.
//!
//! Owns the bytes of netlink: headers, attributes, and the first error among the answers. What a message says is for whoever sends it
//! (`gate/table.rs`, `gate/lifetime.rs`). Starting a program for each renewal would cost 17 ms of CPU; this costs some microseconds.
//!
//! Source: Linux, `include/uapi/linux/netlink.h`.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const CREATE: u16 = 0x400;
pub(super) const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;

#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends messages together, each by its kind, its flags and its body.
    pub(super) fn send(&mut self, messages: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(512);
        for (kind, flags, body) in messages {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend((HEADER_BYTES as u32 + body.len() as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((flags | REQUEST).to_ne_bytes());
            bytes.extend(self.sequence.to_ne_bytes());
            bytes.extend(0u32.to_ne_bytes());
            bytes.extend(body);
        }
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Shows every answer's kind and body. The kernel has answered before `send` returns. The first error counts.
    pub(super) fn answers(&self, mut show: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = [0; 1 << 15];
        let mut result = Ok(());
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return result,
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = next(rest) {
                match kind {
                    ERROR => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code != 0 && result.is_ok() {
                            result = Err(io::Error::from_raw_os_error(-code));
                        }
                    }
                    kind => show(kind, body),
                }
                rest = after;
            }
        }
    }
}

/// The next message's kind and body, and what is behind it.
fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let end = length.max(HEADER_BYTES).min(bytes.len());
    let body = bytes.get(HEADER_BYTES..end)?;
    Some((kind, body, &bytes[end.next_multiple_of(4).min(bytes.len())..]))
}

/// The next attribute's kind and value, and what is behind it.
pub(super) fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u16::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let end = length.max(4).min(bytes.len());
    Some((
        kind,
        &bytes[4..end],
        &bytes[end.next_multiple_of(4).min(bytes.len())..],
    ))
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_and_their_length_is_not() {
        let bytes = [attribute(2, b"open\0"), attribute(7, &[1])].concat();
        assert_eq!(u16::from_ne_bytes([bytes[0], bytes[1]]), 9);
        assert_eq!(&bytes[4..12], b"open\0\0\0\0");
        let (kind, value, rest) = next_attribute(&bytes).unwrap();
        assert_eq!((kind, value), (2, &b"open\0"[..]));
        let (kind, value, rest) = next_attribute(rest).unwrap();
        assert_eq!((kind, value, rest.len()), (7, &[1][..], 0));
    }

    #[test]
    fn messages_are_told_apart_whatever_bytes_come() {
        let mut message = Vec::new();
        message.extend(20u32.to_ne_bytes());
        message.extend(ERROR.to_ne_bytes());
        message.resize(16, 0);
        message.extend((-1i32).to_ne_bytes());
        let (kind, body, rest) = next(&message).unwrap();
        assert_eq!((kind, body, rest.len()), (ERROR, &(-1i32).to_ne_bytes()[..], 0));
        for length in 0..message.len() {
            let _ = next(&message[..length]);
            let _ = next_attribute(&message[..length]);
        }
        assert!(next(&[0; 20]).unwrap().2.len() < 20, "it goes on");
        assert!(next_attribute(&[0; 20]).unwrap().2.len() < 20, "it goes on");
    }
}
