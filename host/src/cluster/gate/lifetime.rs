//! The addresses themselves, each with a valid lifetime after which the kernel takes it away. For machines without nftables.
//!
//! Owns the addresses on the interface: none while the gate is closed, and while it is open each for whole seconds, which every
//! renewal of the lease begins anew.
//!
//! Invariant: an address is gone, on the kernel's own account, when the instant that [`Lifetimes::open`] was given has come. The kernel
//! counts whole seconds and looks late, so what it is told is shorter than the lease by [`LATE`] and rounded down.
//!
//! Source: Linux, `include/uapi/linux/{rtnetlink,if_addr}.h`; `check_lifetime` in `net/ipv4/devinet.c`, `addrconf_verify_rtnl` in
//! `net/ipv6/addrconf.c`.

use std::{io, net::IpAddr, time::Duration};

use super::{
    super::boot_us,
    netlink::{ACK, CREATE, Netlink, attribute, next_attribute},
};
use crate::config::{LIFETIME_LATE as LATE, LIFETIME_UNIT as UNIT};

/// `NETLINK_ROUTE` is the number 0, which no protocol is, too.
const ROUTE: Option<rustix::net::Protocol> = None;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const REPLACE: u16 = 0x100;
const DUMP: u16 = 0x300;
/// `ifaddrmsg`.
const HEADER_BYTES: usize = 8;
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LIFETIMES: u16 = 6;
const FLAGS: u16 = 8;
/// No duplicate address detection: it would take a second, and find the old node's.
const NO_DAD: u32 = 2;
const FOR_EVER: u32 = u32::MAX;
const NO_SUCH_ADDRESS: i32 = 99;
/// Between two log lines about a lease that is too short by now.
const COMPLAINT_PAUSE_US: u64 = 30_000_000;

#[derive(Debug)]
pub(super) struct Lifetimes {
    netlink: Netlink,
    index: u32,
    addresses: Vec<IpAddr>,
    complained_us: u64,
}

impl Lifetimes {
    /// Takes what a process before this one has left. Nothing else may have the addresses.
    ///
    /// # Errors
    /// When one of them is here for good, or elsewhere, or they may not be changed.
    pub(super) fn new((interface, index): (&str, u32), addresses: &[IpAddr]) -> io::Result<Self> {
        let mut lifetimes = Self::of((interface, index), addresses)?;
        lifetimes.close().map_err(|error| {
            io::Error::other(format!("addresses of {interface}: {error} (needs CAP_NET_ADMIN)"))
        })?;
        Ok(lifetimes)
    }

    /// Whether they could be taken.
    ///
    /// # Errors
    /// As of [`Self::new`], as far as it can be seen without a change.
    pub(super) fn check(link: (&str, u32), addresses: &[IpAddr]) -> io::Result<()> {
        Self::of(link, addresses).map(drop)
    }

    fn of((interface, index): (&str, u32), addresses: &[IpAddr]) -> io::Result<Self> {
        let mut lifetimes = Self {
            netlink: Netlink::open(ROUTE)?,
            index,
            addresses: addresses.to_vec(),
            complained_us: 0,
        };
        for held in lifetimes.held()? {
            let Held { address, whole, .. } = held;
            if !whole || held.for_good || held.index != index {
                return Err(io::Error::other(format!(
                    "{address} is on this machine already; with gate = \"lifetime\" only the active node has it, on {interface} \
                     and for a limited time: take it out of the system's configuration, and away: ip address del"
                )));
            }
        }
        Ok(lifetimes)
    }

    /// Has the addresses here until then at most. False if there is too little time left for a lifetime.
    pub(super) fn open(&mut self, until_us: u64) -> io::Result<bool> {
        let seconds = seconds(Duration::from_micros(until_us.saturating_sub(boot_us())));
        if seconds == 0 {
            self.complain();
            return Ok(false);
        }
        for address in self.addresses.clone() {
            self.change(
                NEW_ADDRESS,
                CREATE | REPLACE,
                body(self.index, address, Some(seconds)),
            )?;
        }
        let ends_us = boot_us() + (UNIT * seconds + LATE).as_micros() as u64;
        if ends_us > until_us {
            // Held up in between: what is left of the time is less than what the kernel was told.
            self.close()?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Has them here no longer.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for address in self.addresses.clone() {
            match self.change(DELETE_ADDRESS, 0, body(self.index, address, None)) {
                // It went by itself.
                Err(error) if error.raw_os_error() == Some(NO_SUCH_ADDRESS) => {}
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
        }
        result
    }

    fn change(&mut self, kind: u16, flags: u16, body: Vec<u8>) -> io::Result<()> {
        self.netlink.send(&[(kind, flags | ACK, body)])?;
        self.netlink.answers(|_, _| {})
    }

    /// Where the addresses are on this machine.
    fn held(&mut self) -> io::Result<Vec<Held>> {
        let everything = vec![0; HEADER_BYTES];
        self.netlink.send(&[(GET_ADDRESS, DUMP, everything)])?;
        let mut held = Vec::new();
        self.netlink.answers(|kind, body| {
            if kind == NEW_ADDRESS {
                held.extend(Held::read(body));
            }
        })?;
        held.retain(|held| self.addresses.contains(&held.address));
        Ok(held)
    }

    fn complain(&mut self) {
        let now_us = boot_us();
        if self.complained_us == 0 || now_us >= self.complained_us + COMPLAINT_PAUSE_US {
            self.complained_us = now_us;
            tracing::warn!(
                "the other members' answers take so long that what is left of the lease is too short for an address's lifetime: \
                 a longer lease is needed"
            );
        }
    }
}

/// Whole seconds that an address may be told to live if it has to be gone after so long.
fn seconds(within: Duration) -> u32 {
    let left = within.saturating_sub(LATE).as_secs();
    // For ever would be no lifetime.
    u32::try_from(left).unwrap_or(FOR_EVER).min(FOR_EVER - 1)
}

/// An address of this machine.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    address: IpAddr,
    index: u32,
    /// Its prefix is the address and nothing else.
    whole: bool,
    for_good: bool,
}

impl Held {
    fn read(body: &[u8]) -> Option<Self> {
        let (header, mut rest) = body.split_first_chunk::<HEADER_BYTES>()?;
        let (mut address, mut local, mut valid) = (None, None, FOR_EVER);
        while let Some((kind, value, after)) = next_attribute(rest) {
            match kind {
                ADDRESS => address = read_address(value),
                LOCAL => local = read_address(value),
                // Preferred, then valid.
                LIFETIMES => valid = u32::from_ne_bytes(value.get(4..8)?.try_into().ok()?),
                _ => {}
            }
            rest = after;
        }
        // Of a point-to-point link, the other end is the address.
        let address = local.or(address)?;
        Some(Self {
            address,
            index: u32::from_ne_bytes(*header.last_chunk()?),
            whole: header[1] == whole(address),
            for_good: valid == FOR_EVER,
        })
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

/// The length of a prefix that is one address.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// What says which address is meant, and how long it is to live from now on.
fn body(index: u32, address: IpAddr, seconds: Option<u32>) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (FAMILY_V4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (FAMILY_V6, v6.octets().to_vec()),
    };
    // Flags are an attribute of their own, and the scope is the universe.
    let mut body = vec![family, whole(address), 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(LOCAL, &bytes));
    body.extend(attribute(ADDRESS, &bytes));
    let Some(seconds) = seconds else { return body };
    body.extend(attribute(FLAGS, &NO_DAD.to_ne_bytes()));
    // Preferred for none: connections that begin here have the node's own address. A preferred lifetime without end would have the
    // kernel look at the valid one every two minutes only.
    let lifetimes = [0u32, seconds, 0, 0].map(u32::to_ne_bytes).concat();
    body.extend(attribute(LIFETIMES, &lifetimes));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_gone_before_the_lease_is_over() {
        for ms in 0..10_000 {
            let within = Duration::from_millis(ms);
            let seconds = seconds(within);
            assert!(
                seconds == 0 || UNIT * seconds + LATE <= within,
                "{ms} ms: {seconds}"
            );
        }
        assert_eq!(seconds(Duration::from_millis(2249)), 0);
        assert_eq!(seconds(Duration::from_millis(2250)), 1);
        assert_eq!(seconds(Duration::from_millis(3250)), 2);
        assert_ne!(seconds(Duration::MAX), FOR_EVER);
    }

    #[test]
    fn what_is_told_reads_as_it_was_meant() {
        for (text, length) in [("198.18.0.100", 32), ("2001:db8::1", 128)] {
            let address = text.parse().unwrap();
            let told = body(7, address, Some(2));
            assert_eq!(told[1], length);
            let expected = Held {
                address,
                index: 7,
                whole: true,
                for_good: false,
            };
            assert_eq!(Held::read(&told), Some(expected));
            for end in 0..told.len() {
                let _ = Held::read(&told[..end]);
            }
        }
    }

    #[test]
    fn an_address_without_a_lifetime_is_for_good() {
        let held = Held::read(&body(7, "198.18.0.100".parse().unwrap(), None)).unwrap();
        assert!(held.for_good);
    }
}
