//! `[registry.NAME]`, and the names of components in registries.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use super::{
    super::{
        Policy, PolicySource, addresses,
        reader::{Keys, Table, Value},
        registry::{Artifact, Endpoint, Registries, Registry},
        units::{h, m, s},
    },
    fleet,
    tls::{default_tls, place, pool_tls},
};

pub(in super::super) const REGISTRY: Keys = &["endpoint", "timeout", "user", "password_file", "tls"];

/// What the name of a component in a registry begins with.
pub(super) const SCHEME: &str = "oci://";
const DIGEST_CHARS: usize = 64;
const TIMEOUT: RangeInclusive<Duration> = s(1)..=h(1);
const TIMEOUT_DEFAULT: Duration = m(1);
/// OCI Distribution Specification 1.1, "Pulling manifests".
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
/// The one registry that is not where its name leads.
const ELSEWHERE: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The registries by their names: those that have a table, and those that a component is in.
pub(super) fn registries(
    root: &Table<'_>,
    directory: &Path,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> Registries {
    let defined = root.take("registry").and_then(|value| value.entries());
    let mut found = Registries::new();
    for (name, value) in defined.unwrap_or_default() {
        if let Err(message) = address(name) {
            value.wrong(message);
        } else if let Some(registry) = registry(name, &value, directory) {
            found.insert(name.to_owned(), Arc::new(registry));
        }
    }
    for policy in policies.values() {
        if let PolicySource::Registry(artifact) = &policy.source {
            let name = artifact.registry.clone();
            let registry = || Arc::new(untold(artifact));
            found.entry(name).or_insert_with(registry);
        }
    }
    found
}

fn registry(name: &str, value: &Value<'_>, directory: &Path) -> Option<Registry> {
    let table = value.table(REGISTRY)?;
    let endpoint = match table.take("endpoint") {
        Some(value) => value.parsed(|text| {
            let (is_secret, address) = fleet::endpoint(text).map_err(|_| {
                "expected http:// or https://, a host and a port, like \"https://mirror.internal:5000\""
                    .to_owned()
            })?;
            Ok(Endpoint { is_secret, address })
        }),
        None => Some(endpoint(name)),
    };
    let tls = table.take("tls");
    if let (Some(tls), Some(false)) = (&tls, endpoint.as_ref().map(|endpoint| endpoint.is_secret)) {
        tls.wrong("has no effect with an endpoint that begins with http://");
    }
    let tls = match tls {
        Some(value) => pool_tls(&value, directory),
        None => Some(default_tls(place(value))),
    };
    let user = fleet::user(&table, directory);
    Some(Registry {
        endpoint: endpoint?,
        timeout: table.duration("timeout", TIMEOUT, TIMEOUT_DEFAULT),
        user,
        tls: tls?,
    })
}

/// One that has no table.
fn untold(artifact: &Artifact) -> Registry {
    Registry {
        endpoint: endpoint(&artifact.registry),
        timeout: TIMEOUT_DEFAULT,
        user: None,
        tls: default_tls(artifact.place.clone()),
    }
}

/// Where a registry is by its name, which is one.
fn endpoint(name: &str) -> Endpoint {
    let (known, place) = ELSEWHERE;
    let host = if name == known { place } else { name };
    Endpoint {
        is_secret: true,
        address: address(host).unwrap_or_else(|_| host.to_owned()),
    }
}

/// `host:port` of a registry's name.
fn address(name: &str) -> Result<String, String> {
    let has_port = name.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let whole = match has_port {
        true => name.to_owned(),
        false => format!("{name}:443"),
    };
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    match addresses::backend(&whole) {
        Ok(address) if is_lower => Ok(address),
        _ => Err(
            "expected a registry's name, a host in lower case and perhaps a port: [registry.\"ghcr.io\"]"
                .to_owned(),
        ),
    }
}

/// `oci://REGISTRY/REPOSITORY[:TAG]@sha256:DIGEST`. A tag is for readers; the digest says what it is.
pub(super) fn artifact(text: &str, value: &Value<'_>) -> Option<Artifact> {
    let rest = text.strip_prefix(SCHEME)?;
    let Some((named, digest)) = rest.split_once('@') else {
        return value.expected(
            "a digest at the end, `@sha256:` and 64 digits: a tag alone may lead to other code tomorrow, which nobody has looked at",
        );
    };
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digest = digest.strip_prefix("sha256:").unwrap_or_default();
    if digest.len() != DIGEST_CHARS || !digest.bytes().all(is_hex) {
        return value.expected("`sha256:` and 64 digits in lower case after `@`");
    }
    let (registry, path) = named.split_once('/').unwrap_or((named, ""));
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if address(registry).is_err() || !is_repository(repository) || !tag.is_none_or(is_tag) {
        return value.expected(
            "a registry, a repository in lower case and a digest, like \"oci://ghcr.io/team/policy@sha256:…\"",
        );
    }
    Some(Artifact {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        digest: digest.to_owned(),
        place: place(value),
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
fn is_repository(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_component = |component: &str| {
        let is_between =
            |rest: &str| matches!(rest, "." | "_" | "__") || rest.bytes().all(|byte| byte == b'-');
        component.starts_with(is_plain)
            && component.ends_with(is_plain)
            && component.split(is_plain).all(is_between)
    };
    text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_component)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_rest = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'-');
    text.len() <= TAG_BYTES_MAX && text.bytes().next().is_some_and(is_word) && text.bytes().all(is_rest)
}
