//! Canaries: what an operator asks, and the evidence.
//!
//! Owns the words of a canary's order. Judging and ending are the control task's.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    policies, pools,
};
use crate::{
    control::CanaryOrder,
    policy::Sought,
    rollout::{Report, Rules},
};

const KEYS: &str = "digest, share, config, decisions, faults, decision_time, errors, p99 and skew";
/// In percent.
const SHARE_DEFAULT: f64 = 5.0;

#[derive(Serialize)]
struct Canaries {
    canaries: Vec<Report>,
}

/// Those of a pool, the one on trial first.
pub(super) fn of(context: &Context, pool: &str) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    let mut canaries = context.handle.canaries();
    canaries.retain(|canary| canary.pool == pool);
    Ok(answer::json(&Canaries { canaries }))
}

pub(super) async fn begin(context: &Context, pool: &str, body: &[u8]) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    policies::check_ready(context)?;
    let order = order(pool, policies::object(body)?)?;
    let begun = context.handle.canary(order).await;
    begun
        .map(|report| answer::json(&report))
        .map_err(policies::denied)
}

pub(super) async fn cancel(context: &Context, pool: &str) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    let ended = context.handle.cancel_canary(pool).await;
    ended
        .map(|report| answer::json(&report))
        .map_err(policies::denied)
}

fn order(pool: &str, mut body: Map<String, Value>) -> Result<CanaryOrder, Refusal> {
    let digest = policies::digest(&mut body)?;
    let digest = digest.ok_or_else(|| wrong("digest: required, and missing here".into()))?;
    let config_json = policies::settings(&mut body)?;
    let percent = number(&mut body, "share", 0.1, 100.0)?.unwrap_or(SHARE_DEFAULT);
    let mut rules = Rules::default();
    if let Some(decisions) = number(&mut body, "decisions", 100.0, 1e12)? {
        rules.decisions = decisions as u64;
    }
    for (key, least, most, rule) in [
        ("faults", 0.0, 1.0, &mut rules.faults),
        ("decision_time", 1.0, 1e6, &mut rules.decision_time),
        ("errors", 0.0, 1.0, &mut rules.errors),
        ("p99", 1.0, 1e6, &mut rules.p99),
        ("skew", 0.0, 1.0, &mut rules.skew),
    ] {
        if let Some(value) = number(&mut body, key, least, most)? {
            *rule = value;
        }
    }
    policies::no_more(&body, KEYS)?;
    Ok(CanaryOrder {
        pool: pool.to_owned(),
        sought: Sought::Digest(digest),
        config_json,
        share: (percent * 10.0).round() as u64,
        rules,
    })
}

fn number(body: &mut Map<String, Value>, key: &str, least: f64, most: f64) -> Result<Option<f64>, Refusal> {
    let Some(value) = body.remove(key) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(wrong(format!(
            "{key} = {value}: expected a number from {least} to {most}"
        ))),
    }
}

fn wrong(error: String) -> Refusal {
    refusal(StatusCode::UNPROCESSABLE_ENTITY, error)
}
