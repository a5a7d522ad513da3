//! Nodes that tell each other their load: what policies see of it, for how long, and who is believed.

mod apart;

use std::net::{SocketAddr, UdpSocket};

use trimtab::{clock, pool::Elsewhere};
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, Origin, Setup, ask_admin, get, wait_until};

const TIMES: &str = "interval = \"10ms\"\nstale_after = \"300ms\"\n";
/// Not ordinary, so the library has its connection from then on.
const UNUSUAL: &str = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";

/// A node of those that tell each other.
struct Node<'a> {
    /// Of its key file.
    key: &'a str,
    /// More of its pool.
    pool: &'a str,
    /// More of its file.
    rest: &'a str,
}

/// Nodes with the same backends, whose files are in this directory.
async fn nodes<const N: usize>(
    (origins, directory): (&[Origin], &Directory),
    times: &str,
    described: [Node<'_>; N],
) -> [Balancer; N] {
    directory.write("one.key", "a secret of at least thirty-two bytes\n");
    directory.write("two.key", "another secret, and as long as the first\n");
    let sockets = [(); N].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let addresses: Vec<SocketAddr> = sockets
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect();
    drop(sockets);
    let mut nodes = Vec::new();
    for (node, Node { key, pool, rest }) in described.into_iter().enumerate() {
        let all: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let peers = format!(
            "[peers]\nlisten = \"{}\"\nkey_file = \"{key}.key\"\nothers = {all:?}\n{times}{rest}",
            addresses[node],
        );
        let setup = Setup::new()
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool(pool)
            .rest(&peers);
        nodes.push(Balancer::start(setup.text(), directory.path()).await.unwrap());
    }
    nodes.try_into().unwrap_or_else(|_| panic!("all nodes"))
}

/// Two of them, each with a key file of this name.
async fn pair(origins: &[Origin], keys: [&str; 2], pool: &str) -> (Directory, [Balancer; 2]) {
    let directory = Directory::new();
    let described = keys.map(|key| Node { key, pool, rest: "" });
    let nodes = nodes((origins, &directory), TIMES, described).await;
    (directory, nodes)
}

fn elsewhere(node: &Balancer, index: usize) -> Option<Elsewhere> {
    let snapshot = node.view().pool.snapshot();
    snapshot.members[index].backend.others.at(clock::now_us() / 1000)
}

fn datagrams(node: &Balancer, result: &str) -> u64 {
    let counted = node.handle().peers().unwrap().datagrams();
    counted.iter().find(|(name, _)| *name == result).unwrap().1
}

/// Has the first node wait for a backend, and gives that backend's place.
async fn keep_busy(node: &Balancer, origins: &[Origin]) -> (Client, usize) {
    let mut client = Client::connect(node.address).await;
    client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let busy = || origins.iter().position(|origin| origin.in_flight() > 0);
    wait_until("a request is held", DEADLINE, || busy().is_some()).await;
    (client, busy().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_what_another_node_has_in_flight() {
    let origins = Origin::start_all(["a", "b"]).await;
    let (_directory, [one, two]) = pair(&origins, ["one", "one"], "").await;
    let (mut held, busy) = keep_busy(&one, &origins).await;
    wait_until("the other node hears of it", DEADLINE, || {
        elsewhere(&two, busy).is_some_and(|told| told.active == 1)
    })
    .await;
    // Both ways of a request ask the same policy with the same columns.
    let mut ordinary = Client::connect(two.address).await;
    let mut unusual = Client::connect(two.address).await;
    unusual.ask(UNUSUAL).await;
    for _ in 0..10 {
        for client in [&mut ordinary, &mut unusual] {
            assert_eq!(client.get("/").await.text(), origins[1 - busy].name());
        }
    }
    let told = ask_admin(two.handle().admin().unwrap(), "/v1/pools/main")
        .await
        .text();
    assert!(told.contains("\"others\""), "{told}");
    // This node's own count is its own.
    let metrics = ask_admin(two.handle().admin().unwrap(), "/metrics").await.text();
    let line = |name: &str| {
        let start = format!("{name}{{pool=\"main\",backend=\"{}\"}} ", origins[busy].address());
        let found = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        found.unwrap_or_else(|| panic!("{start}\n{metrics}"))
    };
    assert_eq!(line("trimtab_backend_active"), "0");
    assert_eq!(line("trimtab_backend_others_active"), "1");
    origins[busy].release();
    assert_eq!(held.response().await.status, 200);
    wait_until("the end of it is heard too", DEADLINE, || {
        elsewhere(&two, busy).is_none_or(|told| told.active == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_to_see_its_node_alone_takes_turns_over_what_others_keep_busy() {
    let origins = Origin::start_all(["a", "b"]).await;
    let (_directory, [one, two]) = pair(&origins, ["one", "one"], "load_view = \"node\"").await;
    let (_held, busy) = keep_busy(&one, &origins).await;
    wait_until("both are acquainted", DEADLINE, || {
        datagrams(&two, "received") > 20
    })
    .await;
    assert_eq!(elsewhere(&two, busy), None);
    let before = origins[busy].hits();
    for _ in 0..10 {
        get(two.address, "/").await;
    }
    assert_eq!(origins[busy].hits() - before, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_said_that_is_gone_counts_no_longer_than_is_stated() {
    let origins = Origin::start_all(["a", "b"]).await;
    let (_directory, [one, two]) = pair(&origins, ["one", "one"], "").await;
    let (_held, busy) = keep_busy(&one, &origins).await;
    wait_until("the other node hears of it", DEADLINE, || {
        elsewhere(&two, busy).is_some()
    })
    .await;
    let peer = || two.handle().peers().unwrap().view().peers[0].clone();
    assert!(peer().fresh);
    // It no longer speaks, and its request is still held.
    one.handle().stop().await;
    wait_until("it counts no longer", DEADLINE, || {
        elsewhere(&two, busy).is_none() && !peer().fresh
    })
    .await;
    assert_eq!(origins[busy].in_flight(), 1);
    assert_eq!((peer().active, peer().heard_ms.is_some()), (0, true));
    let before = origins[busy].hits();
    for _ in 0..10 {
        get(two.address, "/").await;
    }
    assert_eq!(origins[busy].hits() - before, 5, "the node's own view");
    origins[busy].release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_is_not_believed() {
    let origins = Origin::start_all(["a", "b"]).await;
    let (_directory, [one, two]) = pair(&origins, ["one", "two"], "").await;
    let (_held, busy) = keep_busy(&one, &origins).await;
    wait_until("it was heard often enough", DEADLINE, || {
        datagrams(&two, "seal") > 20
    })
    .await;
    assert_eq!(datagrams(&two, "received"), 0);
    assert_eq!(elsewhere(&two, busy), None);
    let view = two.handle().peers().unwrap().view();
    assert_eq!((view.peers[0].heard_ms, view.peers[0].fresh), (None, false));
    origins[busy].release();
}
