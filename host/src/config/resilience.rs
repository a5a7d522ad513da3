//! What a pool does when its backends fail or are full: which attempts are made again, and who waits.
//!
//! Owns the values and their defaults; `file/resilience.rs` reads them.

use std::{num::NonZeroU32, time::Duration};

/// `[pool.NAME.retry]`: what happens when an attempt fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Key `attempts`: backends tried for one request, the first included. Default 3, 1 to 10; 1 never retries.
    pub attempts: NonZeroU32,
    /// Key `on`: the outcomes after which another backend is tried.
    pub on: RetryOn,
    /// Key `budget`: percent of the requests of the last 10 s that may be sent again. Default 20, 0 to 100.
    pub budget: u8,
    /// Key `floor`: so many a second may be sent again whatever the budget says, by all workers together. Default 10,
    /// 0 to 100000.
    pub floor: u32,
    /// Key `try_timeout`: `response_timeout` of an attempt after which another can be made. Default none, 1 ms to 24 h.
    pub try_timeout: Option<Duration>,
    /// Key `hedge_after`: time after which another backend is asked beside the first. Default none, 1 ms to 24 h.
    pub hedge_after: Option<Duration>,
}

/// The outcomes after which another backend is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// `"connect"`: there was no connection.
    pub connect: bool,
    /// `"reset"`: the connection broke before the response.
    pub reset: bool,
    /// These, 400 to 599, without repetition.
    pub statuses: Vec<u16>,
}

/// `[pool.NAME.limits]`: when a backend or the whole pool is full, and who waits then. Without the table nothing ever is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Key `connections`: most connections to one backend, unused ones included. Default no limit, 1 to 1000000.
    pub connections: Option<NonZeroU32>,
    /// Key `backend_requests`: most requests in flight at one backend. Default no limit, 1 to 1000000.
    pub backend_requests: Option<NonZeroU32>,
    /// Key `requests`: most requests in flight in the pool. Default no limit, 1 to 1000000.
    pub requests: Option<NonZeroU32>,
    /// Key `queue`: most requests that wait for room. Default 1000, 0 to 1000000.
    pub queue: u32,
    /// Key `queue_timeout`: how long one waits. Default 1 s, 1 ms to 1 h.
    pub queue_timeout: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: const { NonZeroU32::new(3).unwrap() },
            on: RetryOn::default(),
            budget: 20,
            floor: 10,
            try_timeout: None,
            hedge_after: None,
        }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect: true,
            reset: true,
            // What outlier ejection takes for a backend that cannot serve, whatever was asked.
            statuses: vec![502, 503, 504],
        }
    }
}
