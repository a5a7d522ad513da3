//! From WebAssembly to machine code.
//!
//! Owns who compiles (this process, or a child that can be ended), and what either says. A compiler is a large program
//! that strangers' input steers: wasmtime's own policy is that a component which makes it slow or hungry is no
//! vulnerability, so the limits are the embedder's. It must not know what a policy is: a component that compiles may
//! still be refused (`admission.rs`).
//!
//! Read next: `compile/parent.rs` (the limits, and what is said when one ends a compile), `compile/child.rs`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use super::Refusal;

mod child;
mod module;
mod parent;
mod shortcut;

pub use child::{ChildLimits, serve};
pub(super) use module::imports_preview1;
use module::{componentize, is_core_module};
pub(super) use parent::compile_in_child;
pub(super) use shortcut::{EXPORT as SHORTCUT, EXPORT_TOLD as SHORTCUT_TOLD, PARTS as SHORTCUT_PARTS};

/// Who compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// This process, without limits but that of size: for tests and benches, whose components are their own.
    InProcess,
    /// A child process with limits: this program, which is trimtab's own and answers to [`SUBCOMMAND`].
    Child(PathBuf),
}

/// The hidden subcommand of `trimtab` that is the child process.
pub const SUBCOMMAND: &str = "compile-policy";

/// The child's answer begins with one of these; the rest is machine code or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Verdict {
    Code = b'C',
    NotComponent = b'N',
    Refused = b'R',
    NoMemory = b'M',
}

/// Compiles a component, or a core module that can be made into one. Compilers have bugs: a panic in one is a refusal
/// (wit-component 0.254.2 panics when a module ends in the middle of its code).
pub(super) fn machine_code(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    let compiled = catch_unwind(AssertUnwindSafe(|| encode_and_compile(engine, wasm)));
    compiled.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Refusal::Compile(format!(
            "the compiler panicked: {}",
            text.unwrap_or("without a word")
        )))
    })
}

fn encode_and_compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encoded;
    let component = if is_core_module(wasm) {
        encoded = componentize(wasm)?;
        &encoded
    } else {
        wasm
    };
    // What the engine does not take with the shortcut, it may take without, or say what is wrong with it.
    if let Some(code) = shortcut::added(component).and_then(|added| engine.precompile_component(&added).ok())
    {
        return Ok(code);
    }
    engine.precompile_component(component).map_err(refusal)
}

fn refusal(error: wasmtime::Error) -> Refusal {
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
