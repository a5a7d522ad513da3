//! Nodes of a fleet, each a process, on three members of etcd: how they find each other, and one that is frozen while it decides.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use trimtab_tests::{Client, DEADLINE, Directory, LONG, Port, ask_admin, wait_until, within};

use crate::{PROGRAM, cluster::free, etcd::Etcd, wire::Wire};

/// A node. It ends with this.
struct Node {
    admin: SocketAddr,
    child: Child,
    _port: Port,
}

impl Node {
    fn start(name: &str, directory: &Directory, tables: &str) -> Self {
        let port = Port::new();
        let admin = port.address();
        let state = directory.path().join(name);
        let file = directory.write(
            &format!("{name}.toml"),
            format!(
                "workers = 1\nadmin = {{ listen = \"{admin}\" }}\n[state]\ndirectory = {state:?}\n{tables}"
            ),
        );
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg(file);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self {
            admin,
            child: child.unwrap(),
            _port: port,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// As a power cut does it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks until the answer is as it should be.
    async fn tells(&self, path: &str, is_right: impl Fn(&Value) -> bool) {
        let asked = async {
            loop {
                if Client::try_connect(self.admin).await.is_ok() {
                    let told = ask_admin(self.admin, path).await.text();
                    if serde_json::from_str(&told).is_ok_and(|told| is_right(&told)) {
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        within(path, LONG, asked).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of those who are heard, if it is all who are known.
fn heard(told: &Value) -> Option<Vec<String>> {
    let heard = |peer: &Value| (peer["fresh"] == true).then(|| peer["address"].as_str().unwrap().to_owned());
    told["peers"].as_array()?.iter().map(heard).collect()
}

/// Nodes that name none of the others tell each other their load, and follow who comes and goes.
#[tokio::test(flavor = "multi_thread")]
async fn peers_find_each_other_by_the_fleet() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    directory.write("peers.key", "a secret of at least thirty-two bytes\n");
    // Takes connections and answers nothing.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [(); 4].map(|()| Port::new());
    let peers = free::<4>();
    let start = |name: &str, at: usize| {
        let tables = format!(
            "{}[fleet]\nnode = \"{name}\"\nttl = \"2s\"\n[peers]\nlisten = \"{}\"\nkey_file = \"peers.key\"\n\
             [[listener]]\nlisten = \"{}\"\n[pool.main]\nbackends = [\"{}\"]\n",
            etcd.all(),
            peers[at],
            ports[at].address(),
            backend.local_addr().unwrap(),
        );
        Node::start(name, &directory, &tables)
    };
    let others = |all: &[usize]| {
        let mut addresses: Vec<String> = all.iter().map(|at| peers[*at].to_string()).collect();
        addresses.sort();
        addresses
    };
    let hears = async |node: &Node, all: &[usize]| {
        let wanted = others(all);
        let is_heard = |told: &Value| {
            heard(told).is_some_and(|mut heard| {
                heard.sort();
                heard == wanted
            })
        };
        node.tells("/v1/peers", is_heard).await;
    };
    let (a, b, mut c) = (start("a", 0), start("b", 1), start("c", 2));
    hears(&a, &[1, 2]).await;
    hears(&b, &[0, 2]).await;
    hears(&c, &[0, 1]).await;

    // What one has in flight is seen by the others.
    let mut client = Client::connect(ports[0].address()).await;
    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    for node in [&b, &c] {
        node.tells("/v1/pools", |told| {
            told["pools"][0]["backends"][0]["others"]["active"] == 1
        })
        .await;
    }

    // One that is gone is no peer, and one that comes back is found where it is then.
    c.kill();
    hears(&a, &[1]).await;
    hears(&b, &[0]).await;
    let c = start("c", 3);
    hears(&a, &[1, 3]).await;
    hears(&b, &[0, 3]).await;
    hears(&c, &[0, 1]).await;
}

/// E3: the controller is frozen with a decision on its way, and thaws when its lease is long over.
#[tokio::test(flavor = "multi_thread")]
async fn e3_what_a_frozen_controller_had_decided_is_refused() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    let wire = Wire::to(etcd.client(0)).await;
    let patient = Etcd::table(&[wire.address]).replace("\"1s\"", "\"60s\"");
    let fleet = |etcd: &str, more: &str| format!("{etcd}[fleet]\nttl = \"2s\"\n{more}\n");
    let controller = Node::start("a", &directory, &fleet(&patient, "node = \"a\""));
    controller
        .tells("/v1/fleet", |told| told["controller"] == "a")
        .await;
    let more = "node = \"c\"\ncanary = true\ncanary_for = \"0s\"";
    let mut canary = Node::start("c", &directory, &fleet(&etcd.all(), more));
    controller
        .tells("/v1/fleet", |told| {
            told["members"].as_array().is_some_and(|all| all.len() == 2)
        })
        .await;

    // It decides that all shall serve what the canary calls good, and is frozen before etcd hears that.
    wire.hold(Some("/v3/kv/txn"));
    let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = [{ pool = \"shop\" }]\n[pool.shop]\nbackends = [\"127.0.0.1:9\"]\n";
    let mut client = Client::connect(canary.admin).await;
    client
        .send(format!(
            "POST /v1/fleet/generations HTTP/1.1\r\nhost: {}\r\ncontent-type: application/toml\r\ncontent-length: {}\r\n\r\n",
            canary.admin,
            text.len()
        ))
        .await;
    assert_eq!(client.ask(text).await.status, 200);
    wait_until("a decision on its way", DEADLINE, || wire.held() > 0).await;
    controller.signal(Signal::STOP);
    canary.kill();
    let rollout = || etcd.ctl(&["get", "trimtab/fleet/rollout", "--print-value-only"]);
    let on_trial = rollout();
    assert!(on_trial.contains("\"phase\":\"canary\""), "{on_trial}");
    let keys = || etcd.ctl(&["get", "trimtab/fleet/", "--prefix", "--keys-only"]);
    wait_until("the end of both leases", LONG, || {
        keys().split_whitespace().count() == 1
    })
    .await;

    // Now it arrives.
    wire.hold(None);
    wait_until("etcd's answer", DEADLINE, || wire.answers().contains("\r\n\r\n{")).await;
    // As etcd says that a condition does not hold.
    assert!(wire.answers().contains("200 OK"), "{}", wire.answers());
    assert!(!wire.answers().contains("succeeded"), "{}", wire.answers());
    assert_eq!(rollout(), on_trial);

    // Thawed, it is a member again, sees that the canary is gone, and decides that as the controller that it is by then.
    controller.signal(Signal::CONT);
    controller
        .tells("/v1/fleet", |told| {
            told["rollout"]["reason"] == "c, a canary, is gone" && told["controller"] == "a"
        })
        .await;
    assert!(rollout().contains("\"phase\":\"halted\""), "{}", rollout());
}
