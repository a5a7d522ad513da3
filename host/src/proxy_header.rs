//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//!
//! Owns the form of the header, both ways. It must not know whom to believe; `proxy/introduction.rs` does. Nothing here
//! waits: it is bytes in and a verdict out.
//!
//! Invariant: a header is taken whole and as the specification has it, or not at all. What is doubtful is wrong, since a
//! wrong address is worse than none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[cfg(test)]
mod tests;

/// Fits whatever proxies really add; the form would allow 64 KiB.
pub const BYTES_MAX: usize = 16 << 10;
/// The longest header of version 1, its end included.
const LINE_MAX: usize = 107;
const LINE_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;
/// The type of an extension that has a checksum (CRC-32C) of the whole header.
const CHECKSUM: u8 = 0x03;
const CHECKSUM_BYTES: usize = 4;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Who has opened it.
    pub source: SocketAddr,
    /// What was connected to.
    pub destination: SocketAddr,
}

/// Which form of header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a connection's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A whole header.
    Header {
        /// So many bytes of it; what follows belongs to the connection.
        len: usize,
        /// `None` if the proxy speaks for itself, as for its own checks, or says nothing that we could use.
        endpoints: Option<Endpoints>,
    },
    /// The begin of a header, which has at least so many bytes.
    Part(usize),
    /// Something else.
    Other,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Reads the begin of a connection.
///
/// # Errors
/// When it is a header and not as it should be.
pub fn read(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let begins_like = |known: &[u8]| {
        let common = known.len().min(bytes.len());
        known[..common] == bytes[..common]
    };
    if begins_like(LINE_BEGIN) {
        read_line(bytes)
    } else if begins_like(SIGNATURE) {
        read_binary(bytes)
    } else {
        Ok(Beginning::Other)
    }
}

fn read_line(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let line = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match line.len() {
            LINE_MAX.. => Err(Malformed("a line of more than 107 bytes")),
            len => Ok(Beginning::Part(len + 1)),
        };
    };
    let text = line[..end]
        .strip_suffix(b"\r")
        .and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or(Malformed("a line that does not end in CRLF, or is no text"))?;
    let mut words = text.split(' ').skip(1);
    let endpoints = match words.next() {
        // RFC or not, what follows it has no meaning.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(line_endpoints(words, |text| text.parse().ok().map(IpAddr::V4))?),
        Some("TCP6") => Some(line_endpoints(words, |text| text.parse().ok().map(IpAddr::V6))?),
        _ => return Err(Malformed("an unknown protocol")),
    };
    Ok(Beginning::Header {
        len: end + 1,
        endpoints,
    })
}

fn line_endpoints<'a>(
    mut words: impl Iterator<Item = &'a str>,
    address: impl Fn(&str) -> Option<IpAddr>,
) -> Result<Endpoints, Malformed> {
    let mut next = || words.next().unwrap_or_default();
    let (source, destination) = (address(next()), address(next()));
    let (from, to) = (port(next()), port(next()));
    match (source, destination, from, to, words.next()) {
        (Some(source), Some(destination), Some(from), Some(to), None) => Ok(Endpoints {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        }),
        _ => Err(Malformed("not two addresses and two ports")),
    }
}

/// Digits only, and no zero before others.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn read_binary(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Beginning::Part(FIXED));
    };
    let (command, kind) = (fixed[12], fixed[13]);
    if command >> 4 != 2 {
        return Err(Malformed("an unknown version"));
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let len = FIXED + length;
    if len > BYTES_MAX {
        return Err(Malformed("a header of more than 16 KiB"));
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(Beginning::Part(len));
    };
    let endpoints = match (command & 0xf, kind) {
        // The proxy itself: for its own checks, for example. And addresses of no kind.
        (0, _) | (1, 0x00) => None,
        (1, 0x11) => Some(binary_endpoints(rest, |bytes: [u8; 4]| {
            Ipv4Addr::from(bytes).into()
        })?),
        (1, 0x21) => Some(binary_endpoints(rest, |bytes: [u8; 16]| {
            Ipv6Addr::from(bytes).into()
        })?),
        // Unix sockets: two paths of 108 bytes.
        (1, 0x31) if length >= 216 => None,
        (1, _) => return Err(Malformed("an unknown family or transport, or too short for it")),
        _ => return Err(Malformed("an unknown command")),
    };
    if endpoints.is_some() {
        let addresses = if kind == 0x11 { 12 } else { 36 };
        check_extensions(&bytes[..len], FIXED + addresses)?;
    }
    Ok(Beginning::Header { len, endpoints })
}

fn binary_endpoints<const N: usize>(
    bytes: &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> Result<Endpoints, Malformed> {
    let ip = |at: usize| Some(address(bytes.get(at..at + N)?.try_into().ok()?));
    let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let end = |ip_at, port_at| Some(SocketAddr::new(ip(ip_at)?, port(port_at)?));
    match (end(0, 2 * N), end(N, 2 * N + 2)) {
        (Some(source), Some(destination)) => Ok(Endpoints { source, destination }),
        _ => Err(Malformed("too short for its addresses")),
    }
}

/// Type, length, value, again and again up to the end.
fn check_extensions(header: &[u8], begin: usize) -> Result<(), Malformed> {
    let mut at = begin;
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else {
            return Err(Malformed("an extension that is cut off"));
        };
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([*high, *low]));
        let Some(value_bytes) = header.get(value..end) else {
            return Err(Malformed("an extension that is longer than the header"));
        };
        if *kind == CHECKSUM {
            let told: [u8; CHECKSUM_BYTES] = value_bytes
                .try_into()
                .map_err(|_| Malformed("a checksum that is not of 4 bytes"))?;
            if u32::from_be_bytes(told) != checksum(header, value) {
                return Err(Malformed("a wrong checksum"));
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C of the header, with zeros in place of the checksum itself.
fn checksum(header: &[u8], at: usize) -> u32 {
    let mut state = u32::MAX;
    for (index, byte) in header.iter().enumerate() {
        let is_itself = (at..at + CHECKSUM_BYTES).contains(&index);
        state ^= if is_itself { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            state = (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
        }
    }
    !state
}

/// Writes a header; without endpoints, one that says that we speak for ourselves.
pub fn write(version: Version, endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    let endpoints = endpoints.map(of_one_family);
    match version {
        Version::V1 => write_line(endpoints, out),
        Version::V2 => write_binary(endpoints, out),
    }
}

/// A header has addresses of one family. IPv4 in the form of IPv6 is IPv4, unless the other end is not.
fn of_one_family(endpoints: Endpoints) -> Endpoints {
    let [source, destination] = [endpoints.source, endpoints.destination].map(|end| end.ip().to_canonical());
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 => v6,
    };
    let (source, destination) = if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    };
    Endpoints {
        source: SocketAddr::new(source, endpoints.source.port()),
        destination: SocketAddr::new(destination, endpoints.destination.port()),
    }
}

fn write_line(endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    let line = match endpoints {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some(Endpoints { source, destination }) => format!(
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
    };
    out.extend_from_slice(line.as_bytes());
}

fn write_binary(endpoints: Option<Endpoints>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let Some(Endpoints { source, destination }) = endpoints else {
        return out.extend_from_slice(&[0x20, 0x00, 0, 0]);
    };
    let (kind, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    out.extend_from_slice(&[0x21, kind, 0, length]);
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
