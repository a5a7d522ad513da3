//! The cluster: who is active, and a change of it.
//!
//! Owns the words of the answers. `/v1/role` is for those who send clients to the active node, so its status alone says all.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    text::{
        Kind::{Counter, Gauge},
        Text,
    },
};
use crate::cluster::{Link, Standing, TransferError, View};

fn link(context: &Context) -> Result<Arc<Link>, Refusal> {
    let none = || {
        let error = "this balancer belongs to no cluster (table [cluster])".to_owned();
        refusal(StatusCode::NOT_FOUND, error)
    };
    context.handle.cluster().ok_or_else(none)
}

/// 200 if this node is active, 503 if it is not. A balancer without a cluster is always active.
pub(super) fn role(context: &Context) -> Answer {
    let Some(link) = context.handle.cluster() else {
        return match context.handle.is_ready() {
            true => answer::text(StatusCode::OK, "active\n".to_owned()),
            false => answer::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        };
    };
    let view = link.view();
    let (status, word) = match view.role {
        Standing::Active => (StatusCode::OK, "active"),
        Standing::Standby => (StatusCode::SERVICE_UNAVAILABLE, "standby"),
        Standing::Leaving => (StatusCode::SERVICE_UNAVAILABLE, "leaving"),
        Standing::Witness => (StatusCode::SERVICE_UNAVAILABLE, "witness"),
    };
    answer::text(status, format!("{word}\nepoch {}\n", view.epoch))
}

/// All that this member knows.
pub(super) fn view(context: &Context) -> Result<Answer, Refusal> {
    Ok(answer::json(&link(context)?.view()))
}

/// Gives the lease to another node.
pub(super) async fn fail_over(context: &Context, body: &[u8]) -> Result<Answer, Refusal> {
    let link = link(context)?;
    let to = successor(body)?;
    match link.transfer(to).await {
        Ok(to) => Ok(answer::json(
            &serde_json::json!({ "to": to, "epoch": link.view().epoch }),
        )),
        Err(error) => {
            let status = match error {
                TransferError::Unknown(_) => StatusCode::NOT_FOUND,
                TransferError::NotActive(_)
                | TransferError::NoSuccessor
                | TransferError::OtherPolicies(_) => StatusCode::CONFLICT,
                TransferError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err(refusal(status, error.to_string()))
        }
    }
}

fn successor(body: &[u8]) -> Result<Option<String>, Refusal> {
    let bad = |error: String| refusal(StatusCode::BAD_REQUEST, error);
    if body.is_empty() {
        return Ok(None);
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let expected = || bad("expected {} or {\"to\": \"the name of a node\"}".to_owned());
    let entries = value.as_object().ok_or_else(expected)?;
    if entries.keys().any(|key| key != "to") {
        return Err(expected());
    }
    match entries.get("to") {
        None => Ok(None),
        Some(to) => Ok(Some(to.as_str().ok_or_else(expected)?.to_owned())),
    }
}

/// The metrics of a member; without samples in a balancer that is none.
pub(super) fn families(text: &mut Text, context: &Context) {
    let link = context.handle.cluster();
    let view = link.as_ref().map(|link| link.view());
    let mut each = |name, kind, help, value: fn(&View) -> u64| {
        let mut family = text.family(name, kind, help);
        view.iter().for_each(|view| family.sample(&[], value(view)));
    };
    each(
        "trimtab_cluster_active",
        Gauge,
        "1 if this node is active.",
        |view| u64::from(view.role == Standing::Active),
    );
    each(
        "trimtab_cluster_epoch",
        Gauge,
        "Of this node's lease; of a member without one, the highest that it knows of.",
        |view| view.epoch,
    );
    each(
        "trimtab_cluster_leases_total",
        Counter,
        "How often this node became active.",
        |view| view.leases,
    );
    each(
        "trimtab_cluster_fit",
        Gauge,
        "1 if this node could serve.",
        |view| u64::from(view.unfit.is_none()),
    );
    let help = "Time since a member was heard.";
    let mut family = text.family("trimtab_cluster_member_heard_seconds", Gauge, help);
    for member in view.iter().flat_map(|view| &view.members) {
        if let Some(heard_ms) = member.heard_ms {
            family.sample(&[("member", &member.name)], heard_ms as f64 / 1e3);
        }
    }
    let help = "Age of what this standby would go on with.";
    let mut family = text.family("trimtab_cluster_warm_age_seconds", Gauge, help);
    for warm in view.iter().filter_map(|view| view.warm.as_ref()) {
        if let Some(age_ms) = warm.age_ms {
            family.sample(&[], age_ms as f64 / 1e3);
        }
    }
    let help = "Datagrams of the cluster, by what became of them.";
    let mut family = text.family("trimtab_cluster_datagrams_total", Counter, help);
    for (result, count) in link.iter().flat_map(|link| link.counters.all()) {
        family.sample(&[("result", result)], count);
    }
}
