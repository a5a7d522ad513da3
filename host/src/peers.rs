//! The peers: nodes that serve beside this one, and the load that they tell each other.
//!
//! Owns a socket, what is told and heard by it, and the figures that other nodes' requests leave in a pool's backends
//! (`pool::Others`). It must not know what becomes of them: workers merge them into the columns that policies see.
//!
//! Invariants: nothing of it is on the way of a request; what a peer said counts for a stated time and no longer; and memory and
//! datagrams are bounded by this node's own configuration, whatever others send.
//! Read next: `peers/exchange.rs` (rounds), `peers/told.rs` (what counts), `peers/own.rs` (what is told), `docs/peers.md`.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use tokio::task::AbortHandle;
use trimtab_cluster::wire::Secrets;

use crate::{config, pool::Pool};

mod digest;
mod exchange;
mod link;
mod own;
mod told;

pub use link::{Link, PeerView, View};

/// What of the rest of the process the exchange looks at, once a round.
pub struct Sources {
    /// The pools in service.
    pub pools: Box<dyn Fn() -> Vec<Arc<Pool>> + Send + Sync>,
    /// Peers that are in no file.
    pub others: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
}

/// This node's part in it. Ends when this is dropped.
#[derive(Debug)]
pub struct Peers {
    /// The view.
    pub link: Arc<Link>,
    task: AbortHandle,
}

impl Peers {
    /// Begins to tell and to hear; must be called inside a tokio runtime. Another process may still have the address, as the one before
    /// this has after an upgrade: then it begins when that is gone.
    ///
    /// # Errors
    /// When the address is none that can be listened on, or the key is empty.
    pub fn start(config: &config::Peers, key: &[u8], sources: Sources) -> io::Result<Self> {
        // The list is no secret, and nodes of one fleet may have different ones.
        let secrets = Secrets::new("peers", "", key);
        let secrets = secrets.ok_or_else(|| io::Error::other("the key is empty"))?;
        let socket = match UdpSocket::bind(config.listen) {
            Ok(socket) => Some(exchange::adopt(socket)?),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(address = %config.listen, "the peers' address is in use; no load is told or heard until it is free");
                None
            }
            Err(error) => return Err(error),
        };
        let link = Arc::new(Link::new(config));
        let exchange = exchange::Exchange::new(config, secrets, (link.clone(), sources))?;
        let task = tokio::spawn(exchange.run(socket)).abort_handle();
        Ok(Self { link, task })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.task.abort();
    }
}
