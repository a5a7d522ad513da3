//! What a client costs that has nothing to ask: memory, by the kernel's count.

use std::{fs, net::SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use trimtab_tests::{
    Directory, LONG, Origin, Setup,
    frames::{Framed, flag, frame, kind},
    get,
};

use crate::operator::Running;

const CONNECTIONS: usize = 10_000;
/// Connections before the first reading, by which whatever is made once has been made.
const WARM: usize = 200;
/// More than was ever seen: see `host/docs/threat-model.md`.
const BYTES_MAX: u64 = 32 << 10;

/// What a process has of its own in memory: neither files nor what others see too.
fn own_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// Says its settings twice, hears the server's, and has one request answered if it `asks`.
async fn connected(address: SocketAddr, asks: bool) -> Framed {
    let mut framed = Framed::connect(address).await;
    // The largest table, window and frame that there can be.
    let settings = [
        [0, 1, 0xff, 0xff, 0xff, 0xff],
        [0, 4, 0x7f, 0xff, 0xff, 0xff],
        [0, 5, 0, 0xff, 0xff, 0xff],
    ];
    framed.send(frame(kind::SETTINGS, 0, 0, &settings.concat())).await;
    framed.until(kind::SETTINGS).await.expect("settings");
    framed.send(frame(kind::SETTINGS, 1, 0, &[])).await;
    if asks {
        framed.get(1, &[]).await;
        let answer = framed.until(kind::HEADERS).await.and_then(|frame| frame.status());
        assert_eq!(answer, Some(200));
    }
    framed
}

#[tokio::test(flavor = "multi_thread")]
async fn g16_ten_thousand_idle_connections_have_a_price_each() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let directory = Directory::new();
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address())
        .workers(2)
        .with_admin()
        .top("log = { format = \"json\" }")
        .listener("limits = { idle_timeout = \"10m\" }");
    directory.write("trimtab.toml", setup.text());
    for asks in [false, true] {
        // One that remembers nothing of those before.
        let running = Running::start(&directory);
        let pid = running.process.id();
        let mut held = Vec::with_capacity(CONNECTIONS);
        let mut before = 0;
        let connecting = async {
            for number in 0..CONNECTIONS + WARM {
                if number == WARM {
                    before = own_bytes(pid);
                }
                held.push(connected(running.address, asks).await);
            }
        };
        trimtab_tests::within("all are connected", 5 * LONG, connecting).await;
        let each = own_bytes(pid).saturating_sub(before) / CONNECTIONS as u64;
        eprintln!("an idle connection, asked before: {asks}: {each} bytes");
        assert!(
            (1 << 10..=BYTES_MAX).contains(&each),
            "{each} bytes each (asked before: {asks})"
        );
        for framed in held.iter_mut().step_by(1000) {
            framed.send(frame(kind::PING, 0, 0, &[7; 8])).await;
            let answer = framed.until(kind::PING).await.expect("it is still there");
            assert_eq!((answer.flags, answer.payload), (flag::END_STREAM, vec![7; 8]));
        }
        assert_eq!(get(running.address, "/").await.status, 200, "others are served");
    }
}
