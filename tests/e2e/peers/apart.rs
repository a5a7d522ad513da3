//! Policies that tell this node's load from that of the others, and how old the latter is.

use serde_json::Value;
use trimtab::replay::Order;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Origin, ask_admin, get, guest::Guest, wait_until,
};

use super::{Node, elsewhere, keep_busy, nodes};
use crate::record::{is_closed, record, replayed};

/// What was said counts for as long as any test takes.
const TIMES: &str = "interval = \"10ms\"\nstale_after = \"60s\"\n";
/// In milliseconds: far more than a loaded machine makes of 10 ms.
const BELIEVED: u32 = 2000;

/// The fewest requests in flight, of which those of others count while their word is not too old; the first of those that are
/// nearly equal, since the end of a request is seen a moment after its response.
fn believing() -> Vec<u8> {
    let import = |function: &str| {
        format!(
            "(import \"trimtab:policy/nodes@0.1.1\" \"{function}\" (func ${function} (param i32) (result i32)))\n"
        )
    };
    let guest = Guest {
        imports: ["own-active", "others-active", "others-age-ms"]
            .map(import)
            .concat(),
        pick: format!(
            "(local $i i32) (local $load i32) (local $least i32) (local $best i32)
             (local.set $least (i32.const -1))
             (loop $next
               (local.set $load (call $own-active (local.get $i)))
               (if (i32.lt_u (call $others-age-ms (local.get $i)) (i32.const {BELIEVED}))
                 (then (local.set $load
                   (i32.add (local.get $load) (call $others-active (local.get $i))))))
               (local.set $load (i32.shr_u (local.get $load) (i32.const 1)))
               (if (i32.lt_u (local.get $load) (local.get $least))
                 (then (local.set $least (local.get $load)) (local.set $best (local.get $i))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $i) (call $len))))
             (call $some (local.get $best))"
        ),
        ..Guest::default()
    };
    guest.bare()
}

/// A node that keeps the first backend busy.
const KEEPS_BUSY: Node<'static> = Node {
    key: "one",
    pool: "policy = \"first\"",
    rest: "[policy.first]\ncomponent = \"first.wasm\"\n",
};
/// How busy: more than what a node has in flight that asks again and again.
const HELD: u32 = 6;
/// A node that decides by it.
const BELIEVES: Node<'static> = Node {
    key: "one",
    pool: "policy = \"believing\"",
    rest: "[policy.believing]\ncomponent = \"believing.wasm\"\n[record]\ndirectory = \"log\"\n",
};
/// A node that goes by the sum.
const ADDS: Node<'static> = Node {
    key: "one",
    pool: "policy = \"least-connections\"",
    rest: "",
};

fn directory() -> Directory {
    let directory = Directory::new();
    directory.write("believing.wasm", believing());
    let first = Guest {
        pick: "(call $some (i32.const 0))".to_owned(),
        ..Guest::default()
    };
    directory.write("first.wasm", first.build());
    directory
}

/// Has the node wait for the first backend, with so many requests.
async fn hold(node: &Balancer, origins: &[Origin]) -> Vec<Client> {
    let mut held = Vec::new();
    for _ in 0..HELD {
        let (client, busy) = keep_busy(node, origins).await;
        assert_eq!(busy, 0);
        held.push(client);
    }
    held
}

async fn hears(node: &Balancer) {
    wait_until("it hears of the requests", DEADLINE, || {
        elsewhere(node, 0).is_some_and(|told| told.active >= HELD)
    })
    .await;
}

/// Where the node's next requests go, which are not in flight together.
async fn goes_to(node: &Balancer) -> String {
    get(node.address, "/").await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_too_long_ago_counts_in_the_sum_and_not_for_a_policy_that_looks_at_its_age() {
    let origins = Origin::start_all(["a", "b"]).await;
    let directory = directory();
    let described = [KEEPS_BUSY, BELIEVES, ADDS];
    let [one, believing, adding] = nodes((&origins, &directory), TIMES, described).await;
    let _held = hold(&one, &origins).await;
    for node in [&believing, &adding] {
        hears(node).await;
        for _ in 0..5 {
            assert_eq!(goes_to(node).await, "b");
        }
    }
    // It says no more, and its request is still held.
    one.handle().stop().await;
    let mut client = Client::connect(believing.address).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    while client.get("/").await.text() != "a" {
        assert!(tokio::time::Instant::now() < end, "an old word is believed");
    }
    assert_eq!(goes_to(&adding).await, "b");
    assert_eq!(goes_to(&believing).await, "a");
    let told = ask_admin(believing.handle().admin().unwrap(), "/v1/pools/main").await;
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    let others = &told["backends"][0]["others"];
    assert!(others["active"].as_u64().unwrap() >= u64::from(HELD), "{told:#}");
    assert!(
        others["age_ms"].as_u64().unwrap() >= u64::from(BELIEVED),
        "{told:#}"
    );
    origins[0].release();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_said_and_when_is_recorded_and_replayed() {
    let origins = Origin::start_all(["a", "b"]).await;
    let directory = directory();
    let [one, two] = nodes((&origins, &directory), TIMES, [KEEPS_BUSY, BELIEVES]).await;
    let _held = hold(&one, &origins).await;
    hears(&two).await;
    assert_eq!(goes_to(&two).await, "b");
    is_made_again(&two, &directory, "b").await;
    one.handle().stop().await;
    let mut client = Client::connect(two.address).await;
    let end = tokio::time::Instant::now() + DEADLINE;
    while client.get("/").await.text() != "a" {
        assert!(tokio::time::Instant::now() < end, "an old word is believed");
    }
    is_made_again(&two, &directory, "a").await;
    origins[0].release();
}

/// Records decisions, all of which are this one, and makes them again of nothing but the log.
async fn is_made_again(node: &Balancer, directory: &Directory, decision: &str) {
    let path = record(node, 20).await.unwrap();
    let mut client = Client::connect(node.address).await;
    while !is_closed(&path) {
        assert_eq!(client.get("/").await.text(), decision);
    }
    let order = Order {
        policy: Some(directory.path().join("believing.wasm")),
        ..Order::default()
    };
    let report = replayed(&path, &order).await;
    assert_eq!(report.picks, 20);
    assert!(report.is_identical(), "{:#?}", report.first_difference);
}
