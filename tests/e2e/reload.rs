//! Changes while serving: what is good goes into service at once, what is bad changes nothing, and no client notices.

use trimtab::pool::State;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Load, Origin, Setup, get, guest::Guest, wait_until, within,
};

/// A balancer over a file in a directory of its own.
struct Filed {
    directory: Directory,
    balancer: Balancer,
}

impl Filed {
    async fn start(setup: &Setup) -> Self {
        Self::in_directory(Directory::new(), setup).await
    }

    async fn in_directory(directory: Directory, setup: &Setup) -> Self {
        let file = directory.write("trimtab.toml", setup.text());
        let balancer = Balancer::start_file(file)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self { directory, balancer }
    }

    fn reloads(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        self.balancer.handle().metrics().reloads.load(Relaxed)
    }

    fn refused(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        self.balancer.handle().metrics().reloads_refused.load(Relaxed)
    }

    fn version(&self) -> String {
        self.balancer.view().deployment.candidate.version.to_string()
    }

    async fn serves(&self, name: &str) {
        let name = name.to_owned();
        let address = self.balancer.address;
        within("the change takes effect", DEADLINE, async {
            while get(address, "/").await.text() != name {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_is_read() {
    let origins = Origin::start_all(["a", "b"]).await;
    let filed = Filed::start(&Setup::to(origins[0].address())).await;
    filed.serves("a").await;
    filed
        .directory
        .replace("trimtab.toml", Setup::to(origins[1].address()).text());
    filed.serves("b").await;
}

#[tokio::test]
async fn a_file_that_is_written_in_pieces_is_read_when_complete() {
    let origins = Origin::start_all(["a", "b"]).await;
    let filed = Filed::start(&Setup::to(origins[0].address())).await;
    let text = Setup::to(origins[1].address()).text();
    // A prefix may be read if the machine stalls in between; then it is refused, and the whole is read after it.
    for end in [10, text.len() / 2, text.len()] {
        filed.directory.write("trimtab.toml", &text[..end]);
        get(filed.balancer.address, "/").await;
    }
    filed.serves("b").await;
}

#[tokio::test]
async fn a_file_behind_a_link_is_read_when_the_link_moves() {
    let origins = Origin::start_all(["a", "b"]).await;
    let directory = Directory::new();
    for (name, origin) in ["one", "two"].iter().zip(&origins) {
        std::fs::create_dir(directory.path().join(name)).unwrap();
        directory.write(
            &format!("{name}/trimtab.toml"),
            Setup::to(origin.address()).text(),
        );
    }
    let link = directory.path().join("current");
    std::os::unix::fs::symlink("one", &link).unwrap();
    std::os::unix::fs::symlink("current/trimtab.toml", directory.path().join("trimtab.toml")).unwrap();
    let balancer = Balancer::start_file(directory.path().join("trimtab.toml"))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let filed = Filed { directory, balancer };
    filed.serves("a").await;
    std::os::unix::fs::symlink("two", filed.directory.path().join("next")).unwrap();
    std::fs::rename(filed.directory.path().join("next"), link).unwrap();
    filed.serves("b").await;
}

#[tokio::test]
async fn temporary_files_of_editors_are_no_configuration() {
    let origins = Origin::start_all(["a", "b"]).await;
    let filed = Filed::start(&Setup::to(origins[0].address())).await;
    for name in [".trimtab.toml.swp", "trimtab.toml~", "4913", "#trimtab.toml#"] {
        filed.directory.write(name, "not = [toml");
        std::fs::remove_file(filed.directory.path().join(name)).unwrap();
    }
    filed
        .directory
        .replace("trimtab.toml", Setup::to(origins[1].address()).text());
    filed.serves("b").await;
    assert_eq!(filed.refused(), 0);
}

#[tokio::test]
async fn of_many_edits_in_a_row_the_last_one_is_in_service_in_the_end() {
    let origins = Origin::start_all(["a", "b"]).await;
    let filed = Filed::start(&Setup::to(origins[0].address())).await;
    // An edit that comes while the one before is being put into service must not be taken for known.
    for round in 0..4 {
        let reloads = filed.reloads();
        filed.directory.replace(
            "trimtab.toml",
            Setup::to(origins[0].address())
                .pool(&format!("idle_connections = {round}"))
                .text(),
        );
        let handle = filed.balancer.handle().clone();
        wait_until("the first edit is read", DEADLINE, || {
            handle
                .metrics()
                .reloads
                .load(std::sync::atomic::Ordering::Relaxed)
                > reloads
        })
        .await;
        filed
            .directory
            .replace("trimtab.toml", Setup::to(origins[1].address()).text());
        filed.serves("b").await;
        filed
            .directory
            .replace("trimtab.toml", Setup::to(origins[0].address()).text());
        filed.serves("a").await;
    }
}

#[tokio::test]
async fn a_replaced_component_goes_into_service() {
    let origin = Origin::start("a").await;
    let directory = Directory::new();
    directory.write("policy.wasm", Guest::default().build());
    let setup = Setup::to(origin.address())
        .pool("policy = \"mine\"")
        .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
    let filed = Filed::in_directory(directory, &setup).await;
    let before = filed.version();
    let other = Guest {
        text: "another version".into(),
        ..Guest::default()
    };
    let load = Load::start(filed.balancer.address, 4);
    filed.directory.replace("policy.wasm", other.build());
    wait_until("the new version is in service", DEADLINE, || {
        filed.version() != before
    })
    .await;
    load.more(50).await;
    load.stop().await.expect_no_failure();
    assert_eq!(filed.refused(), 0);
}

#[tokio::test]
async fn what_is_bad_is_refused_with_its_reason_and_the_old_keeps_serving() {
    let origin = Origin::start("a").await;
    let directory = Directory::new();
    directory.write("policy.wasm", Guest::default().build());
    directory.write("text.wasm", "I am no component");
    let setup = || Setup::to(origin.address());
    let filed = Filed::in_directory(directory, &setup()).await;
    let before = filed.version();
    let load = Load::start(filed.balancer.address, 4);
    let cases = [
        ("not = [toml".to_owned(), "trimtab.toml:"),
        (setup().pool("polizy = 1").text(), "did you mean \"policy\"?"),
        (
            setup()
                .pool("policy = \"mine\"")
                .rest("[policy.mine]\ncomponent = \"absent.wasm\"")
                .text(),
            "absent.wasm",
        ),
        (
            setup()
                .pool("policy = \"mine\"")
                .rest("[policy.mine]\ncomponent = \"text.wasm\"")
                .text(),
            "not a WebAssembly component",
        ),
        (
            setup()
                .pool("policy = \"mine\"")
                .rest("[policy.mine]\nbuiltin = \"chaos\"\nconfig = { every = 0 }")
                .text(),
            "`every` is 0",
        ),
        (
            setup()
                .rest("[[listener]]\nlisten = \"192.0.2.1:1\"")
                .listener("route = [{ pool = \"main\" }]")
                .text()
                + "route = [{ pool = \"main\" }]",
            "192.0.2.1:1",
        ),
    ];
    for (number, (text, reason)) in cases.into_iter().enumerate() {
        filed.directory.replace("trimtab.toml", &text);
        // Asked for, so that the answer is there; the watcher asks by itself as well.
        let refusal = within("reloading", DEADLINE, filed.balancer.handle().reload())
            .await
            .expect_err(&text);
        assert!(refusal.contains(reason), "{refusal}");
        wait_until("it is counted", DEADLINE, || filed.refused() > number as u64).await;
        assert_eq!(filed.version(), before);
        assert_eq!(get(filed.balancer.address, "/").await.text(), "a");
    }
    load.stop().await.expect_no_failure();
    filed
        .directory
        .replace("trimtab.toml", setup().pool("policy = \"round-robin\"").text());
    wait_until("a good one is taken again", DEADLINE, || {
        filed.version() != before
    })
    .await;
}

#[tokio::test]
async fn a_bad_configuration_does_not_start() {
    let refused = Balancer::start("[[listener]]".into(), &std::env::temp_dir()).await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("configuration:"), "{text}");
}

#[tokio::test]
async fn a_hundred_policy_swaps_under_load_fail_nothing() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let directory = Directory::new();
    for text in ["one", "two"] {
        let guest = Guest {
            text: text.into(),
            ..Guest::default()
        };
        directory.write(&format!("{text}.wasm"), guest.build());
    }
    let setup = |name: &str| {
        Setup::new()
            .workers(2)
            .backends(origins.iter().map(Origin::address))
            .pool(&format!("policy = {name:?}"))
            .rest(&format!("[policy.{name}]\ncomponent = \"{name}.wasm\""))
    };
    let balancer = Balancer::start(setup("two").text(), directory.path())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let load = Load::start(balancer.address, 64);
    load.more(100).await;
    for name in ["one", "two"].into_iter().cycle().take(100) {
        balancer.replace(&setup(name)).await.unwrap();
        assert_eq!(balancer.view().deployment.candidate.spec.name, name);
        load.more(20).await;
    }
    load.stop().await.expect_no_failure();
    let swaps = &balancer.handle().metrics().swaps;
    assert_eq!(swaps.load(std::sync::atomic::Ordering::Relaxed), 100);
}

#[tokio::test]
async fn twenty_reloads_that_change_the_backends_under_load_fail_nothing() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let setup = |from: usize, to: usize| {
        Setup::new()
            .workers(2)
            .backends(origins[from..to].iter().map(Origin::address))
    };
    let balancer = setup(0, 3).start().await;
    let load = Load::start(balancer.address, 64);
    load.more(100).await;
    for (from, to) in [(0, 1), (1, 3), (2, 3), (0, 3)].into_iter().cycle().take(20) {
        balancer.replace(&setup(from, to)).await.unwrap();
        load.more(20).await;
    }
    load.stop().await.expect_no_failure();
    assert!(origins.iter().all(|origin| origin.hits() > 0));
}

#[tokio::test]
async fn reloads_that_change_the_listeners_limits_keep_the_connections() {
    let origin = Origin::start("a").await;
    let setup =
        |headers: usize| Setup::to(origin.address()).listener(&format!("limits = {{ headers = {headers} }}"));
    let balancer = setup(50).start().await;
    let mut client = Client::connect(balancer.address).await;
    for headers in 51..60 {
        assert_eq!(client.get("/").await.status, 200);
        balancer.replace(&setup(headers)).await.unwrap();
    }
    assert_eq!(balancer.count(|worker| &worker.connections), 1);
}

#[tokio::test]
async fn a_request_in_flight_survives_the_reload_that_removes_its_backend() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::to(origins[0].address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_until("it is with the origin", DEADLINE, || origins[0].in_flight() == 1).await;
    balancer.replace(&Setup::to(origins[1].address())).await.unwrap();
    assert_eq!(get(balancer.address, "/").await.text(), "b");
    origins[0].release();
    assert_eq!(client.response().await.text(), "a");
    assert_eq!(client.get("/").await.text(), "b", "on the same connection");
}

#[tokio::test]
async fn what_an_operator_set_survives_a_reload() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let setup = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"weighted-round-robin\"");
    let balancer = setup.start().await;
    let now = std::time::Instant::now();
    balancer.view().pool.set_draining(balancer.id(0), true, now);
    balancer.view().pool.set_weight(balancer.id(1), 4, now);
    balancer
        .replace(&setup.clone().pool("idle_connections = 7"))
        .await
        .unwrap();
    assert_eq!(balancer.state(0), State::Draining);
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let hits: Vec<_> = origins.iter().map(Origin::hits).collect();
    assert_eq!(hits, [0, 16, 4]);
}

#[tokio::test]
async fn a_reload_without_changes_changes_nothing() {
    let origin = Origin::start("a").await;
    let filed = Filed::start(&Setup::to(origin.address())).await;
    let view = filed.balancer.view();
    let report = filed.balancer.handle().reload().await.unwrap();
    assert!(!report.changed, "{report:?}");
    let after = filed.balancer.view();
    assert!(std::sync::Arc::ptr_eq(&view.pool, &after.pool));
    assert!(std::sync::Arc::ptr_eq(&view.deployment, &after.deployment));
}

#[tokio::test]
async fn correcting_the_component_of_a_refused_configuration_is_enough() {
    let origins = Origin::start_all(["a"]).await;
    let filed = Filed::start(&Setup::to(origins[0].address())).await;
    filed.directory.write("mine.wasm", "no component");
    let with_policy = Setup::to(origins[0].address())
        .pool("policy = \"mine\"")
        .rest("[policy.mine]\ncomponent = \"mine.wasm\"");
    filed.directory.replace("trimtab.toml", with_policy.text());
    wait_until("it is refused", DEADLINE, || filed.refused() > 0).await;
    filed.directory.replace("mine.wasm", Guest::default().build());
    wait_until("it is in service", DEADLINE, || {
        filed.balancer.view().deployment.candidate.spec.name == "mine"
    })
    .await;
}
