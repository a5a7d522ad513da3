//! The peers: who tells this node its load, and how old that is.
//!
//! Owns the words of the answer and the metrics.

use http::StatusCode;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    text::{
        Kind::{Counter, Gauge},
        Text,
    },
};

/// All that this node knows.
pub(super) fn view(context: &Context) -> Result<Answer, Refusal> {
    let none = || {
        let error = "this balancer has no peers (table [peers])".to_owned();
        refusal(StatusCode::NOT_FOUND, error)
    };
    Ok(answer::json(&context.handle.peers().ok_or_else(none)?.view()))
}

/// The metrics of a node; without samples in a balancer that has no peers.
pub(super) fn families(text: &mut Text, context: &Context) {
    let link = context.handle.peers();
    let view = link.as_ref().map(|link| link.view());
    let peers = || view.iter().flat_map(|view| &view.peers);
    let help = "1 if what the peer says counts; 0 if it is too old, or it said nothing.";
    let mut family = text.family("trimtab_peer_fresh", Gauge, help);
    for peer in peers() {
        family.sample(&[("peer", &peer.address.to_string())], u64::from(peer.fresh));
    }
    let help = "Time since a peer was heard.";
    let mut family = text.family("trimtab_peer_heard_seconds", Gauge, help);
    for peer in peers() {
        if let Some(heard_ms) = peer.heard_ms {
            family.sample(&[("peer", &peer.address.to_string())], heard_ms as f64 / 1e3);
        }
    }
    let help = "Requests that a peer has in flight, of backends that this node has too.";
    let mut family = text.family("trimtab_peer_active", Gauge, help);
    for peer in peers() {
        family.sample(&[("peer", &peer.address.to_string())], peer.active);
    }
    let help = "Datagrams of the peers, by what became of them.";
    let mut family = text.family("trimtab_peer_datagrams_total", Counter, help);
    for (result, count) in link.iter().flat_map(|link| link.datagrams()) {
        family.sample(&[("result", result)], count);
    }
    let help = "Backends that peers told of and this node does not have.";
    let mut family = text.family("trimtab_peer_strange_backends_total", Counter, help);
    link.iter()
        .for_each(|link| family.sample(&[], link.strange_backends()));
}
