//! Elements of an nftables set, set and cleared by one transaction each.
//!
//! Owns the bytes of `NETLINK_NETFILTER`, as far as two kinds of messages need them. Starting a program for each renewal
//! would cost 17 ms of CPU; this costs some microseconds.
//!
//! Source: Linux, `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`; an element that exists keeps its timeout when it is added
//! again, so a renewal adds, deletes and adds: the first makes sure that there is something to delete.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::NETFILTER, recv, send, socket_with,
};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const FAMILY_NETDEV: u8 = 5;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const NO_ENTRY: i32 = 2;

#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the element live for so long from now on.
    pub(super) fn set(&mut self, table: &str, set: &str, key: u32, within: Duration) -> io::Result<()> {
        let element = Element { table, set, key };
        self.commit(&[
            (NEW_ELEMENT, CREATE, element.body(Some(within))),
            (DELETE_ELEMENT, 0, element.body(None)),
            (NEW_ELEMENT, CREATE, element.body(Some(within))),
        ])
    }

    /// Has it live no longer.
    pub(super) fn clear(&mut self, table: &str, set: &str, key: u32) -> io::Result<()> {
        let element = Element { table, set, key };
        match self.commit(&[(DELETE_ELEMENT, 0, element.body(None))]) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(NO_ENTRY) => Ok(()),
            result => result,
        }
    }

    /// All of it, or nothing.
    fn commit(&mut self, messages: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
        let mut batch = Vec::with_capacity(512);
        self.put(&mut batch, (BATCH_BEGIN, REQUEST), &header(0, SUBSYSTEM));
        for (at, (kind, flags, body)) in messages.iter().enumerate() {
            // The last one's answer is the whole transaction's; errors are told in any case.
            let ack = if at + 1 == messages.len() { ACK } else { 0 };
            self.put(&mut batch, (*kind, REQUEST | flags | ack), body);
        }
        self.put(&mut batch, (BATCH_END, REQUEST), &header(0, SUBSYSTEM));
        send(&self.socket, &batch, SendFlags::empty())?;
        self.answer()
    }

    fn put(&mut self, batch: &mut Vec<u8>, (kind, flags): (u16, u16), body: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        batch.extend((16 + body.len() as u32).to_ne_bytes());
        batch.extend(kind.to_ne_bytes());
        batch.extend(flags.to_ne_bytes());
        batch.extend(self.sequence.to_ne_bytes());
        batch.extend(0u32.to_ne_bytes());
        batch.extend(body);
    }

    /// The kernel has answered before `send` returns. The first error counts.
    fn answer(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut result = Ok(());
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return result,
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..length];
            while let Some((code, after)) = next_error(rest) {
                if code != 0 && result.is_ok() {
                    result = Err(io::Error::from_raw_os_error(-code));
                }
                rest = after;
            }
        }
    }
}

/// The code of the next message that is an error, 0 for a good end or another message; and what is behind it.
fn next_error(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let code = match kind {
        ERROR => i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?),
        _ => 0,
    };
    let end = length.max(16).next_multiple_of(4).min(bytes.len());
    Some((code, &bytes[end..]))
}

/// `nfgenmsg`.
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

struct Element<'a> {
    table: &'a str,
    set: &'a str,
    key: u32,
}

impl Element<'_> {
    fn body(&self, within: Option<Duration>) -> Vec<u8> {
        const TABLE: u16 = 1;
        const SET: u16 = 2;
        const ELEMENTS: u16 = 3;
        const ITEM: u16 = 1;
        const KEY: u16 = 1;
        const VALUE: u16 = 1;
        const TIMEOUT: u16 = 4;
        let value = attribute(VALUE, &self.key.to_ne_bytes());
        let mut item = attribute(KEY | NESTED, &value);
        if let Some(within) = within {
            item.extend(attribute(TIMEOUT, &(within.as_millis() as u64).to_be_bytes()));
        }
        let items = attribute(ITEM | NESTED, &item);
        let mut body = header(FAMILY_NETDEV, 0);
        body.extend(attribute(TABLE, &text(self.table)));
        body.extend(attribute(SET, &text(self.set)));
        body.extend(attribute(ELEMENTS | NESTED, &items));
        body
    }
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
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
        let bytes = attribute(2, b"open\0");
        assert_eq!(bytes.len(), 12);
        assert_eq!(u16::from_ne_bytes([bytes[0], bytes[1]]), 9);
        assert_eq!(&bytes[4..], b"open\0\0\0\0");
    }

    #[test]
    fn the_first_error_is_found_whatever_bytes_come() {
        let mut message = Vec::new();
        message.extend(20u32.to_ne_bytes());
        message.extend(ERROR.to_ne_bytes());
        message.resize(16, 0);
        message.extend((-1i32).to_ne_bytes());
        assert_eq!(next_error(&message).unwrap().0, -1);
        for length in 0..message.len() {
            let _ = next_error(&message[..length]);
        }
        assert!(next_error(&[0; 20]).unwrap().1.len() < 20, "it goes on");
    }
}
