//! Recording on demand.
//!
//! Owns the request's words. What is recorded and where it goes is the control task's business.

use std::num::NonZeroU32;

use http::StatusCode;
use serde_json::Value;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    pools,
};

/// As for the configuration's `picks`.
const PICKS_MAX: u32 = 10_000_000;

/// Has the next decisions of a pool recorded: `{"picks": N}`, or nothing for as many as the configuration says.
pub(super) async fn begin(context: &Context, pool: &str, body: &[u8]) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    let picks = parse(body)?;
    let begun = context.handle.record(pool.to_owned(), picks).await;
    let report = begun.map_err(|error| refusal(StatusCode::SERVICE_UNAVAILABLE, error))?;
    Ok(answer::json(&report))
}

fn parse(body: &[u8]) -> Result<Option<NonZeroU32>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let bad = |error: String| refusal(StatusCode::BAD_REQUEST, error);
    let value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let wrong = |error: String| refusal(StatusCode::UNPROCESSABLE_ENTITY, error);
    let Value::Object(mut entries) = value else {
        return Err(bad(
            "the body must be a JSON object, like {\"picks\": 1000}".to_owned()
        ));
    };
    let picks = entries.remove("picks");
    if let Some(key) = entries.keys().next() {
        return Err(wrong(format!("{key}: unknown key; there is picks")));
    }
    let Some(picks) = picks else { return Ok(None) };
    let number = picks.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number
        .filter(|number| *number <= PICKS_MAX)
        .and_then(NonZeroU32::new);
    let message = || format!("picks = {picks}: expected a whole number from 1 to {PICKS_MAX}");
    Ok(Some(number.ok_or_else(|| wrong(message()))?))
}
