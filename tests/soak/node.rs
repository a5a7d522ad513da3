//! The balancer under test: a process, its configuration, and what the system says of it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use trimtab_tests::{DEADLINE, Directory, tls::Authority, within};

use crate::backends::Backends;

/// In turn, with each change.
const POLICIES: [&str; 5] = [
    "round-robin",
    "least-connections",
    "peak-ewma",
    "random-two-choices",
    "weighted-round-robin",
];

/// A running trimtab, ended when this is dropped.
pub(crate) struct Node {
    child: Child,
    directory: Directory,
    listeners: BTreeMap<String, SocketAddr>,
    authority: Authority,
    text: String,
    asked: u64,
    log: Arc<Log>,
}

/// What it has logged.
#[derive(Default)]
struct Log {
    changes: AtomicU64,
    refused: AtomicU64,
}

impl Node {
    pub(crate) async fn start(trimtab: &Path, backends: &Backends) -> Result<Self, String> {
        let directory = Directory::new();
        let authority = Authority::new();
        let signed = authority.server(["shop.test"]);
        directory.write("shop.pem", signed.cert + &signed.key);
        let text = format!(
            "workers = 2\nadmin = {{ listen = \"127.0.0.1:0\" }}\n{}",
            listeners(&backends.tcp())
        ) + &format!(
            "[pool.main]\npolicy = \"POLICY\"\nbackends = {:?}\nidle_timeout = \"2s\"\n\
             health = {{ kind = \"http\", path = \"/healthz\", interval = \"500ms\" }}\n\
             [pool.steady]\nbackends = {:?}\nidle_timeout = \"2s\"\n",
            backends.mortal(),
            backends.steady(),
        );
        Self::run(trimtab, directory, authority, text).await
    }

    /// With a configuration of one listener, as tests have it.
    pub(crate) async fn start_with(trimtab: &Path, setup: &trimtab_tests::Setup) -> Result<Self, String> {
        Self::run(trimtab, Directory::new(), Authority::new(), setup.text()).await
    }

    async fn run(
        trimtab: &Path,
        directory: Directory,
        authority: Authority,
        text: String,
    ) -> Result<Self, String> {
        let file = directory.write("trimtab.toml", text.replace("POLICY", POLICIES[0]));
        let mut child = Command::new(trimtab)
            .arg("run")
            .arg(file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", trimtab.display()))?;
        let output = child.stderr.take().ok_or("no log")?;
        let mut lines = BufReader::new(output).lines();
        let listeners = loop {
            let line = within("the start", DEADLINE, lines.next_line()).await;
            let line = line.map_err(|error| error.to_string())?;
            let line = line.ok_or("it has ended at once")?;
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if said["message"] == "trimtab runs" {
                break addresses(said["listeners"].as_str().unwrap_or_default());
            }
        };
        let log = Arc::new(Log::default());
        let shared = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                shared.read(&line);
            }
        });
        Ok(Self {
            child,
            directory,
            listeners,
            authority,
            text,
            asked: 0,
            log,
        })
    }

    pub(crate) fn listener(&self, name: &str) -> Result<SocketAddr, String> {
        self.listeners
            .get(name)
            .copied()
            .ok_or(format!("no listener {name}"))
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Another policy, put into service as an operator does it.
    pub(crate) fn change(&mut self) -> Result<(), String> {
        self.asked += 1;
        let policy = POLICIES[self.asked as usize % POLICIES.len()];
        self.directory
            .replace("trimtab.toml", self.text.replace("POLICY", policy));
        Ok(())
    }

    pub(crate) fn changes(&self) -> u64 {
        self.log.changes.load(Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.log.refused.load(Relaxed)
    }

    fn of_process(&self, name: &str) -> Result<String, String> {
        let pid = self.child.id().ok_or("the balancer has ended")?;
        Ok(format!("/proc/{pid}/{name}"))
    }

    /// Of its own: pages of the program's file that have been read are no growth.
    pub(crate) fn resident_bytes(&self) -> Result<u64, String> {
        let status = fs::read_to_string(self.of_process("status")?).map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.ok_or("the balancer has ended")? * 1024)
    }

    pub(crate) fn files(&self) -> Result<usize, String> {
        let files = fs::read_dir(self.of_process("fd")?).map_err(|error| error.to_string())?;
        Ok(files.count())
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("the balancer has ended by itself")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| error.to_string())?;
        let status = within("the stop", DEADLINE, self.child.wait()).await;
        let status = status.map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the balancer ended with {status}"))
        }
    }
}

impl Log {
    fn read(&self, line: &str) {
        let said: Value = serde_json::from_str(line).unwrap_or_default();
        let message = said["message"].as_str().unwrap_or(line);
        if message == "configuration in service" {
            self.changes.fetch_add(1, Relaxed);
        } else if message.contains("refused") {
            self.refused.fetch_add(1, Relaxed);
            eprintln!("{line}");
        } else if said["level"] == "ERROR" || said["level"].is_null() {
            eprintln!("{line}");
        }
    }
}

/// `name=address` and so on.
fn addresses(text: &str) -> BTreeMap<String, SocketAddr> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(name, address)| Some((name.to_owned(), address.parse().ok()?)))
        .collect()
}

/// One of each kind, all on ports of the system's choice.
fn listeners(tcp: &str) -> String {
    let routes = "[[listener.route]]\npath_prefix = \"/steady\"\npool = \"steady\"\n[[listener.route]]\npool = \"main\"\n";
    format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n{routes}\
         [[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{{ cert = \"shop.pem\" }}] }}\n{routes}\
         [[listener]]\nname = \"tcp\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[listener.route]]\npool = \"bytes\"\n\
         [pool.bytes]\nbackends = [{tcp:?}]\n"
    )
}
