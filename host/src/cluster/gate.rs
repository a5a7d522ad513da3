//! The gate that the kernel holds: packets of the moving addresses pass while an element of a set lives, and no longer.
//!
//! Owns one nftables table for each cluster. It is made when the node starts, closed: until then and after a crash nothing passes,
//! and an element that this process cannot renew goes away by itself, whether the process is frozen, busy or dead. What the
//! table says is for the program `nft`, once; each renewal is a message to the kernel (`gate/netlink.rs`).
//!
//! Invariant: an element lives at most until the instant that [`Gate::open`] was given, and for as long as this thread may be
//! held up between reading the clock and the kernel's own: it looks again afterwards, and takes back what came too late.
//! Read next: `gate/announce.rs` (how the network learns of it).

use std::{
    io::{self, Write as _},
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use super::boot_us;

mod announce;
mod netlink;

use announce::Announcer;
use netlink::Netlink;

/// An element that took longer to set than this may live too long.
const SET_WITHIN_US: u64 = 5_000;
/// Hosts take no other Ethernet address for an IP address within a second of the last (Linux: `locktime`), so the network is told
/// again and again for a little longer than that, then each second for those that were away.
const ANNOUNCE_OFTEN: Duration = Duration::from_millis(100);
const OFTEN: u32 = 13;
const ANNOUNCE_SELDOM: Duration = Duration::from_secs(1);
const ANNOUNCEMENTS: u32 = OFTEN + 9;
/// New connections are turned away for so long at most before the gate is closed. Their clients try again after a second.
const QUIET_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Gate {
    table: String,
    interface: u32,
    netlink: Netlink,
    announcer: Announcer,
    /// Since when it is open, and how often that was announced.
    opened: Option<(u64, u32)>,
}

impl Gate {
    /// Makes the table, closed.
    ///
    /// # Errors
    /// Without the interface, the program `nft`, the right to use it, or a kernel that can (5.16).
    pub(super) fn new(cluster: &str, interface: &str, addresses: &[IpAddr]) -> io::Result<Self> {
        let announcer = Announcer::new(interface, addresses)?;
        let table = table_name(cluster);
        run_nft(&rules(&table, interface, addresses))?;
        Ok(Self {
            table,
            interface: announcer.interface(),
            netlink: Netlink::open()?,
            announcer,
            opened: None,
        })
    }

    /// Opens it, or keeps it open, until then.
    pub(super) fn open(&mut self, until_us: u64) -> io::Result<()> {
        let before_us = boot_us();
        // The kernel counts whole milliseconds; less is safe.
        let within_ms = until_us.saturating_sub(before_us) / 1_000;
        if within_ms == 0 {
            return Ok(());
        }
        self.netlink.set(
            &self.table,
            "open",
            self.interface,
            Duration::from_millis(within_ms),
        )?;
        if boot_us() > before_us + SET_WITHIN_US {
            // Held up in between: what is left of the time is less than what the kernel was told.
            self.netlink.clear(&self.table, "open", self.interface)?;
            return Ok(());
        }
        if self.opened.is_none() {
            self.opened = Some((boot_us(), 0));
        }
        self.announce();
        Ok(())
    }

    /// Closes it.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.opened = None;
        self.netlink.clear(&self.table, "open", self.interface)?;
        self.netlink.clear(&self.table, "quiet", self.interface)
    }

    /// Turns new connections away for a while; those that are there go on.
    pub(super) fn hush(&mut self) -> io::Result<()> {
        self.netlink.set(&self.table, "quiet", self.interface, QUIET_MAX)
    }

    /// Tells the network, when it is time for that.
    pub(super) fn announce(&mut self) {
        let Some((since_us, count)) = &mut self.opened else {
            return;
        };
        let after = ANNOUNCE_OFTEN * (*count).min(OFTEN) + ANNOUNCE_SELDOM * count.saturating_sub(OFTEN);
        if *count >= ANNOUNCEMENTS || boot_us() < *since_us + after.as_micros() as u64 {
            return;
        }
        *count += 1;
        if let Err(error) = self.announcer.announce() {
            tracing::warn!(%error, "the network cannot be told where the addresses are");
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It ends by itself if this does not work.
        let _ = self.close();
    }
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

fn run_nft(rules: &str) -> io::Result<()> {
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| io::Error::other(format!("nft (package nftables): {error}")))?;
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
        "nft: {first} (needs CAP_NET_ADMIN and Linux 5.16)"
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
