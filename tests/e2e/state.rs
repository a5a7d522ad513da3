//! State over a swap, with requests: turns go on, and a version that would lose the state is refused.

use trimtab_tests::{
    Balancer, Client, Directory, Load, Origin, Setup,
    guest::{Guest, State},
};

fn keeping(schema: &str, import: &str) -> Guest {
    let state = State::of(schema, 8);
    let import = if import.is_empty() {
        state.import.clone()
    } else {
        import.to_owned()
    };
    Guest {
        state: Some(State { import, ..state }),
        ..Guest::default()
    }
}

/// A balancer with this guest as its policy `mine`.
async fn start(directory: &Directory, origin: &Origin, guest: &Guest) -> (Setup, Balancer) {
    directory.write("policy.wasm", guest.build());
    let setup = Setup::to(origin.address())
        .workers(2)
        .pool("policy = \"mine\"")
        .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
    let balancer = Balancer::start(setup.text(), directory.path())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    (setup, balancer)
}

#[tokio::test]
async fn turns_go_on_over_swaps() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    // Other limits make another version.
    let setup = |memory: usize| {
        Setup::new()
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"turns\"")
            .rest(&format!(
                "[policy.turns]\nbuiltin = \"round-robin\"\nmemory = \"{memory}MiB\""
            ))
    };
    let balancer = setup(8).start().await;
    let mut client = Client::connect(balancer.address).await;
    let mut answers = String::new();
    // Few, since each compiles the component again.
    for swap in 1..5 {
        for _ in 0..=swap {
            answers += &client.get("/").await.text();
        }
        balancer.replace(&setup(8 + swap)).await.unwrap();
    }
    assert!("abc".repeat(9).contains(&answers), "{answers}");
}

#[tokio::test]
async fn a_version_with_another_schema_is_refused_and_the_old_one_keeps_serving() {
    let (directory, origin) = (Directory::new(), Origin::start("a").await);
    let (setup, balancer) = start(&directory, &origin, &keeping("carts/1", "")).await;
    let before = balancer.view().deployment;
    let load = Load::start(balancer.address, 4);
    load.more(20).await;
    directory.replace("policy.wasm", keeping("carts/2", "").build());
    let refusal = balancer
        .replace(&setup)
        .await
        .expect_err("its state would be lost");
    for part in [
        "policy.mine.component",
        "\"carts/1\"",
        "\"carts/2\"",
        "another name",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert!(std::sync::Arc::ptr_eq(&before, &balancer.view().deployment));
    load.more(50).await;
    load.stop().await.expect_no_failure();
    assert_eq!(before.faults(), 0);
    // Under another name it is another policy.
    let renamed = Setup::to(origin.address())
        .workers(2)
        .pool("policy = \"fresh\"")
        .rest("[policy.fresh]\ncomponent = \"policy.wasm\"");
    balancer.replace(&renamed).await.unwrap();
}

#[tokio::test]
async fn workers_whose_state_is_not_taken_keep_the_old_version() {
    let (directory, origin) = (Directory::new(), Origin::start("a").await);
    let (setup, balancer) = start(&directory, &origin, &keeping("carts/1", "")).await;
    let load = Load::start(balancer.address, 4);
    load.more(20).await;
    directory.replace("policy.wasm", keeping("carts/1", "unreachable").build());
    balancer.replace(&setup).await.unwrap();
    load.more(50).await;
    load.stop().await.expect_no_failure();
    let deployment = balancer.view().deployment;
    assert_eq!(deployment.total(|stats| &stats.state_refusals), 2);
    assert_eq!(deployment.faults(), 0);
    // Whoever follows is asked again.
    directory.replace("policy.wasm", Guest::default().build());
    balancer.replace(&setup).await.unwrap();
    Load::run(balancer.address, 2, 50).await.expect_no_failure();
    let decisions = balancer.view().deployment.total(|stats| &stats.decisions);
    assert_eq!(decisions, 50);
}
