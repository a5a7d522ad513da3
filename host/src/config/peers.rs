//! `[peers]` as a file may say it: the nodes that serve beside this one, and how often they tell each other their load.
//!
//! Owns the values. `file/peers.rs` reads them; what is told is in `peers.rs`.

use std::{net::SocketAddr, time::Duration};

use super::NamedFile;

/// `[peers]`: nodes that tell each other what they have in flight. A change takes a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Key `listen`, required: where this node hears the others (UDP), and what they know it by.
    pub listen: SocketAddr,
    /// Key `key_file`, required: a secret that all share, at least 32 bytes.
    pub key: NamedFile,
    /// Key `others`: where the others listen; this node's own address in the list counts for nothing. Required without `[fleet]`, whose
    /// nodes find each other.
    pub others: Vec<SocketAddr>,
    /// Key `interval`: how often the load is told. Default 50 ms, 10 ms to 10 s.
    pub interval: Duration,
    /// Key `stale_after`: load that was told so long ago no longer counts. Default 1 s or three intervals, three intervals to 1 min.
    pub stale_after: Duration,
}

/// Key `load_view` of a pool: whose requests in flight its policy sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadView {
    /// This node's.
    Node,
    /// Those of the peers too.
    Cluster,
}
