//! Why a configuration does not go into service.

use std::net::SocketAddr;

use crate::{config::Mistakes, policy::Refusal};

/// Why a configuration does not go into service. Nothing of it does, in that case.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file says things that make no sense.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// A component cannot be read.
    #[error("policy.{policy}.component = \"{path}\": {error}")]
    Component {
        /// The policy's name.
        policy: String,
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A component is no policy, or not a fit one.
    #[error("policy.{policy}{place}: {refusal}")]
    Refused {
        /// The policy's name.
        policy: String,
        /// Where it comes from: file, and line of the configuration.
        place: String,
        /// What is wrong.
        refusal: Refusal,
    },
    /// A backend's name has no address.
    #[error("pool.{pool}.backends: \"{address}\" cannot be resolved: {error}")]
    Resolve {
        /// The pool's name.
        pool: String,
        /// As configured.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// More backends were found than a tenant's metrics have room for.
    #[error(
        "tenant.{tenant}.series: with the backends that were found, its pools make {series} metric series, and it may have {series_max}"
    )]
    Series {
        /// The tenant's name.
        tenant: String,
        /// What its pools would make.
        series: u32,
        /// What it may have.
        series_max: u32,
    },
    /// An address cannot be listened on.
    #[error("{name}.listen = \"{address}\": {error}")]
    Bind {
        /// `listener.` and its name, or `admin`.
        name: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The cluster's own address cannot be listened on.
    #[error("cluster.member, address = \"{address}\": {error}")]
    Cluster {
        /// This member's address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The address for the peers cannot be listened on.
    #[error("peers.listen = \"{address}\": {error}")]
    Peers {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("log.access = \"{path}\": {error}")]
    AccessLog {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The state directory cannot be used.
    #[error("state.directory = \"{path}\": {error}")]
    State {
        /// The directory.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// No thread can be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// This machine cannot run WebAssembly.
    #[error("cannot start the WebAssembly engine: {0}")]
    Engine(String),
}
