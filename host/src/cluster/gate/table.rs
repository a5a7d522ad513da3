//! An nftables table that lets packets of the addresses pass while an element of a set lives, and no longer.
//!
//! Owns one table for each cluster. It is made when the node starts, closed: until then and after a crash nothing passes, and an
//! element that this process cannot renew goes away by itself. What the table says is for the program `nft`, once; each renewal is a
//! message to the kernel. Whatever flushes the machine's tables (`nft flush ruleset`, as a reload of Debian's nftables.service
//! does) takes this one along, and nothing would hold packets back: so it is looked for again and again, and made anew.
//!
//! Source: Linux, `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`; an element that exists keeps its timeout when it is added
//! again, so a renewal adds, deletes and adds: the first makes sure that there is something to delete.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::net::netlink::NETFILTER;

use super::{
    super::boot_us,
    netlink::{ACK, CREATE, NESTED, Netlink, attribute},
};

/// An element that took longer to set than this may live too long.
const SET_WITHIN_US: u64 = 5_000;
/// New connections are turned away for so long at most before the gate is closed. Their clients try again after a second.
const QUIET_MAX: Duration = Duration::from_secs(2);

const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const FAMILY_NETDEV: u8 = 5;
const NO_ENTRY: i32 = 2;

/// Where packets pass, and where new connections are turned away.
const OPEN: &str = "open";
const QUIET: &str = "quiet";

#[derive(Debug)]
pub(super) struct Table {
    name: String,
    /// What it says, for `nft`.
    rules: String,
    interface: u32,
    netlink: Netlink,
    /// Until when it was opened last.
    until_us: u64,
}

impl Table {
    /// Makes the table, closed.
    ///
    /// # Errors
    /// Without the program `nft`, the right to use it, or a kernel that can (5.16).
    pub(super) fn new(
        cluster: &str,
        (interface, index): (&str, u32),
        addresses: &[IpAddr],
    ) -> io::Result<Self> {
        let name = table_name(cluster);
        let rules = rules(&name, interface, addresses);
        run_nft(Nft::Change, &rules)?;
        Ok(Self {
            name,
            rules,
            interface: index,
            netlink: Netlink::open(Some(NETFILTER))?,
            until_us: 0,
        })
    }

    /// Whether it could be made.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub(super) fn check(cluster: &str, (interface, _): (&str, u32), addresses: &[IpAddr]) -> io::Result<()> {
        run_nft(Nft::Check, &rules(&table_name(cluster), interface, addresses))
    }

    /// Makes it again if somebody has taken it away, as open as it was.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        if !self.is_there()? {
            self.make_again()?;
            self.open(self.until_us)?;
        }
        Ok(())
    }

    fn make_again(&self) -> io::Result<()> {
        tracing::error!(
            table = self.name,
            "somebody has taken the table of the kernel's gate away (nft flush ruleset?); it is made again"
        );
        run_nft(Nft::Change, &self.rules)
    }

    fn is_there(&mut self) -> io::Result<bool> {
        const NAME: u16 = 1;
        let mut body = header(FAMILY_NETDEV, 0);
        body.extend(attribute(NAME, &text(&self.name)));
        self.netlink.send(&[(GET_TABLE, 0, body)])?;
        match self.netlink.answers(|_, _| {}) {
            Err(error) if error.raw_os_error() == Some(NO_ENTRY) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    /// Opens it, or keeps it open, until then. False if there is too little time left.
    pub(super) fn open(&mut self, until_us: u64) -> io::Result<bool> {
        let before_us = boot_us();
        self.until_us = until_us;
        // The kernel counts whole milliseconds; less is safe.
        let within_ms = until_us.saturating_sub(before_us) / 1_000;
        if within_ms == 0 {
            return Ok(false);
        }
        let within = Duration::from_millis(within_ms);
        match self.set(OPEN, within) {
            Err(error) if error.raw_os_error() == Some(NO_ENTRY) => {
                self.make_again()?;
                self.set(OPEN, within)?;
            }
            result => result?,
        }
        if boot_us() > before_us + SET_WITHIN_US {
            // Held up in between: what is left of the time is less than what the kernel was told.
            self.until_us = 0;
            self.clear(OPEN)?;
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn close(&mut self) -> io::Result<()> {
        self.until_us = 0;
        self.clear(OPEN)?;
        self.clear(QUIET)
    }

    /// Turns new connections away for a while; those that are there go on.
    pub(super) fn hush(&mut self) -> io::Result<()> {
        self.set(QUIET, QUIET_MAX)
    }

    /// Has the element live for so long from now on.
    fn set(&mut self, set: &str, within: Duration) -> io::Result<()> {
        let element = self.element(set);
        let messages = [
            (NEW_ELEMENT, CREATE, element.body(Some(within))),
            (DELETE_ELEMENT, 0, element.body(None)),
            (NEW_ELEMENT, CREATE | ACK, element.body(Some(within))),
        ];
        self.commit(messages.into())
    }

    /// Has it live no longer.
    fn clear(&mut self, set: &str) -> io::Result<()> {
        let body = self.element(set).body(None);
        match self.commit([(DELETE_ELEMENT, ACK, body)].into()) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(NO_ENTRY) => Ok(()),
            result => result,
        }
    }

    fn element<'a>(&'a self, set: &'a str) -> Element<'a> {
        Element {
            table: &self.name,
            set,
            key: self.interface,
        }
    }

    /// All of it, or nothing. The last one's answer is the whole transaction's; errors are told in any case.
    fn commit(&mut self, mut messages: Vec<(u16, u16, Vec<u8>)>) -> io::Result<()> {
        messages.insert(0, (BATCH_BEGIN, 0, header(0, SUBSYSTEM)));
        messages.push((BATCH_END, 0, header(0, SUBSYSTEM)));
        self.netlink.send(&messages)?;
        self.netlink.answers(|_, _| {})
    }
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

/// Letters and digits only, whatever the cluster's name has.
fn table_name(cluster: &str) -> String {
    let sum = cluster.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("trimtab_{sum:016x}")
}

/// The table, for `nft -f`: made anew as a whole, so that an element of a process before this one is gone.
fn rules(table: &str, interface: &str, addresses: &[IpAddr]) -> String {
    let (mut inward, mut outward) = (String::new(), String::new());
    for address in addresses {
        match address {
            IpAddr::V4(v4) => {
                inward += &format!("ip daddr {v4} iif @quiet tcp flags & (syn | ack) == syn drop\n");
                inward += &format!("ip daddr {v4} iif != @open drop\narp daddr ip {v4} iif != @open drop\n");
                outward += &format!("ip saddr {v4} oif != @open drop\narp saddr ip {v4} oif != @open drop\n");
            }
            IpAddr::V6(v6) => {
                let whole: String = v6.octets().iter().map(|byte| format!("{byte:02x}")).collect();
                inward += &format!("ip6 daddr {v6} iif @quiet tcp flags & (syn | ack) == syn drop\n");
                inward += &format!(
                    "ip6 daddr {v6} iif != @open drop\n\
                     icmpv6 type nd-neighbor-solicit @th,64,128 0x{whole} iif != @open drop\n"
                );
                outward += &format!(
                    "ip6 saddr {v6} oif != @open drop\n\
                     icmpv6 type nd-neighbor-advert @th,64,128 0x{whole} oif != @open drop\n"
                );
            }
        }
    }
    let chain = |name, hook, rules: &str| {
        format!(
            "chain {name} {{\ntype filter hook {hook} device \"{interface}\" priority -500; policy accept;\n{rules}}}\n"
        )
    };
    format!(
        "table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n\
         set open {{ type iface_index; flags timeout; }}\nset quiet {{ type iface_index; flags timeout; }}\n{}{}}}\n",
        chain("inward", "ingress", &inward),
        chain("outward", "egress", &outward),
    )
}

/// What is done with rules.
#[derive(Clone, Copy)]
enum Nft {
    Change,
    /// Nothing, but everything that could be wrong is found.
    Check,
}

fn run_nft(what: Nft, rules: &str) -> io::Result<()> {
    let mut command = Command::new("nft");
    if let Nft::Check = what {
        command.arg("-c");
    }
    let child = command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| {
        io::Error::other(format!(
            "nft (package nftables): {error} (where there is no nftables, gate = \"lifetime\" does without)"
        ))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("failed");
    Err(io::Error::other(format!(
        "nft: {first} (needs CAP_NET_ADMIN and Linux 5.16; where there is no nftables, gate = \"lifetime\" does without)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_made_anew_and_has_a_rule_for_every_way_an_address_can_answer() {
        let addresses = ["198.18.0.100".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let text = rules("t", "eth0", &addresses);
        assert!(text.starts_with("table netdev t\ndelete table netdev t\ntable netdev t {"));
        for rule in [
            "ip daddr 198.18.0.100 iif != @open drop",
            "arp daddr ip 198.18.0.100 iif != @open drop",
            "ip saddr 198.18.0.100 oif != @open drop",
            "arp saddr ip 198.18.0.100 oif != @open drop",
            "ip6 daddr 2001:db8::1 iif != @open drop",
            "ip6 saddr 2001:db8::1 oif != @open drop",
            "nd-neighbor-solicit @th,64,128 0x20010db8000000000000000000000001 iif != @open drop",
            "nd-neighbor-advert @th,64,128 0x20010db8000000000000000000000001 oif != @open drop",
        ] {
            assert!(text.contains(rule), "{rule}\n{text}");
        }
    }

    #[test]
    fn a_table_is_named_after_its_cluster_in_letters_that_nft_takes() {
        assert_ne!(table_name("edge"), table_name("core"));
        assert!(
            table_name("a b; drop\n\"")
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        );
    }
}
