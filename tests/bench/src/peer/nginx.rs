//! nginx, of Debian, with its Lua module.

use anyhow::Result;

use super::{Identity, Plan, Policy, Site, program, put};

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let folder = site.folder.display();
    let (port, h2) = (site.port, site.port + 1);
    let mut servers: String = site
        .backends
        .iter()
        .map(|port| format!("    server 127.0.0.1:{port};\n"))
        .collect();
    let (mut modules, mut prepare, mut choose) = ("", String::new(), "");
    match policy {
        Policy::RoundRobin => {}
        Policy::LeastConnections | Policy::Native => choose = "least_conn;",
        Policy::Named(line) => choose = line,
        Policy::Program => {
            modules = "load_module modules/ndk_http_module.so; load_module modules/ngx_http_lua_module.so;";
            let peers: String = site.backends.iter().map(|port| format!("{port},")).collect();
            prepare =
                format!("init_by_lua_block {{ peers = {{ {peers} }}; balancer = require \"ngx.balancer\" }}");
            servers = "    server 0.0.0.1;\n".to_owned();
            choose = "balancer_by_lua_block {
      local port = peers[ngx.crc32_short(ngx.var.http_x_key or \"\") % #peers + 1]
      local ok, why = balancer.set_current_peer(\"127.0.0.1\", port)
      if not ok then ngx.log(ngx.ERR, why) end
    }";
        }
    }
    let workers = site.workers;
    // Sockets of their own, as trimtab's workers have; one worker needs none.
    let shared = if workers > 1 { " reuseport" } else { "" };
    let mut listen = format!(
        "listen 127.0.0.1:{port} backlog=4096{shared}; listen 127.0.0.1:{h2} http2 backlog=4096{shared};"
    );
    if let Some((port, Identity { cert, key, .. })) = site.tls() {
        listen.push_str(&format!(
            " listen 127.0.0.1:{port} ssl backlog=4096{shared}; ssl_protocols TLSv1.3;
    ssl_certificate {cert}; ssl_certificate_key {key}; ssl_session_tickets on;"
        ));
    }
    let text = format!(
        "user root;
worker_processes {workers}; worker_rlimit_nofile 60000; daemon off; pid {folder}/pid; error_log {folder}/error.log error;
{modules}
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_timeout 600s; keepalive_requests 1000000000; server_tokens off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; client_max_body_size 0;
  {prepare}
  upstream web {{
{servers}    {choose}
    keepalive 2048; keepalive_requests 1000000000; keepalive_timeout 600s;
  }}
  server {{
    {listen}
    location / {{
      proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_buffer_size 16k; proxy_buffers 16 32k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
      proxy_request_buffering off;
    }}
  }}
}}
"
    );
    let file = put(&site.folder, "nginx.conf", &text)?;
    let mut plan = Plan::new(&[&program("nginx")?, "-c", &file]);
    plan.reload = Some(["kill", "-HUP", "{pid}"].map(str::to_owned).to_vec());
    plan.h2_port = Some(h2);
    plan.tls_port = site.tls().map(|(port, _)| port);
    Ok(plan)
}
