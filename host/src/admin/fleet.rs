//! The fleet: who belongs to it, and changes of all of it.
//!
//! Owns the words of the answers.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    policies,
    text::{Kind::Gauge, Text},
};
use crate::fleet::{Denied, Link, Rollout, Verdict};

fn link(context: &Context) -> Result<Arc<Link>, Refusal> {
    let none = || {
        let error = "this balancer belongs to no fleet (table [fleet])".to_owned();
        refusal(StatusCode::NOT_FOUND, error)
    };
    context.handle.fleet().ok_or_else(none)
}

/// All that this node knows.
pub(super) fn view(context: &Context) -> Result<Answer, Refusal> {
    Ok(answer::json(&link(context)?.view()))
}

/// Gives a component to the fleet.
pub(super) async fn upload(context: &Context, wasm: &[u8]) -> Result<Answer, Refusal> {
    let digest = link(context)?.upload(wasm).await.map_err(denied)?;
    Ok(answer::json(
        &serde_json::json!({ "digest": digest, "bytes": wasm.len() }),
    ))
}

/// Begins to roll out tables, once this node has read them without a mistake.
pub(super) async fn publish(context: &Context, text: &[u8]) -> Result<Answer, Refusal> {
    let link = link(context)?;
    let wrong = |error: String| refusal(StatusCode::UNPROCESSABLE_ENTITY, error);
    let text = std::str::from_utf8(text)
        .map_err(|error| wrong(error.to_string()))?
        .to_owned();
    let (reader, read) = (link.clone(), text.clone());
    let checked = tokio::task::spawn_blocking(move || reader.check(read)).await;
    let named = checked
        .map_err(|error| wrong(error.to_string()))?
        .map_err(wrong)?;
    begun(link.publish(text, named).await)
}

/// Rolls out an older generation again.
pub(super) async fn roll_back(context: &Context, body: &[u8]) -> Result<Answer, Refusal> {
    let link = link(context)?;
    let mut order = match body.is_empty() {
        true => serde_json::Map::new(),
        false => policies::object(body)?,
    };
    let to = match order.remove("to") {
        None => None,
        Some(to) => {
            let wrong = || {
                let error = format!("to = {to}: expected the number of a generation");
                refusal(StatusCode::UNPROCESSABLE_ENTITY, error)
            };
            Some(to.as_u64().filter(|to| *to > 0).ok_or_else(wrong)?)
        }
    };
    policies::no_more(&order, "to")?;
    begun(link.roll_back(to).await)
}

/// Ends what is on trial.
pub(super) async fn halt(context: &Context) -> Result<Answer, Refusal> {
    begun(link(context)?.halt().await)
}

fn begun(rollout: Result<Rollout, Denied>) -> Result<Answer, Refusal> {
    rollout.map(|rollout| answer::json(&rollout)).map_err(denied)
}

fn denied(denied: Denied) -> Refusal {
    let status = match denied {
        Denied::Away(_) | Denied::Unconfirmed(_) => StatusCode::SERVICE_UNAVAILABLE,
        Denied::Conflict(_) => StatusCode::CONFLICT,
        Denied::Unknown(_) => StatusCode::NOT_FOUND,
        Denied::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    refusal(status, denied.to_string())
}

/// The metrics of a node; without samples in a balancer that belongs to no fleet.
pub(super) fn families(text: &mut Text, context: &Context) {
    let view = context.handle.fleet().map(|link| link.view());
    let help = "1 if etcd answered the last time.";
    let mut family = text.family("trimtab_fleet_etcd_ok", Gauge, help);
    view.iter()
        .for_each(|view| family.sample(&[], u64::from(view.etcd.ok)));
    let help = "Nodes of the fleet, as last heard.";
    let mut family = text.family("trimtab_fleet_members", Gauge, help);
    view.iter()
        .for_each(|view| family.sample(&[], view.members.len() as u64));
    let help = "The generation that this node serves; 0 is what is in its file.";
    let mut family = text.family("trimtab_fleet_generation", Gauge, help);
    let own = view
        .iter()
        .flat_map(|view| view.members.iter().filter(|member| member.me));
    own.clone()
        .for_each(|own| family.sample(&[], own.member.generation));
    let help = "The newest generation of the fleet, by how far it is.";
    let mut family = text.family("trimtab_fleet_rollout", Gauge, help);
    for rollout in view.iter().filter_map(|view| view.rollout.as_ref()) {
        let phase = format!("{:?}", rollout.phase).to_lowercase();
        family.sample(&[("phase", &phase)], rollout.generation);
    }
    let help = "1 if this node refused or took back the last generation that it was to serve.";
    let mut family = text.family("trimtab_fleet_refused", Gauge, help);
    own.for_each(|own| {
        let verdict = own.member.attempt.as_ref().map(|attempt| attempt.verdict);
        family.sample(
            &[],
            u64::from(matches!(verdict, Some(Verdict::Refused | Verdict::Bad))),
        );
    });
}
