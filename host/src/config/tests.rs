//! What a configuration means. What its mistakes look like is in `tests/golden/config` at the top; the reference page is
//! held to the reader by `reference.rs`; `mutations.rs` breaks files at random.

use super::*;

mod golden;
mod lifetimes;
mod mutations;
mod reference;
mod registries;
mod zones;

pub(super) const MINIMAL: &str =
    "[[listener]]\nlisten = \"127.0.0.1:0\"\n[pool.shop]\nbackends = [\"127.0.0.1:9001\"]\n";

pub(super) fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse(text, "trimtab.toml", Path::new("/etc/trimtab"))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

/// The mistakes of a text that must have some, one a line.
fn bad(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn minimal_file_routes_everything_to_its_only_pool() {
    let config = good(MINIMAL);
    let everything = Route {
        host: None,
        path_prefix: None,
        pool: "shop".to_owned(),
    };
    assert_eq!(config.listeners[0].routes, [everything]);
    assert_eq!(config.listeners[0].name, "127.0.0.1:0");
    assert_eq!(config.policies["least-connections"].line, None);
    assert_eq!(
        config.policies["least-connections"].source,
        PolicySource::Builtin("least-connections".to_owned())
    );
}

#[test]
fn defaults_follow_the_settings_that_bound_them() {
    let config = good(&format!(
        "{MINIMAL}[pool.shop.health]\nkind = \"tcp\"\ninterval = \"500ms\"\n[pool.shop.outlier]\nbase_ejection = \"10m\"\n"
    ));
    let pool = &config.pools["shop"];
    assert_eq!(
        pool.health.as_ref().map(|health| health.timeout),
        Some(Duration::from_millis(500))
    );
    assert_eq!(
        pool.outlier.as_ref().map(|outlier| outlier.max_ejection),
        Some(Duration::from_secs(600))
    );
}

#[test]
fn contradicting_times_are_mistakes() {
    let text = bad(&format!(
        "{MINIMAL}[pool.shop.health]\nkind = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"1s\"\n\
         [pool.shop.outlier]\nbase_ejection = \"10m\"\nmax_ejection = \"9m\"\n"
    ));
    assert_eq!(
        text,
        "trimtab.toml:8: pool.shop.health.timeout = \"1s\": expected at most the interval, \"500ms\"\n\
         trimtab.toml:11: pool.shop.outlier.max_ejection = \"9m\": expected at least base_ejection, \"10m\""
    );
}

#[test]
fn a_pool_may_have_no_weight_at_all() {
    let config = good(&MINIMAL.replace("\"127.0.0.1:9001\"", "{ address = \"a:1\", weight = 0 }"));
    assert_eq!(config.pools["shop"].backends[0].weight, 0);
}

#[test]
fn a_fallback_is_a_built_in_that_helps() {
    let with = |name: &str| MINIMAL.replace("[pool.shop]", &format!("[pool.shop]\nfallback = {name:?}"));
    assert_eq!(good(MINIMAL).pools["shop"].fallback, "least-connections");
    for name in FALLBACKS {
        assert_eq!(good(&with(name)).pools["shop"].fallback, name);
    }
    let told = bad(&with("chaos"));
    assert!(
        told.contains("fallback = \"chaos\": no fallback has this name; known: "),
        "{told}"
    );
    assert!(bad(&with("round-robbin")).contains("did you mean \"round-robin\"?"));
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = format!(
        "[log]\naccess = \"a.log\"\n{}[policy.mine]\ncomponent = \"p/mine.wasm\"\n",
        MINIMAL.replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"")
    );
    let config = good(&text);
    assert_eq!(config.log.access, AccessLog::File("/etc/trimtab/a.log".into()));
    assert_eq!(
        config.policies["mine"].source,
        PolicySource::File("/etc/trimtab/p/mine.wasm".into())
    );
    assert_eq!(config.policies["mine"].line, Some(8));
}

#[test]
fn missing_component_is_told_by_its_line() {
    let text =
        MINIMAL.replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"") + "[policy.mine]\ncomponent = ";
    let own_manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_eq!(
        good(&format!("{text}\"{own_manifest}\"")).missing_components(),
        []
    );
    for (path, problem) in [("nowhere.wasm", "No such file"), ("/", "not a file")] {
        let missing = good(&format!("{text}\"{path}\"")).missing_components();
        let shown = missing.iter().map(Mistake::to_string).collect::<String>();
        assert!(
            shown.starts_with(&format!("trimtab.toml:7: policy.mine.component = \"{path}\": ")),
            "{shown}"
        );
        assert!(shown.contains(problem), "{shown}");
    }
}

#[test]
fn policy_settings_become_json() {
    let text = MINIMAL.replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"")
        + "[policy.mine]\nbuiltin = \"chaos\"\n[policy.mine.config]\n\
           day = 1979-05-27\nhex = 0x1F\nlarge = 18446744073709551615\nlow = -1\nhalf = 0.5\non = true\n\
           list = [1, \"a\", { b = [] }]\n";
    let json: serde_json::Value =
        serde_json::from_str(&good(&text).policies["mine"].config_json).expect("is JSON");
    let expected = serde_json::json!({
        "day": "1979-05-27", "hex": 31, "large": u64::MAX, "low": -1, "half": 0.5, "on": true,
        "list": [1, "a", { "b": [] }],
    });
    assert_eq!(json, expected);
}

#[test]
fn unused_is_not_told_where_a_reference_is_broken() {
    let text = bad(
        &format!("{MINIMAL}[[listener.route]]\npool = \"shopp\"\n").replace("[pool.shop]", "[pool.cart]")
    );
    assert!(!text.contains("no route names"), "{text}");
}

#[test]
fn a_file_without_a_listener_and_a_pool_says_so() {
    assert_eq!(
        bad(""),
        "trimtab.toml: pool: required, and missing here\ntrimtab.toml: listener: required, and missing here"
    );
}

#[test]
fn nesting_that_overflows_a_stack_is_a_mistake_or_harmless() {
    let dotted = vec!["a"; 79].join(".");
    let nested = format!("{} {}", format!("{dotted} = {{").repeat(79), "}".repeat(79));
    bad(&nested);
    bad(&"[".repeat(100_000));
    bad(&format!("a = {}", "[".repeat(100_000)));
    let text = MINIMAL.replace("[pool.shop]", "[pool.shop]\npolicy = \"mine\"")
        + "[policy.mine]\nbuiltin = \"chaos\"\n[policy.mine.config]\n";
    assert!(bad(&format!("{text}{nested}")).contains("at most 32 levels"));
}

#[test]
fn a_large_file_of_nonsense_is_told_in_few_lines() {
    let keys: String = (0..400_000).map(|at| format!("wrkers{at} = 1\n")).collect();
    let mistakes = parse(&keys).expect_err("unknown keys");
    assert!(mistakes.as_slice().len() <= 501);
    assert!(
        mistakes
            .to_string()
            .ends_with("trimtab.toml: more mistakes are not listed")
    );
    let long = format!("{} = {}", "k".repeat(5 << 20), "'v".repeat(3 << 20));
    assert!(bad(&long).len() < 500);
    assert!(bad(&"#".repeat(file::FILE_BYTES_MAX + 1)).contains("at most 16MiB"));
}

#[test]
fn default_names_of_listeners_are_unique_too() {
    let another = |keys: &str| format!("[[listener]]\n{keys}\n{MINIMAL}");
    let told = bad(&another("listen = \"127.0.0.1:0\""));
    assert!(
        told.contains("4: listener[1].listen = \"127.0.0.1:0\": the same name"),
        "{told}"
    );
    assert!(bad(&another("name = \"127.0.0.1:0\"\nlisten = \"[::]:0\"")).contains("the same name"));
    assert_eq!(
        good(&another("name = \"a\"\nlisten = \"127.0.0.1:0\""))
            .listeners
            .len(),
        2
    );
}

#[test]
fn unreadable_file_is_one_mistake() {
    let message = Config::load(Path::new("no/such/trimtab.toml"))
        .expect_err("is missing")
        .to_string();
    assert!(
        message.starts_with("no/such/trimtab.toml: cannot be read: "),
        "{message}"
    );
}

/// What other readers read, `tests/tidy` tries.
#[test]
fn every_example_is_a_good_file() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut found = 0;
    let mut folders = vec![top];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("is a folder") {
            let path = entry.expect("can be listed").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" {
                folders.push(path);
            } else if name == "trimtab.toml" || name == "full.toml" {
                let config = Config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
                assert!(!config.listeners.is_empty());
                found += 1;
            }
        }
    }
    assert!(
        found >= 2,
        "examples/full.toml and examples/quickstart/trimtab.toml"
    );
}

#[test]
fn tls_with_backends_is_verified_unless_the_file_says_otherwise_and_then_it_is_told() {
    let with = |more: &str| format!("{MINIMAL}{more}");
    let config = good(&with("tls = {}"));
    let tls = config.pools["shop"].tls.as_ref().expect("a table");
    assert!(tls.verify && tls.ca.is_none() && tls.certificate.is_none());
    assert_eq!(config.warnings(), []);
    let config = good(&with("tls = { verify = false }"));
    assert_eq!(
        config.warnings()[0].to_string(),
        "trimtab.toml:5: pool.shop.tls = { verify = false }: backends are believed without a proof (verify = false)"
    );
    for (more, told) in [
        (
            "protocol = \"auto\"",
            "pool.shop.protocol = \"auto\": needs [pool.NAME.tls]",
        ),
        (
            "tls = { verify = false, ca = \"a.pem\" }",
            "pool.shop.tls.ca = \"a.pem\": has no effect with verify",
        ),
        (
            "tls = { key = \"a.key\" }",
            "pool.shop.tls.key = \"a.key\": has no effect without cert",
        ),
        (
            "tls = { server_name = \"a:443\" }",
            "pool.shop.tls.server_name = \"a:443\": expected a name without",
        ),
        (
            "health = { kind = \"tcp\", tls = true }",
            "pool.shop.health.tls = true: needs [pool.NAME.tls]",
        ),
        ("tls = true", "pool.shop.tls = true: expected a table"),
    ] {
        let mistakes = bad(&with(more));
        assert!(
            mistakes.contains(told) && !mistakes.contains('\n'),
            "{told}\nin\n{mistakes}"
        );
    }
}

#[test]
fn checks_are_over_tls_where_requests_are() {
    let checks = |more: &str| {
        let health = format!("{MINIMAL}health = {{ kind = \"http\"{more}");
        good(&health).pools["shop"].health.clone().expect("checks").tls
    };
    assert!(!checks(" }"));
    assert!(checks(" }\ntls = {}"));
    assert!(!checks(", port = 9000 }\ntls = {}"));
    assert!(checks(", port = 9000, tls = true }\ntls = {}"));
    assert!(!checks(", tls = false }\ntls = {}"));
}

#[test]
fn tcp_listeners_have_the_keys_of_connections_and_none_of_requests() {
    let with = |listener: &str| MINIMAL.replace("[pool.shop]", &format!("{listener}\n[pool.shop]"));
    let route = "route = [{ server_name = \"*.DB.test\", pool = \"shop\" }]";
    let listener = |more: &str| good(&with(&format!("protocol = \"tcp\"\n{more}"))).listeners[0].clone();
    assert!(!listener("").peek_sni);
    assert!(listener("peek_sni = true").peek_sni);
    let named = listener(route);
    assert_eq!(
        (named.peek_sni, named.routes[0].host.as_deref()),
        (true, Some("*.db.test"))
    );
    // The handshake tells the name.
    assert!(
        !listener(&format!(
            "{route}\ntls = {{ certificates = [{{ cert = \"a.pem\" }}] }}"
        ))
        .peek_sni
    );
    for (more, told) in [
        (
            "protocol = \"tcp\"\nvia = true",
            "listener[0].via = true: only listeners with protocol = \"http\"",
        ),
        (
            "protocol = \"tcp\"\nhttp2 = \"off\"",
            "listener[0].http2 = \"off\": only listeners with",
        ),
        (
            "protocol = \"tcp\"\nconnect = true",
            "listener[0].connect = true: only listeners with",
        ),
        (
            "protocol = \"tcp\"\nroute = [{ host = \"a\", pool = \"shop\" }]",
            "host = \"a\": only routes of listeners",
        ),
        (
            route,
            "server_name = \"*.DB.test\": only routes of listeners with protocol = \"tcp\"",
        ),
        (
            "peek_sni = true",
            "listener[0].peek_sni = true: only listeners with protocol = \"tcp\"",
        ),
        (
            "proxy_protocol = {}",
            "listener[0].proxy_protocol.trusted: required",
        ),
        ("proxy_protocol = { trusted = [] }", "expected 1 to 1000 networks"),
        (
            "proxy_protocol = { trusted = [\"10.1.0.0/8\"] }",
            "first address: \"10.0.0.0/8\"",
        ),
    ] {
        let mistakes = bad(&with(more));
        assert!(
            mistakes.contains(told) && !mistakes.contains('\n'),
            "{told}\nin\n{mistakes}"
        );
    }
    let contradiction = format!("protocol = \"tcp\"\npeek_sni = false\n{route}");
    assert!(bad(&with(&contradiction)).contains("routes have a server_name"));
}

#[test]
fn a_tenants_only_pool_is_not_reached_by_every_host() {
    let text = MINIMAL.replace("[pool.shop]", "[pool.shop]\ntenant = \"shop\"")
        + "[tenant.shop]\nhosts = [\"shop.example\"]\n";
    assert_eq!(
        bad(&text),
        "trimtab.toml:1: listener[0].route: expected a host of tenant \"shop\", whose pool this is: \"shop.example\""
    );
}

#[test]
fn a_tenants_component_is_granted_less_than_a_built_in() {
    let file = |policy: &str, more: &str| {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = [{{ host = \"a.shop.example\", pool = \"shop\" }}]\n\
             [tenant.shop]\nhosts = [\"*.shop.example\"]\nmemory = \"8MiB\"\n\
             [pool.shop]\ntenant = \"shop\"\npolicy = \"mine\"\nbackends = [\"127.0.0.1:1\"]\n\
             [policy.mine]\ntenant = \"shop\"\n{policy}\n{more}"
        );
        good(&text).policies["mine"].clone()
    };
    assert_eq!(
        file("builtin = \"chaos\"", "").grants,
        Grants::everything(),
        "ours"
    );
    let uploaded = file("component = \"x.wasm\"", "");
    assert_eq!(uploaded.grants, Grants::for_tenants());
    assert_eq!(uploaded.memory_bytes, 8 << 20, "the default follows the tenant's");
    let grants = file(
        "component = \"x.wasm\"",
        "grants = { headers = { X-User = \"hash\" } }",
    )
    .grants
    .clone();
    assert_eq!(
        (grants.header("x-user"), grants.header("accept")),
        (Grant::Hash, Grant::Unsaid)
    );
    assert_eq!(grants.client, Grant::Hash);
}
