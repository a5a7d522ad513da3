//! What a balancer begins with: what is compiled and kept, the admin listener, and what other processes leave to it.
//!
//! Owns how these are opened. It must not put anything into service.

use std::sync::Arc;

use super::{StartError, archive::Archive};
use crate::{
    admin::Admin,
    config::{self, Config},
    handover::{Inheritance, Successor},
    policy::{CodeCache, Compiler, Engine, Loader},
    registry::Store,
    state::State,
    systemd::ServiceManager,
};

/// What a balancer has from outside, apart from its configuration.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// What another process leaves to it.
    pub inheritance: Inheritance,
    /// How the process is started that may take over one day; `None` if none can.
    pub successor: Option<Successor>,
    /// Who is told when it serves and when it ends.
    pub service_manager: ServiceManager,
}

/// What compiles, what was pulled, and what is kept.
pub(super) fn open(config: &Config, compiler: Compiler) -> Result<(Loader, Store, Archive), StartError> {
    let engine = Arc::new(Engine::new().map_err(|error| StartError::Engine(error.to_string()))?);
    let processes = config.compile.processes;
    let Some(kept) = &config.state else {
        let archive = Archive::open(None).map_err(StartError::Thread)?;
        let loader = Loader::new(engine, compiler, None, processes);
        return Ok((loader, Store::in_memory(), archive));
    };
    let opened = State::open(&kept.directory).and_then(|state| {
        let cache = CodeCache::new(state.sealed("code")?, &engine, kept.size_bytes);
        let pulled = Store::open(&state, kept.size_bytes)?;
        Ok((cache, pulled, Archive::open(Some((&state, kept.size_bytes)))?))
    });
    let (cache, pulled, archive) = opened.map_err(|error| StartError::State {
        path: kept.directory.display().to_string(),
        error,
    })?;
    let loader = Loader::new(engine, compiler, Some(cache), processes);
    Ok((loader, pulled, archive))
}

/// From here on this process is the one that serves.
pub(super) async fn take_over(inheritance: &mut Inheritance) {
    let mut inherited = std::mem::take(inheritance);
    let confirmed = tokio::task::spawn_blocking(move || inherited.confirm()).await;
    if let Ok(Err(error)) = confirmed {
        tracing::warn!(%error, "the process before has gone without a word; this one serves");
    }
}

pub(super) fn open_admin(admin: &config::Admin, inheritance: &mut Inheritance) -> Result<Admin, StartError> {
    let opened = match inheritance.take_admin(admin.listen) {
        Some(socket) => Admin::of(socket),
        None => Admin::bind(admin.listen),
    };
    opened.map_err(|error| StartError::Bind {
        name: "admin".to_owned(),
        address: admin.listen,
        error,
    })
}
