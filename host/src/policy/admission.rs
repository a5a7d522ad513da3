//! From bytes to a component that may be put into service.
//!
//! Owns every reason to refuse one: not WebAssembly, imports that the host does not provide, exports that are missing. A
//! refusal says what was found, and what to do about it. It must not know pools or workers; that a policy also accepts
//! its configuration and answers is tried in `instance.rs`.
//!
//! Invariant: only `.wasm` is accepted. Precompiled code would be native code from a stranger.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, Linker};

use super::{
    Engine,
    bindings::{Policy, PolicyPre},
    grants,
    imports::Guest,
    instance::StateExports,
};
use crate::config::{self, PolicySource};

/// Larger files are refused: the biggest real policies (CPython inside) have 18 MB, and compiling takes time and memory.
const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// The package whose interfaces a policy may use, and the compatible track of its version.
const OUR_PACKAGE: &str = "trimtab:policy/";
const PICKER: &str = "trimtab:policy/picker@0.1.0";
const OBSERVER: &str = "trimtab:policy/observer@0.1.0";

/// Why a component cannot be a policy.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The file is absurdly large.
    #[error("the component has {0} bytes; at most {COMPONENT_BYTES_MAX} are accepted")]
    TooLarge(usize),
    /// Neither a component nor a core module that can become one.
    #[error("not a WebAssembly component: {0}")]
    NotComponent(String),
    /// It would have to be granted WASI.
    #[error(
        "the component imports {0}, and policies get no WASI. Build it without: Rust for \
         wasm32-unknown-unknown with the SDK; componentize-py with --stub-wasi; componentize-js with \
         disableFeatures: [\"random\", \"stdio\", \"clocks\", \"http\", \"fetch-event\"]. Or set wasi = \"empty\" on \
         the policy to give it a context that grants nothing"
    )]
    Wasi(String),
    /// It needs something that the host does not have.
    #[error("the component imports {0}, which is not part of trimtab:policy@0.1")]
    UnknownImport(String),
    /// It reads what nobody thought about.
    #[error(
        "the component imports {0}, and the file says nothing about that. Say allow, hash or deny for each in the \
         policy's grants; a tenant's components are granted nothing of these unasked"
    )]
    Unsaid(String),
    /// It does not do what a policy does.
    #[error("the component does not export {PICKER}; is it built for the world `policy`?")]
    NoPicker,
    /// The names are right and the types are not.
    #[error("the component does not fit the world `policy` of trimtab:policy@0.1: {0}")]
    WrongWorld(String),
    /// It does not compile.
    #[error("the component does not compile: {0}")]
    Compile(String),
    /// The version in service keeps state that this one does not understand.
    #[error(
        "the version in service keeps state of schema {old:?}, and this one {new:?}: it would lose the state. Have it \
         take the old schema, or give the policy another name in the configuration to begin without state"
    )]
    Schema {
        /// Of the version in service.
        old: Arc<str>,
        /// Of the refused one.
        new: Arc<str>,
    },
    /// It is a fine component that failed in its first moments: instantiating, `configure`, `update` or a trial pick.
    #[error("{0}")]
    Unfit(#[from] super::Fault),
}

/// A compiled component with its limits, ready to be instantiated any number of times.
pub struct Candidate {
    /// Its limits and its configuration.
    pub spec: Arc<config::Policy>,
    /// SHA-256 of the bytes, in hex.
    pub digest: Arc<str>,
    /// The first 12 digits of the digest: the version that logs and the admin API show.
    pub version: Arc<str>,
    /// Size of the component.
    pub bytes: usize,
    pub(super) pre: PolicyPre<Guest>,
    pub(super) outcomes: Option<ComponentExportIndex>,
    pub(super) stateful: Option<StateExports>,
    /// The layout of its state; set by its first instance, if it keeps any.
    pub(super) schema: OnceLock<Arc<str>>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate({}@{})", self.spec.name, self.version)
    }
}

impl Candidate {
    /// Checks and compiles. Takes about 30 ms for a small component and seconds for an interpreter, so not on a worker.
    ///
    /// # Errors
    /// Whatever is wrong with the component.
    pub fn compile(engine: &Engine, spec: Arc<config::Policy>, bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(Refusal::TooLarge(bytes.len()));
        }
        let digest = hex_digest(bytes);
        let encoded;
        let component_bytes = if is_core_module(bytes) {
            encoded = componentize(bytes)?;
            &encoded
        } else {
            bytes
        };
        let component = Component::from_binary(&engine.inner, component_bytes).map_err(compile_refusal)?;
        let wasi = check_imports(engine, &component, spec.wasi)?;
        check_grants(engine, &component, &spec.grants)?;
        let outcomes = check_exports(&component)?;
        let linker = linker(engine, wasi).map_err(|error| Refusal::WrongWorld(format!("{error:#}")))?;
        let wrong_world = |error: wasmtime::Error| Refusal::WrongWorld(format!("{error:#}"));
        let pre = linker
            .instantiate_pre(&component)
            .and_then(PolicyPre::new)
            .map_err(wrong_world)?;
        Ok(Self {
            spec,
            version: digest[..12].into(),
            digest: digest.into(),
            bytes: bytes.len(),
            pre,
            outcomes,
            stateful: StateExports::find(&component),
            schema: OnceLock::new(),
        })
    }

    /// Whether this was compiled from these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.bytes && *self.digest == *hex_digest(bytes)
    }

    /// Whether this may follow `old` in a pool. Between versions of one policy (the same name, both from files or both
    /// the same built-in) state must not be lost by mistake; another policy begins without it. Both have been built.
    ///
    /// # Errors
    /// [`Refusal::Schema`], when both keep state and not the same.
    pub fn check_follows(&self, old: &Self) -> Result<(), Refusal> {
        let is_same_policy = self.spec.name == old.spec.name
            && match (&self.spec.source, &old.spec.source) {
                (PolicySource::File(_), PolicySource::File(_)) => true,
                (new, old) => new == old,
            };
        match (old.schema.get(), self.schema.get()) {
            (Some(old), Some(new)) if is_same_policy && old != new => Err(Refusal::Schema {
                old: old.clone(),
                new: new.clone(),
            }),
            _ => Ok(()),
        }
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Core modules and components differ in the layer half of the version field.
fn is_core_module(bytes: &[u8]) -> bool {
    bytes.get(..8) == Some(b"\0asm\x01\0\0\0")
}

/// A core module that carries its world in a custom section (what `wit-bindgen` leaves) becomes a component.
fn componentize(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| {
        Refusal::NotComponent(format!(
            "a core module that cannot be made into a component: {error:#}"
        ))
    })
}

fn compile_refusal(error: wasmtime::Error) -> Refusal {
    let text = format!("{error:#}");
    // With concurrency off, a component of the asynchronous ABI does not even parse, which the message hides.
    if text.contains("async") || text.contains("concurrency") {
        return Refusal::Compile(format!(
            "{text}. Policies are synchronous: build without the asynchronous component ABI (componentize-qjs: --sync)"
        ));
    }
    if text.contains("failed to parse") || text.contains("magic") || text.contains("unexpected end") {
        return Refusal::NotComponent(text);
    }
    Refusal::Compile(text)
}

/// Whether the component needs the empty WASI context.
fn check_imports(engine: &Engine, component: &Component, granted: config::Wasi) -> Result<bool, Refusal> {
    let mut wasi = false;
    for (name, _) in component.component_type().imports(&engine.inner) {
        if name.starts_with("wasi:") {
            if granted == config::Wasi::None {
                return Err(Refusal::Wasi(name.to_owned()));
            }
            wasi = true;
        } else if !name.starts_with(OUR_PACKAGE) {
            return Err(Refusal::UnknownImport(name.to_owned()));
        }
    }
    Ok(wasi)
}

fn check_grants(engine: &Engine, component: &Component, granted: &config::Grants) -> Result<(), Refusal> {
    let component = component.component_type();
    let imports = component.imports(&engine.inner).map(|(_, import)| import.ty);
    let unsaid = grants::unsaid(&engine.inner, imports, granted);
    if unsaid.is_empty() {
        return Ok(());
    }
    Err(Refusal::Unsaid(unsaid.join(", ")))
}

/// Checks for the picker, and finds the outcomes function if there is one. Other exports are nobody's business: some
/// languages have a few of their own.
fn check_exports(component: &Component) -> Result<Option<ComponentExportIndex>, Refusal> {
    component
        .get_export_index(None, PICKER)
        .ok_or(Refusal::NoPicker)?;
    let observer = component.get_export_index(None, OBSERVER);
    Ok(observer.and_then(|observer| component.get_export_index(Some(&observer), "outcomes")))
}

fn linker(engine: &Engine, wasi: bool) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(&engine.inner);
    Policy::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |guest| guest)?;
    if wasi {
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    }
    Ok(linker)
}

/// The component of a built-in policy.
pub fn builtin_component(name: &str) -> Option<&'static [u8]> {
    macro_rules! builtins {
        ($($name:literal),*) => {
            match name {
                $($name => Some(include_bytes!(concat!("../../../plugins/dist/", $name, ".wasm"))),)*
                _ => None,
            }
        };
    }
    builtins!(
        "round-robin",
        "weighted-round-robin",
        "least-connections",
        "least-response-time",
        "least-bandwidth",
        "ip-hash",
        "consistent-hash",
        "content-hash",
        "random-two-choices",
        "peak-ewma",
        "chaos"
    )
}

#[cfg(test)]
mod tests {
    use super::builtin_component;
    use crate::config::BUILTIN_POLICIES;

    #[test]
    fn every_built_in_that_a_file_may_name_has_a_component() {
        for name in BUILTIN_POLICIES {
            assert!(
                builtin_component(name).is_some_and(|bytes| !bytes.is_empty()),
                "{name}"
            );
        }
        assert_eq!(builtin_component("no-such-policy"), None);
    }
}
