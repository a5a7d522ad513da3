//! Three members of etcd, each a process, and what can happen to them; and a wire to one that can be cut.
//!
//! Keys are written and read by etcd's own tool here, so that nothing depends on our reading of the protocol.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp},
    sync::watch,
    task::AbortHandle,
};
use trimtab_tests::{DEADLINE, Directory, LONG, Port, wait_until};

use crate::program::install;

const MEMBERS: usize = 3;

/// Three members. They end with this.
pub(crate) struct Etcd {
    directory: Directory,
    clients: [SocketAddr; MEMBERS],
    peers: [SocketAddr; MEMBERS],
    /// Which nobody else gets while a member is dead.
    _ports: [[Port; MEMBERS]; 2],
    running: Mutex<[Option<Child>; MEMBERS]>,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        install("etcd").await;
        let ports = [(); 2].map(|()| [(); MEMBERS].map(|()| Port::new()));
        let [clients, peers] = ports.each_ref().map(|ports| ports.each_ref().map(Port::address));
        let etcd = Self {
            directory: Directory::new(),
            clients,
            peers,
            _ports: ports,
            running: Mutex::default(),
        };
        (0..MEMBERS).for_each(|member| etcd.start_member(member));
        wait_until("etcd has a leader", DEADLINE, || {
            assert!(!etcd.has_ended(), "a member has ended");
            etcd.leader().is_some()
        })
        .await;
        etcd
    }

    pub(crate) fn start_member(&self, member: usize) {
        let peer = |at: usize| format!("n{at}=http://{}", self.peers[at]);
        let all: Vec<String> = (0..MEMBERS).map(peer).collect();
        let (client, own) = (
            format!("http://{}", self.clients[member]),
            format!("http://{}", self.peers[member]),
        );
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(format!("n{member}.log")));
        let child = Command::new("etcd")
            .args(["--name", &format!("n{member}")])
            .arg("--data-dir")
            .arg(self.directory.path().join(format!("n{member}")))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args(["--listen-peer-urls", &own, "--initial-advertise-peer-urls", &own])
            .args([
                "--initial-cluster",
                &all.join(","),
                "--initial-cluster-state",
                "new",
            ])
            .args([
                "--heartbeat-interval",
                "100",
                "--election-timeout",
                "1000",
                "--unsafe-no-fsync",
            ])
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.running.lock().unwrap()[member] = Some(child.unwrap());
    }

    fn has_ended(&self) -> bool {
        let mut running = self.running.lock().unwrap();
        running
            .iter_mut()
            .flatten()
            .any(|child| child.try_wait().unwrap().is_some())
    }

    /// As a power cut does it.
    pub(crate) fn kill(&self, member: usize) {
        let child = self.running.lock().unwrap()[member].take();
        let mut child = child.expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Which member leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let members = (0..MEMBERS).filter(|member| self.running.lock().unwrap()[*member].is_some());
        let endpoints: Vec<String> = members.map(|member| self.clients[member].to_string()).collect();
        let output = Self::tool(&endpoints.join(","))
            .args(["endpoint", "status", "--write-out", "json"])
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let leads = |told: &&serde_json::Value| {
            let header = &told["Status"]["header"]["member_id"];
            header.is_number() && told["Status"]["leader"] == *header
        };
        let leading = told.as_array()?.iter().find(leads)?;
        let address = leading["Endpoint"].as_str()?;
        self.clients
            .iter()
            .position(|client| client.to_string() == address)
    }

    pub(crate) async fn wait_for_leader(&self) -> usize {
        wait_until("etcd has a leader", LONG, || self.leader().is_some()).await;
        self.leader().unwrap()
    }

    pub(crate) fn client(&self, member: usize) -> SocketAddr {
        self.clients[member]
    }

    /// The table `[etcd]` with these as its members.
    pub(crate) fn table(members: &[SocketAddr]) -> String {
        let urls: Vec<String> = members
            .iter()
            .map(|member| format!("\"http://{member}\""))
            .collect();
        format!("[etcd]\nendpoints = [{}]\ntimeout = \"1s\"\n", urls.join(", "))
    }

    pub(crate) fn all(&self) -> String {
        Self::table(&self.clients)
    }

    fn tool(endpoints: &str) -> Command {
        let mut tool = Command::new("etcdctl");
        tool.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]);
        tool
    }

    /// What etcd's own tool answers to this.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let endpoints: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        let output = Self::tool(&endpoints.join(",")).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            crate::program::told(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A key that stays as long as the lease that this returns.
    pub(crate) fn register(&self, key: &str, value: &str, ttl_s: u32) -> String {
        let granted = self.ctl(&["lease", "grant", &ttl_s.to_string()]);
        let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
        self.ctl(&["put", key, value, "--lease", &lease]);
        lease
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let running = self
            .running
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for child in running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A wire to somebody that can be cut and mended: what is under way waits, as packets that are lost and sent again do.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
    task: AbortHandle,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let seen = cut.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(carry(stream, target, seen.clone()));
            }
        });
        Self {
            address,
            cut,
            task: task.abort_handle(),
        }
    }

    pub(crate) fn cut(&self, is_cut: bool) {
        self.cut.send_replace(is_cut);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(stream: TcpStream, target: SocketAddr, mut cut: watch::Receiver<bool>) {
    // Whoever connects to a wire that is cut hears nothing.
    let _ = cut.wait_for(|cut| !cut).await;
    let Ok(other) = TcpStream::connect(target).await else {
        return;
    };
    let ((read, write), (back, forth)) = (stream.into_split(), other.into_split());
    tokio::select! {
        () = one_way(read, forth, cut.clone()) => {}
        () = one_way(back, write, cut) => {}
    }
}

async fn one_way(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let _ = cut.wait_for(|cut| !cut).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
