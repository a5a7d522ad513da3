//! `[listener.proxy_protocol]`, and the key `send_proxy` of pools.

use super::super::{
    proxy_protocol::{ProxyProtocol, Subnet},
    reader::{Keys, Table, Value},
};
use crate::proxy_header::Version;

pub(in super::super) const PROXY_PROTOCOL: Keys = &["trusted", "required"];

/// A connection's address is compared with each.
const NETWORKS_MAX: usize = 1000;

pub(super) fn proxy_protocol(value: &Value<'_>) -> Option<ProxyProtocol> {
    let table = value.table(PROXY_PROTOCOL)?;
    let trusted = table.require("trusted").map(|value| networks(&value));
    Some(ProxyProtocol {
        trusted: trusted.unwrap_or_default(),
        is_required: table.flag("required", true),
    })
}

fn networks(value: &Value<'_>) -> Vec<Subnet> {
    let items = value
        .items("a list of networks, like [\"10.0.0.0/8\"]")
        .unwrap_or_default();
    if value.kind().is_array() && !(1..=NETWORKS_MAX).contains(&items.len()) {
        value.wrong(format!("expected 1 to {NETWORKS_MAX} networks"));
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| item.parsed(Subnet::parse))
        .collect()
}

pub(super) fn send_proxy(table: &Table<'_>) -> Option<Version> {
    let choices = [
        ("off", None),
        ("v1", Some(Version::V1)),
        ("v2", Some(Version::V2)),
    ];
    table.choice("send_proxy", &choices, None)
}
