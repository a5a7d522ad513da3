//! trimtab: metrics, health checks and forwarding headers on, as in service.

use std::fmt::Write;

use anyhow::Result;

use super::{Plan, Policy, Site, put};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let policy = match policy {
        Policy::RoundRobin => "round-robin",
        Policy::LeastConnections => "least-connections",
        Policy::Program => "by-header",
    };
    let mut text = format!(
        "workers = 1\n\
         [admin]\nlisten = \"127.0.0.1:{}\"\n\
         [[listener]]\nlisten = \"127.0.0.1:{}\"\n\
         [[listener.route]]\npool = \"web\"\n\
         [pool.web]\npolicy = \"{policy}\"\nhealth = {{ kind = \"http\", path = \"/\", interval = \"5s\" }}\n\
         backends = [\n",
        site.port + 1,
        site.port
    );
    for port in site.backends {
        writeln!(text, "  \"127.0.0.1:{port}\",")?;
    }
    text.push_str("]\n");
    if policy == "by-header" {
        text.push_str("[policy.by-header]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-key\" }\n");
    }
    let file = put(&site.folder, "trimtab.toml", &text)?;
    let mut plan = Plan::new(&[&site.tools.trimtab.display().to_string(), "run", &file]);
    plan.reload = Some(["kill", "-HUP", "{pid}"].map(str::to_owned).to_vec());
    plan.environment.push(("RUST_LOG".to_owned(), "warn".to_owned()));
    Ok(plan)
}
