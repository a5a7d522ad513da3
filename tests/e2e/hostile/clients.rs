//! Clients that leave in the middle, beside a hostile guest.

use trimtab_tests::{Client, DEADLINE, Load, wait_until};

use super::{Stage, picking};

const RESETS: usize = 10_000;
/// Fewer than a process may have files open, on both sides.
const AT_ONCE: usize = 100;

#[tokio::test]
async fn p30_ten_thousand_resets_leave_nothing_behind() {
    let stage = Stage::with(&picking("unreachable")).await;
    let alice = Load::start_at(stage.balancer.address, 2, super::ALICE);
    let memory = || stage.main().pool.tenant().unwrap().memory();
    for _ in 0..RESETS / AT_ONCE {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            let mut client = Client::connect(stage.balancer.address).await;
            client.stream.set_zero_linger().unwrap();
            client.send("GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await;
            clients.push(client);
        }
        let in_flight = || {
            stage.origins[..2]
                .iter()
                .map(|origin| origin.in_flight())
                .sum::<usize>()
        };
        wait_until("all wait at a backend", DEADLINE, || in_flight() == AT_ONCE).await;
        drop(clients);
        wait_until("all are gone", DEADLINE, || in_flight() == 0).await;
    }
    let open = || {
        stage.balancer.count(|worker| &worker.connections)
            - stage.balancer.count(|worker| &worker.connections_closed)
    };
    wait_until("only alice is connected", DEADLINE, || open() <= 2).await;
    let aborted = stage.balancer.count(|worker| &worker.aborted);
    assert_eq!(aborted, RESETS as u64);
    assert!(
        memory() <= 2 * (8 << 20),
        "two workers, one instance each: {}",
        memory()
    );
    alice.more(20).await;
    alice.stop().await.expect_no_failure();
    stage.expect_alice_undisturbed();
}
