//! A component as machine code, loaded.
//!
//! Owns the one place where machine code from elsewhere becomes callable, and what is known of a component whatever
//! policy it serves: its digest, its size, how long it took. Limits and settings are a [`super::Candidate`]'s.
//!
//! Invariant: only what this program's own compiler made is loaded: just now, in a child process of this very program,
//! or before, and then under a seal that only it can have made (`cache.rs`).

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{Engine, Refusal, compile};

/// A compiled component, shared by all policies and pools that use the same bytes.
pub struct Code {
    /// SHA-256 of the component, in hex.
    pub digest: Arc<str>,
    /// The first 12 digits of the digest: the version that logs and the admin API show.
    pub version: Arc<str>,
    /// Size of the component.
    pub bytes: usize,
    /// Size of the machine code, and of what is known of it, in memory or in the file that is mapped.
    pub code_bytes: usize,
    /// Where the machine code came from.
    pub maker: Maker,
    /// How long compiling took, or loading what was compiled before.
    pub took: Duration,
    /// It was a core module that imports WASI's preview 1, which was replaced by our own.
    pub(super) imports_preview1: bool,
    pub(super) component: Component,
    is_mapped: bool,
}

/// Machine code that is not callable yet.
#[derive(Clone, Copy)]
pub(super) enum MachineCode<'a> {
    /// To be copied: memory of this process's own.
    Bytes(&'a [u8]),
    /// To be mapped: the kernel reads what is needed, shares it, and drops it when memory is short.
    File(&'a Path),
}

/// Where machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Compiled for this.
    Compiler,
    /// Compiled before, and kept on disk.
    Cache,
}

impl Maker {
    /// The word used in logs and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Cache => "cache",
        }
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({})", self.version)
    }
}

impl Code {
    /// Compiles here, without limits: for tests and benches, and what was compiled into this program.
    ///
    /// # Errors
    /// Whatever is wrong with the component.
    pub fn compile(engine: &Engine, wasm: &[u8]) -> Result<Self, Refusal> {
        let started = Instant::now();
        let machine_code = compile::machine_code(&engine.inner, wasm)?;
        let digest = digest(wasm).into();
        Self::load(
            engine,
            digest,
            wasm,
            MachineCode::Bytes(&machine_code),
            Maker::Compiler,
            started,
        )
    }

    /// Makes the machine code of a component callable. The caller vouches for who made it; see this file's invariant.
    #[allow(unsafe_code, reason = "the only place; see the invariant")]
    pub(super) fn load(
        engine: &Engine,
        digest: Arc<str>,
        wasm: &[u8],
        machine_code: MachineCode<'_>,
        maker: Maker,
        started: Instant,
    ) -> Result<Self, Refusal> {
        let component = match machine_code {
            // SAFETY: the bytes come from `compile::machine_code` of this program: over a pipe from a child process that
            // is this program too. Code of another wasmtime or for other settings is an error and not undefined.
            MachineCode::Bytes(bytes) => unsafe { Component::deserialize(&engine.inner, bytes) },
            // SAFETY: as above, and its seal was checked. The file belongs to the balancer's user, nobody else may write to
            // it or to its directory (`state/directory.rs`), and this program replaces files and never changes them.
            MachineCode::File(path) => unsafe { Component::deserialize_file(&engine.inner, path) },
        };
        let component = component.map_err(|error| Refusal::Compile(format!("{error:#}")))?;
        let image = component.image_range();
        Ok(Self {
            is_mapped: matches!(machine_code, MachineCode::File(_)),
            version: digest[..12].into(),
            digest,
            bytes: wasm.len(),
            code_bytes: image.end.addr() - image.start.addr(),
            maker,
            took: started.elapsed(),
            imports_preview1: compile::imports_preview1(wasm),
            component,
        })
    }

    /// Takes what was read of a mapped file out of this process's memory. Loading and building instances reads nearly all
    /// of it, service a part; what it needs comes back from the kernel's cache of the file, at a microsecond a fault.
    #[allow(unsafe_code, reason = "no pages are lost; see below")]
    pub fn forget_pages(&self) {
        if !self.is_mapped {
            return;
        }
        let image = self.component.image_range();
        let bytes = image.end.addr() - image.start.addr();
        // SAFETY: the range is a private mapping of a whole file that this component keeps. wasmtime takes no code that would
        // have to be written to when it is loaded, and has made the mapping read-only since, so no page differs from the file,
        // which nobody changes (`load`). What is forgotten is thus read again as it was.
        let result = unsafe {
            rustix::mm::madvise(
                image.start.cast_mut().cast(),
                bytes,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
        if let Err(error) = result {
            tracing::debug!(version = %self.version, %error, "pages of code are kept");
        }
    }
}

/// SHA-256 in hex, by which components are known.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
