//! This node's part in the exchange of load between nodes.
//!
//! Owns where the exchange gets the pools and the fleet's nodes from. What is told and heard is in `peers`.

use super::{Control, StartError, cluster::read_key};
use crate::peers::{Peers, Sources};

impl Control {
    /// Begins to tell and hear load, if the file names peers. Not before there is something to serve.
    pub(super) fn join_peers(&mut self) -> Result<(), StartError> {
        let Some(config) = &self.service.config.peers else {
            return Ok(());
        };
        let key = read_key(&config.key)?;
        let handle = self.handle.clone();
        let pools = move || handle.pools().iter().map(|view| view.pool.clone()).collect();
        let fleet = self.fleet.as_ref().map(|fleet| fleet.link.clone());
        let told = fleet.clone();
        let others = move || fleet.as_ref().map(|link| link.peers()).unwrap_or_default();
        let sources = Sources {
            pools: Box::new(pools),
            others: Box::new(others),
        };
        let peers = Peers::start(config, &key, sources).map_err(|error| StartError::Peers {
            address: config.listen,
            error,
        })?;
        if let Some(link) = told {
            let listen = config.listen.to_string();
            link.tell(|own| own.peers = Some(listen));
        }
        self.handle.set_peers(peers.link.clone());
        self.peers = Some(peers);
        Ok(())
    }
}
