//! Components that misbehave only once they serve, so that they pass the trial before.
//!
//! In their third pick, or in the first outcomes that they are told.

use std::path::Path;

use anyhow::{Context, Result};
use wit_component::StringEncoding;
use wit_parser::Resolve;

/// What it does instead of answering.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Loop,
    Trap,
    /// It traps when it is told outcomes, over and over, so that the host soon chooses without it and holds no request
    /// responsible.
    Outcomes,
}

const NOTE: &str = r#"
  (import "trimtab:policy/diagnostics@0.1.1" "note" (func $note (param i32 i32)))"#;
/// A note from beyond the memory: the host refuses it, and so ends the call. A trap of the guest itself would be a signal,
/// which callgrind does not survive.
const OUTCOMES: &str = r#"
  (func (export "trimtab:policy/observer@0.1.1#outcomes") (param i32 i32 i32 i32 i32 i32 i32 i32 i64)
    (call $note (i32.const -8) (i32.const 8)))"#;

/// A core module with the description of its world, which trimtab takes as it is.
pub(crate) fn component(root: &Path, fault: Fault) -> Result<Vec<u8>> {
    let (fault, world, (imports, outcomes)) = match fault {
        Fault::Loop => ("(loop $for_ever (br $for_ever)) unreachable", "policy", ("", "")),
        Fault::Trap => ("unreachable", "policy", ("", "")),
        Fault::Outcomes => ("", "observing-policy", (NOTE, OUTCOMES)),
    };
    let text = format!(
        r#"(module {imports}
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 1024))
  (global $picks (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))
  (func (export "trimtab:policy/picker@0.1.1#configure") (param i32 i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.const 16))
  (func (export "trimtab:policy/picker@0.1.1#update") (param i32)
    (global.set $free (i32.const 1024)))
  (func (export "trimtab:policy/picker@0.1.1#pick") (param i64 i64 i64 i64 i32 i64) (result i32)
    (global.set $picks (i32.add (global.get $picks) (i32.const 1)))
    (if (i32.gt_u (global.get $picks) (i32.const 2)) (then {fault}))
    (i32.store8 (i32.const 16) (i32.const 1))
    (i32.store (i32.const 20) (i32.const 0))
    (i32.const 16)){outcomes})"#
    );
    let mut module = wat::parse_str(text)?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit")).context("wit")?;
    let world = resolve.select_world(&[package], Some(world))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// The same component with another digest: a custom section (id 0) with a number in it.
pub(crate) fn marked(component: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.extend([0, 9, 4]);
    bytes.extend(b"mark");
    bytes.extend(number.to_le_bytes());
    bytes
}
