//! Another configuration for a whole fleet: canaries first, and nothing torn, whatever happens to etcd.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::Value;
use trimtab::{
    control::Handle,
    fleet::{Phase, View},
};
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, LONG, RawOrigin, Response, Setup, guest::Guest, ok, wait_until,
};

use crate::{etcd::Etcd, wire::Wire};

/// A node that has a listener and a pool of its own, and whatever the fleet adds.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    setup: Setup,
    pub(crate) balancer: Balancer,
}

impl Node {
    pub(crate) async fn start(
        name: &'static str,
        etcd: &str,
        origin: &RawOrigin,
        directory: &Directory,
        more: &str,
    ) -> Self {
        let state = directory.path().join(name);
        let (fleet, tables) = match more.starts_with("[fleet]") {
            true => (more, ""),
            false => ("[fleet]\ncanary_for = \"300ms\"", more),
        };
        let own = Setup::to(origin.socket().to_string()).listener("route = [{ pool = \"main\" }]");
        let setup = own.with_admin().rest(&format!(
            "{etcd}[state]\ndirectory = {state:?}\n{fleet}\nnode = \"{name}\"\nttl = \"3s\"\ncanary = {}\n{tables}",
            name == "a"
        ));
        let balancer = setup.start().await;
        Self {
            name,
            setup,
            balancer,
        }
    }

    fn handle(&self) -> &Handle {
        self.balancer.handle()
    }

    pub(crate) fn view(&self) -> View {
        self.handle().fleet().unwrap().view()
    }

    /// The weights of what the fleet has added, which are all the generation's number in our tables.
    pub(crate) fn weights(&self) -> BTreeSet<u32> {
        weights(self.handle())
    }

    async fn post(&self, path: &str, kind: &str, body: impl AsRef<[u8]>) -> Response {
        let (admin, body) = (self.handle().admin().unwrap(), body.as_ref());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut client = Client::connect(admin).await;
        client.send(head).await;
        client.ask(body).await
    }

    async fn publish(&self, text: &str) -> Response {
        self.post("/v1/fleet/generations", "application/toml", text).await
    }

    /// Publishes what is expected to begin.
    pub(crate) async fn roll_out(&self, text: &str) -> u64 {
        let answer = self.publish(text).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let rollout: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(rollout["phase"], "canary", "{rollout}");
        rollout["generation"].as_u64().unwrap()
    }

    /// Whoever is refused tries again, as a person would.
    pub(crate) async fn roll_out_in_the_end(&self, text: &str) {
        let begun = tokio::time::timeout(LONG, async {
            while self.publish(text).await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        begun.await.expect("the generation is taken");
    }
}

fn weights(handle: &Handle) -> BTreeSet<u32> {
    let pools = handle.pools();
    let shared = pools.iter().filter(|view| view.pool.name() != "main");
    shared
        .flat_map(|view| view.pool.config.backends.iter().map(|backend| backend.weight))
        .collect()
}

/// Two pools that say which generation they are of.
pub(crate) fn tables(origin: &RawOrigin, weight: u32) -> String {
    let backend = format!("{{ address = \"{}\", weight = {weight} }}", origin.socket());
    format!(
        "[[listener]]\nname = \"shared\"\nlisten = \"127.0.0.1:0\"\nroute = [{{ path_prefix = \"/cart\", pool = \"cart\" }}, {{ pool = \"shop\" }}]\n\
         [pool.shop]\nbackends = [{backend}]\n[pool.cart]\nbackends = [{backend}]\n"
    )
}

pub(crate) async fn three(etcd: &str, origin: &RawOrigin, directory: &Directory) -> [Node; 3] {
    let nodes = [
        Node::start("a", etcd, origin, directory, "").await,
        Node::start("b", etcd, origin, directory, "").await,
        Node::start("c", etcd, origin, directory, "").await,
    ];
    wait_until("all see all", DEADLINE, || {
        nodes
            .iter()
            .all(|node| node.view().members.len() == 3 && node.view().controller.is_some())
    })
    .await;
    nodes
}

pub(crate) async fn all_serve(nodes: &[Node], weight: u32) {
    wait_until(&format!("all serve {weight}"), LONG, || {
        nodes
            .iter()
            .all(|node| node.weights() == BTreeSet::from([weight]))
    })
    .await;
}

pub(crate) async fn origin() -> RawOrigin {
    RawOrigin::answering_at("127.0.0.1:0", ok("1")).await.unwrap()
}

#[tokio::test]
async fn a_generation_reaches_all_by_way_of_the_canary_and_goes_back() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let nodes = three(&etcd.all(), &origin, &directory).await;
    let [a, b, c] = &nodes;
    // With a component, which nodes get by its digest.
    // A small one, which is soon compiled.
    let wasm = Guest::default().build();
    let answer = b.post("/v1/fleet/policies", "application/wasm", &wasm).await;
    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
    let digest = answer["digest"].as_str().unwrap().to_owned();
    let with_policy = tables(&origin, 1).replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"")
        + &format!("[policy.mine]\ncomponent = \"sha256:{digest}\"\n");
    assert_eq!(b.roll_out(&with_policy).await, 1);
    all_serve(&nodes, 1).await;
    for node in &nodes {
        let view = node.balancer.view_of("shop");
        assert_eq!(
            view.deployment.candidate.digest.to_string(),
            digest,
            "{}",
            node.name
        );
    }
    wait_until("the rollout is over", DEADLINE, || {
        let rollout = c.view().rollout.unwrap();
        (rollout.phase, rollout.good, rollout.canaries) == (Phase::Everywhere, 1, vec!["a".to_owned()])
    })
    .await;

    assert_eq!(b.roll_out(&tables(&origin, 3)).await, 2);
    all_serve(&nodes, 3).await;
    wait_until("the rollout is over", DEADLINE, || {
        b.view().rollout.unwrap().phase == Phase::Everywhere
    })
    .await;
    let back = a
        .post("/v1/fleet/rollback", "application/json", "{\"to\": 1}")
        .await;
    assert_eq!(back.status, 200, "{}", back.text());
    all_serve(&nodes, 1).await;
    // What is wrong in itself is refused at once, with the line.
    let wrong = a.publish("[pool.shop]\nbackends = [\"nonsense\"]\n").await;
    assert_eq!(wrong.status, 422);
    assert!(
        wrong.text().contains("generation:2: pool.shop.backends[0]"),
        "{}",
        wrong.text()
    );
}

#[tokio::test]
async fn what_is_on_trial_gives_way_to_nobody_and_can_be_halted() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let long = "[fleet]\ncanary_for = \"24h\"";
    let canary = Node::start("a", &etcd.all(), &origin, &directory, long).await;
    let other = Node::start("b", &etcd.all(), &origin, &directory, "").await;
    wait_until("both see both", DEADLINE, || other.view().members.len() == 2).await;
    assert_eq!(other.roll_out(&tables(&origin, 1)).await, 1);
    wait_until("it is tried", DEADLINE, || {
        canary.weights() == BTreeSet::from([1])
    })
    .await;
    let second = canary.publish(&tables(&origin, 2)).await;
    assert_eq!(second.status, 409, "{}", second.text());
    assert!(
        second.text().contains("generation 1 is on trial with a"),
        "{}",
        second.text()
    );
    let halted = other.post("/v1/fleet/halt", "application/json", "{}").await;
    assert_eq!(halted.status, 200, "{}", halted.text());
    wait_until("it is taken back", DEADLINE, || canary.weights().is_empty()).await;
    assert!(other.weights().is_empty());
    wait_until("nobody says to be trying it", DEADLINE, || {
        let members = other.view().members;
        members.len() == 2 && members.iter().all(|member| member.member.attempt.is_none())
    })
    .await;
    let again = other.post("/v1/fleet/halt", "application/json", "{}").await;
    assert_eq!(again.status, 409, "{}", again.text());
    let back = other.post("/v1/fleet/rollback", "application/json", "{}").await;
    assert_eq!(back.status, 404, "{}", back.text());
}

/// E5: what one node cannot take stays with the canary.
#[tokio::test]
async fn e5_what_the_canary_refuses_or_finds_bad_reaches_nobody_else() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let taken = "[[listener]]\nlisten = \"127.0.0.1:0\"\nname = \"cart\"\nroute = [{ pool = \"cart\" }]\n[pool.cart]\nbackends = [\"127.0.0.1:9\"]\n";
    let canary = Node::start("a", &etcd.all(), &origin, &directory, taken).await;
    let others = [
        Node::start("b", &etcd.all(), &origin, &directory, "").await,
        Node::start("c", &etcd.all(), &origin, &directory, "").await,
    ];
    wait_until("all see all", DEADLINE, || {
        others.iter().all(|node| node.view().members.len() == 3)
    })
    .await;
    let seen = Arc::new(AtomicBool::new(false));
    let (is_over, handles) = (seen.clone(), others.each_ref().map(|node| node.handle().clone()));
    let (over, mut ended) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        while ended.try_recv().is_err() {
            if handles.iter().any(|handle| weights(handle).contains(&1)) {
                is_over.store(true, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    // The canary's own file has a pool of this name.
    others[0].roll_out(&tables(&origin, 1)).await;
    let halted = |reason: &'static str| {
        let others = &others;
        async move {
            wait_until("halted", DEADLINE, || {
                others[1]
                    .view()
                    .rollout
                    .is_some_and(|rollout| rollout.phase == Phase::Halted)
            })
            .await;
            let rollout = others[1].view().rollout.unwrap();
            let told = rollout.reason.unwrap();
            assert!(told.contains(reason), "{told}");
            rollout.good
        }
    };
    assert_eq!(halted("a: generation 1:").await, 0);
    // One that goes into service and is bad there is taken back.
    let only = format!(
        "[[listener]]\nname = \"s\"\nlisten = \"127.0.0.1:0\"\nroute = [{{ pool = \"shop\" }}]\n[pool.shop]\nbackends = [{{ address = \"{}\", weight = 1 }}]\n",
        origin.socket()
    );
    let dead = only.replace(&origin.socket().to_string(), "127.0.0.1:9")
        + "panic_threshold = 0\n[pool.shop.health]\nkind = \"tcp\"\ninterval = \"50ms\"\nfall = 1\n";
    others[1].roll_out(&dead).await;
    assert_eq!(halted("a: pool shop has no usable backend").await, 0);
    wait_until("the canary has taken it back", DEADLINE, || {
        !canary
            .handle()
            .pools()
            .iter()
            .any(|view| view.pool.name() == "shop")
    })
    .await;
    over.send(()).unwrap();
    watching.await.unwrap();
    assert!(
        !seen.load(Ordering::SeqCst),
        "another node than the canary served it"
    );
}

/// E1: the leader of etcd dies again and again while generations go out.
#[tokio::test]
async fn e1_no_generation_is_torn_while_leaders_die() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let nodes = three(&etcd.all(), &origin, &directory).await;
    let handles = nodes.each_ref().map(|node| node.handle().clone());
    let (over, mut ended) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        let (mut looks, mut torn) = (0_u64, Vec::new());
        while ended.try_recv().is_err() {
            for handle in &handles {
                let found = weights(handle);
                looks += 1;
                if found.len() > 1 {
                    torn.push(found);
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        (looks, torn)
    });
    let mut kills = 0;
    for weight in 1..=5 {
        let leader = etcd.wait_for_leader().await;
        etcd.kill(leader);
        kills += 1;
        nodes[1].roll_out_in_the_end(&tables(&origin, weight)).await;
        etcd.start_member(leader);
        let leader = etcd.wait_for_leader().await;
        etcd.kill(leader);
        kills += 1;
        all_serve(&nodes, weight).await;
        etcd.start_member(leader);
        wait_until("the rollout is over", LONG, || {
            nodes.iter().all(|node| {
                node.view()
                    .rollout
                    .is_some_and(|rollout| rollout.phase == Phase::Everywhere)
            })
        })
        .await;
    }
    over.send(()).unwrap();
    let (looks, torn) = watching.await.unwrap();
    println!(
        "E1: 5 generations, {kills} leaders killed, {looks} looks, {} torn",
        torn.len()
    );
    assert!(looks > 100 && torn.is_empty(), "{torn:?}");
}

/// E2: without a majority, changes are refused in plain words, a node even starts, and all heals by itself.
#[tokio::test]
async fn e2_without_a_majority_nothing_changes() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let mut nodes = three(&etcd.all(), &origin, &directory).await;
    nodes[0].roll_out(&tables(&origin, 1)).await;
    all_serve(&nodes, 1).await;
    wait_until("the rollout is over", DEADLINE, || {
        nodes[1].view().rollout.unwrap().phase == Phase::Everywhere
    })
    .await;
    etcd.kill(0);
    etcd.kill(1);
    let refused = nodes[0].publish(&tables(&origin, 2)).await;
    assert_eq!(refused.status, 503);
    let told = refused.text();
    assert!(
        told.contains("etcd cannot be reached")
            && told.contains("nothing was changed, and what serves goes on"),
        "{told}"
    );
    // A start without etcd serves what was good last.
    let setup = nodes[2].setup.clone();
    let [a, b, c] = nodes;
    c.balancer.stop().await;
    let balancer = setup.start().await;
    nodes = [
        a,
        b,
        Node {
            name: "c",
            setup,
            balancer,
        },
    ];
    assert_eq!(nodes[2].weights(), BTreeSet::from([1]));
    etcd.start_member(0);
    etcd.start_member(1);
    etcd.wait_for_leader().await;
    wait_until("all see all", LONG, || {
        nodes
            .iter()
            .all(|node| node.view().members.len() == 3 && node.view().etcd.ok)
    })
    .await;
    nodes[2].roll_out(&tables(&origin, 2)).await;
    all_serve(&nodes, 2).await;
}

/// E4: a node that cannot hear etcd goes on with what it has, and catches up when it can.
#[tokio::test]
async fn e4_a_node_that_was_cut_off_catches_up() {
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let wire = Wire::to(etcd.client(0)).await;
    let nodes = [
        Node::start("a", &etcd.all(), &origin, &directory, "").await,
        Node::start("b", &etcd.all(), &origin, &directory, "").await,
        Node::start("c", &Etcd::table(&[wire.address]), &origin, &directory, "").await,
    ];
    wait_until("all see all", DEADLINE, || {
        nodes.iter().all(|node| node.view().members.len() == 3)
    })
    .await;
    nodes[0].roll_out(&tables(&origin, 1)).await;
    all_serve(&nodes, 1).await;
    wire.cut(true);
    wait_until("it is no member", DEADLINE, || {
        nodes[0].view().members.len() == 2 && !nodes[2].view().etcd.ok
    })
    .await;
    for weight in [2, 3] {
        wait_until("the rollout is over", DEADLINE, || {
            nodes[0].view().rollout.unwrap().phase == Phase::Everywhere
        })
        .await;
        nodes[0].roll_out(&tables(&origin, weight)).await;
        all_serve(&nodes[..2], weight).await;
    }
    assert_eq!(nodes[2].weights(), BTreeSet::from([1]));
    let healed = Instant::now();
    wire.cut(false);
    all_serve(&nodes, 3).await;
    println!(
        "E4: serves the newest of two missed generations {:?} after it could hear again",
        healed.elapsed()
    );
    wait_until("all see all", DEADLINE, || {
        nodes.iter().all(|node| node.view().members.len() == 3)
    })
    .await;
}

/// E7: what can no longer be gone back to is removed, from etcd and from each disk.
#[tokio::test]
async fn e7_generations_and_components_do_not_pile_up() {
    const PUBLISHED: u8 = 100;
    const KEPT: usize = 20;
    let (etcd, directory, origin) = (Etcd::start().await, Directory::new(), origin().await);
    let node = Node::start("a", &etcd.all(), &origin, &directory, "").await;
    wait_until("it is there", DEADLINE, || node.view().members.len() == 1).await;
    let wasm = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../plugins/dist/round-robin.wasm"
    ))
    .unwrap();
    for number in 1..=PUBLISHED {
        // A section that means nothing makes it another component.
        let another = [wasm.as_slice(), &[0, 3, 1, b'n', number]].concat();
        let answer = node
            .post("/v1/fleet/policies", "application/wasm", &another)
            .await;
        let answer: Value = serde_json::from_str(&answer.text()).unwrap();
        let text = tables(&origin, number.into()).replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"")
            + &format!(
                "[policy.mine]\ncomponent = \"sha256:{}\"\n",
                answer["digest"].as_str().unwrap()
            );
        assert_eq!(node.roll_out(&text).await, u64::from(number));
        wait_until("the rollout is over", DEADLINE, || {
            let rollout = node.view().rollout.unwrap();
            assert_ne!(rollout.phase, Phase::Halted, "{rollout:?}");
            rollout.good == u64::from(number)
        })
        .await;
    }
    let keys = |prefix: &str| {
        etcd.ctl(&["get", prefix, "--prefix", "--keys-only"])
            .split_whitespace()
            .count()
    };
    // The last but one is the good one before, and both are among the newest.
    assert_eq!(keys("trimtab/generations/"), KEPT);
    assert_eq!(keys("trimtab/policies/"), KEPT);
    let kept = std::fs::read_dir(directory.path().join("a/fleet-policies"))
        .unwrap()
        .count();
    assert_eq!(kept, 2, "one that serves, and one that is gone back to");
}
