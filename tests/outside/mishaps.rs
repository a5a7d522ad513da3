//! What happens to etcd itself: its history is gone, or a member's disk.

use std::collections::BTreeSet;

use trimtab::fleet::Phase;
use trimtab_tests::{DEADLINE, Directory, LONG, wait_until};

use crate::{
    etcd::Etcd,
    rollout::{Node, all_serve, origin, tables, three},
    wire::Wire,
};

async fn is_over(nodes: &[Node]) {
    wait_until("the rollout is over", LONG, || {
        let is_over = |node: &Node| {
            let rollout = node.view().rollout;
            rollout.is_some_and(|rollout| rollout.phase == Phase::Everywhere)
        };
        nodes.iter().all(is_over)
    })
    .await;
}

/// E6: a node asks for what has changed since it read last, and etcd no longer knows.
#[tokio::test]
async fn e6_a_node_that_was_away_during_a_compaction_catches_up() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let wire = Wire::to(etcd.client(0)).await;
    let patient = Etcd::table(&[wire.address]).replace("\"1s\"", "\"60s\"");
    let pool = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\nname = \"found\"\nroute = [{{ pool = \"found\" }}]\n\
         [pool.found]\nbackends = [{{ address = \"{}\", weight = 3 }}]\n[pool.found.discover]\netcd = \"found\"\n",
        origin.socket()
    );
    let nodes = [
        Node::start("a", &etcd.all(), &origin, &directory, "").await,
        Node::start("b", &patient, &origin, &directory, &pool).await,
    ];
    wait_until("both see both", DEADLINE, || {
        nodes.iter().all(|node| node.view().members.len() == 2)
    })
    .await;
    nodes[0].roll_out(&tables(&origin, 1)).await;
    is_over(&nodes).await;
    wait_until("both serve it", LONG, || {
        nodes.iter().all(|node| node.weights().contains(&1))
    })
    .await;

    // It has read everything, and its question for what comes then is on its way.
    wire.hold(Some("/v3/watch"));
    wire.reset();
    wait_until("both followers ask", DEADLINE, || wire.held() >= 2).await;
    for weight in [2, 3] {
        nodes[0].roll_out(&tables(&origin, weight)).await;
        all_serve(&nodes[..1], weight).await;
        is_over(&nodes[..1]).await;
    }
    etcd.ctl(&[
        "put",
        "trimtab/backends/found/1",
        "{\"address\": \"127.0.0.1:9\", \"weight\": 3}",
    ]);
    etcd.compact();
    assert!(nodes[1].weights().contains(&1), "it knows of nothing yet");
    wire.hold(None);
    all_serve(&nodes, 3).await;
    wait_until("what has registered is there", DEADLINE, || {
        let found = nodes[1].balancer.view_of("found").pool.config.clone();
        found
            .backends
            .iter()
            .any(|backend| backend.address == "127.0.0.1:9")
    })
    .await;
    let told = wire.answers();
    assert!(
        told.contains("compact_revision"),
        "the history was not gone: {told}"
    );
    assert_eq!(nodes[1].weights(), BTreeSet::from([3]));
}

/// E8: what is documented for a member whose disk is lost works, and nodes need nothing done to them.
#[tokio::test]
async fn e8_a_member_with_an_empty_disk_is_rebuilt_under_the_fleet() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let nodes = three(&etcd.all(), &origin, &directory).await;
    nodes[0].roll_out(&tables(&origin, 1)).await;
    all_serve(&nodes, 1).await;
    is_over(&nodes).await;
    etcd.rebuild(0).await;
    etcd.wait_for_leader().await;
    wait_until("all see all", LONG, || {
        nodes
            .iter()
            .all(|node| node.view().members.len() == 3 && node.view().etcd.ok)
    })
    .await;
    // Without another one, a majority is there only with the one that was rebuilt.
    etcd.wait_for_answer(0).await;
    etcd.kill(1);
    etcd.wait_for_leader().await;
    nodes[1].roll_out_in_the_end(&tables(&origin, 2)).await;
    all_serve(&nodes, 2).await;
    is_over(&nodes).await;
}
