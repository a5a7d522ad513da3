//! Versions of policies: uploaded, promoted, gone back to; and who decides when the file and the operator disagree.

use std::sync::Arc;

use trimtab::{
    control::{Denial, NewComponent, Promoted, Promotion, Uploaded},
    policy::{Maker, Sought, digest},
};
use trimtab_tests::{
    Balancer, DEADLINE, Directory, Load, Origin, Setup, get,
    guest::{Guest, State},
    within,
};

/// A guest that behaves, told from others by its text.
fn guest(text: &str) -> Guest {
    Guest {
        text: text.into(),
        ..Guest::default()
    }
}

/// A balancer whose pool is served by the file `policy.wasm`.
struct Stage {
    directory: Directory,
    _origins: Vec<Origin>,
    setup: Setup,
    balancer: Balancer,
}

impl Stage {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines at the top of the configuration.
    async fn start_with(top: &str) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", guest("file").build());
        let origins = Origin::start_all(["a", "b"]).await;
        let setup = Setup::new()
            .workers(2)
            .top(top)
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"mine\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
        let balancer = start(&setup, &directory).await;
        Self {
            directory,
            _origins: origins,
            setup,
            balancer,
        }
    }

    /// The next process, over the same directory.
    async fn restart(self) -> Self {
        let Self {
            directory,
            _origins,
            setup,
            balancer,
        } = self;
        balancer.stop().await;
        let balancer = start(&setup, &directory).await;
        Self {
            directory,
            _origins,
            setup,
            balancer,
        }
    }

    async fn try_upload(&self, wasm: &[u8], pool: Option<&str>) -> Result<Uploaded, Denial> {
        let component = NewComponent {
            wasm: Arc::from(wasm),
            pool: pool.map(str::to_owned),
        };
        within("uploading", DEADLINE, self.balancer.handle().upload(component)).await
    }

    /// Uploads and promotes; gives the digest.
    async fn promote_new(&self, guest: &Guest) -> String {
        let uploaded = self.try_upload(&guest.build(), Some("main")).await.unwrap();
        let promoted = self.go(Sought::Digest(uploaded.digest.clone())).await.unwrap();
        assert_eq!(promoted.digest, uploaded.digest);
        uploaded.digest
    }

    async fn go(&self, sought: Sought) -> Result<Promoted, Denial> {
        self.go_with(sought, None).await
    }

    async fn go_with(&self, sought: Sought, config_json: Option<&str>) -> Result<Promoted, Denial> {
        let promotion = Promotion {
            pool: "main".into(),
            sought,
            config_json: config_json.map(str::to_owned),
        };
        within("promoting", DEADLINE, self.balancer.handle().promote(promotion)).await
    }

    fn serving(&self) -> String {
        self.balancer.view().deployment.candidate.digest.to_string()
    }

    fn is_pinned(&self) -> bool {
        self.balancer.handle().versions().is_pinned("main")
    }
}

async fn start(setup: &Setup, directory: &Directory) -> Balancer {
    let started = Balancer::start(setup.text(), directory.path()).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

fn digest_of(guest: &Guest) -> String {
    digest(&guest.build())
}

#[tokio::test]
async fn an_upload_serves_nobody_until_it_is_promoted() {
    let stage = Stage::start().await;
    let new = guest("new");
    let uploaded = stage.try_upload(&new.build(), Some("main")).await.unwrap();
    assert_eq!(uploaded.digest, digest_of(&new));
    assert_eq!(uploaded.fits_pool.as_deref(), Some("main"));
    assert!(
        uploaded
            .report
            .imports
            .iter()
            .all(|name| name.starts_with("trimtab:policy/"))
    );
    assert_eq!(stage.serving(), digest_of(&guest("file")));
    let promoted = stage.go(Sought::Digest(uploaded.version)).await.unwrap();
    assert!(promoted.changed && promoted.pinned);
    assert_eq!(promoted.previous, digest_of(&guest("file")));
    assert_eq!(stage.serving(), digest_of(&new));
    assert_eq!(get(stage.balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn promoting_and_going_back_under_load_fail_nothing() {
    let stage = Stage::start().await;
    let (one, two) = (guest("one"), guest("two"));
    for guest in [&one, &two] {
        stage.try_upload(&guest.build(), Some("main")).await.unwrap();
    }
    let load = Load::start(stage.balancer.address, 64);
    load.more(100).await;
    for _ in 0..20 {
        for guest in [&one, &two] {
            stage.go(Sought::Digest(digest_of(guest))).await.unwrap();
            assert_eq!(stage.serving(), digest_of(guest));
            load.more(20).await;
        }
        stage.go(Sought::Previous).await.unwrap();
        assert_eq!(stage.serving(), digest_of(&one));
        load.more(20).await;
    }
    load.stop().await.expect_no_failure();
    let swaps = &stage.balancer.handle().metrics().swaps;
    assert_eq!(
        swaps.load(std::sync::atomic::Ordering::Relaxed),
        41,
        "the first of each later round is there already"
    );
    assert_eq!(stage.balancer.view().deployment.faults(), 0);
}

#[tokio::test]
async fn a_version_with_other_state_is_not_promoted() {
    let stage = Stage::start().await;
    let with = |schema| Guest {
        state: Some(State::of(schema, 8)),
        ..Guest::default()
    };
    let one = stage.promote_new(&with("turns/1")).await;
    let two = stage.try_upload(&with("turns/2").build(), None).await.unwrap();
    let refused = stage
        .go(Sought::Digest(two.digest))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("turns/1") && refused.contains("turns/2"),
        "{refused}"
    );
    assert_eq!(stage.serving(), one);
    assert_eq!(get(stage.balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn going_back_to_what_the_file_says_ends_the_pin() {
    let stage = Stage::start().await;
    stage.promote_new(&guest("new")).await;
    assert!(stage.is_pinned());
    let back = stage.go(Sought::Previous).await.unwrap();
    assert_eq!(back.digest, digest_of(&guest("file")));
    assert!(!back.pinned && !stage.is_pinned());
}

#[tokio::test]
async fn a_promotion_survives_reloads_that_leave_its_policy_alone() {
    let stage = Stage::start().await;
    let new = stage.promote_new(&guest("new")).await;
    let deployment = stage.balancer.view().deployment;
    for change in [
        "idle_connections = 7",
        "slow_start = \"5s\"\npanic_threshold = 10",
    ] {
        stage
            .balancer
            .replace(&stage.setup.clone().pool(change))
            .await
            .unwrap();
        assert_eq!(stage.serving(), new);
        assert!(
            Arc::ptr_eq(&deployment, &stage.balancer.view().deployment),
            "its instances live on"
        );
    }
    // Limits are the file's, whatever serves.
    let tighter = stage.setup.clone().rest("memory = \"8MiB\"");
    stage.balancer.replace(&tighter).await.unwrap();
    assert_eq!(stage.serving(), new);
    assert_eq!(
        stage.balancer.view().deployment.candidate.spec.memory_bytes,
        8 << 20
    );
}

#[tokio::test]
async fn an_edit_of_the_policys_file_wins_and_the_promoted_version_is_kept() {
    let stage = Stage::start().await;
    let new = stage.promote_new(&guest("new")).await;
    let load = Load::start(stage.balancer.address, 4);
    stage.directory.replace("policy.wasm", guest("edited").build());
    let report = stage.balancer.handle().reload().await.unwrap();
    load.more(20).await;
    load.stop().await.expect_no_failure();
    assert_eq!(stage.serving(), digest_of(&guest("edited")));
    assert!(!stage.is_pinned());
    let warning = report.warnings.join("\n");
    assert!(
        warning.contains("pool main") && warning.contains(&new[..12]),
        "{warning}"
    );
    stage.go(Sought::Digest(new.clone())).await.unwrap();
    assert_eq!(stage.serving(), new, "it can be promoted again");
}

#[tokio::test]
async fn other_settings_in_the_file_win_as_well() {
    let stage = Stage::start().await;
    stage.promote_new(&guest("new")).await;
    let edited = stage.setup.clone().rest("config = { x = 1 }");
    stage.balancer.replace(&edited).await.unwrap();
    assert_eq!(stage.serving(), digest_of(&guest("file")));
}

#[tokio::test]
async fn a_replaced_file_can_be_gone_back_to() {
    let stage = Stage::start().await;
    stage.directory.replace("policy.wasm", guest("edited").build());
    stage.balancer.handle().reload().await.unwrap();
    let back = stage.go(Sought::Previous).await.unwrap();
    assert!(back.pinned, "the file says something else");
    assert_eq!(stage.serving(), digest_of(&guest("file")));
    stage.balancer.handle().reload().await.unwrap();
    assert_eq!(
        stage.serving(),
        digest_of(&guest("file")),
        "and a reload is no edit"
    );
}

#[tokio::test]
async fn settings_go_with_a_promotion_and_come_back_with_it() {
    let stage = Stage::start().await;
    let uploaded = stage.try_upload(&guest("new").build(), None).await.unwrap();
    let sought = || Sought::Digest(uploaded.digest.clone());
    stage.go_with(sought(), Some("{\"x\":1}")).await.unwrap();
    let config = || {
        stage
            .balancer
            .view()
            .deployment
            .candidate
            .spec
            .config_json
            .clone()
    };
    assert_eq!(config(), "{\"x\":1}");
    stage.go(Sought::Previous).await.unwrap();
    assert_eq!(config(), "{}");
    stage.go(sought()).await.unwrap();
    assert_eq!(config(), "{\"x\":1}");
}

#[tokio::test]
async fn what_cannot_serve_is_refused_and_the_old_version_goes_on() {
    let stage = Stage::start().await;
    let before = stage.balancer.view().deployment;
    let trapping = Guest {
        pick: "unreachable".into(),
        ..guest("trapping")
    };
    let refuse = |denial: Denial, reason: &str| {
        assert!(matches!(denial, Denial::Refused(_)), "{denial:?}");
        assert!(denial.to_string().contains(reason), "{denial}");
    };
    let load = Load::start(stage.balancer.address, 4);
    refuse(
        stage.try_upload(b"text", Some("main")).await.unwrap_err(),
        "not a WebAssembly component",
    );
    refuse(
        stage
            .try_upload(&trapping.build(), Some("main"))
            .await
            .unwrap_err(),
        "failed in pick",
    );
    // Without a pool to try it with, it is found out at its promotion.
    let uploaded = stage.try_upload(&trapping.build(), None).await.unwrap();
    let denied = stage.go(Sought::Digest(uploaded.digest)).await.unwrap_err();
    refuse(denied, "failed in pick");
    let unknown = stage.go(Sought::Digest("0".repeat(64))).await.unwrap_err();
    assert!(matches!(unknown, Denial::Unknown(_)), "{unknown:?}");
    let none = stage.go(Sought::Previous).await.unwrap_err();
    assert!(matches!(none, Denial::Unknown(_)), "{none:?}");
    load.more(20).await;
    load.stop().await.expect_no_failure();
    assert!(Arc::ptr_eq(&before, &stage.balancer.view().deployment));
}

#[tokio::test]
async fn only_so_many_versions_are_kept() {
    let stage = Stage::start_with("state = { versions = 3 }").await;
    for number in 0..6 {
        stage.promote_new(&guest(&number.to_string())).await;
    }
    let versions = stage.balancer.handle().versions();
    let kept: Vec<_> = versions
        .of("main")
        .iter()
        .map(|version| version.digest.clone())
        .collect();
    let expected: Vec<_> = ["5", "4", "3"].map(|text| digest_of(&guest(text))).into();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn a_promotion_survives_a_restart_and_its_code_comes_from_disk() {
    let stage = Stage::start_with("state = { directory = \"state\" }").await;
    let new = stage.promote_new(&guest("new")).await;
    let stage = stage.restart().await;
    assert_eq!(stage.serving(), new);
    assert!(stage.is_pinned());
    assert_eq!(
        stage.balancer.view().deployment.candidate.code.maker,
        Maker::Cache
    );
    let back = stage.go(Sought::Previous).await.unwrap();
    assert_eq!(back.digest, digest_of(&guest("file")));
}

#[tokio::test]
async fn an_edit_while_the_balancer_was_down_wins_too() {
    let stage = Stage::start_with("state = { directory = \"state\" }").await;
    stage.promote_new(&guest("new")).await;
    stage.directory.replace("policy.wasm", guest("edited").build());
    let stage = stage.restart().await;
    assert_eq!(stage.serving(), digest_of(&guest("edited")));
    assert!(!stage.is_pinned());
}

#[tokio::test]
async fn without_its_component_a_promotion_ends_with_the_restart() {
    let stage = Stage::start_with("state = { directory = \"state\" }").await;
    let new = stage.promote_new(&guest("new")).await;
    let kept = stage
        .directory
        .path()
        .join(format!("state/components/{new}.wasm"));
    std::fs::write(kept, "something else").unwrap();
    let stage = stage.restart().await;
    assert_eq!(stage.serving(), digest_of(&guest("file")));
    assert!(!stage.is_pinned());
}

#[tokio::test]
async fn a_tampered_index_is_not_believed() {
    let stage = Stage::start_with("state = { directory = \"state\" }").await;
    stage.promote_new(&guest("new")).await;
    let index = stage.directory.path().join("state/versions/index");
    let mut bytes = std::fs::read(&index).unwrap();
    // A digit, so that what is there can still be read.
    let key = b"\"since_ms\":";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at + key.len() + 1] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let stage = stage.restart().await;
    assert_eq!(stage.serving(), digest_of(&guest("file")));
}

#[tokio::test]
async fn pools_with_the_same_component_share_one_compile() {
    let directory = Directory::new();
    directory.write("policy.wasm", guest("shared").build());
    let origin = Origin::start("a").await;
    let mut rest = "[policy.mine]\ncomponent = \"policy.wasm\"\n".to_owned();
    let mut routes = String::new();
    for number in 0..6 {
        // Six policies: the same bytes with other settings.
        rest += &format!(
            "[policy.p{number}]\ncomponent = \"policy.wasm\"\nconfig = {{ x = {number} }}\n\
             [pool.p{number}]\npolicy = \"p{number}\"\nbackends = [{:?}]\n",
            origin.address()
        );
        routes += &format!("{{ path_prefix = \"/p{number}\", pool = \"p{number}\" }}, ");
    }
    let setup = Setup::to(origin.address())
        .pool("policy = \"mine\"")
        .listener(&format!("route = [{routes} {{ pool = \"main\" }}]"))
        .rest(&rest);
    let balancer = start(&setup, &directory).await;
    let code = balancer.view().deployment.candidate.code.clone();
    let pools = balancer.handle().pools();
    assert_eq!(pools.len(), 7);
    for view in pools.iter() {
        assert!(Arc::ptr_eq(&code, &view.deployment.candidate.code));
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_anything_that_loads() {
    let stage = Stage::start().await;
    let handle = stage.balancer.handle().clone();
    let component = NewComponent {
        wasm: guest("late").build().into(),
        pool: None,
    };
    let upload = tokio::spawn(async move { handle.upload(component).await });
    stage.balancer.stop().await;
    // It was done before, or is told that it will not be.
    let answer = within("the answer", DEADLINE, upload).await.unwrap();
    assert!(matches!(answer, Ok(_) | Err(Denial::Stopping)), "{answer:?}");
}
