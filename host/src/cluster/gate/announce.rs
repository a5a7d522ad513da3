//! Telling the network where the addresses are now: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! Owns the frames (RFC 5227, 3; RFC 4861, 4.4 and 7.2.6) and the socket that sends them. They are sent after the gate is open,
//! since a closed gate drops them too.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

type Mac = [u8; 6];

const EVERYBODY: Mac = [0xff; 6];
/// ff02::1, all nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

#[derive(Debug)]
pub(super) struct Announcer {
    socket: OwnedFd,
    interface: u32,
    frames: Vec<Vec<u8>>,
}

impl Announcer {
    pub(super) fn new(interface: &str, addresses: &[IpAddr]) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("interface {interface}: {error}"));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, interface);
        let index = index.map_err(|error| named(error.into()))?;
        let mac = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).map_err(named)?;
        let mac = parse_mac(&mac).ok_or_else(|| named(io::Error::other("it has no Ethernet address")))?;
        let frame = |address: &IpAddr| match address {
            IpAddr::V4(v4) => gratuitous_arp(mac, *v4),
            IpAddr::V6(v6) => advertisement(mac, *v6),
        };
        Ok(Self {
            socket,
            interface: index,
            frames: addresses.iter().map(frame).collect(),
        })
    }

    pub(super) fn interface(&self) -> u32 {
        self.interface
    }

    pub(super) fn announce(&self) -> io::Result<()> {
        self.frames.iter().try_for_each(|frame| self.send(frame))
    }

    #[allow(
        unsafe_code,
        reason = "neither std, rustix nor socket2 sends to a link's address"
    )]
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: all zeros are a value of this struct of integers.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.interface as i32;
        // SAFETY: the kernel reads the frame and the address, which both outlive the call, in their own lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text
        .trim()
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// A request for the address by the address: all who know it learn the new place.
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, mac, ARP);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An advertisement that nobody asked for, which overrides what is known.
fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const HEADER: u8 = 58;
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(address.octets());
    // Option: the link-layer address of the target.
    message.extend([2, 1]);
    message.extend(mac);
    let length = message.len() as u16;
    let pseudo = [
        &address.octets()[..],
        &ALL_NODES.octets(),
        &[0, 0],
        &length.to_be_bytes(),
        &[0, 0, 0, HEADER],
        &message,
    ];
    let sum = checksum(&pseudo.concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([HEADER, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_arp_frame_asks_for_its_own_address() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(198, 18, 0, 100));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], EVERYBODY);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[22..28], MAC);
    }

    #[test]
    fn an_advertisement_has_a_sum_that_fits() {
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let frame = advertisement(MAC, address);
        let (header, message) = (&frame[14..54], &frame[54..]);
        assert_eq!(u16::from_be_bytes([header[4], header[5]]) as usize, message.len());
        let pseudo = [&header[8..40], &[0, 0], &header[4..6], &[0, 0, 0, 58], message].concat();
        assert_eq!(checksum(&pseudo), 0, "with its own sum it is all ones");
        assert_eq!(message[4], 0x20, "override");
    }

    #[test]
    fn an_ethernet_address_has_six_bytes() {
        assert_eq!(parse_mac("02:00:00:00:00:09\n"), Some(MAC));
        assert_eq!(parse_mac("00:00"), None);
        assert_eq!(parse_mac(""), None);
    }
}
