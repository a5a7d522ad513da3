//! `[etcd]` and `[fleet]`, and what has to fit together among their keys.

use std::{
    ops::{Range, RangeInclusive},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        Etcd, Fleet, Mistakes, State, User, addresses,
        names::Unique,
        reader::{Keys, Table, Value},
        units::{h, m, ms, s},
    },
    ROOT, check_name, parse_with, policy, registry,
    tls::{default_tls, named, place, pool_tls},
};

pub(in super::super) const ETCD: Keys = &["endpoints", "prefix", "timeout", "user", "password_file", "tls"];
pub(in super::super) const FLEET: Keys = &["node", "ttl", "canary", "canary_for"];

const ENDPOINTS_MAX: usize = 16;
const TIMEOUT: RangeInclusive<Duration> = ms(100)..=s(60);
/// etcd itself makes shorter ones longer.
const TTL: RangeInclusive<Duration> = s(2)..=m(5);
const CANARY_FOR: RangeInclusive<Duration> = Duration::ZERO..=h(24);
const PREFIX_BYTES_MAX: usize = 200;
const PREFIX_DEFAULT: &str = "trimtab/";

pub(super) fn etcd(root: &Table<'_>, directory: &Path) -> Option<Arc<Etcd>> {
    let value = root.take("etcd")?;
    let table = value.table(ETCD)?;
    let tls = table.take("tls");
    let endpoints = table
        .require("endpoints")
        .and_then(|value| endpoints(&value, tls.as_ref()));
    let tls = tls.map(|value| pool_tls(&value, directory));
    let prefix = table.take("prefix").map(|value| value.parsed(prefix));
    let user = user(&table, directory);
    let (endpoints, is_secret) = endpoints?;
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => is_secret.then(|| default_tls(place(&value))),
    };
    Some(Arc::new(Etcd {
        endpoints,
        prefix: prefix.unwrap_or_else(|| Some(PREFIX_DEFAULT.to_owned()))?,
        timeout: table.duration("timeout", TIMEOUT, s(2)),
        user,
        tls: tls.filter(|_| is_secret),
    }))
}

/// A name has a password, and the other way round.
pub(super) fn user(table: &Table<'_>, directory: &Path) -> Option<User> {
    let (name, password) = (table.take("user"), table.take("password_file"));
    if let (Some(name), None) = (&name, &password) {
        name.wrong("needs password_file, a file with this user's password");
    }
    if let (None, Some(password)) = (&name, &password) {
        password.wrong("has no effect without user");
    }
    let name = name?.parsed(check_name);
    let password = named(&password?, directory);
    Some(User {
        name: name?,
        password: password?,
    })
}

/// The addresses, and whether they are spoken to by TLS.
fn endpoints(value: &Value<'_>, tls: Option<&Value<'_>>) -> Option<(Vec<String>, bool)> {
    let items = value.items("a list of URLs, like [\"http://10.0.0.1:2379\"]")?;
    if !(1..=ENDPOINTS_MAX).contains(&items.len()) {
        return value.expected(format!("1 to {ENDPOINTS_MAX} URLs"));
    }
    let mut unique = Unique::new("address");
    let mut found = Vec::new();
    for item in &items {
        if let Some(endpoint) = item.parsed(endpoint)
            && unique.claim(endpoint.1.clone(), item)
        {
            found.push(endpoint);
        }
    }
    let is_secret = found.first().is_some_and(|(is_secret, _)| *is_secret);
    if found.iter().any(|endpoint| endpoint.0 != is_secret) {
        return value.expected("http:// or https:// for all of them alike");
    }
    if let Some(tls) = tls
        && !is_secret
    {
        tls.wrong("has no effect without endpoints that begin with https://");
    }
    (found.len() == items.len()).then(|| (found.into_iter().map(|(_, address)| address).collect(), is_secret))
}

pub(super) fn endpoint(text: &str) -> Result<(bool, String), String> {
    let wrong =
        || "expected http:// or https://, a host and a port, like \"http://10.0.0.1:2379\"".to_owned();
    let (is_secret, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        (None, None) => return Err(wrong()),
    };
    let address = addresses::backend(rest.strip_suffix('/').unwrap_or(rest)).map_err(|_| wrong())?;
    Ok((is_secret, address))
}

/// Names of others must not begin with ours, hence the slash at the end.
fn prefix(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.ends_with('/') && is_plain && text.len() <= PREFIX_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected a text that ends with `/`, without spaces, of at most {PREFIX_BYTES_MAX} bytes"
    ))
}

pub(super) fn fleet(root: &Table<'_>, etcd: Option<&Arc<Etcd>>, state: Option<&State>) -> Option<Fleet> {
    let value = root.take("fleet")?;
    let table = value.table(FLEET)?;
    // A mistake in the table itself is told already.
    if root.take("etcd").is_none() {
        table.wrong("needs the table [etcd], which says where the fleet keeps what it shares");
    }
    if state.is_none() {
        table.wrong(
            "needs the key state.directory, where the last good configuration is kept for a start without etcd",
        );
    }
    let ttl = table.duration("ttl", TTL, s(10));
    if ttl.subsec_nanos() != 0 {
        table.wrong_key("ttl", "expected whole seconds");
    }
    let node = table.require("node").and_then(|value| {
        value.parsed(|text| match text.contains('/') {
            true => Err("expected a name without `/`".to_owned()),
            false => check_name(text),
        })
    });
    Some(Fleet {
        ttl,
        canary: table.flag("canary", false),
        canary_for: table.duration("canary_for", CANARY_FOR, s(30)),
        directory: state?.directory.clone(),
        etcd: etcd?.clone(),
        node: node?,
    })
}

/// Whether all that a node serves comes from its fleet.
pub(super) fn is_bare(root: &Table<'_>) -> bool {
    let own = ["listener", "pool", "policy", "tenant"];
    root.take("fleet").is_some() && own.iter().all(|key| root.take(key).is_none())
}

/// Where a text names components that are files: the place of each value with its quotes, and the path.
///
/// # Errors
/// When it is no TOML.
pub fn components_in(text: &str, origin: &str) -> Result<Vec<(Range<usize>, String)>, Mistakes> {
    let read = |root: &Table<'_>| {
        let policies = root.take("policy").and_then(|value| value.entries());
        let component = |(_, value): &(&str, Value<'_>)| {
            let component = value.kind().get("component")?;
            let path = component.get_ref().as_str()?;
            let is_file = !path.starts_with(policy::DIGEST) && !path.starts_with(registry::SCHEME);
            is_file.then(|| (component.span(), path.to_owned()))
        };
        Some(
            policies
                .unwrap_or_default()
                .iter()
                .filter_map(component)
                .collect(),
        )
    };
    parse_with(text, origin, read, ROOT)
}

/// The name of what a pool discovers.
pub(super) fn service(text: &str) -> Result<String, String> {
    match text.contains('/') {
        true => Err("expected a name without `/`".to_owned()),
        false => check_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::Config, *};
    use crate::config::Shared;

    const OWN: &str = "[etcd]\nendpoints = [\"http://10.0.0.1:2379\"]\n[state]\ndirectory = \"state\"\n[fleet]\nnode = \"a\"";
    const TABLES: &str = "# the shop\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = [{ pool = \"shop\" }]\n[pool.shop]\npolicy = \"mine\"\nbackends = [\"10.0.0.1:80\"]\n";

    fn join(own: &str, text: &str) -> Result<Config, String> {
        let shared = Shared {
            name: "generation 7".to_owned(),
            text: text.to_owned(),
        };
        let joined = Config::parse_shared(own, "own.toml", Path::new("/etc/trimtab"), &shared);
        joined.map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_node_may_have_everything_from_its_fleet() {
        let bare = Config::parse(OWN, "own.toml", Path::new("/etc/trimtab")).unwrap();
        assert!(bare.pools.is_empty() && bare.listeners.is_empty());
        assert_eq!(bare.fleet.unwrap().etcd.endpoints, ["10.0.0.1:2379"]);
        let digest = "0123456789abcdef".repeat(4);
        let policy = format!("[policy.mine]\ncomponent = \"sha256:{digest}\"\n");
        let joined = join(OWN, &format!("{TABLES}{policy}")).unwrap();
        let kept = joined.fleet.as_ref().unwrap().component(&digest);
        assert_eq!(
            joined.policies["mine"].source,
            crate::config::PolicySource::File(kept)
        );
    }

    #[test]
    fn a_mistake_is_told_where_it_was_written() {
        for (own, text, told) in [
            (
                OWN,
                "[pool.shop]\nbackends = [\"nonsense\"]\n",
                "generation 7:2: pool.shop.backends[0] = \"nonsense\": ",
            ),
            ("[fleet]\nnode = 7", TABLES, "own.toml:2: fleet.node = 7: "),
            (
                OWN,
                "drain = \"1s\"\n",
                "generation 7:1: drain = \"1s\": unknown key",
            ),
            (
                OWN,
                "pool.shop.backends = []\n",
                "generation 7: expected the header of a table first",
            ),
            (
                OWN,
                "[state]\nsize = \"1MiB\"\n",
                "generation 7:1: state: unknown key",
            ),
            (
                "[pool.shop]\nbackends = [\"a:1\"]\n",
                "[pool.shop]\nbackends = [\"a:1\"]\n",
                "generation 7:1",
            ),
            (
                OWN,
                "[policy.mine]\ncomponent = \"sha256:12\"\n",
                "generation 7:2: policy.mine.component = \"sha256:12\": expected 64 digits",
            ),
        ] {
            let error = join(own, text).expect_err(text);
            assert!(error.contains(told), "{text}\n{error}");
        }
        let digest = format!("[policy.mine]\ncomponent = \"sha256:{}\"\n", "0".repeat(64));
        let alone = Config::parse(&format!("{TABLES}{digest}"), "own.toml", Path::new("/etc"));
        assert!(alone.unwrap_err().to_string().contains("needs the table [fleet]"));
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (text, told) in [
            ("[fleet]\nnode = \"a\"\n", "needs the table [etcd]"),
            ("[fleet]\nnode = \"a/b\"\n", "expected a name without `/`"),
            (
                "[etcd]\nendpoints = [\"10.0.0.1:2379\"]\n",
                "expected http:// or https://",
            ),
            (
                "[etcd]\nendpoints = [\"http://a:1\", \"https://b:1\"]\n",
                "for all of them alike",
            ),
            (
                "[etcd]\nendpoints = [\"http://a:1\"]\ntls = {}\n",
                "has no effect without",
            ),
            (
                "[etcd]\nendpoints = [\"http://a:1\"]\nuser = \"lb\"\n",
                "own.toml:3: etcd.user = \"lb\": needs password_file",
            ),
            (
                "[etcd]\nendpoints = [\"http://a:1\"]\npassword_file = \"p\"\n",
                "own.toml:3: etcd.password_file = \"p\": has no effect without user",
            ),
            (
                "[etcd]\nendpoints = [\"http://a:1\"]\nprefix = \"trimtab\"\n",
                "ends with `/`",
            ),
            (
                "[pool.shop]\ndiscover = { etcd = \"shop\" }\n",
                "needs the table [etcd]",
            ),
            (
                "[pool.shop]\ndiscover = { etcd = \"shop\", timeout = \"1s\" }\n",
                "only with dns and srv",
            ),
        ] {
            let error = Config::parse(text, "own.toml", Path::new("/"))
                .expect_err(text)
                .to_string();
            assert!(error.contains(told), "{text}\n{error}");
        }
    }

    #[test]
    fn a_password_that_anybody_could_read_is_told() {
        let told = |endpoint: &str| {
            let user = "user = \"lb\"\npassword_file = \"p\"\n";
            let text = format!("[etcd]\nendpoints = [\"{endpoint}\"]\n{user}{TABLES}")
                .replace("policy = \"mine\"\n", "");
            let config = Config::parse(&text, "own.toml", Path::new("/")).unwrap();
            config
                .warnings()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(told("https://10.0.0.1:2379"), [""; 0]);
        assert_eq!(told("http://127.0.0.1:2379"), [""; 0]);
        assert_eq!(
            told("http://10.0.0.1:2379"),
            [
                "own.toml:4: etcd.password_file = \"p\": the password is sent unencrypted: endpoints begin with http://"
            ]
        );
    }

    #[test]
    fn components_that_are_files_are_found_with_their_places() {
        let text = "[policy.a]\ncomponent = \"a.wasm\"\n[policy.b]\nbuiltin = \"chaos\"\n[policy.c]\ncomponent = 'c.wasm'\n[policy.d]\ncomponent = \"sha256:00\"\n[policy.e]\ncomponent = \"oci://a/b\"\n";
        let found = components_in(text, "x").unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(place, path)| (&text[place.clone()], path.as_str()))
            .collect();
        assert_eq!(found, [("\"a.wasm\"", "a.wasm"), ("'c.wasm'", "c.wasm")]);
    }
}
