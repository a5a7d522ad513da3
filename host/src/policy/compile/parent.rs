//! The parent's side of a compile in a child process.
//!
//! Owns the child's life: it starts with an empty environment, is fed, is heard out within bounds, and is killed when it
//! takes too long or when nobody waits for it any more. Owns the words for each limit that ended one. It never blocks.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{Refusal, SUBCOMMAND, Verdict};
use crate::config::{self, show_duration, show_size};

/// Of machine code: the largest real ones have 33 MB. It is held in memory by this process.
const CODE_BYTES_MAX: usize = 512 << 20;
/// Of what a child that failed says.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Compiles in a child process of this program, within limits.
pub(in super::super) async fn compile_in_child(
    program: &Path,
    limits: &config::Compile,
    wasm: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let broken = |error: io::Error| Refusal::Compiler(format!("{}: {error}", program.display()));
    let mut child = spawn(program, limits).map_err(broken)?;
    let heard = tokio::time::timeout(limits.wall_time, converse(&mut child, wasm)).await;
    let Ok(heard) = heard else {
        // It is reaped in the background; whether it had ended by itself just now does not matter.
        let _ = child.start_kill();
        return Err(limit("wall_time", show_duration(limits.wall_time)));
    };
    let Heard {
        output,
        errors,
        status,
    } = heard.map_err(broken)?;
    if output.len() > CODE_BYTES_MAX {
        return Err(Refusal::CodeTooLarge(show_size(CODE_BYTES_MAX as u64)));
    }
    judge(limits, status, output, &errors)
}

fn spawn(program: &Path, limits: &config::Compile) -> io::Result<Child> {
    Command::new(program)
        .arg0("trimtab")
        .arg(SUBCOMMAND)
        .arg(format!("--memory={}", limits.memory_bytes))
        .arg(format!("--cpu-seconds={}", limits.cpu_time.as_secs()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

struct Heard {
    output: Vec<u8>,
    errors: Vec<u8>,
    status: ExitStatus,
}

/// Feeds the child and hears it out. An output beyond its bound ends the child.
async fn converse(child: &mut Child, wasm: &[u8]) -> io::Result<Heard> {
    let missing = || io::Error::other("no pipe");
    let mut input = child.stdin.take().ok_or_else(missing)?;
    let output = child.stdout.take().ok_or_else(missing)?;
    let errors = child.stderr.take().ok_or_else(missing)?;
    let feed = async move {
        // A child that ended in the middle of it says why in another way.
        let _ = input.write_all(wasm).await;
    };
    let (output, errors, ()) = tokio::join!(
        read(output, CODE_BYTES_MAX + 1),
        read(errors, MESSAGE_BYTES_MAX),
        feed
    );
    let status = child.wait().await?;
    Ok(Heard {
        output: output?,
        errors: errors?,
        status,
    })
}

/// Up to so many bytes. What follows stays unread, and its writer ends by a signal when the pipe is closed.
async fn read(pipe: impl AsyncRead + Unpin, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(bytes_max as u64).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn judge(
    limits: &config::Compile,
    status: ExitStatus,
    mut output: Vec<u8>,
    errors: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let out_of_memory = || limit("memory", show_size(limits.memory_bytes as u64));
    if status.success() {
        let Some(verdict) = output.first().copied() else {
            return Err(Refusal::Compiler("it said nothing".to_owned()));
        };
        output.drain(..1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        return match verdict {
            verdict if verdict == Verdict::Code as u8 => Ok(output),
            verdict if verdict == Verdict::NotComponent as u8 => Err(Refusal::NotComponent(text(&output))),
            verdict if verdict == Verdict::NoMemory as u8 => Err(out_of_memory()),
            _ => Err(Refusal::Compile(text(&output))),
        };
    }
    let said = String::from_utf8_lossy(errors);
    let said = said.trim();
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => Err(limit("cpu_time", show_duration(limits.cpu_time))),
        // What Rust's allocator says before it gives up.
        Some(Signal::ABORT) if said.contains("memory allocation of") => Err(out_of_memory()),
        Some(Signal::KILL) => Err(Refusal::Compiler(
            "it was killed from outside; is this machine out of memory?".to_owned(),
        )),
        _ => Err(Refusal::Compiler(format!("it ended with {status}: {said}"))),
    }
}

fn limit(key: &'static str, value: String) -> Refusal {
    Refusal::CompileLimit { key, value }
}
