//! Versions of policies: what serves each pool, what is kept, and what an operator does about it.
//!
//! Owns the shape of `/v1/policies` and the words of uploads and promotions. What a version is, and which of file and
//! operator decides, is the business of `policy/versions.rs`; doing it is the control task's.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    endpoint, pools,
};
use crate::{
    control::{Denial, NewComponent, PoolView, Promotion},
    policy::{Origin, Sought, Upload, Version, Versions},
};

#[derive(Serialize)]
pub(super) struct Policies {
    pools: Vec<Pool>,
    uploads: Vec<Component>,
}

#[derive(Serialize)]
struct Pool {
    pool: String,
    /// The policy's name in the configuration.
    policy: String,
    /// Whether an operator chose the version, in place of the file's.
    pinned: bool,
    active: Active,
    /// All that it can go back to, the one in service first.
    versions: Vec<Kept>,
}

/// What is known of the version in service beyond what is kept of it.
#[derive(Serialize)]
struct Active {
    digest: String,
    version: String,
    origin: &'static str,
    bytes: usize,
    code_bytes: usize,
    compile_ms: u64,
    compiled_by: &'static str,
}

#[derive(Serialize)]
struct Kept {
    digest: String,
    version: String,
    origin: &'static str,
    /// The file, or the built-in's name.
    source: Option<String>,
    bytes: usize,
    config: Value,
    /// When it last went into service.
    since_unix_s: f64,
    compile_ms: u64,
}

#[derive(Serialize)]
struct Component {
    digest: String,
    version: String,
    bytes: usize,
    uploaded_unix_s: f64,
    compile_ms: u64,
}

pub(super) fn all(context: &Context) -> Policies {
    let versions = context.handle.versions();
    let pools = context.handle.pools();
    Policies {
        pools: pools.iter().map(|view| Pool::new(view, &versions)).collect(),
        uploads: versions.uploads().iter().map(Component::new).collect(),
    }
}

/// The pool that an upload is for, by its query.
pub(super) fn pool_of(context: &Context, query: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(query) = query else {
        return Ok(None);
    };
    let name = query.strip_prefix("pool=").and_then(endpoint::decode);
    let name = name.ok_or_else(|| {
        let error = format!("?{query}: expected ?pool= and a pool's name");
        refusal(StatusCode::BAD_REQUEST, error)
    })?;
    pools::find(context, &name)?;
    Ok(Some(name))
}

pub(super) async fn upload(context: &Context, pool: Option<String>, body: Bytes) -> Result<Answer, Refusal> {
    let wasm = Arc::from(&*body);
    drop(body);
    check_ready(context)?;
    let uploaded = context.handle.upload(NewComponent { wasm, pool }).await;
    uploaded.map(|uploaded| answer::json(&uploaded)).map_err(denied)
}

pub(super) async fn promote(context: &Context, pool: &str, body: &[u8]) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    let mut order = object(body)?;
    let digest = digest(&mut order)?;
    let config_json = settings(&mut order)?;
    no_more(&order, "digest and config")?;
    let digest = digest.ok_or_else(|| unprocessable("digest: required, and missing here".to_owned()))?;
    go(
        context,
        Promotion {
            pool: pool.to_owned(),
            sought: Sought::Digest(digest),
            config_json,
        },
    )
    .await
}

/// An empty body means the version before.
pub(super) async fn roll_back(context: &Context, pool: &str, body: &[u8]) -> Result<Answer, Refusal> {
    pools::find(context, pool)?;
    let mut order = if body.is_empty() {
        Map::new()
    } else {
        object(body)?
    };
    let digest = digest(&mut order)?;
    no_more(&order, "digest")?;
    go(
        context,
        Promotion {
            pool: pool.to_owned(),
            sought: digest.map_or(Sought::Previous, Sought::Digest),
            config_json: None,
        },
    )
    .await
}

async fn go(context: &Context, promotion: Promotion) -> Result<Answer, Refusal> {
    check_ready(context)?;
    let promoted = context.handle.promote(promotion).await;
    promoted.map(|promoted| answer::json(&promoted)).map_err(denied)
}

pub(super) fn check_ready(context: &Context) -> Result<(), Refusal> {
    if context.handle.is_ready() {
        Ok(())
    } else {
        Err(denied(Denial::Stopping))
    }
}

pub(super) fn denied(denial: Denial) -> Refusal {
    let status = match denial {
        Denial::Unknown(_) => StatusCode::NOT_FOUND,
        Denial::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Denial::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    refusal(status, denial.to_string())
}

/// A policy's settings, as JSON.
pub(super) fn settings(order: &mut Map<String, Value>) -> Result<Option<String>, Refusal> {
    match order.remove("config") {
        None => Ok(None),
        Some(Value::Object(config)) => Ok(Some(Value::Object(config).to_string())),
        Some(other) => Err(unprocessable(format!("config = {other}: expected an object"))),
    }
}

fn unprocessable(error: String) -> Refusal {
    refusal(StatusCode::UNPROCESSABLE_ENTITY, error)
}

pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let bad = |error: String| refusal(StatusCode::BAD_REQUEST, error);
    match serde_json::from_slice(body) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(bad("the body must be a JSON object".to_owned())),
        Err(error) => Err(bad(format!("the body is not JSON: {error}"))),
    }
}

pub(super) fn digest(order: &mut Map<String, Value>) -> Result<Option<String>, Refusal> {
    match order.remove("digest") {
        None => Ok(None),
        Some(Value::String(digest)) => Ok(Some(digest)),
        Some(other) => Err(unprocessable(format!(
            "digest = {other}: expected a component's SHA-256 in hex, or the first digits of it"
        ))),
    }
}

pub(super) fn no_more(order: &Map<String, Value>, known: &str) -> Result<(), Refusal> {
    let unknown: Vec<String> = order
        .iter()
        .map(|(key, value)| format!("{key} = {value}: unknown key; there are {known}"))
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(unprocessable(unknown.join("\n")))
    }
}

impl Pool {
    fn new(view: &PoolView, versions: &Versions) -> Self {
        let name = view.pool.name();
        let kept = versions.of(name);
        let candidate = &view.deployment.candidate;
        // Between a change and its publication the first version may be that of the moment before.
        let first = kept.first().filter(|first| *first.digest == *candidate.digest);
        let origin = first.map_or_else(
            || Origin::of(&candidate.spec.source).name(),
            |first| first.origin.name(),
        );
        Self {
            pool: name.to_owned(),
            policy: candidate.spec.name.clone(),
            pinned: versions.is_pinned(name),
            active: Active {
                digest: candidate.digest.to_string(),
                version: candidate.version.to_string(),
                origin,
                bytes: candidate.bytes,
                code_bytes: candidate.code.code_bytes,
                compile_ms: candidate.code.took.as_millis() as u64,
                compiled_by: candidate.code.maker.name(),
            },
            versions: kept.iter().map(Kept::new).collect(),
        }
    }
}

impl Kept {
    fn new(version: &Version) -> Self {
        Self {
            digest: version.digest.clone(),
            version: version.short().to_owned(),
            origin: version.origin.name(),
            source: match &version.origin {
                Origin::Builtin(name) | Origin::Registry(name) => Some(name.clone()),
                Origin::File(path) => Some(path.display().to_string()),
                Origin::Upload => None,
            },
            bytes: version.bytes,
            config: serde_json::from_str(&version.config_json).unwrap_or_default(),
            since_unix_s: seconds(version.since_ms),
            compile_ms: version.compile_ms,
        }
    }
}

impl Component {
    fn new(upload: &Upload) -> Self {
        Self {
            digest: upload.digest.clone(),
            version: upload.digest.chars().take(12).collect(),
            bytes: upload.bytes,
            uploaded_unix_s: seconds(upload.at_ms),
            compile_ms: upload.compile_ms,
        }
    }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
