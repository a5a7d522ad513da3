//! What is counted of each listener, for Prometheus.
//!
//! Owns the names and helps of these families.

use std::sync::atomic::AtomicU64;

use super::super::text::{
    Kind::{Counter, Gauge},
    Text,
};
use crate::{control::ListenerView, metrics::ListenerWorker};

/// A counter that each worker has of a listener: its name, its help, and where it is.
type ListenerCounter = (&'static str, &'static str, fn(&ListenerWorker) -> &AtomicU64);

const COUNTERS: [ListenerCounter; 2] = [
    (
        "trimtab_listener_connections_evicted_total",
        "Idle connections closed to make room for others.",
        |worker| &worker.connections_evicted,
    ),
    (
        "trimtab_listener_connections_refused_total",
        "Connections closed at once since there was no room.",
        |worker| &worker.connections_refused,
    ),
];

/// By whose rate it was too much.
type OverCounter = (
    &'static str,
    &'static str,
    [(&'static str, fn(&ListenerWorker) -> &AtomicU64); 2],
);

const OVER: [OverCounter; 2] = [
    (
        "trimtab_listener_connections_over_rate_total",
        "Connections closed at once since too many came.",
        [
            ("listener", |worker| &worker.connections_over),
            ("client", |worker| &worker.connections_over_of_client),
        ],
    ),
    (
        "trimtab_listener_requests_over_rate_total",
        "Requests answered with 429 since too many came.",
        [
            ("listener", |worker| &worker.requests_over),
            ("client", |worker| &worker.requests_over_of_client),
        ],
    ),
];

fn over(text: &mut Text, listeners: &[ListenerView]) {
    for (name, help, counters) in OVER {
        let mut family = text.family(name, Counter, help);
        for view in listeners {
            for (by, read) in counters {
                let labels = [("listener", view.config.name.as_str()), ("by", by)];
                family.sample(&labels, view.counters.total(read));
            }
        }
    }
}

pub(super) fn families(text: &mut Text, listeners: &[ListenerView]) {
    let mut family = text.family(
        "trimtab_listener_connections",
        Gauge,
        "Client connections that are open.",
    );
    for view in listeners {
        family.sample(&[("listener", &view.config.name)], view.counters.open());
    }
    over(text, listeners);
    for (name, help, read) in COUNTERS {
        let mut family = text.family(name, Counter, help);
        for view in listeners {
            family.sample(&[("listener", &view.config.name)], view.counters.total(read));
        }
    }
}
