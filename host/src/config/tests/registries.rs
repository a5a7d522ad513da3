//! Components in registries, and how those are asked.

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn with_policy(component: &str, more: &str) -> String {
    format!("{MINIMAL}policy = \"mine\"\n[policy.mine]\ncomponent = \"{component}\"\n{more}")
}

#[test]
fn a_component_in_a_registry_is_known_by_its_digest() {
    for (text, registry, repository, endpoint) in [
        ("ghcr.io/team/policy", "ghcr.io", "team/policy", "ghcr.io:443"),
        (
            "localhost:5000/a__b/c-d.e:v1.2_x",
            "localhost:5000",
            "a__b/c-d.e",
            "localhost:5000",
        ),
        ("[::1]:5000/p", "[::1]:5000", "p", "[::1]:5000"),
        (
            "docker.io/team/policy",
            "docker.io",
            "team/policy",
            "registry-1.docker.io:443",
        ),
    ] {
        let config = good(&with_policy(&format!("oci://{text}@sha256:{HEX}"), ""));
        let PolicySource::Registry(artifact) = &config.policies["mine"].source else {
            panic!("{:?}", config.policies)
        };
        assert_eq!(
            (&*artifact.registry, &*artifact.repository),
            (registry, repository)
        );
        assert_eq!(
            artifact.to_string(),
            format!("oci://{registry}/{repository}@sha256:{HEX}")
        );
        let Endpoint { is_secret, address } = &config.registries[registry].endpoint;
        assert_eq!((*is_secret, &**address), (true, endpoint));
    }
}

#[test]
fn what_is_no_name_of_a_component_is_told() {
    let name = "a registry, a repository in lower case and a digest";
    for (component, told) in [
        (
            "oci://ghcr.io/team/policy:1.2",
            "a tag alone may lead to other code",
        ),
        ("oci://ghcr.io/team/policy", "a digest at the end"),
        ("oci://ghcr.io/team/policy@sha256:12", "64 digits in lower case"),
        ("oci://ghcr.io/team/policy@sha512:12", "64 digits in lower case"),
        (&format!("oci://ghcr.io/team/policy@{HEX}"), "`sha256:` and"),
        (&format!("oci://ghcr.io/Team/policy@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io/team//policy@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io/team/..@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io/team/a.-b@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io/team/policy:@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io/team/policy?a@sha256:{HEX}"), name),
        (&format!("oci://ghcr.io@sha256:{HEX}"), name),
        (&format!("oci://GHCR.io/policy@sha256:{HEX}"), name),
        (
            &format!("oci://user:pass@ghcr.io/policy@sha256:{HEX}"),
            "64 digits",
        ),
    ] {
        let mistakes = bad(&with_policy(component, ""));
        assert!(
            mistakes.starts_with("trimtab.toml:7: policy.mine.component = \"oci://"),
            "{mistakes}"
        );
        assert!(mistakes.contains(told), "{component}: {mistakes}");
    }
}

#[test]
fn a_tenants_component_gets_no_more_from_a_registry_than_from_a_file() {
    let tenant = "tenant = \"t\"\n[tenant.t]\nhosts = [\"t.example\"]\n";
    let text = with_policy(&format!("oci://ghcr.io/p@sha256:{HEX}"), tenant);
    let text = text.replace(
        "[pool.shop]\n",
        "route = [{ host = \"t.example\", pool = \"shop\" }]\n[pool.shop]\ntenant = \"t\"\n",
    );
    assert_eq!(good(&text).policies["mine"].grants, Grants::for_tenants());
}

#[test]
fn a_registry_may_be_asked_elsewhere_and_by_somebody() {
    let table = |more: &str| format!("{MINIMAL}[registry.\"ghcr.io\"]\n{more}");
    let user = "user = \"bot\"\npassword_file = \"p\"\n";
    let config = good(&table(&format!("endpoint = \"http://127.0.0.1:5000\"\n{user}")));
    let registry = &config.registries["ghcr.io"];
    assert!(!registry.endpoint.is_secret);
    assert_eq!(registry.user.as_ref().unwrap().name, "bot");
    let warnings = |endpoint: &str| {
        let config = good(&table(&format!("endpoint = \"{endpoint}\"\n{user}")));
        config
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings("http://127.0.0.1:5000"), [""; 0]);
    assert_eq!(warnings("https://10.0.0.1:5000"), [""; 0]);
    let [told] = &warnings("http://10.0.0.1:5000")[..] else {
        panic!("one warning")
    };
    assert!(
        told.starts_with("trimtab.toml:8: registry.") && told.contains("unencrypted"),
        "{told}"
    );
    for (more, told) in [
        ("endpoint = \"mirror:5000\"", "expected http:// or https://"),
        ("endpoint = \"http://mirror:5000\"\ntls = {}", "no effect"),
        ("user = \"bot\"", "needs password_file"),
        ("password_file = \"p\"", "no effect without user"),
        ("insecure = true", "unknown"),
    ] {
        let mistakes = bad(&table(more));
        assert!(mistakes.contains(told), "{more}: {mistakes}");
    }
    for name in ["\"https://ghcr.io\"", "\"ghcr.io/team\"", "GHCR", "\"\""] {
        let mistakes = bad(&format!("{MINIMAL}[registry.{name}]\n"));
        assert!(mistakes.contains("expected a registry's name"), "{mistakes}");
    }
}
