//! A fleet on three members of etcd: who belongs to it, what is discovered, and what happens when etcd goes.

use std::sync::Arc;

use serde_json::Value;
use trimtab::{
    config::Etcd as Table,
    etcd::{Client as Etcdctl, Condition, Write},
};
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, LONG, Load, RawOrigin, Setup, ask_admin, get, ok, wait_until,
};

use crate::{etcd::Etcd, wire::Wire};

/// A node that serves what is registered as `shop`.
async fn node(etcd: &str, name: &str, directory: &Directory) -> Balancer {
    let state = directory.path().join(name);
    let tables = format!(
        "{etcd}[fleet]\nnode = \"{name}\"\nttl = \"2s\"\n[state]\ndirectory = {state:?}\n[pool.main.discover]\netcd = \"shop\"\n"
    );
    Setup::new()
        .with_admin()
        .pool("policy = \"round-robin\"")
        .rest(&tables)
        .start()
        .await
}

async fn origin(name: &str) -> RawOrigin {
    RawOrigin::answering_at("127.0.0.1:0", ok(name)).await.unwrap()
}

fn backends(balancer: &Balancer) -> Vec<String> {
    let snapshot = balancer.view().pool.snapshot();
    let mut addresses: Vec<String> = snapshot
        .members
        .iter()
        .map(|member| member.backend.address.to_string())
        .collect();
    addresses.sort();
    addresses
}

fn members(balancer: &Balancer) -> Vec<String> {
    let view = balancer.handle().fleet().unwrap().view();
    view.members.into_iter().map(|member| member.name).collect()
}

#[tokio::test]
async fn what_registers_serves_until_its_lease_ends() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    let (one, two) = (origin("1").await, origin("2").await);
    let (first, second) = (one.socket().to_string(), two.socket().to_string());
    etcd.ctl(&["put", "trimtab/backends/shop/1", &first]);
    let balancer = node(&etcd.all(), "a", &directory).await;
    assert_eq!(backends(&balancer), [first.as_str()]);

    // Nonsense of one takes nothing from the others, and neither does another service.
    etcd.ctl(&["put", "trimtab/backends/shop/0", "{\"address\": 7}"]);
    etcd.ctl(&["put", "trimtab/backends/shop2/1", "127.0.0.1:1"]);
    let value = format!("{{\"address\": \"{second}\", \"weight\": 3, \"labels\": {{\"rack\": \"b\"}}}}");
    let lease = etcd.register("trimtab/backends/shop/2", &value, 600);
    let mut both = [first.as_str(), second.as_str()];
    both.sort_unstable();
    wait_until("both are there", DEADLINE, || backends(&balancer) == both).await;
    let config = balancer.view().pool.config.clone();
    let registered = config
        .backends
        .iter()
        .find(|backend| backend.address == second)
        .unwrap();
    assert_eq!((registered.weight, registered.labels["rack"].as_str()), (3, "b"));
    let mut client = Client::connect(balancer.address).await;
    let answers = [client.get("/").await.text(), client.get("/").await.text()];
    assert!(
        answers.contains(&"1".into()) && answers.contains(&"2".into()),
        "{answers:?}"
    );

    etcd.ctl(&["lease", "revoke", &lease]);
    wait_until("one is there", DEADLINE, || {
        backends(&balancer) == [first.as_str()]
    })
    .await;
    // The last one that goes stays: an empty answer takes nothing away.
    etcd.ctl(&["del", "trimtab/backends/shop/1"]);
    let failures = || balancer.view().discovery.as_ref().unwrap().report().failures;
    wait_until("an empty answer", DEADLINE, || failures() > 0).await;
    assert_eq!(backends(&balancer), [first.as_str()]);
}

#[tokio::test]
async fn a_node_is_a_member_while_it_lives() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    let backend = origin("1").await;
    etcd.ctl(&["put", "trimtab/backends/shop/1", &backend.socket().to_string()]);
    let one = node(&etcd.all(), "a", &directory).await;
    // What `b` says passes a wire that can be cut.
    let wire = Wire::to(etcd.client(0)).await;
    let two = node(&Etcd::table(&[wire.address]), "b", &directory).await;
    wait_until("both see both", DEADLINE, || {
        [&one, &two].iter().all(|node| members(node) == ["a", "b"])
    })
    .await;
    let view: Value =
        serde_json::from_str(&ask_admin(one.handle().admin().unwrap(), "/v1/fleet").await.text()).unwrap();
    assert_eq!(
        (&view["node"], &view["etcd"]["ok"]),
        (&"a".into(), &true.into()),
        "{view}"
    );
    assert_eq!(view["members"][0]["me"], true, "{view}");
    assert_eq!(view["members"][1]["version"], env!("CARGO_PKG_VERSION"), "{view}");

    // One that cannot be heard is none, and serves all the same; it is one again when it can.
    wire.cut(true);
    wait_until("b is none", DEADLINE, || members(&one) == ["a"]).await;
    let is_away = || !two.handle().fleet().unwrap().view().etcd.ok;
    wait_until("b knows", DEADLINE, is_away).await;
    assert_eq!(get(two.address, "/").await.status, 200);
    wire.cut(false);
    wait_until("b is one again", DEADLINE, || {
        [&one, &two].iter().all(|node| members(node) == ["a", "b"]) && !is_away()
    })
    .await;

    // One that says goodbye is none at once, and so is one that never joined again.
    two.stop().await;
    wait_until("b has left", DEADLINE, || members(&one) == ["a"]).await;
}

#[tokio::test]
async fn two_processes_of_one_name_are_told() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    let backend = origin("1").await;
    etcd.ctl(&["put", "trimtab/backends/shop/1", &backend.socket().to_string()]);
    let one = node(&etcd.all(), "a", &directory).await;
    wait_until("a is there", DEADLINE, || members(&one) == ["a"]).await;
    let me = |node: &Balancer| {
        node.handle()
            .fleet()
            .unwrap()
            .view()
            .members
            .first()
            .is_some_and(|member| member.me)
    };
    let other = Directory::new();
    let two = node(&etcd.all(), "a", &other).await;
    wait_until("the newer one is a", DEADLINE, || me(&two) && !me(&one)).await;
    two.stop().await;
    wait_until("the older one is a again", DEADLINE, || me(&one)).await;
}

/// E2 as far as serving goes: no request fails, and what registers meanwhile is found afterwards.
#[tokio::test]
async fn without_a_majority_of_etcd_serving_goes_on() {
    let (etcd, directory) = (Etcd::start().await, Directory::new());
    let (one, two) = (origin("1").await, origin("2").await);
    etcd.ctl(&["put", "trimtab/backends/shop/1", &one.socket().to_string()]);
    let balancer = node(&etcd.all(), "a", &directory).await;
    wait_until("a is there", DEADLINE, || members(&balancer) == ["a"]).await;
    let load = Load::start(balancer.address, 4);
    load.more(100).await;
    let leader = etcd.wait_for_leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    etcd.kill(leader);
    etcd.kill(others[0]);
    let view = || balancer.handle().fleet().unwrap().view();
    wait_until("etcd is away", DEADLINE, || !view().etcd.ok).await;
    let report = || balancer.view().discovery.as_ref().unwrap().report();
    wait_until("discovery knows", LONG, || report().error.is_some()).await;
    load.more(1000).await;
    assert_eq!(backends(&balancer), [one.socket().to_string()]);

    etcd.start_member(leader);
    etcd.start_member(others[0]);
    etcd.wait_for_leader().await;
    etcd.ctl(&["put", "trimtab/backends/shop/2", &two.socket().to_string()]);
    wait_until("both are there", LONG, || backends(&balancer).len() == 2).await;
    wait_until("etcd is back", DEADLINE, || {
        view().etcd.ok && report().error.is_none()
    })
    .await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:?}");
}

/// E3, as far as etcd keeps it: what a controller writes after its lease has ended is refused.
#[tokio::test]
async fn e3_a_write_under_a_lease_that_ended_is_refused() {
    let etcd = Etcd::start().await;
    let table = Table {
        endpoints: vec![etcd.client(1).to_string()],
        prefix: "trimtab/".to_owned(),
        timeout: DEADLINE,
        user: None,
        tls: None,
    };
    let client = Etcdctl::new(Arc::new(table));
    let key = "trimtab/fleet/controller".to_owned();
    let stand = async |name: &str| {
        let lease = client.grant(DEADLINE).await.unwrap();
        let vacant = [Condition::Created(key.clone(), 0)];
        let made = client
            .write(&vacant, &[Write::Put(key.clone(), name.into(), lease)])
            .await
            .unwrap();
        (made, lease)
    };
    let (made, lease) = stand("a").await;
    assert!(made);
    let token = client.get(&key).await.unwrap().unwrap().create_revision;
    let decide = async || {
        let fence = [Condition::Created(key.clone(), token)];
        let write = Write::Put("trimtab/fleet/rollout".to_owned(), b"{}".to_vec(), 0);
        client.write(&fence, &[write]).await.unwrap()
    };
    assert!(decide().await, "while it is the controller");
    assert!(!stand("b").await.0, "one at a time");
    etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    assert!(!decide().await, "nobody is");
    assert!(stand("b").await.0);
    assert!(!decide().await, "another one is");
}
