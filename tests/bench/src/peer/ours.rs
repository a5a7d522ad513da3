//! trimtab: metrics, health checks and forwarding headers on, as in service.

use std::{fmt::Write, fs};

use anyhow::Result;

use super::{Identity, Plan, Policy, Site, put};
use crate::guest::{self, Fault};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let policy = match policy {
        Policy::RoundRobin => "round-robin",
        Policy::LeastConnections if site.is_watched => "patient",
        Policy::LeastConnections => "least-connections",
        Policy::Program => "by-header",
        Policy::Named(name) => name,
        Policy::Native => "absent",
    };
    let listener = |port: u16, more: &str| {
        format!("[[listener]]\nlisten = \"127.0.0.1:{port}\"\n{more}[[listener.route]]\npool = \"web\"\n")
    };
    let mut listeners = listener(site.port, "");
    if let Some((port, Identity { cert, key, .. })) = site.tls() {
        let tls = format!("tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}\n");
        listeners.push_str(&listener(port, &tls));
    }
    // A balancer that takes fifty times as long would find a thousand backends late, and so down.
    let checks = if site.is_watched {
        "interval = \"1m\", timeout = \"50s\""
    } else {
        "interval = \"5s\""
    };
    let mut text = format!(
        "workers = {}\n\
         [admin]\nlisten = \"127.0.0.1:{}\"\n\
         {listeners}\
         [pool.web]\npolicy = \"{policy}\"\nhealth = {{ kind = \"http\", path = \"/\", {checks} }}\n\
         backends = [\n",
        site.workers,
        site.port + 1
    );
    for port in site.backends {
        writeln!(text, "  \"127.0.0.1:{port}\",")?;
    }
    text.push_str("]\n");
    if policy == "by-header" {
        text.push_str("[policy.by-header]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-key\" }\n");
    }
    if policy == "absent" {
        let component = guest::component(&site.tools.root, Fault::Outcomes)?;
        fs::write(site.folder.join("absent.wasm"), component)?;
        text.push_str("[policy.absent]\ncomponent = \"absent.wasm\"\ndeadline = \"1s\"\n");
    }
    if site.is_watched {
        // All takes fifty times as long.
        text.push_str("[compile]\nmemory = \"64GiB\"\ncpu_time = \"1h\"\nwall_time = \"1h\"\n");
    }
    if policy == "patient" {
        text.push_str("[policy.patient]\nbuiltin = \"least-connections\"\ndeadline = \"1s\"\n");
    }
    let file = put(&site.folder, "trimtab.toml", &text)?;
    let mut plan = Plan::new(&[&site.tools.trimtab.display().to_string(), "run", &file]);
    // With another interval of health checks each time, since a file that is the same changes nothing.
    let reload = format!(
        "n=$(date +%N | cut -c1-3); sed -i 's/interval = \"5[0-9]*m*s\"/interval = \"5'$n'ms\"/' {file} && kill -HUP {{pid}}"
    );
    plan.reload = Some(vec!["sh".to_owned(), "-c".to_owned(), reload]);
    plan.environment.push(("RUST_LOG".to_owned(), "warn".to_owned()));
    plan.h2_port = Some(site.port);
    plan.tls_port = site.tls().map(|(port, _)| port);
    Ok(plan)
}
