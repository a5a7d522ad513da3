//! Rates as a file may say them: how much may come in a time, of all clients and of each.
//!
//! Owns the values; `rate.rs` at the top keeps them, and `file/rates.rs` reads them.

use std::{num::NonZeroU32, time::Duration};

/// `[listener.rates]`: what a listener takes in a time. Nothing is limited but what is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Keys `requests` and `requests_burst`: of all clients together. Above: 429.
    pub requests: Option<Rate>,
    /// Keys `connections` and `connections_burst`: new ones, of all clients together. Above: closed at once.
    pub connections: Option<Rate>,
    /// Keys `client_requests` and `client_requests_burst`: of one client.
    pub client_requests: Option<Rate>,
    /// Keys `client_connections` and `client_connections_burst`: of one client.
    pub client_connections: Option<Rate>,
    /// Key `clients`: how many each worker remembers; beyond, the one that was not seen for longest is forgotten and begins
    /// anew. Default 65536, 1024 to 4194304.
    pub clients: u32,
    /// Key `ipv6_prefix`: so many bits of an IPv6 address are one client. Default 64, 32 to 128.
    pub ipv6_prefix: u32,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What comes in [`Self::per`].
    pub amount: NonZeroU32,
    /// A second, a minute or an hour.
    pub per: Duration,
    /// What there is at most, and at first. Default the amount.
    pub burst: NonZeroU32,
}

impl Rate {
    /// What comes in a microsecond.
    #[inline]
    pub fn per_us(&self) -> f64 {
        f64::from(self.amount.get()) / self.per.as_micros() as f64
    }
}

impl Rates {
    /// Whether it is about single clients.
    pub fn is_about_clients(&self) -> bool {
        self.client_requests.is_some() || self.client_connections.is_some()
    }
}
