//! slowhttptest: many clients that take their time, with heads, bodies and reading. Each is let go when its time is over,
//! and whoever comes meanwhile is served.

use tokio::process::Command;
use trimtab_tests::{Balancer, Directory, RawOrigin, Setup, ok};

use crate::program::{install, run, told};

/// How many slow ones there are.
const SLOW: u32 = 100;

/// How the slow ones end: before the time is over because all have been let go, and meanwhile others are served.
async fn attack(balancer: &Balancer, way: &[&str]) {
    install("slowhttptest").await;
    let directory = Directory::new();
    let url = format!("http://{}/", balancer.address);
    let mut program = Command::new("slowhttptest");
    program
        .args(way)
        // All at once, for 30 s; whoever comes meanwhile waits 5 s for an answer.
        .args([
            "-c",
            &SLOW.to_string(),
            "-r",
            &SLOW.to_string(),
            "-l",
            "30",
            "-p",
            "5",
        ])
        .args(["-u", &url, "-g", "-o", "out"])
        .current_dir(directory.path());
    let output = run(&mut program).await;
    let told = told(&output);
    assert!(told.contains("No open connections left"), "{told}");
    let report = std::fs::read_to_string(directory.path().join("out.csv")).unwrap();
    // Seconds, closed, pending, connected, and the last is 0 if nobody else was served.
    let mut most = 0;
    for line in report.lines().skip(1) {
        let fields: Vec<u32> = line
            .split(',')
            .map(|field| field.trim().parse().unwrap())
            .collect();
        assert!(fields[4] > 0, "{report}");
        most = most.max(fields[3]);
    }
    assert!(most > SLOW / 2, "the slow ones were never there\n{report}");
}

#[tokio::test]
async fn slow_heads_are_let_go() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let setup = Setup::to(origin.address()).listener("limits = { header_timeout = \"3s\" }");
    let balancer = setup.start().await;
    // A field every second.
    attack(&balancer, &["-H", "-i", "1"]).await;
}

#[tokio::test]
async fn slow_bodies_are_let_go() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let setup = Setup::to(origin.address()).listener("limits = { body_timeout = \"1s\" }");
    let balancer = setup.start().await;
    // A piece every 3 seconds, which is too long a pause.
    attack(&balancer, &["-B", "-i", "3", "-s", "8192"]).await;
}

#[tokio::test]
async fn slow_readers_are_let_go() {
    let origin = RawOrigin::answering(ok(&"x".repeat(8 << 20))).await;
    let setup = Setup::to(origin.address()).listener("limits = { body_timeout = \"1s\" }");
    let balancer = setup.start().await;
    // A window of 512 to 1024 bytes, of which 512 are read each second: far too little for another byte to be written.
    attack(
        &balancer,
        &["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "512"],
    )
    .await;
}
