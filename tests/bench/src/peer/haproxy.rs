//! HAProxy, of Debian.

use anyhow::Result;

use super::{Plan, Policy, Site, program, put};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let (folder, port, h2) = (site.folder.display(), site.port, site.port + 1);
    let (mut load, mut decide) = (String::new(), "");
    let choose = match policy {
        Policy::RoundRobin => "balance roundrobin",
        Policy::LeastConnections | Policy::Native => "balance leastconn",
        Policy::Named(line) => line,
        Policy::Program => {
            let script = format!(
                "core.register_fetches(\"pick\", function(txn)
  local key, hash = txn.sf:req_hdr(\"x-key\") or \"\", 5381
  for at = 1, #key do hash = (hash * 31 + key:byte(at)) % 4294967296 end
  return \"s\" .. (hash % {})
end)
",
                site.backends.len()
            );
            load = format!("lua-load {}", put(&site.folder, "pick.lua", &script)?);
            decide = "http-request set-var(txn.backend) lua.pick";
            "balance roundrobin\n  use-server %[var(txn.backend)] if TRUE"
        }
    };
    let numbered = site.backends.iter().enumerate();
    let servers: String = numbered
        .map(|(at, port)| format!("  server s{at} 127.0.0.1:{port}\n"))
        .collect();
    let workers = site.workers;
    let tls = site.tls().map_or(String::new(), |(port, identity)| {
        format!(
            "bind 127.0.0.1:{port} ssl crt {} ssl-min-ver TLSv1.3 backlog 4096",
            identity.both
        )
    });
    let text = format!(
        "global
  maxconn 9950
  nbthread {workers}
  stats socket {folder}/socket mode 600 expose-fd listeners level admin
  {load}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  timeout http-request 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{h2} proto h2 backlog 4096
  {tls}
  {decide}
  default_backend b
backend b
  {choose}
{servers}"
    );
    let file = put(&site.folder, "haproxy.cfg", &text)?;
    let mut plan = Plan::new(&[&program("haproxy")?, "-W", "-db", "-f", &file]);
    plan.reload = Some(["kill", "-USR2", "{pid}"].map(str::to_owned).to_vec());
    plan.h2_port = Some(h2);
    plan.tls_port = site.tls().map(|(port, _)| port);
    Ok(plan)
}
