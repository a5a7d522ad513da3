//! Shadows and canaries: what an operator asks, and the evidence.
//!
//! Owns the words of their orders. Comparing, judging and ending are the control task's.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    policies, pools,
};
use crate::{
    control::{CanaryOrder, ShadowOrder},
    policy::Sought,
    rollout::{Report, Rules},
};

const KEYS: &str = "digest, share, config, decisions, faults, decision_time, errors, p99 and skew";
/// In percent.
const SHARE_DEFAULT: f64 = 5.0;
const SHADOW_SHARE_DEFAULT: f64 = 10.0;

#[derive(Serialize)]
struct Canaries {
    canaries: Vec<Report>,
}

/// A pool's canaries, the one on trial first; or how its shadow compares.
pub(super) fn of(context: &Context, pool: &str, is_canary: bool) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    if is_canary {
        let mut canaries = context.handle.canaries();
        canaries.retain(|canary| canary.pool == pool);
        return Ok(answer::json(&Canaries { canaries }));
    }
    let report = context.handle.shadow_report(pool);
    report.map(|report| answer::json(&report)).ok_or_else(|| {
        let error = format!("pool {pool:?} has no shadow");
        refusal(StatusCode::NOT_FOUND, error)
    })
}

pub(super) async fn begin(
    context: &Context,
    pool: &str,
    is_canary: bool,
    body: &[u8],
) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    policies::check_ready(context)?;
    let body = policies::object(body)?;
    if is_canary {
        let begun = context.handle.canary(order(pool, body)?).await;
        begun
            .map(|report| answer::json(&report))
            .map_err(policies::denied)
    } else {
        let begun = context.handle.shadow(shadow_order(pool, body)?).await;
        begun
            .map(|report| answer::json(&report))
            .map_err(policies::denied)
    }
}

pub(super) async fn end(context: &Context, pool: &str, is_canary: bool) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    if is_canary {
        let ended = context.handle.cancel_canary(pool).await;
        ended
            .map(|report| answer::json(&report))
            .map_err(policies::denied)
    } else {
        let ended = context.handle.end_shadow(pool).await;
        ended
            .map(|report| answer::json(&report))
            .map_err(policies::denied)
    }
}

fn shadow_order(pool: &str, mut body: Map<String, Value>) -> Result<ShadowOrder, Refusal> {
    let order = ShadowOrder {
        pool: pool.to_owned(),
        sought: sought(&mut body)?,
        config_json: policies::settings(&mut body)?,
        share: share(&mut body, SHADOW_SHARE_DEFAULT)?,
    };
    policies::no_more(&body, "digest, share and config")?;
    Ok(order)
}

fn sought(body: &mut Map<String, Value>) -> Result<Sought, Refusal> {
    let digest = policies::digest(body)?;
    let digest = digest.ok_or_else(|| wrong("digest: required, and missing here".into()))?;
    Ok(Sought::Digest(digest))
}

/// From percent to thousandths.
fn share(body: &mut Map<String, Value>, default: f64) -> Result<u64, Refusal> {
    let percent = number(body, "share", 0.1, 100.0)?.unwrap_or(default);
    Ok((percent * 10.0).round() as u64)
}

fn order(pool: &str, mut body: Map<String, Value>) -> Result<CanaryOrder, Refusal> {
    let sought = sought(&mut body)?;
    let config_json = policies::settings(&mut body)?;
    let share = share(&mut body, SHARE_DEFAULT)?;
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
        sought,
        config_json,
        share,
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
