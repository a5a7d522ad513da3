//! An access log that nobody reads.

use std::{fs::File, io::Read, process::Command, sync::atomic::Ordering::Relaxed};

use trimtab_tests::{Balancer, Client, Directory, RawOrigin, Setup, ok};

/// More than the log's queue, its buffer and a pipe hold.
const REQUESTS: usize = 10_000;

fn pipe(directory: &Directory) -> std::path::PathBuf {
    let path = directory.path().join("access.pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[tokio::test]
async fn i9_a_log_that_nobody_reads_keeps_nobody_waiting() {
    let directory = Directory::new();
    let path = pipe(&directory);
    let origin = RawOrigin::answering(ok("")).await;
    let setup = Setup::to(origin.address()).top("log = { access = \"access.pipe\" }");
    let balancer = Balancer::start(setup.text(), directory.path()).await.unwrap();
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..REQUESTS / 10 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(10)).await;
        for _ in 0..10 {
            assert_eq!(client.response().await.status, 200);
        }
    }
    let dropped = balancer.handle().metrics().access_dropped.load(Relaxed);
    assert!((1..REQUESTS as u64).contains(&dropped), "{dropped} are counted");

    // Whoever comes late reads what was kept, whole lines.
    let mut log = File::open(&path).unwrap();
    let mut bytes = vec![0; 32 << 10];
    log.read_exact(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.lines().count() > 10);
    assert!(
        text.lines()
            .rev()
            .skip(1)
            .all(|line| line.starts_with("{\"at_ms\":") && line.ends_with('}')),
        "{text}"
    );
    drop(log);
    // And a stop does not wait for it.
    balancer.stop().await;
}
