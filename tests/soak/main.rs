//! Everything at once, for a while: `cargo xtask soak`. And what a client sees of one bad backend: `cargo xtask faults`.
//!
//! Owns the order of a run and its verdict: no error, no more open files than before, and memory that does not grow. The
//! balancer is a process of its own. Clients (`traffic.rs`) and backends (`backends.rs`) are in this one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command for a terminal")]

mod backends;
mod node;
mod slope;
mod traffic;

use std::{path::Path, process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep};

use backends::Backends;
use node::Node;
use slope::Memory;
use traffic::Traffic;

/// Between two readings of memory and open files.
const SAMPLE: Duration = Duration::from_millis(500);
/// How often a backend dies, and for how long.
const DEATH: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(2));
/// How often the configuration changes, and with it the policy.
const CHANGE: Duration = Duration::from_secs(3);
/// Open files that may be left. What is opened once and kept, such as one for each worker, is no leak.
const FILES_LEFT: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (runtime, here) = (runtime.expect("a runtime"), tokio::task::LocalSet::new());
    let result = match arguments[..] {
        ["run", trimtab, minutes] => match minutes.parse::<f64>() {
            Ok(minutes) if minutes > 0.0 => here.block_on(&runtime, soak(Path::new(trimtab), minutes)),
            _ => Err("minutes are a number above 0".to_owned()),
        },
        ["faults", trimtab] => here.block_on(&runtime, faults(Path::new(trimtab))),
        ["origin", address] => runtime.block_on(trimtab_tests::fault::serve(address)),
        _ => Err("soak run TRIMTAB MINUTES | soak faults TRIMTAB | soak origin ADDRESS".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until then caches fill and the allocator finds its size: a quarter of the time, a minute at least, and half at most.
fn warm_up(length: Duration) -> Duration {
    (length / 4).max(Duration::from_secs(60)).min(length / 2)
}

async fn soak(trimtab: &Path, minutes: f64) -> Result<(), String> {
    let length = Duration::from_secs_f64(minutes * 60.0);
    let backends = Backends::start().await;
    let mut node = Node::start(trimtab, &backends).await?;
    let files_before = node.files()?;
    let traffic = Traffic::start(&node);
    let began = Instant::now();
    let mut memory = Memory::new(warm_up(length).as_secs_f64());
    let (mut next_change, mut next_death) = (began + CHANGE, began + DEATH.0);
    let mut files_most = 0;
    while began.elapsed() < length {
        sleep(SAMPLE).await;
        memory.sample(began.elapsed().as_secs_f64(), node.resident_bytes()?);
        files_most = files_most.max(node.files()?);
        let now = Instant::now();
        if now >= next_change {
            node.change()?;
            next_change = now + CHANGE;
        }
        if now >= next_death {
            backends.die(DEATH.1);
            next_death = now + DEATH.0;
        }
    }
    let done = traffic.stop().await;
    // What is kept to backends is closed when its idle time is over.
    let end = Instant::now() + Duration::from_secs(20);
    while node.files()? > files_before && Instant::now() < end {
        sleep(SAMPLE).await;
    }
    let files_after = node.files()?;
    let (changes, refused) = (node.changes(), node.refused());
    node.stop().await?;
    println!("{done}");
    println!(
        "{minutes} minutes, {changes} changes of configuration and policy, {} deaths of a backend",
        backends.deaths()
    );
    println!("open files: {files_before} before, {files_most} at most, {files_after} after");
    println!("{memory}");
    let mut wrong = done.failures();
    if refused > 0 {
        wrong.push(format!("{refused} changes were refused"));
    }
    if files_after > files_before + FILES_LEFT {
        wrong.push(format!("{files_after} open files are left of {files_before}"));
    }
    wrong.extend(memory.verdict());
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("\n"))
}

/// One backend of three, in five ways: what clients see of it.
async fn faults(trimtab: &Path) -> Result<(), String> {
    use trimtab_tests::fault::{FAULTS, Figures, Origins, measure};
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    println!("{}", Figures::HEADER);
    for fault in FAULTS {
        let mut origins = Origins::start(&program).await;
        let node = Node::start_with(trimtab, &fault.setup(&origins)).await?;
        let (healthy, ill) = measure(node.listener("main")?, &mut origins, fault).await;
        println!("{}", healthy.row("healthy"));
        println!("{}", ill.row(fault.name()));
        node.stop().await?;
    }
    Ok(())
}
