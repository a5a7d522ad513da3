//! The PROXY protocol as a file may say it, and networks.
//!
//! Owns the values. It must not know how a header looks; `proxy_header.rs` at the top does.

use std::net::{IpAddr, Ipv6Addr};

/// `[listener.proxy_protocol]`: who may say on whose behalf a connection comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Key `trusted`, required: at least one.
    pub trusted: Vec<Subnet>,
    /// Key `required`: whether those have to say so. Default true.
    pub is_required: bool,
}

/// A range of addresses: `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Mapped to IPv6.
    first: u128,
    /// Of the mapped form.
    mask: u128,
}

impl Subnet {
    /// Reads one.
    ///
    /// # Errors
    /// What was expected instead.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a network, like \"10.0.0.0/8\", or an IP address".to_owned();
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| expected())?;
        let bits_max = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits_max,
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length: u32 = length.parse().map_err(|_| expected())?;
                if length > bits_max {
                    return Err(format!("expected at most {bits_max} bits after the slash"));
                }
                length
            }
            Some(_) => return Err(expected()),
        };
        let mask = u128::MAX.checked_shl(bits_max - length).unwrap_or_default();
        // The mapped form of IPv4 has its bits at the end, after 96 that are all fixed.
        let first = mapped(ip);
        if first & !mask != 0 {
            let begin = Ipv6Addr::from(first & mask).to_canonical();
            return Err(format!(
                "expected the network's first address: \"{begin}/{length}\""
            ));
        }
        Ok(Self { first, mask })
    }

    /// Whether an address is in it.
    #[inline]
    pub fn contains(&self, ip: IpAddr) -> bool {
        mapped(ip) & self.mask == self.first
    }
}

fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("10.1.2.2/31", "::ffff:10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.1.1.1", "::1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
            ("::/0", "10.0.0.1", ""),
            ("::1", "::1", "::2"),
        ] {
            let network = Subnet::parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            if !outside.is_empty() {
                assert!(
                    !network.contains(outside.parse().unwrap()),
                    "{network:?} {outside}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_the_right_one_shown() {
        for (bad, told) in [
            ("", "expected a network"),
            ("10.0.0.0/", "expected a network"),
            ("10.0.0/8", "expected a network"),
            ("10.0.0.0/+8", "expected a network"),
            ("example.test", "expected a network"),
            ("10.0.0.0/33", "at most 32 bits"),
            ("::/129", "at most 128 bits"),
            ("10.1.2.3/8", "first address: \"10.0.0.0/8\""),
            ("2001:db8::1/32", "first address: \"2001:db8::/32\""),
        ] {
            let message = Subnet::parse(bad).unwrap_err();
            assert!(message.contains(told), "{bad}: {message}");
        }
    }
}
