//! A member's process is replaced in place: its role goes to the other node first, and nothing is given up that nobody takes.

use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use trimtab_tests::{Client, DEADLINE, Load, Origin, Port, wait_until};

use super::{Cluster, text_of};

/// Processes that took over. Nobody is their parent.
#[derive(Default)]
struct Successors(Mutex<Vec<Pid>>);

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in self.0.lock().unwrap().iter() {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

impl Successors {
    /// Has a member's process replaced, and answers what became of it.
    async fn upgrade(&self, cluster: &Cluster, member: usize) -> (u16, String) {
        let mut client = Client::connect(cluster.admins[member]).await;
        client
            .send("POST /v1/upgrade HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            .await;
        let answer = client.response().await;
        let told: serde_json::Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        let pid = told["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32));
        self.0.lock().unwrap().extend(pid);
        (answer.status, answer.text())
    }
}

fn status(cluster: &Cluster, member: usize) -> serde_json::Value {
    serde_json::from_str(&text_of(&cluster.order(member, &["status", "--json"]))).unwrap_or_default()
}

/// Waits until a node's new process could follow the active one.
async fn is_ready(cluster: &Cluster, seen_from: usize, member: usize) {
    wait_until("the new process is ready to follow", DEADLINE, || {
        let seen = &status(cluster, seen_from)["members"][member];
        seen["fit"] == true && seen["presence"] == "here"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_is_replaced_and_the_role_goes_to_the_other_node_first() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start_all().await;
    let successors = Successors::default();
    for member in [1, 2, 0] {
        let (code, text) = successors.upgrade(&cluster, member).await;
        assert_eq!(code, 200, "{text}\n{}", cluster.logs());
        is_ready(&cluster, usize::from(member != 0), usize::from(member != 2)).await;
    }
    cluster.wait_for(1, "active").await;
    cluster.wait_for(0, "standby").await;
    cluster.wait_for(2, "witness").await;
    cluster.wait_for_service().await;
    let logs = cluster.logs();
    assert!(logs.contains("handing over before the upgrade"), "{logs}");
    assert!(!logs.contains("no majority answered"), "{logs}");
    // The new processes are members like any: the first one listens, too.
    is_ready(&cluster, 1, 0).await;
    let ordered = cluster.order(1, &["failover"]);
    assert_eq!(text_of(&ordered), "handing over to a\n", "{}", cluster.logs());
    cluster.wait_for(0, "active").await;
    cluster.wait_for_service().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_node_that_nobody_could_follow_refuses_and_goes_on_with_its_lease() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start(0);
    cluster.start(2);
    cluster.wait_for(0, "active").await;
    cluster.wait_for_service().await;
    let before = status(&cluster, 0);
    let successors = Successors::default();
    let (code, text) = successors.upgrade(&cluster, 0).await;
    assert_eq!(code, 422, "{text}");
    assert!(
        text.contains("no other node is ready to follow: b was never heard"),
        "{text}"
    );
    // The witness is needed as well.
    let (code, text) = successors.upgrade(&cluster, 2).await;
    assert_eq!(code, 422, "{text}");
    assert!(
        text.contains("no majority without it: b was never heard"),
        "{text}"
    );
    let after = status(&cluster, 0);
    assert_eq!(
        (&after["role"], &after["epoch"], &after["leases"]),
        (&"active".into(), &before["epoch"], &before["leases"])
    );
    cluster.wait_for_service().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_the_member_leaves_the_place_to_the_old_one() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "");
    cluster.start_all().await;
    // An address that only binding shows to be nobody's here.
    let own = cluster.voices[1].to_string();
    cluster.rewrite_one("b", &own, "192.0.2.1:7946");
    let successors = Successors::default();
    let (code, text) = successors.upgrade(&cluster, 1).await;
    assert_eq!(code, 422, "{text}");
    assert!(text.contains("192.0.2.1:7946"), "{text}");
    wait_until("the old process is the member again", DEADLINE, || {
        cluster.logs().contains("is the member of the cluster again")
    })
    .await;
    is_ready(&cluster, 0, 1).await;
    cluster.signal(0, "TERM");
    cluster.wait_for(1, "active").await;
    cluster.wait_for_service().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_the_role_moves_the_old_process_finishes_what_it_has() {
    let origin = Origin::start("o").await;
    let mut cluster = Cluster::new(&origin, "takeover = \"role-only\"");
    // Both listen at the same time here.
    let (port, address) = (Port::new(), cluster.address.to_string());
    cluster.rewrite_one("b", &address, &port.address().to_string());
    cluster.start_all().await;
    cluster.wait_for_service().await;
    let load = Load::start(cluster.address, 8);
    load.more(100).await;
    let successors = Successors::default();
    let (code, text) = successors.upgrade(&cluster, 0).await;
    assert_eq!(code, 200, "{text}\n{}", cluster.logs());
    cluster.wait_for(1, "active").await;
    cluster.wait_for(0, "standby").await;
    load.more(100).await;
    load.stop().await.expect_no_failure();
}
