//! What `trimtab check` tries: everything that can be refused without serving, on a machine without the backends.
//!
//! Owns the list of all that is wrong, where `Server::start` ends at the first. It must not resolve names or bind sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Instant,
};

use super::{
    StartError, cluster,
    loading::{Supply, Wanted, load_policy, refused},
    tls,
};
use crate::{
    config::{self, Config},
    policy::{Candidate, Compiler, Engine, Instance, Loader},
    pool::Pool,
    registry::Store,
    tenant::Tenant,
};

/// Reads a configuration, compiles its components and tries each with each of its pools. Takes seconds for large
/// components. Must not be called on a runtime.
///
/// # Errors
/// Everything that is wrong, each in one line.
pub fn check(path: &Path, compiler: Compiler) -> Result<Config, Vec<String>> {
    let lines = |mistakes: &[config::Mistake]| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let config = Config::load(path).map_err(|mistakes| lines(mistakes.as_slice()))?;
    let mut wrong = lines(&config.missing_components());
    if let Err(StartError::Mistakes(mistakes)) = tls::load_all(&config, &tls::Loaded::default()) {
        wrong.extend(lines(mistakes.as_slice()));
    }
    if let Some(peers) = &config.peers
        && let Err(error) = cluster::read_key(&peers.key)
    {
        wrong.push(error.to_string());
    }
    if let Some(cluster) = &config.cluster
        && let Err(error) = cluster::read_key(&cluster.key)
    {
        wrong.push(error.to_string());
    }
    if let Err(error) = try_policies(&config, compiler, &mut wrong) {
        wrong.push(error.to_string());
    }
    if wrong.is_empty() { Ok(config) } else { Err(wrong) }
}

fn try_policies(config: &Config, compiler: Compiler, wrong: &mut Vec<String>) -> Result<(), StartError> {
    let engine = Engine::new().map_err(|error| StartError::Engine(error.to_string()))?;
    // What was compiled before is the running balancer's business.
    let supply = Supply {
        registry: Arc::new(Store::in_memory()),
        loader: Arc::new(Loader::new(
            Arc::new(engine),
            compiler,
            None,
            config.compile.processes,
        )),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(StartError::Thread)?.block_on(async {
        for spec in config.policies.values() {
            try_policy(config, &supply, spec, wrong).await;
        }
    });
    Ok(())
}

async fn try_policy(config: &Config, supply: &Supply, spec: &Arc<config::Policy>, wrong: &mut Vec<String>) {
    let candidate = match load_policy(supply, &Wanted::of(config, spec), Vec::new()).await {
        Ok(candidate) => candidate,
        // Already told as missing, with its place in the file.
        Err(StartError::Component { .. }) if !wrong.is_empty() => return,
        Err(error) => return wrong.push(one_line(&error)),
    };
    for pool in config.pools.values().filter(|pool| pool.policy == spec.name) {
        let tenant = pool.tenant.as_ref().and_then(|name| config.tenants.get(name));
        let tenant = tenant.map(|budgets| Arc::new(Tenant::new(budgets.clone(), 1)));
        if let Err(error) = try_pool(spec, &candidate, (pool, tenant)) {
            let line = one_line(&error);
            // What does not depend on the pool is the same for all of them.
            if !wrong.contains(&line) {
                wrong.push(line);
            }
        }
    }
}

fn try_pool(
    spec: &config::Policy,
    candidate: &Candidate,
    (pool, tenant): (&Arc<config::Pool>, Option<Arc<Tenant>>),
) -> Result<(), StartError> {
    // Policies do not see where names lead, and nothing is connected to.
    let somewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let sockets: Vec<SocketAddr> = pool
        .backends
        .iter()
        .map(|backend| backend.address.parse().unwrap_or(somewhere))
        .collect();
    let pool = Pool::new(pool.clone(), &sockets, 1, None, Instant::now()).of_tenant(tenant);
    let built = Instance::build(candidate, &pool);
    built.map(drop).map_err(|fault| refused(spec, fault.into()))
}

/// What guests and the engine say may have many lines.
fn one_line(error: &StartError) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(name: &str, text: &str) -> Result<Config, Vec<String>> {
        let path = std::env::temp_dir().join(format!("trimtab-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = check(&path, Compiler::InProcess);
        std::fs::remove_file(&path).unwrap();
        result
    }

    const LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\n";

    #[test]
    fn names_that_lead_nowhere_are_no_mistake() {
        let text = format!("{LISTENER}[pool.shop]\nbackends = [\"nowhere.invalid:80\"]\n");
        let config = check_text("names", &text).unwrap();
        assert_eq!(config.pools.len(), 1);
    }

    #[test]
    fn a_missing_component_and_a_refused_setting_are_told_together_a_line_each() {
        let text = format!(
            "{LISTENER}[[listener.route]]\nhost = \"a.test\"\npool = \"a\"\n\
             [[listener.route]]\npool = \"b\"\n\
             [pool.a]\npolicy = \"gone\"\nbackends = [\"127.0.0.1:1\"]\n\
             [pool.b]\npolicy = \"ring\"\nbackends = [\"127.0.0.1:1\"]\n\
             [policy.gone]\ncomponent = \"gone.wasm\"\n\
             [policy.ring]\nbuiltin = \"consistent-hash\"\nconfig = {{ nonsense = true }}\n"
        );
        let wrong = check_text("both", &text).unwrap_err();
        assert_eq!(wrong.len(), 2, "{wrong:#?}");
        assert!(wrong[0].contains("policy.gone.component"), "{wrong:#?}");
        assert!(
            wrong[1].starts_with("policy.ring") && wrong[1].contains("nonsense"),
            "{wrong:#?}"
        );
        assert!(wrong.iter().all(|line| !line.contains('\n')));
    }
}
