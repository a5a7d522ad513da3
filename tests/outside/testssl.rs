//! testssl.sh, which tries the protocols and the known weaknesses of TLS on a listener as it is without any setting.

use serde_json::Value;
use tokio::process::Command;
use trimtab_tests::{Balancer, Directory, Origin, Setup, tls::Authority};

use crate::program::{install, run, told};

/// What is tried: protocols, vulnerabilities, forward secrecy, and categories of suites. Not who has signed the
/// certificate, which is the test's own authority.
const TRIED: [&str; 4] = ["-p", "-U", "-f", "-s"];
/// From the least to the worst.
const HARMLESS: [&str; 4] = ["OK", "INFO", "LOW", "WARN"];

#[tokio::test]
async fn testssl_finds_nothing_above_low() {
    install("testssl").await;
    let origin = Origin::start("a").await;
    let (authority, directory) = (Authority::new(), Directory::new());
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let report = directory.path().join("report.json");
    let mut suite = Command::new("testssl");
    suite
        .args(["--quiet", "--color", "0", "--warnings", "batch"])
        .args(TRIED)
        .arg("--jsonfile")
        .arg(&report)
        .arg(balancer.address.to_string())
        .current_dir(directory.path());
    let output = run(&mut suite).await;
    let findings = std::fs::read_to_string(report);
    let findings = findings.unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    let findings: Vec<Value> = serde_json::from_str(&findings).unwrap();
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| !HARMLESS.contains(&of(finding, "severity").as_str()))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // That it has reached the listener, and looked.
    let found = |id: &str| {
        let finding = findings.iter().find(|finding| of(finding, "id") == id);
        finding.map(|finding| of(finding, "finding")).unwrap_or_default()
    };
    assert!(findings.len() >= 30, "{} findings", findings.len());
    assert_eq!(found("SSLv3"), "not offered");
    assert_eq!(found("TLS1"), "not offered");
    assert_eq!(found("TLS1_1"), "not offered");
    assert_eq!(found("TLS1_2"), "offered");
    assert!(found("TLS1_3").contains("offered"), "{}", found("TLS1_3"));
}
