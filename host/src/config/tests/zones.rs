//! Where the balancer is, and who is told.

use super::*;

const AWARE: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[pool.shop]\nbackends = [\"127.0.0.1:9001\"]\n\
                     zone_aware = true\npolicy = \"mine\"\n[policy.mine]\nbuiltin = \"round-robin\"\n\
                     config = { near = \"{zone}\", far = [\"b\"] }\n";

#[test]
fn the_zone_is_told_to_pools_and_policies_that_ask() {
    let config = good(&format!("zone = \"eu-1a\"\n{AWARE}"));
    assert_eq!(config.pools["shop"].zone.as_deref(), Some("eu-1a"));
    let settings: serde_json::Value = serde_json::from_str(&config.policies["mine"].config_json).unwrap();
    assert_eq!(settings, serde_json::json!({"near": "eu-1a", "far": ["b"]}));
    let unaware = good(&format!("zone = \"eu-1a\"\n{MINIMAL}"));
    assert_eq!(unaware.pools["shop"].zone, None);
}

#[test]
fn without_a_zone_nobody_can_ask_for_it() {
    let mistakes = bad(AWARE);
    for (line, word) in [(5, "zone_aware"), (9, "config")] {
        let place = format!("trimtab.toml:{line}");
        let told = mistakes
            .lines()
            .any(|told| told.contains(&place) && told.contains(word) && told.contains("`zone`"));
        assert!(told, "{place}: {mistakes}");
    }
    assert!(bad(&format!("zone = \"a b\"\n{MINIMAL}")).contains("without spaces"));
}
