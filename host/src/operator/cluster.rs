//! `trimtab cluster`: who is active, and a change of it.
//!
//! Owns the words for a person. It must not know more than the admin interface says.

use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::word;
use crate::cli::{ClusterOrder, ClusterVerb};

/// Asks, and tells the answer.
pub(crate) fn obey(order: &ClusterOrder) -> ExitCode {
    super::end(ask(order))
}

fn ask(order: &ClusterOrder) -> anyhow::Result<String> {
    let (method, path, body) = match &order.verb {
        ClusterVerb::Status => (Method::GET, "/v1/cluster", Bytes::new()),
        ClusterVerb::Failover { to } => {
            let body = to.as_ref().map_or(json!({}), |to| json!({ "to": to }));
            (
                Method::POST,
                "/v1/cluster/failover",
                Bytes::from(body.to_string()),
            )
        }
    };
    let text = super::answer(order.admin, method, path, ("application/json", body))?;
    if order.json {
        return Ok(text);
    }
    let answer: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    Ok(match order.verb {
        ClusterVerb::Status => status(&answer),
        ClusterVerb::Failover { .. } => format!("handing over to {}", word(&answer["to"])),
    })
}

fn status(view: &Value) -> String {
    let mut lines = vec![format!(
        "cluster {}: {} is {}, epoch {}",
        word(&view["cluster"]),
        word(&view["node"]),
        word(&view["role"]),
        view["epoch"],
    )];
    if view["role"] == "active" {
        lines.push(format!(
            "  lease: {} ms if nobody answers any more",
            view["lease_ms"]
        ));
    }
    if let Some(name) = view["votes_for"].as_str() {
        lines.push(format!("  votes for {name}"));
    }
    if let Some(reason) = view["unfit"].as_str() {
        lines.push(format!("  cannot serve: {reason}"));
    }
    if view["same_policies"] == false {
        lines.push("  other policies than the last active node had".to_owned());
    }
    let serves = |key: &str| {
        let mut all = view["members"].as_array().into_iter().flatten();
        let ours = all.find(|member| member["name"] == view["node"]);
        ours.map(|member| member[key].clone())
    };
    for member in view["members"].as_array().into_iter().flatten() {
        let mut about = vec![word(&member["role"]).to_owned()];
        if member["active"] == true {
            about.push("active".to_owned());
        }
        if member["role"] == "node" && member["fit"] == false {
            about.push("not ready".to_owned());
        }
        match member["presence"].as_str() {
            Some("silent") => about.push("just started".to_owned()),
            Some("parting") => about.push("about to be replaced".to_owned()),
            _ => {}
        }
        for (key, what) in [
            ("config", "another configuration"),
            ("policies", "other policies"),
        ] {
            let is_told = member[key].is_string() && serves(key).is_some_and(|ours| ours.is_string());
            if is_told && serves(key).as_ref() != Some(&member[key]) {
                about.push(what.to_owned());
            }
        }
        about.push(match member["heard_ms"].as_u64() {
            Some(heard_ms) => format!("heard {heard_ms} ms ago"),
            None if member["name"] == view["node"] => "this one".to_owned(),
            None => "never heard".to_owned(),
        });
        lines.push(format!(
            "  {}  {}  {}",
            word(&member["name"]),
            word(&member["address"]),
            about.join(", ")
        ));
    }
    lines.join("\n")
}
