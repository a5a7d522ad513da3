//! The gate that the kernel holds: this node answers for the moving addresses while the kernel says so, and no longer.
//!
//! Owns when it is open, and telling the network. How the kernel holds it is one of two things, as the file chose: an element of an
//! nftables set with a time-out (`gate/table.rs`), or the addresses themselves with a valid lifetime (`gate/lifetime.rs`).
//! Either ends without this process, whether that is frozen, busy or dead.
//!
//! Invariant: it is open at most until the instant that [`Gate::open`] was given, and for as long as this thread may be
//! held up between reading the clock and the kernel's own: it looks again afterwards, and takes back what came too late.
//! Read next: `gate/announce.rs` (how the network learns of it).

use std::{io, net::IpAddr, time::Duration};

use super::boot_us;
use crate::config::GateKind;

mod announce;
mod lifetime;
mod netlink;
mod table;

use announce::Announcer;
use lifetime::Lifetimes;
use table::Table;

/// Hosts take no other Ethernet address for an IP address within a second of the last (Linux: `locktime`), so the network is told
/// again and again for a little longer than that, then each second for those that were away.
const ANNOUNCE_OFTEN: Duration = Duration::from_millis(100);
const OFTEN: u32 = 13;
const ANNOUNCE_SELDOM: Duration = Duration::from_secs(1);
const ANNOUNCEMENTS: u32 = OFTEN + 9;

#[derive(Debug)]
pub(super) struct Gate {
    hold: Hold,
    announcer: Announcer,
    /// Since when it is open, and how often that was announced.
    opened: Option<(u64, u32)>,
}

/// By what the kernel holds it.
#[derive(Debug)]
enum Hold {
    Table(Table),
    Lifetimes(Lifetimes),
}

impl Gate {
    /// Makes it, closed.
    ///
    /// # Errors
    /// Without the interface, the right to change it, or what this kind of gate needs.
    pub(super) fn new(
        cluster: &str,
        kind: GateKind,
        interface: &str,
        addresses: &[IpAddr],
    ) -> io::Result<Self> {
        let announcer = Announcer::new(interface, addresses)?;
        let link = (interface, announcer.interface());
        let hold = match kind {
            GateKind::Nftables => Hold::Table(Table::new(cluster, link, addresses)?),
            GateKind::Lifetime => Hold::Lifetimes(Lifetimes::new(link, addresses)?),
        };
        Ok(Self {
            hold,
            announcer,
            opened: None,
        })
    }

    /// Whether it could be made. Another process may have it, and goes on with it.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub(super) fn check(
        cluster: &str,
        kind: GateKind,
        interface: &str,
        addresses: &[IpAddr],
    ) -> io::Result<()> {
        let link = (interface, Announcer::new(interface, addresses)?.interface());
        match kind {
            GateKind::Nftables => Table::check(cluster, link, addresses),
            GateKind::Lifetime => Lifetimes::check(link, addresses),
        }
    }

    /// Opens it, or keeps it open, until then.
    pub(super) fn open(&mut self, until_us: u64) -> io::Result<()> {
        let is_open = match &mut self.hold {
            Hold::Table(table) => table.open(until_us)?,
            Hold::Lifetimes(lifetimes) => lifetimes.open(until_us)?,
        };
        if !is_open {
            return Ok(());
        }
        if self.opened.is_none() {
            self.opened = Some((boot_us(), 0));
        }
        self.announce();
        Ok(())
    }

    /// Puts right what somebody else did to it. Addresses that somebody takes away are put back by the next renewal.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        match &mut self.hold {
            Hold::Table(table) => table.mend(),
            Hold::Lifetimes(_) => Ok(()),
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.opened = None;
        match &mut self.hold {
            Hold::Table(table) => table.close(),
            Hold::Lifetimes(lifetimes) => lifetimes.close(),
        }
    }

    /// Turns new connections away for a while; those that are there go on. A gate of lifetimes cannot: listeners do.
    pub(super) fn hush(&mut self) -> io::Result<()> {
        match &mut self.hold {
            Hold::Table(table) => table.hush(),
            Hold::Lifetimes(_) => Ok(()),
        }
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
