//! The program where something runs out: open files, room on a disk, and the time of day. It goes on serving.

use std::{net::SocketAddr, process::Command, time::Duration};

use trimtab_tests::{Client, DEADLINE, Directory, Origin, Setup, ask_admin, get, guest::Guest, wait_until};

use crate::{PROGRAM, operator::Running};

fn write(directory: &Directory, setup: &Setup) {
    let text = setup.clone().with_admin().text();
    directory.write("trimtab.toml", text);
}

/// The program under a limit of the shell's, given to `ulimit`.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit} && exec \"$@\"");
    command.args(["-c", &script, "sh", PROGRAM]);
    command
}

async fn metric(running: &Running, name: &str) -> u64 {
    let admin: SocketAddr = running.admin.parse().unwrap();
    let text = ask_admin(admin, "/metrics").await.text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_i10_a_flood_up_to_the_limit_of_open_files_stops_nobody() {
    let directory = Directory::new();
    let origin = Origin::start("a").await;
    write(
        &directory,
        &Setup::to(origin.address()).top("log = { format = \"json\" }"),
    );
    let running = Running::start_with(&directory, limited("-n 128"));
    let admin: SocketAddr = running.admin.parse().unwrap();

    let mut used = Client::connect(running.address).await;
    assert_eq!(used.get("/").await.status, 200);
    let mut held = Client::connect(running.address).await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_until("it is with the origin", DEADLINE, || origin.in_flight() == 1).await;

    let mut flood = Vec::new();
    for number in 0..400 {
        flood.push(Client::connect(running.address).await);
        if number % 20 == 0 {
            assert_eq!(used.get("/").await.status, 200, "those that are in go on");
            assert_eq!(
                ask_admin(admin, "/livez").await.status,
                200,
                "the operator is let in"
            );
        }
    }
    let turned_away = metric(&running, "trimtab_listener_connections_refused_total").await
        + metric(&running, "trimtab_listener_connections_evicted_total").await;
    assert!(turned_away > 0, "128 files have no room for all");
    let have_room = async |when: &str| {
        let open = metric(&running, "trimtab_listener_connections{").await;
        assert!(
            open < 96,
            "{open} clients {when}; a quarter of the files is for others"
        );
    };
    have_room("while none is idle").await;

    // The flood goes on sitting there, and makes room as soon as it is idle.
    let mut new = Vec::new();
    let arriving = async {
        while new.len() < 5 {
            let mut client = Client::connect(running.address).await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            match client.try_response().await {
                Ok(response) if response.status == 200 => new.push(client),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    trimtab_tests::within("new clients are let in", DEADLINE, arriving).await;
    have_room("after many took the place of others").await;
    assert_eq!(
        used.get("/").await.status,
        200,
        "silence does not push out what is of use"
    );
    origin.release();
    assert_eq!(
        held.response().await.status,
        200,
        "a request under way is finished"
    );
    drop(flood);
    // Who comes in the moment before all of these are seen to have gone may still be turned away.
    let leaving = async {
        while metric(&running, "trimtab_listener_connections{").await > 16 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    trimtab_tests::within("the flood is gone", DEADLINE, leaving).await;
    assert_eq!(get(running.address, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_files_that_cannot_grow_stop_nobody() {
    let directory = Directory::new();
    let origin = Origin::start("a").await;
    directory.write("policy.wasm", Guest::default().build());
    // All that writes: the access log, the state directory and recorded decisions.
    let setup = Setup::to(origin.address())
        .top("log = { format = \"json\", access = \"access.log\" }")
        .top("state = { directory = \"state\" }\nrecord = { directory = \"decisions\" }")
        .pool("policy = \"mine\"\nrecord = { picks = 1000, every = \"1s\" }")
        .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
    write(&directory, &setup);
    // In blocks of 512 bytes: less than a component's code, a record of a thousand decisions, or twenty lines of the log.
    let running = Running::start_with(&directory, limited("-f 8"));
    let mut client = Client::connect(running.address).await;
    let log = directory.path().join("access.log");
    let mut asked = 0;
    let asking = async {
        while metric(&running, "trimtab_access_log_dropped_total").await == 0 {
            for _ in 0..100 {
                assert_eq!(client.get("/").await.status, 200);
            }
            asked += 100;
        }
    };
    trimtab_tests::within("lines are dropped and counted", DEADLINE, asking).await;
    assert_eq!(
        std::fs::metadata(&log).unwrap().len(),
        4096,
        "as full as it can be"
    );
    let reload = Command::new("kill")
        .args(["-HUP", &running.process.id().to_string()])
        .status();
    assert!(reload.unwrap().success());
    for _ in 0..100 {
        assert_eq!(get(running.address, "/").await.status, 200, "after {asked}");
    }
    let lines = std::fs::read_to_string(&log).unwrap();
    let whole = lines.lines().filter(|line| line.ends_with('}')).count();
    assert!(
        whole >= lines.lines().count() - 1,
        "only the last line may be cut: {lines}"
    );
}

/// What the time of day is moved by, read from a file at each look, and nothing else about clocks.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    FILE *file = id == CLOCK_REALTIME ? fopen(getenv("CLOCK_OFFSET"), "r") : NULL;
    long offset = 0;
    if (file) {
        if (fscanf(file, "%ld", &offset) == 1) now->tv_sec += offset;
        fclose(file);
    }
    return result;
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_clock_that_jumps_stops_nobody() {
    let directory = Directory::new();
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address())
        .top("log = { format = \"json\", access = \"access.log\" }")
        .listener("limits = { idle_timeout = \"1h\" }")
        .pool("health = { kind = \"http\", path = \"/healthz\", interval = \"50ms\" }")
        .pool("sticky = { ttl = \"1h\" }");
    write(&directory, &setup);
    let source = directory.write("clock.c", CLOCK);
    let library = directory.path().join("clock.so");
    // What links Rust programs compiles this.
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(compiled.unwrap().success());
    let offset = directory.write("offset", "0");
    let mut command = Command::new(PROGRAM);
    command.env("LD_PRELOAD", &library).env("CLOCK_OFFSET", &offset);
    let running = Running::start_with(&directory, command);

    let mut kept = Client::connect(running.address).await;
    let log = directory.path().join("access.log");
    for days in [0_i64, 3650, -3650, 1] {
        directory.replace("offset", (days * 86_400).to_string());
        let expected_ms = unix_ms() + days * 86_400_000;
        let jumping = async {
            loop {
                assert_eq!(
                    kept.get("/").await.status,
                    200,
                    "a connection from before: {days}"
                );
                assert_eq!(get(running.address, "/").await.status, 200, "a new one: {days}");
                let lines = std::fs::read_to_string(&log).unwrap_or_default();
                let last = lines
                    .lines()
                    .last()
                    .and_then(|line| line.strip_prefix("{\"at_ms\":"));
                let at_ms = last.and_then(|line| line.split(',').next()?.parse::<i64>().ok());
                if at_ms.is_some_and(|at_ms| (at_ms - expected_ms).abs() < 3_600_000) {
                    return;
                }
            }
        };
        trimtab_tests::within("the log has the new time", DEADLINE, jumping).await;
        assert_eq!(
            metric(&running, "trimtab_backend_usable").await,
            1,
            "checks go on: {days}"
        );
        assert_eq!(
            metric(&running, "trimtab_connections_expired_total").await,
            0,
            "no time-out came early"
        );
    }
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}
