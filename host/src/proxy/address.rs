//! A client's address as text.
//!
//! Owns the writing of IPv4, which each new connection needs and the standard library does in 1 300 instructions. It must not
//! know what the text is for.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderValue;

/// As long as an IPv4 address may be.
const V4_BYTES_MAX: usize = 15;

/// An address as header fields have it. IPv4 in IPv6 is IPv4.
pub(super) fn text(address: IpAddr) -> HeaderValue {
    let written = match address.to_canonical() {
        IpAddr::V4(address) => {
            let (bytes, len) = v4(address);
            HeaderValue::from_bytes(&bytes[..len])
        }
        IpAddr::V6(address) => HeaderValue::from_str(&address.to_string()),
    };
    written.unwrap_or(HeaderValue::from_static("unknown"))
}

fn v4(address: Ipv4Addr) -> ([u8; V4_BYTES_MAX], usize) {
    let (mut bytes, mut len) = ([b'.'; V4_BYTES_MAX], 0);
    let mut push = |byte: u8| {
        if let Some(slot) = bytes.get_mut(len) {
            *slot = byte;
        }
        len += 1;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_standard_library_does() {
        let addresses = [
            "0.0.0.0",
            "1.20.255.9",
            "10.100.99.0",
            "255.255.255.255",
            "::1",
            "2001:db8::1",
        ];
        for address in addresses {
            assert_eq!(text(address.parse().unwrap()), address);
        }
        let octets = (0..=255).map(|octet| Ipv4Addr::new(octet, 255 - octet, 7, octet));
        for address in octets {
            assert_eq!(text(address.into()), address.to_string());
        }
        assert_eq!(text("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1");
    }
}
