//! Policies that come from a registry by their digest: what is asked, what is believed, what is kept, and what is told when it cannot be had.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use hyper::header::{LOCATION, WWW_AUTHENTICATE};
use trimtab::policy::digest;
use trimtab_tests::{
    Balancer, Directory, Setup, get,
    guest::Guest,
    tls::{Authority, Signed},
};

use server::{Pushed, Registry, manifest, whole, with};

mod server;

/// An authority, and a directory with its certificate and a password.
struct House {
    authority: Authority,
    directory: Directory,
}

impl House {
    fn new() -> Self {
        let house = Self {
            authority: Authority::new(),
            directory: Directory::new(),
        };
        house.directory.write("ca.pem", &house.authority.pem);
        house.directory.write("password", "first\n");
        house
    }

    fn signed(&self) -> Signed {
        self.authority.server(["127.0.0.1"])
    }

    /// A registry that has this, for everybody.
    async fn open(&self, pushed: &Pushed) -> Registry {
        let pushed = pushed.clone();
        Registry::start(Some(&self.signed()), move |asked| pushed.answer(&asked.path)).await
    }

    async fn start(&self, setup: &Setup) -> Balancer {
        let started = Balancer::start(setup.text(), self.directory.path()).await;
        started.unwrap_or_else(|error| panic!("{error}\n{}", setup.text()))
    }

    /// Why it does not start.
    async fn refusal(&self, setup: &Setup) -> String {
        match Balancer::start(setup.text(), self.directory.path()).await {
            Ok(_) => panic!("it starts\n{}", setup.text()),
            Err(error) => error.to_string(),
        }
    }
}

const TRUST: &str = "tls = { ca = \"ca.pem\" }";
const USER: &str = "user = \"bot\"\npassword_file = \"password\"";
/// `bot:first`
const BASIC: &str = "Basic Ym90OmZpcnN0";

/// A policy from there, and how it is asked.
fn from(registry: &Registry, pushed: &Pushed, more: &str) -> Setup {
    let name = registry.name();
    Setup::to("127.0.0.1:9".to_owned())
        .pool("policy = \"mine\"")
        .rest(&format!(
            "[policy.mine]\ncomponent = \"{}\"\n[registry.\"{name}\"]\n{more}",
            pushed.at(&name)
        ))
}

fn policy() -> Pushed {
    Pushed::new(Guest::default().build())
}

/// Another one.
fn other() -> Guest {
    Guest {
        pick: Guest::always(0),
        ..Guest::default()
    }
}

fn serves(balancer: &Balancer, pushed: &Pushed) -> bool {
    *balancer.view().deployment.candidate.digest == *digest(&pushed.component)
}

#[tokio::test]
async fn a_policy_is_pulled_once_and_kept_over_restarts() {
    let (house, pushed) = (House::new(), policy());
    let registry = house.open(&pushed).await;
    let setup = from(&registry, &pushed, TRUST).rest("[state]\ndirectory = \"state\"");
    let balancer = house.start(&setup).await;
    assert!(serves(&balancer, &pushed));
    assert_eq!(registry.paths(), pushed.paths());
    assert!(
        registry.asked()[0]
            .accept
            .starts_with("application/vnd.oci.image.manifest.v1+json")
    );
    // Another setting: the same component, which is here.
    balancer
        .replace(&setup.clone().rest("[policy.mine.config]\na = 1"))
        .await
        .unwrap();
    balancer.stop().await;
    let balancer = house.start(&setup).await;
    assert!(serves(&balancer, &pushed));
    balancer.stop().await;
    assert_eq!(registry.paths(), pushed.paths());

    // What lies on the disk is believed by its digest only.
    let kept = house.directory.path().join("state/registry");
    std::fs::write(kept.join(digest(&pushed.component)), b"other").unwrap();
    house.start(&setup).await.stop().await;
    assert_eq!(registry.paths().len(), 4);
    assert_eq!(
        std::fs::read(kept.join(digest(&pushed.component))).unwrap(),
        pushed.component
    );
}

#[tokio::test]
async fn without_a_state_directory_a_reload_needs_no_registry() {
    let (house, pushed) = (House::new(), policy());
    let registry = house.open(&pushed).await;
    let setup = from(&registry, &pushed, TRUST);
    let balancer = house.start(&setup).await;
    drop(registry);
    let other = setup.clone().pool("panic_threshold = 10");
    balancer.replace(&other).await.unwrap();
    assert!(serves(&balancer, &pushed));
}

#[tokio::test]
async fn many_policies_with_one_component_ask_once() {
    let (house, pushed) = (House::new(), policy());
    let registry = house.open(&pushed).await;
    let reference = pushed.at(&registry.name());
    let mut setup = from(&registry, &pushed, TRUST).listener(
        "route = [{ path_prefix = \"/b\", pool = \"b\" }, { path_prefix = \"/c\", pool = \"c\" }, { pool = \"main\" }]",
    );
    for name in ["b", "c"] {
        setup = setup.rest(&format!(
            "[policy.{name}]\ncomponent = \"{reference}\"\n[pool.{name}]\nbackends = [\"127.0.0.1:9\"]\npolicy = \"{name}\""
        ));
    }
    house.start(&setup).await;
    assert_eq!(registry.paths(), pushed.paths());
}

/// A registry that wants tokens, which it gives out itself, to this user or to everybody.
async fn with_tokens(house: &House, pushed: &Pushed, user: Option<&'static str>) -> Registry {
    let pushed = pushed.clone();
    let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
    let told = realm.clone();
    let registry = Registry::start(Some(&house.signed()), move |asked| {
        if let Some(query) = asked.path.strip_prefix("/token?") {
            assert_eq!(
                query,
                "service=the%20registry&scope=repository%3Ateam%2Fpolicy%3Apull"
            );
            return match user == asked.authorization.as_deref() {
                true => whole(200, br#"{"token":"t0k","expires_in":60}"#),
                false => whole(
                    401,
                    br#"{"errors":[{"code":"UNAUTHORIZED","message":"who is that"}]}"#,
                ),
            };
        }
        match asked.authorization.as_deref() {
            Some("Bearer t0k") => pushed.answer(&asked.path),
            _ => {
                let realm = told.get().unwrap();
                let challenge = format!(
                    "Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:team/policy:pull\""
                );
                with(401, WWW_AUTHENTICATE, &challenge)
            }
        }
    })
    .await;
    realm.set(format!("https://{}/token", registry.name())).unwrap();
    registry
}

#[tokio::test]
async fn a_token_is_asked_for_once_with_the_password_if_there_is_one() {
    let (house, pushed) = (House::new(), policy());
    for (user, settings) in [
        (None, TRUST.to_owned()),
        (Some(BASIC), format!("{TRUST}\n{USER}")),
    ] {
        let registry = with_tokens(&house, &pushed, user).await;
        let balancer = house.start(&from(&registry, &pushed, &settings)).await;
        assert!(serves(&balancer, &pushed));
        let asked = registry.asked();
        let authorizations: Vec<_> = asked.iter().map(|asked| asked.authorization.as_deref()).collect();
        assert_eq!(
            authorizations,
            [None, user, Some("Bearer t0k"), Some("Bearer t0k")],
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_which_key_is_to_be_looked_at() {
    let (house, pushed) = (House::new(), policy());
    let registry = with_tokens(&house, &pushed, Some(BASIC)).await;
    let nobody = house.refusal(&from(&registry, &pushed, TRUST)).await;
    assert!(nobody.contains("policy.mine.component = \"oci://"), "{nobody}");
    assert!(
        nobody.contains("gives out no token: status 401 UNAUTHORIZED who is that"),
        "{nobody}"
    );
    house.directory.write("password", "second");
    let wrong = house
        .refusal(&from(&registry, &pushed, &format!("{TRUST}\n{USER}")))
        .await;
    assert!(wrong.contains(".password_file = \"password\": "), "{wrong}");
    assert!(wrong.contains("as user \"bot\""), "{wrong}");
    let missing = format!("{TRUST}\n{}", USER.replace("\"password\"", "\"gone\""));
    let missing = house.refusal(&from(&registry, &pushed, &missing)).await;
    assert!(
        missing.contains(".password_file = \"gone\": cannot be read"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_registry_that_wants_the_password_itself_gets_it() {
    let (house, pushed) = (House::new(), policy());
    let has = pushed.clone();
    let registry = Registry::start(Some(&house.signed()), move |asked| {
        match asked.authorization.as_deref() {
            Some(BASIC) => has.answer(&asked.path),
            _ => with(401, WWW_AUTHENTICATE, "Basic realm=\"registry\""),
        }
    })
    .await;
    let nobody = house.refusal(&from(&registry, &pushed, TRUST)).await;
    assert!(nobody.contains("has the keys user and password_file"), "{nobody}");
    let setup = from(&registry, &pushed, &format!("{TRUST}\n{USER}"));
    assert!(serves(&house.start(&setup).await, &pushed));
}

#[tokio::test]
async fn a_blob_may_be_elsewhere_and_the_password_stays_here() {
    let (house, pushed) = (House::new(), policy());
    let elsewhere = house.open(&pushed).await;
    let (has, leads_to) = (pushed.clone(), format!("https://{}", elsewhere.name()));
    let registry = Registry::start(Some(&house.signed()), move |asked| {
        if asked.authorization.as_deref() != Some(BASIC) {
            return with(401, WWW_AUTHENTICATE, "Basic realm=\"registry\"");
        }
        match asked.path.contains("/blobs/") {
            true => with(307, LOCATION, &format!("{leads_to}{}", asked.path)),
            false => has.answer(&asked.path),
        }
    })
    .await;
    let setup = from(&registry, &pushed, &format!("{TRUST}\n{USER}"));
    assert!(serves(&house.start(&setup).await, &pushed));
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].authorization, None);
}

#[tokio::test]
async fn nothing_leads_out_of_tls() {
    let (house, pushed) = (House::new(), policy());
    let has = pushed.clone();
    let plain = Registry::start(None, move |asked| has.answer(&asked.path)).await;
    let leads_to = format!("http://{}", plain.name());
    for status in [302, 401] {
        let there = leads_to.clone();
        let registry = Registry::start(Some(&house.signed()), move |asked| match status {
            302 => with(302, LOCATION, &format!("{there}{}", asked.path)),
            _ => with(401, WWW_AUTHENTICATE, &format!("Bearer realm=\"{there}/token\"")),
        })
        .await;
        let refusal = house
            .refusal(&from(&registry, &pushed, &format!("{TRUST}\n{USER}")))
            .await;
        assert!(
            refusal.contains(&leads_to) && refusal.contains("https://"),
            "{refusal}"
        );
    }
    assert_eq!(plain.paths(), [""; 0]);
    // A mirror that the file names is another matter: what is not secret is still what was reviewed.
    let setup = Setup::to("127.0.0.1:9".to_owned())
        .pool("policy = \"mine\"")
        .rest(&format!(
            "[policy.mine]\ncomponent = \"{}\"\n[registry.\"ghcr.io\"]\nendpoint = \"{leads_to}\"",
            pushed.at("ghcr.io")
        ));
    assert!(serves(&house.start(&setup).await, &pushed));
}

#[tokio::test]
async fn a_registry_that_nobody_vouches_for_is_not_believed() {
    let (house, pushed) = (House::new(), policy());
    let registry = house.open(&pushed).await;
    let refusal = house.refusal(&from(&registry, &pushed, "")).await;
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    assert_eq!(registry.paths(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_what_was_reviewed_is_refused_and_what_serves_goes_on() {
    let house = House::new();
    let (good, wanted) = (policy(), Pushed::new(other().build()));
    let tar = Pushed::with_layer(b"tar".to_vec(), "application/vnd.oci.image.layer.v1.tar+gzip");
    let layer = r#"{"mediaType":"application/wasm","digest":"sha256:00","size":1}"#;
    let of_manifest = |manifest: Vec<u8>| Pushed {
        manifest,
        component: Vec::new(),
    };
    let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"m","digest":"sha256:ab","size":1}]}"#;
    let huge = format!(
        r#"{{"mediaType":"application/wasm","digest":"sha256:{}","size":70000000}}"#,
        "0".repeat(64)
    );
    // What is there, in place of what is named, and what is told.
    let sends = |component: Vec<u8>| Pushed {
        component,
        ..wanted.clone()
    };
    let swapped = wanted.component.iter().rev().copied().collect();
    let longer = [&wanted.component[..], &[0]].concat();
    let cases: Vec<(Pushed, Pushed, &str)> = vec![
        (good.clone(), wanted.clone(), "manifest has another digest"),
        (sends(swapped), wanted.clone(), "component has other bytes"),
        (sends(longer), wanted.clone(), "sends more than"),
        (sends(Vec::new()), wanted.clone(), "component has other bytes"),
        (
            tar.clone(),
            tar,
            "its layer is \"application/vnd.oci.image.layer.v1.tar+gzip\"",
        ),
        (
            of_manifest(index.to_vec()),
            of_manifest(index.to_vec()),
            "name one of its manifests: sha256:ab",
        ),
        (
            of_manifest(manifest(&[])),
            of_manifest(manifest(&[])),
            "has 0 layers",
        ),
        (
            of_manifest(manifest(&[layer, layer])),
            of_manifest(manifest(&[layer, layer])),
            "has 2 layers",
        ),
        (
            of_manifest(manifest(&[layer])),
            of_manifest(manifest(&[layer])),
            "expected is sha256",
        ),
        (
            of_manifest(manifest(&[&huge])),
            of_manifest(manifest(&[&huge])),
            "allowed are 64MiB (key compile.size)",
        ),
        (
            of_manifest(b"[]".to_vec()),
            of_manifest(b"[]".to_vec()),
            "cannot be read",
        ),
        (
            Pushed::new(b"no wasm".to_vec()),
            Pushed::new(b"no wasm".to_vec()),
            "not a WebAssembly component",
        ),
    ];
    let first = house.open(&good).await;
    let balancer = house.start(&from(&first, &good, TRUST)).await;
    for (has, named, told) in cases {
        // Whatever is asked for, this is what comes.
        let registry = Registry::start(Some(&house.signed()), move |asked| {
            match asked.path.contains("/manifests/") {
                true => whole(200, &has.manifest),
                false => whole(200, &has.component),
            }
        })
        .await;
        let refusal = balancer.replace(&from(&registry, &named, TRUST)).await;
        let refusal = refusal.expect_err(told);
        assert!(refusal.contains(told), "{told:?} is not in\n{refusal}");
        assert!(refusal.contains("policy.mine.component = \"oci://"), "{refusal}");
        assert!(serves(&balancer, &good));
    }
    let refusal = balancer.replace(&from(&first, &wanted, TRUST)).await.unwrap_err();
    assert!(
        refusal.contains("does not have the manifest (status 404 MANIFEST_UNKNOWN manifest unknown)"),
        "{refusal}"
    );
    // A backend that nobody has is an answer all the same.
    assert_eq!(get(balancer.address, "/").await.status, 502);
}

#[tokio::test]
async fn a_registry_that_is_away_for_a_moment_is_asked_again() {
    let (house, pushed) = (House::new(), policy());
    let (has, count) = (pushed.clone(), AtomicUsize::new(0));
    let registry = Registry::start(Some(&house.signed()), move |asked| {
        match count.fetch_add(1, SeqCst) {
            0 => whole(503, b""),
            2 => whole(429, b""),
            _ => has.answer(&asked.path),
        }
    })
    .await;
    let balancer = house.start(&from(&registry, &pushed, TRUST)).await;
    assert!(serves(&balancer, &pushed));
    assert_eq!(registry.paths().len(), 5);
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_waited_for_so_long() {
    let (house, pushed) = (House::new(), policy());
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = silent.local_addr().unwrap().to_string();
    let setup = Setup::to("127.0.0.1:9".to_owned())
        .pool("policy = \"mine\"")
        .rest(&format!(
            "[policy.mine]\ncomponent = \"{}\"\n[registry.\"{name}\"]\ntimeout = \"1s\"",
            pushed.at(&name)
        ));
    let refusal = house.refusal(&setup).await;
    assert!(refusal.contains("is not here after 1s (timeout"), "{refusal}");
}
