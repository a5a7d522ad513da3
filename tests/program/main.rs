//! The program `trimtab` itself, in processes of its own: as the compiler's child, and as an author's and an operator's
//! tool. What can be seen without another process is tested in `e2e`.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and a table of cases is read as one"
)]

mod author;
mod cache;
mod cluster;
mod compiling;
#[allow(dead_code, reason = "the suites in tests/outside ask more of it")]
#[path = "../outside/etcd.rs"]
mod etcd;
mod fleet;
mod idle;
mod lineage;
mod load_view;
mod operator;
mod pressure;
#[allow(dead_code, reason = "the suites in tests/outside ask more of it")]
#[path = "../outside/program.rs"]
mod program;
mod simulate;
mod takeover;
mod upgrade;
#[allow(dead_code, reason = "the suites in tests/outside ask more of it")]
#[path = "../outside/wire.rs"]
mod wire;

use trimtab::policy::Compiler;

/// Where cargo has put it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_trimtab");

/// Compiles in a child process, as `trimtab run` does.
fn child() -> Compiler {
    Compiler::Child(PROGRAM.into())
}
