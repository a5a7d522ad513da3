//! Three members of etcd, each a process, and what can happen to them. The way to one that can be cut is in `wire.rs`.
//!
//! Keys are written and read by etcd's own tool here, so that nothing depends on our reading of the protocol.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use trimtab_tests::{DEADLINE, Directory, LONG, Port, tls::Authority, wait_until};

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
    authority: Option<Authority>,
    /// What etcd's tool says who asks by, once it has to.
    user: OnceLock<String>,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With certificates of this authority, which clients have to have, too.
    pub(crate) async fn start_secured() -> Self {
        Self::start_with(Some(Authority::new())).await
    }

    async fn start_with(authority: Option<Authority>) -> Self {
        install("etcd").await;
        let ports = [(); 2].map(|()| [(); MEMBERS].map(|()| Port::new()));
        let [clients, peers] = ports.each_ref().map(|ports| ports.each_ref().map(Port::address));
        let etcd = Self {
            directory: Directory::new(),
            clients,
            peers,
            _ports: ports,
            running: Mutex::default(),
            authority,
            user: OnceLock::new(),
        };
        if let Some(authority) = &etcd.authority {
            etcd.directory.write("ca.pem", &authority.pem);
            let signed = authority.member(["127.0.0.1", "etcd.test"]);
            etcd.directory.write("member.pem", signed.cert);
            etcd.directory.write("member.key", signed.key);
        }
        (0..MEMBERS).for_each(|member| etcd.start_member(member));
        wait_until("etcd has a leader", DEADLINE, || {
            assert!(!etcd.has_ended(), "a member has ended");
            etcd.leader().is_some()
        })
        .await;
        etcd
    }

    pub(crate) fn start_member(&self, member: usize) {
        self.start_as(member, "new");
    }

    /// A member whose disk is lost, by what is documented for that: removed, and added again with an empty one.
    pub(crate) async fn rebuild(&self, member: usize) {
        self.kill(member);
        std::fs::remove_dir_all(self.directory.path().join(format!("n{member}"))).unwrap();
        // It may have been the leader.
        self.wait_for_leader().await;
        let is_other = |(at, client): (usize, &SocketAddr)| (at != member).then_some(*client);
        let others: Vec<SocketAddr> = self.clients.iter().enumerate().filter_map(is_other).collect();
        let name = format!(" n{member},");
        wait_until("the member is removed", LONG, || {
            let listed = self.tool(&others).args(["member", "list"]).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            let Some(line) = listed.lines().find(|line| line.contains(&name)) else {
                return !listed.is_empty();
            };
            let id = line.split(',').next().unwrap().to_owned();
            let _ = self
                .tool(&others)
                .args(["member", "remove", &id])
                .output()
                .unwrap();
            false
        })
        .await;
        let peer = format!("http://{}", self.peers[member]);
        // Not before the others have been seen to be well for a while.
        wait_until("the member is added", LONG, || {
            let mut tool = self.tool(&others);
            tool.args(["member", "add", &format!("n{member}"), "--peer-urls", &peer]);
            tool.output().unwrap().status.success()
        })
        .await;
        self.start_as(member, "existing");
    }

    fn start_as(&self, member: usize, state: &str) {
        let peer = |at: usize| format!("n{at}=http://{}", self.peers[at]);
        let all: Vec<String> = (0..MEMBERS).map(peer).collect();
        let (client, own) = (
            format!("{}://{}", self.scheme(), self.clients[member]),
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
                state,
            ])
            .args([
                "--heartbeat-interval",
                "100",
                "--election-timeout",
                "1000",
                "--unsafe-no-fsync",
                // The least: a login is not what is measured.
                "--bcrypt-cost",
                "4",
            ])
            .args(self.certificates("--cert-file", "--key-file", "--trusted-ca-file"))
            .args(self.authority.as_ref().map(|_| "--client-cert-auth"))
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.running.lock().unwrap()[member] = Some(child.unwrap());
    }

    fn scheme(&self) -> &'static str {
        match self.authority {
            Some(_) => "https",
            None => "http",
        }
    }

    /// The files of a member, by these names; nothing without an authority.
    fn certificates(&self, cert: &str, key: &str, ca: &str) -> Vec<String> {
        let files = [(cert, "member.pem"), (key, "member.key"), (ca, "ca.pem")];
        let given = |(name, file): (&str, &str)| [name.to_owned(), self.file(file)];
        let given = files.into_iter().flat_map(given);
        self.authority.as_ref().map_or(Vec::new(), |_| given.collect())
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// Who signs what members believe.
    pub(crate) fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("it was started so")
    }

    /// Makes a user who may do this below the prefix, and has the tool ask as root from now on.
    pub(crate) fn add_user(&self, name: &str, password: &str, may: &str) {
        if self.user.get().is_none() {
            self.ctl(&["user", "add", "root:rooted"]);
            self.ctl(&["user", "grant-role", "root", "root"]);
            self.user.set("root:rooted".to_owned()).unwrap();
        }
        self.ctl(&["role", "add", name]);
        self.ctl(&["role", "grant-permission", name, "--prefix=true", may, "trimtab/"]);
        self.ctl(&["user", "add", &format!("{name}:{password}")]);
        self.ctl(&["user", "grant-role", name, name]);
    }

    /// Another password, or the same again: either ends all tokens of the user.
    pub(crate) fn set_password(&self, name: &str, password: &str) {
        let mut tool = self.tool(&self.clients);
        let tool = tool.args(["user", "passwd", name, "--interactive=false"]);
        let mut child = tool.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        assert!(child.wait().unwrap().success());
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
        let running: Vec<SocketAddr> = members.map(|member| self.clients[member]).collect();
        let output = self
            .tool(&running)
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
            .position(|client| address.ends_with(&client.to_string()))
    }

    pub(crate) async fn wait_for_leader(&self) -> usize {
        wait_until("etcd has a leader", LONG, || self.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// Until this member has what the others have.
    pub(crate) async fn wait_for_answer(&self, member: usize) {
        wait_until("the member answers", LONG, || {
            let mut tool = self.tool(&[self.clients[member]]);
            let output = tool.args(["endpoint", "health"]).output().unwrap();
            output.status.success()
        })
        .await;
    }

    pub(crate) fn client(&self, member: usize) -> SocketAddr {
        self.clients[member]
    }

    /// The table `[etcd]` with these as its members.
    pub(crate) fn table(members: &[SocketAddr]) -> String {
        Self::table_by("http", members)
    }

    fn table_by(scheme: &str, members: &[SocketAddr]) -> String {
        let url = |member| format!("\"{scheme}://{member}\"");
        let urls: Vec<String> = members.iter().map(url).collect();
        format!("[etcd]\nendpoints = [{}]\ntimeout = \"1s\"\n", urls.join(", "))
    }

    pub(crate) fn all(&self) -> String {
        Self::table_by(self.scheme(), &self.clients)
    }

    fn tool(&self, members: &[SocketAddr]) -> Command {
        let url = |member| format!("{}://{member}", self.scheme());
        let urls: Vec<String> = members.iter().map(url).collect();
        let mut tool = Command::new("etcdctl");
        tool.env("ETCDCTL_API", "3")
            .args(["--endpoints", &urls.join(","), "--command-timeout", "60s"])
            .args(self.certificates("--cert", "--key", "--cacert"));
        if let Some(user) = self.user.get() {
            tool.args(["--user", user]);
        }
        tool
    }

    /// What etcd's own tool answers to this.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.tool(&self.clients).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            crate::program::told(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Forgets all that was before now.
    pub(crate) fn compact(&self) {
        let told: serde_json::Value =
            serde_json::from_str(&self.ctl(&["get", "x", "--write-out", "json"])).unwrap();
        self.ctl(&["compact", &told["header"]["revision"].to_string()]);
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
