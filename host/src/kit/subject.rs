//! What is looked at: a policy's folder, a component, or a built-in policy by its name.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{KitError, claims};
use crate::{
    config::{
        self, BUILTIN_POLICIES, Wasi,
        author::{Claims, MANIFEST, Manifest},
    },
    policy::builtin_component,
};

/// A policy with all that is known about it before it is compiled.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Where the component is; `None` for a built-in.
    pub component: Option<PathBuf>,
    /// The component, or a core module that becomes one.
    pub wasm: Vec<u8>,
    /// Its limits and settings. The deadline is the longest there is: the machine may be busy.
    pub spec: Arc<config::Policy>,
    /// How long a pick may take in service.
    pub deadline: Duration,
    /// What it may be held to.
    pub claims: Claims,
    /// The author's cases.
    pub tests: Option<PathBuf>,
}

impl Subject {
    /// The folder, the file, or else the built-in of this name.
    ///
    /// # Errors
    /// What is wrong with it, or that there is nothing of this name.
    pub fn find(what: &Path) -> Result<Self, KitError> {
        if let Some(manifest) = manifest_in(what) {
            let manifest = Manifest::load(&manifest).map_err(|mistakes| KitError(mistakes.to_string()))?;
            return Self::of(manifest);
        }
        let builtin = what
            .to_str()
            .and_then(|name| Some((name, builtin_component(name)?)));
        if let Some((name, wasm)) = builtin.filter(|_| !what.exists()) {
            return Ok(Self {
                name: name.to_owned(),
                component: None,
                wasm: wasm.to_vec(),
                spec: spec(name, None, 32 << 20, Wasi::None, "{}"),
                deadline: Duration::from_millis(1),
                claims: claims::of_builtin(name),
                tests: None,
            });
        }
        let wasm = std::fs::read(what).map_err(|error| {
            KitError(format!(
                "{}: {error}; expected a folder with a {MANIFEST}, a .wasm file, or a built-in policy: {}",
                what.display(),
                BUILTIN_POLICIES.join(", ")
            ))
        })?;
        let name = what
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            spec: spec(&name, Some(what), 32 << 20, Wasi::None, "{}"),
            name,
            component: Some(what.to_owned()),
            wasm,
            deadline: Duration::from_millis(1),
            claims: Claims::default(),
            tests: None,
        })
    }

    /// The same policy, held to what a built-in claims.
    #[must_use]
    pub fn like(self, builtin: &str) -> Self {
        Self {
            claims: claims::of_builtin(builtin),
            ..self
        }
    }

    fn of(manifest: Manifest) -> Result<Self, KitError> {
        let path = &manifest.component;
        let wasm = std::fs::read(path).map_err(|error| {
            KitError(format!(
                "component = {}: {error}; `trimtab policy build` makes it",
                path.display()
            ))
        })?;
        Ok(Self {
            spec: spec(
                &manifest.name,
                Some(path),
                manifest.memory_bytes,
                manifest.wasi,
                &manifest.settings_json,
            ),
            wasm,
            deadline: manifest.deadline,
            name: manifest.name,
            claims: manifest.claims,
            tests: manifest.tests,
            component: Some(manifest.component),
        })
    }
}

/// Where the folder's manifest is, if this is such a folder or that file.
pub(super) fn manifest_in(what: &Path) -> Option<PathBuf> {
    if what.is_dir() {
        return Some(what.join(MANIFEST));
    }
    (what.file_name()? == MANIFEST).then(|| what.to_owned())
}

fn spec(
    name: &str,
    component: Option<&Path>,
    memory_bytes: usize,
    wasi: Wasi,
    settings_json: &str,
) -> Arc<config::Policy> {
    let source = match component {
        Some(path) => config::PolicySource::File(path.to_owned()),
        None => config::PolicySource::Builtin(name.to_owned()),
    };
    Arc::new(config::Policy {
        name: name.to_owned(),
        tenant: None,
        grants: config::Grants::everything(),
        source,
        memory_bytes,
        deadline: Duration::from_secs(1),
        wasi,
        config_json: settings_json.to_owned(),
        line: None,
    })
}
