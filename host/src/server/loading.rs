//! The part of a reload that takes long, and needs nothing of what serves: reading the file, and compiling.
//!
//! Owns where components come from, and the choice to compile many at once. It runs in a task of its own, so that the
//! control task has time for everything else meanwhile; nothing that it does can be noticed by a request.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinSet;

use super::{Source, StartError, tls};
use crate::{
    config::{self, Config, Mistakes, PolicySource},
    policy::{Candidate, Loader, Refusal, builtin_component},
    registry::Store,
};

/// Components that are held in memory at the same time, if no more are compiled at once.
const AT_ONCE: usize = 16;

/// Where components come from, and their code.
#[derive(Clone)]
pub(super) struct Supply {
    pub(super) registry: Arc<Store>,
    pub(super) loader: Arc<Loader>,
}

/// A configuration with all that it needs compiled.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) policies: BTreeMap<String, Arc<Candidate>>,
}

/// What became of a reload so far.
pub(super) struct Loading {
    pub(super) source: Source,
    /// The files that the configuration names, if it could be read.
    pub(super) components: Option<Vec<PathBuf>>,
    pub(super) result: Result<Loaded, StartError>,
}

/// Reads the configuration and compiles its components. Those in service are used again when neither their bytes nor
/// their settings changed.
pub(super) async fn load(source: Source, supply: Supply, in_service: Vec<Arc<Candidate>>) -> Loading {
    let reading = source.clone();
    let read = tokio::task::spawn_blocking(move || reading.load()).await;
    let config = read.unwrap_or_else(|error| Err(StartError::Engine(error.to_string())));
    let components = config.as_ref().ok().map(named_files);
    let result = match config {
        Ok(config) => load_policies(config, supply, in_service).await,
        Err(error) => Err(error),
    };
    Loading {
        source,
        components,
        result,
    }
}

pub(super) async fn load_policies(
    config: Config,
    supply: Supply,
    in_service: Vec<Arc<Candidate>>,
) -> Result<Loaded, StartError> {
    let at_once = AT_ONCE.max(2 * config.compile.processes);
    let mut tasks = JoinSet::new();
    let mut results = BTreeMap::new();
    let mut rest = config.policies.iter();
    loop {
        for (name, spec) in rest.by_ref().take(at_once - tasks.len()) {
            let same = |candidate: &&Arc<Candidate>| is_same(&candidate.spec, spec);
            let known = in_service.iter().filter(same).cloned().collect();
            let (name, supply, policy) = (name.clone(), supply.clone(), Wanted::of(&config, spec));
            tasks.spawn(async move { (name, load_policy(&supply, &policy, known).await) });
        }
        let Some(done) = tasks.join_next().await else {
            break;
        };
        let (name, result) = done.map_err(|error| StartError::Engine(error.to_string()))?;
        results.insert(name, result);
    }
    // Of several refusals always the same one is told.
    let policies = results
        .into_iter()
        .map(|(name, result)| Ok((name, result?)))
        .collect::<Result<_, StartError>>()?;
    Ok(Loaded { config, policies })
}

/// A policy, with what the rest of its configuration says about it.
pub(super) struct Wanted {
    spec: Arc<config::Policy>,
    limits: config::Compile,
    /// How its registry is asked.
    registry: Option<Arc<config::Registry>>,
}

impl Wanted {
    pub(super) fn of(config: &Config, spec: &Arc<config::Policy>) -> Self {
        let registry = match &spec.source {
            PolicySource::Registry(artifact) => config.registries.get(&artifact.registry).cloned(),
            _ => None,
        };
        Self {
            spec: spec.clone(),
            limits: config.compile.clone(),
            registry,
        }
    }
}

/// One policy; `known` are candidates that serve with the same settings.
pub(super) async fn load_policy(
    Supply { registry, loader }: &Supply,
    wanted: &Wanted,
    known: Vec<Arc<Candidate>>,
) -> Result<Arc<Candidate>, StartError> {
    let Wanted { spec, limits, .. } = wanted;
    let wasm = match (&spec.source, &wanted.registry) {
        (PolicySource::Registry(artifact), Some(settings)) => {
            let pulled = registry.component(artifact, settings, limits.size_bytes).await;
            pulled.map_err(|mistake| StartError::Mistakes(Mistakes::from(*mistake)))?
        }
        _ => read(spec, limits.size_bytes).await?,
    };
    let compared = wasm.clone();
    let known = tokio::task::spawn_blocking(move || {
        let is_same = |candidate: &Arc<Candidate>| candidate.is_of(&compared);
        known.into_iter().find(is_same)
    });
    let known = known
        .await
        .map_err(|error| StartError::Engine(error.to_string()))?;
    if let Some(known) = known {
        return Ok(known);
    }
    let code = match spec.source.is_builtin() {
        true => loader.load_builtin(&wasm, limits).await,
        false => loader.load(&wasm, limits).await,
    };
    let admitted = code.and_then(|code| Candidate::admit(loader.engine(), spec.clone(), &code));
    Ok(Arc::new(admitted.map_err(|refusal| refused(spec, refusal))?))
}

/// What is on this machine.
async fn read(spec: &config::Policy, bytes_max: usize) -> Result<Arc<[u8]>, StartError> {
    let source = spec.source.clone();
    let read = tokio::task::spawn_blocking(move || match &source {
        PolicySource::Builtin(name) => Ok(builtin_component(name).unwrap_or_default().into()),
        PolicySource::File(path) => read_file(path, bytes_max).map(Into::into),
        PolicySource::Registry(_) => Err(std::io::ErrorKind::NotFound.into()),
    });
    let read = read
        .await
        .map_err(|error| StartError::Engine(error.to_string()))?;
    read.map_err(|error: std::io::Error| StartError::Component {
        policy: spec.name.clone(),
        path: shown(&spec.source),
        error,
    })
}

/// As the configuration names it.
fn shown(source: &PolicySource) -> String {
    match source {
        PolicySource::File(path) => path.display().to_string(),
        PolicySource::Registry(artifact) => artifact.to_string(),
        PolicySource::Builtin(name) => name.clone(),
    }
}

/// One byte more than allowed, so that it can be seen that it is too many.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut wasm)?;
    Ok(wasm)
}

/// The files of a configuration that are watched.
pub(super) fn named_files(config: &Config) -> Vec<PathBuf> {
    let files = config
        .policies
        .values()
        .filter_map(|policy| match &policy.source {
            PolicySource::File(path) => Some(path.clone()),
            PolicySource::Registry(_) | PolicySource::Builtin(_) => None,
        });
    files.chain(tls::files(config)).collect()
}

/// Whether a compiled component serves another entry of the configuration too. Its line may differ.
pub(super) fn is_same(known: &config::Policy, spec: &config::Policy) -> bool {
    config::Policy {
        line: spec.line,
        ..known.clone()
    } == *spec
}

pub(super) fn refused(spec: &config::Policy, refusal: Refusal) -> StartError {
    let line = spec
        .line
        .map(|line| format!(" (line {line})"))
        .unwrap_or_default();
    let place = match &spec.source {
        PolicySource::Builtin(_) => line,
        source => format!(".component = \"{}\"{line}", shown(source)),
    };
    StartError::Refused {
        policy: spec.name.clone(),
        place,
        refusal,
    }
}
