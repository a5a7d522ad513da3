//! A balancer and the processes that take over from it, as somebody sees them who reads the log.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use trimtab_tests::{Client, DEADLINE, Directory, wait_until};

/// A balancer that may be replaced: the process that was started, and those that came after it, by what they log.
pub(crate) struct Lineage {
    pub(crate) first: Child,
    log: Arc<Mutex<Vec<String>>>,
}

fn value(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
    Some(rest.split('"').next()?.to_owned())
}

impl Lineage {
    pub(crate) async fn start(program: &Path, directory: &Directory) -> Self {
        let mut command = Command::new(program);
        command.arg("run").arg(directory.path().join("trimtab.toml"));
        Self::of(command).await
    }

    pub(crate) async fn of(mut command: Command) -> Self {
        let mut first = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(first.stderr.take().unwrap()).lines();
        let kept = log.clone();
        // Those that come after it write into the same pipe.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| kept.lock().unwrap().push(line));
        });
        let lineage = Self { first, log };
        lineage.wait_for_serving(1).await;
        lineage
    }

    pub(crate) fn lines(&self, with: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(with)).cloned().collect()
    }

    pub(crate) async fn wait_for(&self, what: &str) {
        wait_until(what, DEADLINE, || !self.lines(what).is_empty()).await;
    }

    /// Waits until so many processes have served.
    pub(crate) async fn wait_for_serving(&self, count: usize) {
        wait_until("it serves", DEADLINE, || {
            self.lines("trimtab runs").len() >= count
        })
        .await;
    }

    /// Those that have taken over, by their ids.
    pub(crate) fn successors(&self) -> Vec<Pid> {
        let id = |line: &String| {
            let (_, rest) = line.split_once("\"pid\":")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Pid::from_raw(digits.parse().ok()?)
        };
        self.lines("has taken over").iter().filter_map(id).collect()
    }

    /// The one that serves.
    pub(crate) fn current(&self) -> Pid {
        let first = || Pid::from_child(&self.first);
        self.successors().last().copied().unwrap_or_else(first)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.current(), signal).unwrap();
    }

    pub(crate) async fn wait_for_the_first_to_end(&mut self) {
        let mut ended = None;
        wait_until("the first ends", DEADLINE, || {
            ended = self.first.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert!(ended.unwrap().success(), "{ended:?}");
    }

    pub(crate) fn listener(&self) -> SocketAddr {
        self.listener_named("main")
    }

    pub(crate) fn listener_named(&self, name: &str) -> SocketAddr {
        let started = &self.lines("trimtab runs")[0];
        let listeners = value(started, "listeners").unwrap();
        let address = |listener: &str| Some(listener.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        listeners.split(' ').find_map(address).unwrap().parse().unwrap()
    }

    fn admin(&self) -> SocketAddr {
        let started = &self.lines("trimtab runs")[0];
        value(started, "admin").unwrap().parse().unwrap()
    }

    pub(crate) async fn ask_admin(&self, request: &str, body: &str) -> (u16, String) {
        let mut client = Client::connect(self.admin()).await;
        let length = body.len();
        client
            .send(format!(
                "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
            ))
            .await;
        let answer = client.response().await;
        (answer.status, answer.text())
    }
}

impl Drop for Lineage {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
        for pid in self.successors() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
