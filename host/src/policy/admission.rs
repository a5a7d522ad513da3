//! From machine code to a component that may be put into service.
//!
//! Owns every reason to refuse one: not WebAssembly, too much to compile, imports that the host does not provide, exports
//! that are missing. A refusal says what was found, and what to do about it. It must not know pools or workers; that a
//! policy also accepts its configuration and answers is tried in `instance.rs`.
//!
//! Invariant: only `.wasm` is accepted. Precompiled code would be native code from a stranger.

use std::sync::{Arc, OnceLock};

use wasmtime::component::{Component, ComponentExportIndex, Linker};

use super::{
    Code, Engine,
    bindings::{Policy, PolicyPre},
    code::digest,
    grants,
    imports::Guest,
    instance::{ShortcutExport, StateExports},
    lent, wasi,
};
use crate::config;

/// The package whose interfaces a policy may use, and the compatible track of its version.
const OUR_PACKAGE: &str = "trimtab:policy/";
const PICKER: &str = "trimtab:policy/picker@0.1.0";
const OBSERVER: &str = "trimtab:policy/observer@0.1.0";

/// Why a component cannot be a policy.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is larger than what is even looked at.
    #[error("the component is larger than compile.size = \"{0}\"")]
    TooLarge(String),
    /// Compiling it was ended at a limit of `[compile]`.
    #[error("compiling the component takes more than compile.{key} = \"{value}\"")]
    CompileLimit {
        /// The limit.
        key: &'static str,
        /// What it is set to.
        value: String,
    },
    /// Its machine code is larger than what is kept in memory.
    #[error("the component compiles to more than {0} of machine code")]
    CodeTooLarge(String),
    /// The compiler itself failed, which says little about the component.
    #[error("the compiler failed: {0}")]
    Compiler(String),
    /// Neither a component nor a core module that can become one.
    #[error("not a WebAssembly component: {0}")]
    NotComponent(String),
    /// It would have to be granted WASI.
    #[error(
        "the component imports {0}, and policies get no WASI. Build it without: componentize-qjs and componentize-py \
         with --stub-wasi; Rust for wasm32-unknown-unknown; C without what prints, exits or opens. Where the \
         language cannot (Go, C++), set wasi = \"empty\" on the policy: it gets a WASI that grants nothing, with a clock \
         and random numbers that are the same in every run"
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
    /// Its machine code.
    pub code: Arc<Code>,
    pub(super) pre: PolicyPre<Guest>,
    pub(super) outcomes: Option<ComponentExportIndex>,
    /// A shorter way to `pick`, where there is one (`compile/shortcut.rs`).
    pub(super) shortcut: Option<ShortcutExport>,
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
    /// Compiles in this process, and checks. Takes about 30 ms for a small component and seconds for an interpreter, so
    /// not on a worker. A balancer compiles by its [`super::Loader`] instead.
    ///
    /// # Errors
    /// Whatever is wrong with the component.
    pub fn compile(engine: &Engine, spec: Arc<config::Policy>, bytes: &[u8]) -> Result<Self, Refusal> {
        let code = Code::compile(engine, bytes)?;
        Self::admit(engine, spec, &Arc::new(code))
    }

    /// Checks what is compiled, for a policy with these limits and settings. Takes less than a millisecond.
    ///
    /// # Errors
    /// Whatever is wrong with the component.
    pub fn admit(engine: &Engine, spec: Arc<config::Policy>, code: &Arc<Code>) -> Result<Self, Refusal> {
        let component = &code.component;
        let wasi = check_imports(engine, code, spec.wasi)?;
        check_grants(engine, component, &spec.grants)?;
        let outcomes = check_exports(component)?;
        let linker = linker(engine, wasi).map_err(|error| Refusal::WrongWorld(format!("{error:#}")))?;
        let wrong_world = |error: wasmtime::Error| Refusal::WrongWorld(format!("{error:#}"));
        let pre = linker
            .instantiate_pre(component)
            .and_then(PolicyPre::new)
            .map_err(wrong_world)?;
        Ok(Self {
            spec,
            version: code.version.clone(),
            digest: code.digest.clone(),
            bytes: code.bytes,
            code: code.clone(),
            pre,
            outcomes,
            shortcut: ShortcutExport::find(component),
            stateful: StateExports::find(component),
            schema: OnceLock::new(),
        })
    }

    /// Whether it is told how attempts end.
    pub fn observes(&self) -> bool {
        self.outcomes.is_some()
    }

    /// Whether it keeps state for its next version.
    pub fn keeps_state(&self) -> bool {
        self.stateful.is_some()
    }

    /// Whether this was compiled from these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.bytes && *self.digest == *digest(bytes)
    }

    /// Whether this may follow `old` in a pool. Between versions of one policy (the same name, both somebody's own or both
    /// the same built-in) state must not be lost by mistake; another policy begins without it. Both have been built.
    ///
    /// # Errors
    /// [`Refusal::Schema`], when both keep state and not the same.
    pub fn check_follows(&self, old: &Self) -> Result<(), Refusal> {
        let is_same_policy = self.spec.name == old.spec.name
            && match (&self.spec.source, &old.spec.source) {
                (new, old) if !new.is_builtin() && !old.is_builtin() => true,
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

/// What a component turned out to be, whatever policy it may serve one day.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The interfaces that it uses.
    pub imports: Vec<String>,
    /// Whether it is told how attempts end.
    pub observes: bool,
}

impl Report {
    /// Looks at a component without a policy. WASI is told among the imports; whether it is granted, a policy says.
    ///
    /// # Errors
    /// What no policy could be.
    pub fn of(engine: &Engine, code: &Code) -> Result<Self, Refusal> {
        check_imports(engine, code, config::Wasi::Empty)?;
        let observes = check_exports(&code.component)?.is_some();
        let ty = code.component.component_type();
        let imports = ty
            .imports(&engine.inner)
            .map(|(name, _)| name)
            .filter(|name| *name != wasi::OUTPUT)
            .chain(code.imports_preview1.then_some(wasi::PREVIEW1))
            .map(str::to_owned)
            .collect();
        Ok(Self { imports, observes })
    }
}

/// Whether the component needs the empty WASI context.
fn check_imports(engine: &Engine, code: &Code, granted: config::Wasi) -> Result<bool, Refusal> {
    let refuse = |name: &str| match granted {
        config::Wasi::None => Err(Refusal::Wasi(name.to_owned())),
        config::Wasi::Empty => Ok(()),
    };
    let mut wasi = code.imports_preview1;
    if wasi {
        refuse(wasi::PREVIEW1)?;
    }
    for (name, _) in code.component.component_type().imports(&engine.inner) {
        if name.starts_with("wasi:") || name == wasi::OUTPUT {
            refuse(name)?;
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
    lent::add_to_linker(&mut linker)?;
    if wasi {
        wasi::add_to_linker(&mut linker)?;
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
