//! A pair and its witness, each a process of its own: who serves when one is killed, stopped, started again or told to hand over.

mod in_place;
mod sessions;
mod warm;

use std::{
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Output, Stdio},
};

use trimtab_tests::{Client, DEADLINE, Directory, Origin, Port, get, wait_until};

use crate::PROGRAM;

/// Addresses for datagrams that were free a moment ago.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    // All are held until all are chosen, or one could be chosen twice.
    let held = [(); N].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    held.map(|socket| socket.local_addr().unwrap())
}

/// A port for both: members send datagrams there, and a standby connects.
fn voice() -> Port {
    loop {
        let port = Port::new();
        if UdpSocket::bind(port.address()).is_ok() {
            return port;
        }
    }
}

/// The files of a cluster, and its processes.
struct Cluster {
    directory: Directory,
    /// Where the active node listens.
    address: SocketAddr,
    admins: [SocketAddr; 3],
    voices: [SocketAddr; 3],
    processes: [Option<Child>; 3],
    more: &'static str,
    /// Which nobody else gets while no node listens.
    _ports: ([Port; 4], [Port; 3]),
}

/// Slow, so that a busy machine is no fault.
const TIMES: &str = "heartbeat = \"200ms\"\nlease = \"1s\"\nmargin = \"100ms\"\n";
const NAMES: [&str; 3] = ["a", "b", "w"];

impl Cluster {
    fn new(origin: &Origin, more: &'static str) -> Self {
        let directory = Directory::new();
        directory.write("cluster.key", "a secret of at least thirty-two bytes\n");
        let ports = [(); 4].map(|()| Port::new());
        let [address, a, b, w] = ports.each_ref().map(Port::address);
        let voices = [(); 3].map(|()| voice());
        let cluster = Self {
            directory,
            address,
            admins: [a, b, w],
            voices: voices.each_ref().map(Port::address),
            _ports: (ports, voices),
            processes: [None, None, None],
            more,
        };
        for (member, name) in NAMES.into_iter().enumerate() {
            let listener = format!(
                "workers = 1\n[[listener]]\nlisten = \"{address}\"\n[pool.main]\nbackends = [\"{}\"]\n",
                origin.address()
            );
            let serves = if member < 2 { listener } else { String::new() };
            let text = cluster.text(member, &serves);
            cluster.directory.write(&format!("{name}.toml"), text);
        }
        cluster
    }

    fn text(&self, member: usize, serves: &str) -> String {
        let mut text = format!(
            "admin = {{ listen = \"{}\" }}\nlog = {{ format = \"json\" }}\n{serves}[cluster]\nname = \"test\"\nnode = \"{}\"\n\
             key_file = \"cluster.key\"\n{TIMES}{}\n",
            self.admins[member], NAMES[member], self.more
        );
        for (name, voice) in NAMES.iter().zip(self.voices) {
            let role = if *name == "w" { "witness" } else { "node" };
            text +=
                &format!("[[cluster.member]]\nname = \"{name}\"\naddress = \"{voice}\"\nrole = \"{role}\"\n");
        }
        // `workers` has to come before the first table.
        match text.find("workers = 1\n") {
            Some(at) => {
                text.replace_range(at..at + "workers = 1\n".len(), "");
                format!("workers = 1\n{text}")
            }
            None => text,
        }
    }

    fn start(&mut self, member: usize) {
        let file = self.directory.path().join(format!("{}.toml", NAMES[member]));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(format!("{}.log", NAMES[member])));
        let process = Command::new(PROGRAM)
            .arg("run")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.processes[member] = Some(process.unwrap());
    }

    /// All of them, so that the first node is active and the second ready.
    async fn start_all(&mut self) {
        self.start(0);
        self.start(2);
        self.wait_for(0, "active").await;
        self.start(1);
        wait_until("the second node is ready", DEADLINE, || {
            let status = text_of(&self.order(0, &["status", "--json"]));
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            status["members"][1]["fit"] == true
        })
        .await;
    }

    /// Puts something else into the files of both nodes.
    fn rewrite(&self, from: &str, to: &str) {
        for name in ["a", "b"] {
            self.rewrite_one(name, from, to);
        }
    }

    fn rewrite_one(&self, name: &str, from: &str, to: &str) {
        let path = self.directory.path().join(format!("{name}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        self.directory
            .replace(&format!("{name}.toml"), text.replace(from, to));
    }

    /// A connection, once somebody listens.
    async fn connect(&self) -> tokio::net::TcpStream {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Ok(stream) = tokio::net::TcpStream::connect(self.address).await {
                return stream;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "nobody listens\n{}",
                self.logs()
            );
            tokio::task::yield_now().await;
        }
    }

    /// As a power cut does it.
    fn kill(&mut self, member: usize) {
        let mut process = self.processes[member].take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn signal(&self, member: usize, name: &str) {
        let process = self.processes[member].as_ref().expect("it runs");
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            _ => panic!("{name}"),
        };
        let process = rustix::process::Pid::from_child(process);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// The first line of `/v1/role`, and its status; 0 when nobody answers.
    async fn role(&self, member: usize) -> (u16, String) {
        let Ok(mut client) = Client::try_connect(self.admins[member]).await else {
            return (0, String::new());
        };
        client
            .send("GET /v1/role HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await;
        match client.try_response().await {
            Ok(answer) => (
                answer.status,
                answer.text().lines().next().unwrap_or_default().to_owned(),
            ),
            Err(_) => (0, String::new()),
        }
    }

    async fn wait_for(&self, member: usize, role: &str) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while self.role(member).await.1 != role {
            let now = tokio::time::Instant::now();
            assert!(now < end, "{} is not {role}\n{}", NAMES[member], self.logs());
            tokio::task::yield_now().await;
        }
    }

    /// Waits until requests are served.
    async fn wait_for_service(&self) {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Ok(mut client) = Client::try_connect(self.address).await {
                client
                    .send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
                    .await;
                if client
                    .try_response()
                    .await
                    .is_ok_and(|answer| answer.status == 200)
                {
                    return;
                }
            }
            assert!(
                tokio::time::Instant::now() < end,
                "nobody serves\n{}",
                self.logs()
            );
            tokio::task::yield_now().await;
        }
    }

    fn logs(&self) -> String {
        let log = |name: &&str| {
            let path = self.directory.path().join(format!("{name}.log"));
            format!("{name}:\n{}", std::fs::read_to_string(path).unwrap_or_default())
        };
        NAMES.iter().map(log).collect()
    }

    fn order(&self, member: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        let admin = self.admins[member].to_string();
        command.arg("cluster").args(arguments).args(["--admin", &admin]);
        command.output().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn text_of(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_serves_when_the_active_one_is_killed_and_keeps_the_role() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start_all().await;
    cluster.wait_for_service().await;
    assert_eq!(
        cluster.role(1).await,
        (503, "standby".to_owned()),
        "{}",
        cluster.logs()
    );
    assert_eq!(cluster.role(2).await, (503, "witness".to_owned()));

    cluster.kill(0);
    cluster.wait_for(1, "active").await;
    cluster.wait_for_service().await;

    cluster.start(0);
    cluster.wait_for(0, "standby").await;
    // Once the old node votes again, it has had every occasion to take the role back.
    let votes = || text_of(&cluster.order(0, &["status"])).contains("votes for b");
    wait_until("the old node votes for the new one", DEADLINE, votes).await;
    assert_eq!(cluster.role(1).await.1, "active", "{}", cluster.logs());
    assert_eq!(get(cluster.address, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_handed_over_by_order_and_before_a_stop() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start_all().await;
    let refused = cluster.order(1, &["failover"]);
    assert!(
        !refused.status.success() && text_of(&refused).contains("b is not active"),
        "{}",
        text_of(&refused)
    );
    let refused = cluster.order(0, &["failover", "--to", "w"]);
    assert!(
        !refused.status.success() && text_of(&refused).contains("no other node is ready"),
        "{}",
        text_of(&refused)
    );
    let ordered = cluster.order(0, &["failover"]);
    assert_eq!(text_of(&ordered), "handing over to b\n", "{}", cluster.logs());
    cluster.wait_for(1, "active").await;
    cluster.wait_for(0, "standby").await;
    cluster.wait_for_service().await;

    cluster.signal(1, "TERM");
    cluster.wait_for(0, "active").await;
    cluster.wait_for_service().await;
    assert!(
        cluster.logs().contains("handing over before the stop"),
        "{}",
        cluster.logs()
    );
    assert!(
        !cluster.logs().contains("no majority answered"),
        "{}",
        cluster.logs()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_majority_stops_and_serves_again_when_it_has_one() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start_all().await;
    cluster.kill(2);
    // One vote is missing, and that is no reason to stop.
    let unheard = || {
        let status = text_of(&cluster.order(0, &["status", "--json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["members"][2]["heard_ms"]
            .as_u64()
            .is_some_and(|heard_ms| heard_ms > 3000)
    };
    wait_until("the witness is missed", DEADLINE, unheard).await;
    assert_eq!(cluster.role(0).await.1, "active", "{}", cluster.logs());
    cluster.kill(1);
    cluster.wait_for(0, "standby").await;
    assert!(Client::try_connect(cluster.address).await.is_err());
    cluster.start(2);
    cluster.wait_for(0, "active").await;
    cluster.wait_for_service().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_names_is_run_when_the_role_changes() {
    let origin = Origin::start("o").await;
    let hook = "on_active = [\"sh\", \"-c\", \"echo $TRIMTAB_NODE $TRIMTAB_ROLE $TRIMTAB_EPOCH >> hooks\"]\n\
                on_standby = [\"sh\", \"-c\", \"echo $TRIMTAB_NODE $TRIMTAB_ROLE $TRIMTAB_REASON >> hooks\"]";
    let mut cluster = Cluster::new(&origin, hook);
    // The children's directory is the balancer's.
    let hooks = cluster.directory.path().join("hooks");
    let path_of = |name: &str| cluster.directory.path().join(format!("{name}.toml"));
    for name in NAMES {
        let path = path_of(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.replace(">> hooks", &format!(">> {}", hooks.display())),
        )
        .unwrap();
    }
    cluster.start_all().await;
    assert!(cluster.order(0, &["failover"]).status.success());
    let ran = || std::fs::read_to_string(&hooks).unwrap_or_default();
    wait_until("three hooks ran", DEADLINE, || ran().lines().count() >= 3).await;
    let lines = ran();
    assert!(lines.contains("a standby transferred"), "{lines}");
    let epoch = |node: &str| {
        let line = lines
            .lines()
            .find(|line| line.starts_with(&format!("{node} active")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .expect("an epoch")
    };
    assert!(epoch("b") > epoch("a"), "a token never goes back: {lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_other_policies_is_handed_nothing_over_unless_it_is_named() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    let (plain, other) = ("[pool.main]\n", "[pool.main]\npolicy = \"round-robin\"\n");
    cluster.rewrite_one("b", plain, other);
    cluster.start_all().await;

    let status = |member| {
        let status = text_of(&cluster.order(member, &["status", "--json"]));
        serde_json::from_str::<serde_json::Value>(&status).unwrap_or_default()
    };
    let is_known = || status(1)["same_policies"] == false && status(0)["members"][1]["policies"].is_string();
    wait_until("both know that their policies differ", DEADLINE, is_known).await;
    let members = status(0)["members"].clone();
    assert_ne!(members[0]["policies"], members[1]["policies"]);
    assert_ne!(members[0]["config"], members[1]["config"]);
    let refused = text_of(&cluster.order(0, &["failover"]));
    assert!(refused.contains("b has other policies in service"), "{refused}");
    let told = text_of(&cluster.order(0, &["status"]));
    assert!(told.contains("another configuration, other policies"), "{told}");

    // Its own file is watched. Which node a file is for makes no difference.
    cluster.rewrite_one("b", other, plain);
    let is_alike = || status(1)["same_policies"] == true && status(0)["members"][1] != members[1];
    wait_until("both know that they are the same", DEADLINE, is_alike).await;
    let members = status(0)["members"].clone();
    assert_eq!(members[0]["config"], members[1]["config"]);
    let is_ordered = || cluster.order(0, &["failover"]).status.success();
    wait_until("the role is handed over", DEADLINE, is_ordered).await;
    cluster.wait_for(1, "active").await;

    cluster.rewrite_one("a", plain, other);
    wait_until("they differ again", DEADLINE, || {
        status(0)["same_policies"] == false
    })
    .await;
    assert!(!cluster.order(1, &["failover"]).status.success());
    assert!(cluster.order(1, &["failover", "--to", "a"]).status.success());
    cluster.wait_for(0, "active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_handed_back_to_a_higher_priority_in_order_if_the_file_says_so() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "preempt_after = \"1s\"");
    for name in NAMES {
        cluster.rewrite_one(name, "name = \"a\"\n", "name = \"a\"\npriority = 200\n");
    }
    cluster.start_all().await;
    cluster.kill(0);
    cluster.wait_for(1, "active").await;
    cluster.start(0);
    cluster.wait_for(0, "active").await;
    cluster.wait_for(1, "standby").await;
    cluster.wait_for_service().await;
    let logs = cluster.logs();
    assert!(logs.contains("a node with a higher priority is ready"), "{logs}");
    assert!(logs.contains("this node hands over"), "{logs}");
    assert!(!logs.contains("no majority answered"), "{logs}");
    // The lower one is never preferred.
    let leases = || text_of(&cluster.order(0, &["status", "--json"]));
    assert!(
        leases().contains("\"leases\":1") || leases().contains("\"leases\": 1"),
        "{}",
        leases()
    );
}
