//! An etcd that lets only those in who can say who they are: by a certificate, and as a user with a password.

use serde_json::Value;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, RawOrigin, Setup, get, ok, tls::Authority, wait_until,
};

use crate::etcd::Etcd;

/// A node with a listener and a pool of its own, a member by what the files in this directory say.
struct Node {
    balancer: Balancer,
    _origin: RawOrigin,
}

impl Node {
    async fn start(etcd: &Etcd, directory: &Directory, more: &str) -> Self {
        let origin = RawOrigin::answering_at("127.0.0.1:0", ok("1")).await.unwrap();
        let path = directory.path();
        let tables = format!(
            "{}{more}[state]\ndirectory = {:?}\n[fleet]\nnode = \"a\"\nttl = \"2s\"\ncanary_for = \"0s\"\n\
             [pool.found]\nbackends = [\"{}\"]\n[pool.found.discover]\netcd = \"shop\"\n",
            etcd.all(),
            path.join("state"),
            origin.socket(),
        );
        let tables = tables.replace("HERE", &path.to_string_lossy());
        let route = "route = [{ path_prefix = \"/found\", pool = \"found\" }, { pool = \"main\" }]";
        let own = Setup::to(origin.socket().to_string()).listener(route);
        Self {
            balancer: own.with_admin().rest(&tables).start().await,
            _origin: origin,
        }
    }

    fn view(&self) -> trimtab::fleet::View {
        self.balancer.handle().fleet().unwrap().view()
    }

    fn error(&self) -> String {
        self.view().etcd.error.unwrap_or_default()
    }

    async fn is_member(&self) {
        let is_there = || self.view().etcd.ok && self.view().members.len() == 1;
        wait_until("it is a member", DEADLINE, is_there).await;
    }

    /// Until etcd is of no use, for this reason; what serves goes on.
    async fn is_refused(&self, reason: &str) {
        let told = || !self.view().etcd.ok && self.error().contains(reason);
        let end = std::time::Instant::now() + DEADLINE;
        while !told() {
            assert!(
                std::time::Instant::now() < end,
                "not told {reason:?} but {:?}",
                self.error()
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(get(self.balancer.address, "/").await.status, 200);
    }

    /// What registers with etcd arrives, so that the node hears it.
    async fn hears(&self, etcd: &Etcd, name: &str) {
        let address = format!("127.0.0.1:{}", 1000 + name.len());
        etcd.ctl(&["put", &format!("trimtab/backends/shop/{name}"), &address]);
        wait_until("what has registered is there", DEADLINE, || {
            let found = self.balancer.view_of("found").pool.config.clone();
            found.backends.iter().any(|backend| backend.address == address)
        })
        .await;
    }

    async fn publish(&self, backend: &str) -> (u16, String) {
        let text = format!(
            "[pool.shop]\nbackends = [\"{backend}\"]\n[[listener]]\nname = \"shop\"\nlisten = \"127.0.0.1:0\"\nroute = [{{ pool = \"shop\" }}]\n"
        );
        let admin = self.balancer.handle().admin().unwrap();
        let mut client = Client::connect(admin).await;
        let head = format!(
            "POST /v1/fleet/generations HTTP/1.1\r\nhost: {admin}\r\ncontent-type: application/toml\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        client.send(head).await;
        let answer = client.ask(text).await;
        (answer.status, answer.text())
    }

    /// Publishes, and waits until it is served.
    async fn rolls_out(&self, backend: &str) {
        let (status, told) = self.publish(backend).await;
        assert_eq!(status, 200, "{told}");
        let generation: Value = serde_json::from_str(&told).unwrap();
        wait_until("the rollout is over", DEADLINE, || {
            let rollout = self.view().rollout;
            rollout.is_some_and(|rollout| generation["generation"] == rollout.good)
        })
        .await;
    }
}

const USER: &str = "user = \"trimtab\"\npassword_file = \"HERE/password\"\n";
const TLS: &str = "[etcd.tls]\nca = \"HERE/ca.pem\"\ncert = \"HERE/node.pem\"\nkey = \"HERE/node.key\"\n";

/// What a node needs to get in.
fn files(etcd: &Etcd) -> Directory {
    let directory = Directory::new();
    let signed = etcd.authority().member(["node.test"]);
    directory.write("ca.pem", &etcd.authority().pem);
    directory.write("node.pem", signed.cert);
    directory.write("node.key", signed.key);
    directory
}

#[tokio::test]
async fn with_a_certificate_and_a_password_a_node_does_all_that_it_does() {
    let etcd = Etcd::start_secured().await;
    etcd.add_user("trimtab", "first", "readwrite");
    etcd.ctl(&["auth", "enable"]);
    let directory = files(&etcd);
    directory.write("password", "first\n");
    let node = Node::start(
        &etcd,
        &directory,
        &format!("{USER}{TLS}server_name = \"etcd.test\"\n"),
    )
    .await;
    node.is_member().await;
    node.rolls_out("127.0.0.1:9").await;
    node.hears(&etcd, "1").await;

    // All tokens end, and nobody notices.
    etcd.set_password("trimtab", "first");
    node.rolls_out("127.0.0.1:10").await;
    node.hears(&etcd, "22").await;
    // One member after the other starts again, and remembers none.
    for member in 0..3 {
        etcd.kill(member);
        etcd.start_member(member);
        etcd.wait_for_leader().await;
    }
    node.hears(&etcd, "333").await;
    node.is_member().await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_the_key_and_serves_on() {
    let etcd = Etcd::start_secured().await;
    etcd.add_user("trimtab", "first", "readwrite");
    etcd.add_user("reader", "other", "read");
    etcd.ctl(&["auth", "enable"]);
    let directory = files(&etcd);
    directory.write("password", "wrong");
    let node = Node::start(&etcd, &directory, &format!("{USER}{TLS}")).await;
    let told = "etcd.password_file = \"";
    node.is_refused(told).await;
    assert!(
        node.error()
            .contains("does not let user \"trimtab\" in: etcdserver: authentication failed"),
        "{}",
        node.error()
    );
    let (status, told) = node.publish("127.0.0.1:9").await;
    assert_eq!(status, 503, "{told}");
    assert!(
        told.contains("etcd.password_file") && told.contains("nothing was changed, and what serves goes on"),
        "{told}"
    );
    assert!(!told.contains("wrong"), "it is a secret: {told}");
    // Another file, and no restart.
    directory.replace("password", "first");
    node.is_member().await;
    node.hears(&etcd, "1").await;
    etcd.set_password("trimtab", "second");
    node.is_refused("etcd.password_file = \"").await;
    directory.replace("password", "second");
    node.is_member().await;
    drop(node);

    // Who may read, and no more, learns that it may not write; who says nothing learns that it has to.
    directory.write("password", "other");
    let reader = USER.replace("trimtab", "reader");
    let directory = copied(&directory);
    let node = Node::start(&etcd, &directory, &format!("{reader}{TLS}")).await;
    node.is_refused("user \"reader\" (etcd.user) may not: etcdserver: permission denied")
        .await;
    node.hears(&etcd, "22").await;
    drop(node);
    let directory = copied(&directory);
    let node = Node::start(&etcd, &directory, TLS).await;
    node.is_refused("the table [etcd] has no user and password_file")
        .await;
}

/// The same files, for a node that begins anew.
fn copied(directory: &Directory) -> Directory {
    let other = Directory::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), other.path().join(file.file_name())).unwrap();
        }
    }
    other
}

#[tokio::test]
async fn neither_side_believes_a_stranger_and_other_files_need_no_restart() {
    let etcd = Etcd::start_secured().await;
    let directory = files(&etcd);
    let stranger = Authority::new();
    directory.replace("ca.pem", &stranger.pem);
    let node = Node::start(&etcd, &directory, TLS).await;
    node.is_refused("invalid peer certificate: BadSignature").await;
    directory.replace("ca.pem", &etcd.authority().pem);
    node.is_member().await;
    // A certificate of somebody else's, and the right one again.
    let signed = stranger.member(["node.test"]);
    directory.replace("node.key", signed.key);
    directory.replace("node.pem", signed.cert);
    node.is_refused("received fatal alert").await;
    let signed = etcd.authority().member(["node.test"]);
    directory.replace("node.key", signed.key);
    directory.replace("node.pem", signed.cert);
    node.is_member().await;
    drop(node);

    // The members' certificate is for another name, and a node without one is let in nowhere.
    let named = format!("{TLS}server_name = \"other.test\"\n");
    let directory = copied(&directory);
    let node = Node::start(&etcd, &directory, &named).await;
    node.is_refused("certificate not valid for name \"other.test\"")
        .await;
    drop(node);
    let directory = copied(&directory);
    let anybody = "[etcd.tls]\nca = \"HERE/ca.pem\"\n";
    let node = Node::start(&etcd, &directory, anybody).await;
    node.is_refused("received fatal alert").await;
}

/// First the nodes have a user, then etcd asks for one: nobody has to stop.
#[tokio::test]
async fn etcd_may_begin_and_cease_to_ask_who_it_is() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    directory.write("password", "first");
    let node = Node::start(&etcd, &directory, USER).await;
    node.is_member().await;
    node.hears(&etcd, "1").await;
    etcd.add_user("trimtab", "first", "readwrite");
    etcd.ctl(&["auth", "enable"]);
    node.rolls_out("127.0.0.1:9").await;
    node.hears(&etcd, "22").await;
    etcd.ctl(&["auth", "disable"]);
    node.rolls_out("127.0.0.1:10").await;
    etcd.ctl(&["auth", "enable"]);
    node.rolls_out("127.0.0.1:11").await;
    node.is_member().await;
}

#[tokio::test]
async fn files_that_are_no_good_are_told_at_the_start() {
    let directory = Directory::new();
    directory.write("password", "\n");
    let text = "[etcd]\nendpoints = [\"https://127.0.0.1:1\"]\nuser = \"trimtab\"\npassword_file = \"password\"\n\
                [etcd.tls]\nca = \"missing.pem\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[pool.main]\nbackends = [\"127.0.0.1:9\"]\n";
    let refused = Balancer::start(text.to_owned(), directory.path()).await;
    let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
    for mistake in [
        ":4: etcd.password_file = \"password\": expected a password in it",
        ":6: etcd.tls.ca = \"missing.pem\": cannot be read",
    ] {
        assert!(told.contains(mistake), "{told}");
    }
}
