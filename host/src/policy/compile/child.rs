//! The child process: WebAssembly on its standard input, machine code on its standard output.
//!
//! Owns its own limits, which it sets before it reads a byte, and its answer. What it cannot answer any more because a
//! limit ended it, its parent tells from how it ended. It must not open a file or a socket.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};

use super::{super::engine::bare_engine, Refusal, Verdict, machine_code};

/// How much it gives way: a tenth of a core when the workers want all of them, so that it ends at some time.
const NICE: i32 = 10;

/// What the child may use, as its command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildLimits {
    /// Address space.
    pub memory_bytes: u64,
    /// Seconds of processor time.
    pub cpu_seconds: u64,
}

/// What `trimtab compile-policy` does.
pub fn serve(limits: ChildLimits) -> ExitCode {
    if let Err(error) = confine(limits) {
        eprintln!("cannot set the limits: {error}");
        return ExitCode::FAILURE;
    }
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn confine(limits: ChildLimits) -> io::Result<()> {
    let limit = |resource, soft, hard| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(resource, limit)
    };
    limit(Resource::As, limits.memory_bytes, limits.memory_bytes)?;
    // At the first a signal of its own says why; the second is for a handler that there is not.
    limit(Resource::Cpu, limits.cpu_seconds, limits.cpu_seconds + 1)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    nice(NICE)?;
    // A balancer that was killed must not leave compiles behind.
    #[cfg(target_os = "linux")]
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn answer() -> io::Result<()> {
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    let engine = bare_engine().map_err(|error| io::Error::other(format!("{error:#}")))?;
    let (verdict, payload) = match machine_code(&engine, &wasm) {
        Ok(code) => (Verdict::Code, code),
        Err(refusal) => refused(refusal),
    };
    let mut output = io::stdout().lock();
    output.write_all(&[verdict as u8])?;
    output.write_all(&payload)?;
    output.flush()
}

fn refused(refusal: Refusal) -> (Verdict, Vec<u8>) {
    match refusal {
        Refusal::NotComponent(text) => (Verdict::NotComponent, text.into_bytes()),
        // The compiler notices some failures to get memory by itself; the words are the system's.
        Refusal::Compile(text) if text.contains("os error 12") || text.contains("out of memory") => {
            (Verdict::NoMemory, text.into_bytes())
        }
        Refusal::Compile(text) => (Verdict::Refused, text.into_bytes()),
        other => (Verdict::Refused, other.to_string().into_bytes()),
    }
}
