//! `trimtab fleet`: who belongs to it, and another configuration for all of it.
//!
//! Owns the words for a person, and what is sent of a file: the components that it names go first, and their digests take the place
//! of their paths. It must not know more than the admin interface says.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use trimtab::config::components_in;

use super::word;
use crate::cli::{FleetOrder, FleetVerb};

/// Asks, and tells the answer.
pub(crate) fn obey(order: &FleetOrder) -> ExitCode {
    super::end(ask(order))
}

fn ask(order: &FleetOrder) -> anyhow::Result<String> {
    const JSON: &str = "application/json";
    let post = |path, body: Value| {
        super::answer(
            order.admin,
            Method::POST,
            path,
            (JSON, Bytes::from(body.to_string())),
        )
    };
    let text = match &order.verb {
        FleetVerb::Status => super::answer(order.admin, Method::GET, "/v1/fleet", (JSON, Bytes::new()))?,
        FleetVerb::Publish { file } => {
            let tables = with_digests(order, file)?;
            let kind = "application/toml";
            super::answer(
                order.admin,
                Method::POST,
                "/v1/fleet/generations",
                (kind, tables.into()),
            )?
        }
        FleetVerb::Rollback { to } => post(
            "/v1/fleet/rollback",
            to.map_or(json!({}), |to| json!({ "to": to })),
        )?,
        FleetVerb::Halt => post("/v1/fleet/halt", json!({}))?,
    };
    if order.json {
        return Ok(text);
    }
    let answer: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    Ok(match order.verb {
        FleetVerb::Status => status(&answer),
        _ => format!("{}\nnext: trimtab fleet status", rollout(&answer)),
    })
}

/// The file's text, with the components that it names given to the fleet.
fn with_digests(order: &FleetOrder, file: &Path) -> anyhow::Result<String> {
    let origin = file.display().to_string();
    let mut text = std::fs::read_to_string(file).with_context(|| origin.clone())?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut found = components_in(&text, &origin)?;
    // From the end, so that the places of the others stay what they are.
    found.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    for (place, path) in found {
        let path = directory.join(path);
        let wasm = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let body = ("application/wasm", wasm.into());
        let answer = super::answer(order.admin, Method::POST, "/v1/fleet/policies", body)?;
        let answer: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
        text.replace_range(place, &format!("\"sha256:{}\"", word(&answer["digest"])));
    }
    Ok(text)
}

fn rollout(rollout: &Value) -> String {
    let generation = &rollout["generation"];
    let canaries = rollout["canaries"].as_array().into_iter().flatten();
    let canaries: Vec<&str> = canaries.map(word).collect();
    match word(&rollout["phase"]) {
        "canary" => format!("generation {generation} is on trial with {}", canaries.join(", ")),
        "everywhere" => format!("generation {generation} is for all nodes"),
        phase => {
            let good = match rollout["good"].as_u64() {
                Some(0) | None => "what is in each node's file".to_owned(),
                Some(good) => format!("generation {good}"),
            };
            let reason = rollout["reason"].as_str().unwrap_or("no reason given");
            format!("generation {generation} is {phase}: {reason}\n  all nodes serve {good}")
        }
    }
}

fn status(view: &Value) -> String {
    let controller = view["controller"].as_str().unwrap_or("nobody");
    let mut lines = vec![format!(
        "{}, node {}, controlled by {controller}",
        word(&view["prefix"]),
        word(&view["node"])
    )];
    if let Some(error) = view["etcd"]["error"].as_str() {
        lines.push(format!(
            "  {error}; what serves goes on, and nothing can be changed"
        ));
    }
    match &view["rollout"] {
        Value::Null => lines.push("  nothing was published yet".to_owned()),
        newest => lines.push(format!("  {}", rollout(newest))),
    }
    for member in view["members"].as_array().into_iter().flatten() {
        let mut about = vec![match member["generation"].as_u64() {
            Some(0) | None => "serves its file".to_owned(),
            Some(generation) => format!("serves generation {generation}"),
        }];
        if member["canary"] == true {
            about.push("canary".to_owned());
        }
        if member["me"] == true {
            about.push("this one".to_owned());
        }
        let attempt = &member["attempt"];
        if matches!(attempt["verdict"].as_str(), Some("trying" | "refused" | "bad")) {
            let reason = attempt["reason"].as_str().map(|reason| format!(": {reason}"));
            let verdict = word(&attempt["verdict"]);
            about.push(format!(
                "{verdict} {}{}",
                attempt["generation"],
                reason.unwrap_or_default()
            ));
        }
        lines.push(format!(
            "  {}  trimtab {}  {}",
            word(&member["name"]),
            word(&member["version"]),
            about.join(", ")
        ));
    }
    lines.join("\n")
}
