//! Processes that a measurement starts, and ends again by their pids whatever happens.
//!
//! Owns where they run: balancers on core 0, load and backends on core 1, or all of them anywhere.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    machine,
    role::load::{Figures, Order},
};

/// How a process is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    Usual,
    /// Before all others: for latencies on a machine that others use too.
    RealTime,
    /// On any core: for what is more than one thread.
    Anywhere,
}

/// All of them.
const ANY_CORE: &str = "0-1";

/// A process that ends with this value.
pub(crate) struct Running {
    child: Child,
    cores: String,
}

impl Running {
    /// Starts a program on some cores (as `taskset` takes them), its output in a file.
    pub(crate) fn start(
        command: &[String],
        (cores, priority): (&str, Priority),
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let output = File::create(log).with_context(|| log.display().to_string())?;
        let child = pinned(command, cores, priority)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        Ok(Self {
            child,
            cores: cores.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Schedules it, and what came of it, otherwise from now on.
    pub(crate) fn prioritise(&self, priority: Priority) -> Result<()> {
        let (policy, level, cores) = match priority {
            Priority::Usual => ("-o", "0", self.cores.as_str()),
            Priority::RealTime => ("-r", "1", self.cores.as_str()),
            Priority::Anywhere => ("-o", "0", ANY_CORE),
        };
        for pid in machine::family(self.pid()) {
            let pid = pid.to_string();
            for words in [
                ["chrt", policy, "-a", "-p", level],
                ["taskset", "-a", "-c", "-p", cores],
            ] {
                let status = Command::new(words[0])
                    .args(&words[1..])
                    .arg(&pid)
                    .stdout(Stdio::null())
                    .status()?;
                ensure!(status.success(), "{}: {status}", words[0]);
            }
        }
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let family = machine::family(self.child.id());
        signal(&family, rustix::process::Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(3) {
                signal(&family, rustix::process::Signal::KILL);
                break;
            }
            pause(Duration::from_millis(10));
        }
        drop(self.child.wait());
    }
}

fn signal(pids: &[u32], signal: rustix::process::Signal) {
    for &pid in pids {
        if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Keeps the calling thread, and what it starts without cores of its own, on the balancers' core as long as this lives.
pub(crate) struct Aside {
    before: CpuSet,
}

impl Aside {
    pub(crate) fn step() -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        only.set(0);
        sched_setaffinity(None, &only)?;
        Ok(Self { before })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What follows is measured all the same, at worst on one core.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// `taskset` (util-linux) execs, so that the pid is the program's.
pub(crate) fn pinned(command: &[String], cores: &str, priority: Priority) -> Command {
    let cores = if priority == Priority::Anywhere {
        ANY_CORE
    } else {
        cores
    };
    let mut words = vec!["taskset", "-c", cores];
    if priority == Priority::RealTime {
        words.extend(["chrt", "-r", "1"]);
    }
    words.extend(command.iter().map(String::as_str));
    let mut pinned = Command::new(words[0]);
    pinned.args(&words[1..]);
    pinned
}

/// Waits where nothing can be waited for.
#[allow(
    clippy::disallowed_methods,
    reason = "no test: nothing is awaited by guessing"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until a port answers `GET /` with 200, for at most this long.
pub(crate) fn wait_for_answer(port: u16, host: &str, running: &mut Running, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        if answers(port, host).unwrap_or(false) {
            return Ok(());
        }
        if running.has_ended() {
            bail!("it ended at once");
        }
        if start.elapsed() > limit {
            bail!("nothing good answers at port {port} within {limit:?}");
        }
        pause(Duration::from_millis(50));
    }
}

fn answers(port: u16, host: &str) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nX-Key: k\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// Load on a port, in a process of its own, and what a balancer used meanwhile.
pub(crate) struct Window {
    pub(crate) figures: Figures,
    /// Seconds of processor time of the balancer in the window.
    pub(crate) cpu_seconds: f64,
    /// The same to the nanosecond, but only of threads that were there at both ends.
    pub(crate) ran_seconds: f64,
    /// Seconds that its core worked for others.
    pub(crate) other_seconds: f64,
}

/// Load under way on core 1.
pub(crate) struct Loading {
    child: Child,
}

impl Loading {
    pub(crate) fn start(order: &Order, priority: Priority) -> Result<Self> {
        let child = pinned(&words(order)?, "1", priority)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the load does not start")?;
        Ok(Self { child })
    }

    /// Waits for its end, and looks at the balancer's process when the window begins and ends. `told` is called when all
    /// connections have served (with [`Order::hold`]), and when another slice begins (with [`Order::slice`]).
    pub(crate) fn watch(mut self, balancer: Option<u32>, mut told: impl FnMut()) -> Result<Window> {
        let look = || {
            (
                balancer.map_or(0.0, machine::cpu_seconds),
                machine::busy_seconds(0),
                balancer.map(machine::ran_seconds).unwrap_or_default(),
            )
        };
        let (mut begin, mut end) = (look(), look());
        for line in BufReader::new(self.child.stderr.take().context("no pipe")?).lines() {
            match line?.as_str() {
                "M" => begin = look(),
                "H" | "S" => told(),
                "E" => end = look(),
                other => eprintln!("load: {other}"),
            }
        }
        let mut answer = String::new();
        self.child
            .stdout
            .take()
            .context("no pipe")?
            .read_to_string(&mut answer)?;
        if !self.child.wait()?.success() {
            bail!("the load failed");
        }
        let cpu_seconds = end.0 - begin.0;
        Ok(Window {
            figures: serde_json::from_str(&answer)?,
            cpu_seconds,
            ran_seconds: machine::grown(&begin.2, &end.2),
            other_seconds: end.1 - begin.1 - cpu_seconds,
        })
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        // It ends by itself otherwise; this is for when the measurement is given up.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs load to its end; see [`Loading::watch`].
pub(crate) fn load(
    order: &Order,
    priority: Priority,
    balancer: Option<u32>,
    told: impl FnMut(),
) -> Result<Window> {
    Loading::start(order, priority)?.watch(balancer, told)
}

fn words(order: &Order) -> Result<Vec<String>> {
    let this = std::env::current_exe()?.display().to_string();
    let mut words = vec![this, "load".to_owned()];
    let mut word = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    word("port", order.port.to_string());
    word("connections", order.connections.to_string());
    word("seconds", order.seconds.to_string());
    word("warm-up", order.warm_up.to_string());
    word("path", order.path.clone());
    word("host", order.host.clone());
    word("upload", order.upload.to_string());
    word("keys", order.keys.to_string());
    if let Some(rate) = order.rate {
        word("rate", rate.to_string());
    }
    if let Some(hold) = order.hold {
        word("hold", hold.to_string());
    }
    if let Some(slice) = order.slice {
        word("slice", slice.to_string());
    }
    if order.close {
        words.push("--close".to_owned());
    }
    Ok(words)
}
