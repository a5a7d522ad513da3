//! Which request is answered by what.
//!
//! Owns paths, methods, and the limits of bodies. Each answer is made elsewhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::{
    Context, READ_TIMEOUT, UPLOAD_TIMEOUT,
    answer::{self, Answer, Refusal, refusal},
    canaries, change, cluster, explain, fleet, guard, listeners, metrics, peers, policies, pools, record,
    tenants,
};

/// Of a request. The largest honest one has two keys.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Of tables that a fleet shares.
const TEXT_BYTES_MAX: usize = 1 << 20;
const READS: &str = "GET, HEAD";
/// A client that sends nothing for this long waits for its answer.
const DISCARD_PAUSE: Duration = Duration::from_millis(500);

/// Answers any request.
pub(super) async fn answer(context: &Context, request: Request<Incoming>) -> Answer {
    route(context, request).await.unwrap_or_else(Answer::from)
}

async fn route(context: &Context, request: Request<Incoming>) -> Result<Answer, Refusal> {
    guard::check(&request, context.address)?;
    let (head, body) = request.into_parts();
    let path = segments(head.uri.path())?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let reads = || allow(&head, &[Method::GET, Method::HEAD], READS);
    match *path {
        ["livez"] => reads().map(|()| answer::text(StatusCode::OK, "ok\n".to_owned())),
        ["readyz"] => reads().map(|()| ready(context)),
        ["metrics"] => reads().map(|()| answer::metrics(metrics::render(context))),
        ["v1", "listeners"] => reads().map(|()| answer::json(&listeners::all(context))),
        ["v1", "tenants"] => reads().map(|()| answer::json(&tenants::all(context))),
        ["v1", "pools"] => reads().map(|()| answer::json(&pools::all(context))),
        ["v1", "pools", pool] => {
            reads()?;
            Ok(answer::json(&pools::one(context, pool)?))
        }
        ["v1", "pools", pool, ref about @ ..] => of_pool(context, pool, about, &head, body).await,
        ["v1", "policies"] if head.method == Method::POST => upload(context, &head, body).await,
        ["v1", "policies"] => {
            allow(&head, &[Method::GET, Method::HEAD], "GET, HEAD, POST")?;
            Ok(answer::json(&policies::all(context)))
        }
        ["v1", "role"] => reads().map(|()| cluster::role(context)),
        ["v1", "cluster"] => {
            reads()?;
            cluster::view(context)
        }
        ["v1", "cluster", "failover"] => {
            allow(&head, &[Method::POST], "POST")?;
            let body = read(&head, body).await?;
            cluster::fail_over(context, &body).await
        }
        ["v1", "peers"] => {
            reads()?;
            peers::view(context)
        }
        ["v1", "fleet", ref about @ ..] => of_fleet(context, about, &head, body).await,
        ["v1", "explain"] => {
            reads()?;
            explain::answer(context, head.uri.query().unwrap_or_default()).await
        }
        ["v1", "reload"] => {
            allow(&head, &[Method::POST], "POST")?;
            read(&head, body).await?;
            reload(context).await
        }
        ["v1", "upgrade"] if head.method == Method::POST => {
            read(&head, body).await?;
            upgrade(context).await
        }
        ["v1", "upgrade"] => {
            allow(&head, &[Method::GET, Method::HEAD], "GET, HEAD, POST")?;
            let last = context.handle.last_upgrade();
            Ok(answer::json(&serde_json::json!({
                "pid": std::process::id(),
                "running": last.stage.is_some(),
                "stage": last.stage,
                "last_error": last.last_error,
            })))
        }
        _ => Err(unknown()),
    }
}

/// What is below a pool.
async fn of_pool(
    context: &Context,
    pool: &str,
    about: &[&str],
    head: &Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    match *about {
        ["backends", address] => {
            allow(head, &[Method::PATCH], "PATCH")?;
            let body = read(head, body).await?;
            change::apply(context, pool, address, &body)
        }
        ["policy"] => {
            allow(head, &[Method::POST], "POST")?;
            let body = read(head, body).await?;
            policies::promote(context, pool, &body).await
        }
        ["policy", "rollback"] => {
            allow(head, &[Method::POST], "POST")?;
            let body = read(head, body).await?;
            policies::roll_back(context, pool, &body).await
        }
        [trial @ ("shadow" | "canary")] => {
            let is_canary = trial == "canary";
            match head.method {
                Method::POST => {
                    let body = read(head, body).await?;
                    canaries::begin(context, pool, is_canary, &body).await
                }
                Method::DELETE => canaries::end(context, pool, is_canary).await,
                _ => {
                    allow(head, &[Method::GET, Method::HEAD], "GET, HEAD, POST, DELETE")?;
                    canaries::of(context, pool, is_canary)
                }
            }
        }
        ["record"] => {
            allow(head, &[Method::POST], "POST")?;
            let body = read(head, body).await?;
            record::begin(context, pool, &body).await
        }
        _ => Err(unknown()),
    }
}

/// The fleet, and what is below it.
async fn of_fleet(
    context: &Context,
    about: &[&str],
    head: &Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    match *about {
        [] => {
            allow(head, &[Method::GET, Method::HEAD], READS)?;
            fleet::view(context)
        }
        ["policies"] => {
            allow(head, &[Method::POST], "POST")?;
            let _place = upload_place(context)?;
            let bytes_max = context.handle.component_bytes_max();
            let wasm = read_within(head, body, bytes_max, UPLOAD_TIMEOUT, guard::WASM).await?;
            fleet::upload(context, &wasm).await
        }
        ["generations"] => {
            allow(head, &[Method::POST], "POST")?;
            let text = read_within(head, body, TEXT_BYTES_MAX, READ_TIMEOUT, guard::TOML).await?;
            fleet::publish(context, &text).await
        }
        ["rollback"] => {
            allow(head, &[Method::POST], "POST")?;
            let body = read(head, body).await?;
            fleet::roll_back(context, &body).await
        }
        ["halt"] => {
            allow(head, &[Method::POST], "POST")?;
            read(head, body).await?;
            fleet::halt(context).await
        }
        _ => Err(unknown()),
    }
}

/// Components that are read at the same time would take much memory.
fn upload_place(context: &Context) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
    let busy = |_| {
        let error = "other components are being uploaded; try again".to_owned();
        refusal(StatusCode::SERVICE_UNAVAILABLE, error)
    };
    context.uploads.try_acquire().map_err(busy)
}

fn unknown() -> Refusal {
    const KNOWN: &str = "there are: /livez, /readyz, /metrics, /v1/pools, /v1/pools/{pool}, \
        /v1/pools/{pool}/backends/{address}, /v1/policies, /v1/pools/{pool}/policy, \
        /v1/pools/{pool}/policy/rollback, /v1/pools/{pool}/shadow, /v1/pools/{pool}/canary, \
        /v1/pools/{pool}/record, /v1/explain, /v1/listeners, /v1/tenants, /v1/role, /v1/cluster, \
        /v1/cluster/failover, /v1/peers, /v1/fleet, /v1/fleet/policies, \
        /v1/fleet/generations, /v1/fleet/rollback, /v1/fleet/halt, /v1/reload, /v1/upgrade";
    refusal(StatusCode::NOT_FOUND, KNOWN.to_owned())
}

fn allow(head: &Parts, methods: &[Method], names: &'static str) -> Result<(), Refusal> {
    if methods.contains(&head.method) {
        Ok(())
    } else {
        Err(answer::wrong_method(names))
    }
}

/// The path's parts, decoded one by one: an encoded slash is part of a name.
fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let decoded = path.trim_start_matches('/').split('/').map(decode).collect();
    Option::ok_or_else(decoded, || {
        let error = "the path has a bad percent escape".to_owned();
        refusal(StatusCode::BAD_REQUEST, error)
    })
}

/// Without percent escapes; `None` if one is bad, or the rest no text.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

async fn read(head: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
    read_within(head, body, BODY_BYTES_MAX, READ_TIMEOUT, guard::JSON).await
}

/// Reads a component; not too many at once, since they may be large.
async fn upload(context: &Context, head: &Parts, body: Incoming) -> Result<Answer, Refusal> {
    let _place = upload_place(context)?;
    let pool = policies::pool_of(context, head.uri.query())?;
    let bytes_max = context.handle.component_bytes_max();
    let body = read_within(head, body, bytes_max, UPLOAD_TIMEOUT, guard::WASM).await?;
    policies::upload(context, pool, body).await
}

/// Reads the body, within limits of size and time.
async fn read_within(
    head: &Parts,
    mut body: Incoming,
    bytes_max: usize,
    timeout: Duration,
    kind: &'static str,
) -> Result<Bytes, Refusal> {
    let collected = match tokio::time::timeout(timeout, collect(&mut body, bytes_max)).await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) => return Err(refusal(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => {
            let error = format!("the body took longer than {timeout:?}");
            return Err(refusal(StatusCode::REQUEST_TIMEOUT, error));
        }
    };
    let Some(body) = collected else {
        // A client that asked before sending is not to send.
        if !head.headers.contains_key(http::header::EXPECT) {
            discard(body).await;
        }
        let error = format!("the body has more than {bytes_max} bytes");
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, error));
    };
    guard::check_content_type(&head.headers, &body, kind)?;
    Ok(body)
}

/// The whole body; `None` if it is too large, which it may say itself.
async fn collect(body: &mut Incoming, bytes_max: usize) -> hyper::Result<Option<Bytes>> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(None);
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if collected.len() + data.len() > bytes_max {
            return Ok(None);
        }
        collected.extend_from_slice(&data);
    }
    Ok(Some(collected.freeze()))
}

/// Reads on for a while: a connection that is closed with something unread is reset, and then its client may never see
/// the answer.
async fn discard(mut body: Incoming) {
    let all =
        async { while let Ok(Some(Ok(_))) = tokio::time::timeout(DISCARD_PAUSE, body.frame()).await {} };
    let _ = tokio::time::timeout(READ_TIMEOUT, all).await;
}

/// Ready means that requests are accepted. A pool without usable backends is told but does not count: to take the
/// balancer out for it would take its healthy pools out too, and every balancer of the same backends at once; the one
/// pool's clients are told 503 by the balancer itself, at once.
fn ready(context: &Context) -> Answer {
    if !context.handle.is_ready() {
        let text = "not accepting requests: starting or stopping\n";
        return answer::text(StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
    }
    let mut text = "ok\n".to_owned();
    for view in context.handle.pools().iter() {
        if view.pool.snapshot().usable == 0 {
            text += &format!("pool {} has no usable backend\n", view.pool.name());
        }
    }
    answer::text(StatusCode::OK, text)
}

async fn reload(context: &Context) -> Result<Answer, Refusal> {
    if !context.handle.is_ready() {
        let error = "the balancer is starting or stopping".to_owned();
        return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, error));
    }
    match context.handle.reload().await {
        Ok(report) => Ok(answer::json(&report)),
        Err(mistakes) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, mistakes)),
    }
}

/// Answered by this process when the other one serves.
async fn upgrade(context: &Context) -> Result<Answer, Refusal> {
    match context.handle.upgrade().await {
        Ok(pid) => Ok(answer::json(&serde_json::json!({ "pid": pid }))),
        Err(reason) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_after_they_are_split() {
        let decoded = segments("/v1/a%2Fb/%5B::1%5D%3a80").unwrap();
        assert_eq!(decoded, ["v1", "a/b", "[::1]:80"]);
        for bad in ["/%", "/%2", "/%zz", "/%ff"] {
            assert!(segments(bad).is_err(), "{bad}");
        }
    }
}
