//! Listeners as JSON.
//!
//! Owns the shape of `/v1/listeners`. Keys are only ever added; a golden file holds them. Counts are since the listener's
//! address came into service.

use serde::Serialize;

use super::Context;
use crate::{
    config::{Limits, Protocol},
    control::ListenerView,
};

#[derive(Serialize)]
pub(super) struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Serialize)]
struct Listener {
    name: String,
    address: String,
    protocol: &'static str,
    tls: bool,
    connections: Connections,
    requests: Requests,
}

#[derive(Serialize)]
struct Connections {
    open: u64,
    /// Without a limit, open files are.
    max: Option<u32>,
    accepted: u64,
    evicted: u64,
    refused: u64,
    over_rate: u64,
    over_rate_of_client: u64,
}

#[derive(Serialize)]
struct Requests {
    over_rate: u64,
    over_rate_of_client: u64,
}

pub(super) fn all(context: &Context) -> Listeners {
    let views = context.handle.listener_views();
    Listeners {
        listeners: views.iter().map(Listener::new).collect(),
    }
}

impl Listener {
    fn new(view: &ListenerView) -> Self {
        let config = &view.config;
        Self {
            name: config.name.clone(),
            address: view.address.to_string(),
            protocol: match config.protocol {
                Protocol::Http => "http",
                Protocol::Tcp => "tcp",
            },
            tls: config.tls.is_some(),
            connections: Connections::new(view, &config.limits),
            requests: Requests {
                over_rate: view.counters.total(|worker| &worker.requests_over),
                over_rate_of_client: view.counters.total(|worker| &worker.requests_over_of_client),
            },
        }
    }
}

impl Connections {
    fn new(ListenerView { counters, .. }: &ListenerView, limits: &Limits) -> Self {
        Self {
            open: counters.open(),
            max: limits.connections,
            accepted: counters.total(|worker| &worker.connections),
            evicted: counters.total(|worker| &worker.connections_evicted),
            refused: counters.total(|worker| &worker.connections_refused),
            over_rate: counters.total(|worker| &worker.connections_over),
            over_rate_of_client: counters.total(|worker| &worker.connections_over_of_client),
        }
    }
}
