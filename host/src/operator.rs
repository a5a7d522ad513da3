//! `trimtab policy`: what an operator tells a running balancer, by its admin listener.
//!
//! Owns the requests, and the words for a person; `--json` passes on the balancer's own. It must not know more than the
//! admin interface says (`docs/admin.md`).

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::cli::{self, PolicyOrder, PolicyVerb};

pub(crate) mod cluster;
pub(crate) mod fleet;

/// Longer than any compile that a balancer allows by default.
const TIMEOUT: Duration = Duration::from_secs(150);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks, and tells the answer.
pub(crate) fn obey(order: &PolicyOrder) -> ExitCode {
    if let PolicyVerb::Author(verb) = &order.verb {
        return cli::author::obey(verb, order.json);
    }
    let answer = match &order.verb {
        PolicyVerb::Push {
            file,
            pool,
            promote,
            watch,
        } => cli::push::push(
            &cli::push::Push {
                from: file,
                pool,
                promotes: *promote,
            },
            *watch,
            |verb| ask(order, verb),
        ),
        verb => ask(order, verb),
    };
    end(answer)
}

/// Says what came of an order.
fn end(answer: anyhow::Result<String>) -> ExitCode {
    match answer {
        Ok(text) => {
            crate::say(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A word of an answer.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn ask(order: &PolicyOrder, verb: &PolicyVerb) -> anyhow::Result<String> {
    let (method, path, kind, body) = request(verb)?;
    let text = answer(order.admin, method, &path, (kind, body))?;
    if order.json {
        return Ok(text);
    }
    let answer = serde_json::from_str(&text).context("the answer is not JSON")?;
    Ok(tell(verb, &answer))
}

/// What a balancer answers; its refusals are errors.
fn answer(
    admin: SocketAddr,
    method: Method,
    path: &str,
    (kind, body): (&str, Bytes),
) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, admin.to_string())
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(body))?;
    let exchange = async { tokio::time::timeout(TIMEOUT, exchange(admin, request)).await };
    let exchanged = runtime.block_on(exchange);
    let (status, text) = exchanged.with_context(|| format!("no answer from {admin} in {TIMEOUT:?}"))??;
    if (200..300).contains(&status) {
        return Ok(text);
    }
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => bail!("status {status}: {text}"),
    }
}

fn request(verb: &PolicyVerb) -> anyhow::Result<(Method, String, &'static str, Bytes)> {
    const JSON: &str = "application/json";
    let post = |path: String, body: Value| (Method::POST, path, JSON, Bytes::from(body.to_string()));
    Ok(match verb {
        PolicyVerb::Author(_) => bail!("nothing to ask a balancer"),
        PolicyVerb::Push { file, pool, .. } => {
            let wasm = std::fs::read(file).with_context(|| file.display().to_string())?;
            let path = format!("/v1/policies?pool={}", escape(pool));
            (Method::POST, path, "application/wasm", wasm.into())
        }
        PolicyVerb::Promote { digest, pool } => {
            let path = format!("/v1/pools/{}/policy", escape(pool));
            post(path, json!({ "digest": digest }))
        }
        PolicyVerb::Rollback { pool, to } => {
            let path = format!("/v1/pools/{}/policy/rollback", escape(pool));
            let body = match to {
                Some(digest) => json!({ "digest": digest }),
                None => json!({}),
            };
            post(path, body)
        }
        PolicyVerb::Shadow {
            digest,
            pool,
            share,
            stop,
        } => {
            let path = format!("/v1/pools/{}/shadow", escape(pool));
            match digest {
                Some(digest) => post(path, json!({ "digest": digest, "share": share })),
                None if *stop => (Method::DELETE, path, JSON, Bytes::new()),
                None => (Method::GET, path, JSON, Bytes::new()),
            }
        }
        PolicyVerb::Canary {
            digest,
            pool,
            share,
            decisions,
            stop,
        } => {
            let path = format!("/v1/pools/{}/canary", escape(pool));
            if *stop {
                return Ok((Method::DELETE, path, JSON, Bytes::new()));
            }
            let body = json!({ "digest": digest, "share": share, "decisions": decisions });
            post(path, body)
        }
        PolicyVerb::Status { pool: Some(pool) } => {
            let path = format!("/v1/pools/{}/canary", escape(pool));
            (Method::GET, path, JSON, Bytes::new())
        }
        PolicyVerb::Status { pool: None } => (Method::GET, "/v1/policies".to_owned(), JSON, Bytes::new()),
    })
}

/// As a part of a path or the value of a query.
fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let escaped = text.bytes().map(|byte| match byte {
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

async fn exchange(admin: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(admin).await;
    let stream = stream.with_context(|| format!("no balancer answers at {admin} (--admin says where)"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response: Response<_> = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?;
    driver.abort();
    Ok((status, String::from_utf8(body.to_bytes().to_vec())?))
}

fn tell(verb: &PolicyVerb, answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
    match verb {
        PolicyVerb::Author(_) => String::new(),
        PolicyVerb::Push { pool, .. } => format!(
            "uploaded {} ({} bytes, compiled in {} ms by the {}); it fits pool {pool}, and serves nobody yet\n\
             next: trimtab policy promote {} --pool {pool}",
            text("version"),
            answer["bytes"],
            answer["compile_ms"],
            text("compiled_by"),
            text("version"),
        ),
        PolicyVerb::Promote { pool, .. } | PolicyVerb::Rollback { pool, .. } => {
            let version = text("version");
            let previous: String = text("previous").chars().take(12).collect();
            let verb = if answer["changed"] == true {
                format!("serves in place of {previous}")
            } else {
                "serves already".to_owned()
            };
            let until = if answer["pinned"] == true {
                "until the configuration says something else about this policy"
            } else {
                "as the configuration says"
            };
            format!("pool {pool}: {version} {verb}, {until}")
        }
        PolicyVerb::Shadow { .. } => shadow(answer),
        PolicyVerb::Canary { .. } => canary(answer),
        PolicyVerb::Status { pool: Some(pool) } => match answer["canaries"].as_array() {
            Some(canaries) if !canaries.is_empty() => {
                canaries.iter().map(canary).collect::<Vec<_>>().join("\n")
            }
            _ => format!("pool {pool} has had no canary since the balancer started"),
        },
        PolicyVerb::Status { pool: None } => status(answer),
    }
}

fn shadow(report: &Value) -> String {
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| report[key].as_f64().unwrap_or_default();
    let drift = report["drift"].as_array().cloned().unwrap_or_default();
    let drift: Vec<String> = drift
        .iter()
        .map(|drift| format!("{:+.1}", drift.as_f64().unwrap_or_default() * 100.0))
        .collect();
    format!(
        "pool {}: shadow {} agrees in {:.2} % of {} decisions ({:.0} s)\n  share of each backend against the version in \
         service, in points: {}\n  {:.0} ns a decision, abstained {}, rejected {}, faults {}, dropped {}",
        text("pool"),
        text("version"),
        number("agreement") * 100.0,
        report["compared"],
        number("seconds"),
        drift.join(" "),
        number("decision_ns"),
        report["abstained"],
        report["rejected"],
        report["faults"],
        report["dropped"],
    )
}

fn canary(report: &Value) -> String {
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let percent = |key: &str| report[key].as_f64().unwrap_or_default() * 100.0;
    let mut lines = vec![format!(
        "pool {}: canary {} {} after {:.1} s, {:.1} % of the requests (wanted {:.1} %)",
        text("pool"),
        text("version"),
        text("outcome"),
        report["seconds"].as_f64().unwrap_or_default(),
        percent("exposed"),
        percent("share"),
    )];
    if let Some(reason) = report["reason"].as_str() {
        lines.push(format!("  because {reason}"));
    }
    let breach = &report["breach"];
    if let Some(rule) = breach["rule"].as_str() {
        lines.push(format!(
            "  it broke the rule {rule}: {} against {} of the version in service, allowed {}",
            breach["canary"], breach["active"], breach["limit"]
        ));
    }
    for arm in ["active", "canary"] {
        let of = |key: &str| report[arm][key].clone();
        lines.push(format!(
            "  {arm}: decisions {}, faults {}, errors {} of {}, p99 {} us, picks {}",
            of("decisions"),
            of("faults"),
            of("errors"),
            of("answers"),
            of("p99_us"),
            of("picks"),
        ));
    }
    lines.join("\n")
}

fn status(answer: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let field = |value: &Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
    let mut lines = Vec::new();
    for pool in list(&answer["pools"]) {
        let pinned = if pool["pinned"] == true { ", pinned" } else { "" };
        lines.push(format!(
            "{}: policy {}{pinned}",
            field(&pool, "pool"),
            field(&pool, "policy")
        ));
        for (at, version) in list(&pool["versions"]).iter().enumerate() {
            lines.push(format!(
                "  {} {}  {:8}{:>9} bytes  {}",
                if at == 0 { '*' } else { ' ' },
                field(version, "version"),
                field(version, "origin"),
                version["bytes"],
                field(version, "source"),
            ));
        }
    }
    for upload in list(&answer["uploads"]) {
        lines.push(format!(
            "uploaded: {} {:>9} bytes",
            field(&upload, "version"),
            upload["bytes"]
        ));
    }
    lines.join("\n")
}
