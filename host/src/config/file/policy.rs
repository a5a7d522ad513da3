//! `[policy.NAME]`: where a component is, what it may use, and its own settings as JSON.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use super::{
    super::{
        BUILTIN_POLICIES, Fleet, Mistake, Policy, PolicySource, Tenant, Wasi,
        grants::Grants,
        names::Names,
        reader::{Table, Value},
        units::{ms, s, show_duration, show_size},
        zone::{asks_for_zone, in_zone},
    },
    Here, POLICY, file_path,
    grants::grants,
    registry,
    tenant::Tenancy,
};

/// What the name of a component begins with that comes from the fleet.
pub(super) const DIGEST: &str = "sha256:";
const DIGEST_CHARS: usize = 64;
const MEMORY: RangeInclusive<usize> = (1 << 20)..=(1 << 30);
const MEMORY_DEFAULT: usize = 32 << 20;
const DEADLINE: RangeInclusive<Duration> = ms(1)..=s(1);
const DEADLINE_DEFAULT: Duration = ms(1);
/// JSON readers in policies recurse, on a small stack; serde_json's own limit is 128.
const CONFIG_DEPTH_MAX: usize = 32;

/// A built-in that was named without a table.
pub(crate) fn builtin(name: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        tenant: None,
        source: PolicySource::Builtin(name.to_owned()),
        memory_bytes: MEMORY_DEFAULT,
        deadline: DEADLINE_DEFAULT,
        wasi: Wasi::None,
        grants: Grants::everything(),
        config_json: "{}".to_owned(),
        line: None,
    }
}

pub(in crate::config) fn policy(
    name: &str,
    value: &Value<'_>,
    tenancy: &Tenancy<'_>,
    (here, components): (Here<'_>, &mut Vec<(PathBuf, Mistake)>),
) -> Option<Policy> {
    if BUILTIN_POLICIES.contains(&name) {
        value.wrong(
            "a built-in policy has this name; a table needs another, with builtin = \"…\" to set its options",
        );
    }
    if !value.kind().is_table() {
        return value.expected("a table: [policy.NAME]");
    }
    let table = value.table(POLICY)?;
    let source = source(&table, here, components);
    let wasi = [("none", Wasi::None), ("empty", Wasi::Empty)];
    let tenant = tenancy.refer(table.take("tenant"));
    let owner = tenancy.get(tenant.as_deref()).map(|tenant| &**tenant);
    // A tenant's own code gets little unless the file says more; built-ins are ours.
    let defaults = match (&tenant, &source) {
        (Some(_), Some(source)) if !source.is_builtin() => Grants::for_tenants(),
        _ => Grants::everything(),
    };
    let policy = Policy {
        name: name.to_owned(),
        source: PolicySource::Builtin(String::new()),
        memory_bytes: memory(&table, owner),
        deadline: deadline(&table, owner),
        grants: grants(&table, defaults),
        tenant,
        wasi: table.choice("wasi", &wasi, Wasi::None),
        config_json: table
            .take("config")
            .and_then(|value| config_here(&value, here.zone))
            .unwrap_or_else(|| "{}".to_owned()),
        line: Some(value.line()),
    };
    Some(Policy {
        source: source?,
        ..policy
    })
}

/// At most the tenant's, which the default follows.
pub(in super::super) fn memory(table: &Table<'_>, tenant: Option<&Tenant>) -> usize {
    let most = tenant.map_or(usize::MAX, |tenant| {
        usize::try_from(tenant.memory_bytes).unwrap_or(usize::MAX)
    });
    let memory = table.size("memory", MEMORY, MEMORY_DEFAULT.min(most));
    if memory > most {
        let most = show_size(most as u64);
        table.wrong_key(
            "memory",
            format!("expected at most the tenant's memory, \"{most}\""),
        );
    }
    memory
}

/// As [`memory`].
pub(in super::super) fn deadline(table: &Table<'_>, tenant: Option<&Tenant>) -> Duration {
    let most = tenant.map_or(Duration::MAX, |tenant| tenant.deadline);
    let deadline = table.duration("deadline", DEADLINE, DEADLINE_DEFAULT.min(most));
    if deadline > most {
        let most = show_duration(most);
        table.wrong_key(
            "deadline",
            format!("expected at most the tenant's deadline, \"{most}\""),
        );
    }
    deadline
}

fn source(
    table: &Table<'_>,
    here: Here<'_>,
    components: &mut Vec<(PathBuf, Mistake)>,
) -> Option<PolicySource> {
    match (table.take("component"), table.take("builtin")) {
        (Some(component), None) if component.text()?.starts_with(registry::SCHEME) => {
            registry::artifact(component.text()?, &component).map(PolicySource::Registry)
        }
        (Some(component), None) => {
            let path = match component.text()?.strip_prefix(DIGEST) {
                Some(digest) => by_digest(digest, &component, here.fleet)?,
                None => file_path(component.text()?, &component, here.directory)?,
            };
            components.push((path.clone(), component.mistake("")));
            Some(PolicySource::File(path))
        }
        (None, Some(builtin)) => {
            let names = Names::new("built-in policy", &BUILTIN_POLICIES, &[]);
            names.refer(Some(&builtin)).map(PolicySource::Builtin)
        }
        (Some(_), Some(builtin)) => {
            builtin.wrong("expected `component` or `builtin`, not both");
            None
        }
        (None, None) => {
            table.wrong("expected `component`, a .wasm file or one in a registry, or `builtin`, a built-in policy's name");
            None
        }
    }
}

/// Where a node keeps what its fleet has given it.
fn by_digest(digest: &str, value: &Value<'_>, fleet: Option<&Fleet>) -> Option<PathBuf> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() != DIGEST_CHARS || !digest.bytes().all(is_hex) {
        return value.expected("64 digits in lower case after `sha256:`");
    }
    if fleet.is_none() {
        return value.expected("a file; a component by its digest needs the table [fleet]");
    }
    fleet.map(|fleet| fleet.component(digest))
}

/// With the zone that the balancer is in where it is asked for.
fn config_here(value: &Value<'_>, zone: Option<&str>) -> Option<String> {
    let json = config_json(value)?;
    if !asks_for_zone(&json) {
        return Some(json);
    }
    match zone {
        Some(zone) => Some(in_zone(&json, zone)),
        None => value.expected("the key `zone` at the top of the file, which \"{zone}\" in here stands for"),
    }
}

pub(in super::super) fn config_json(value: &Value<'_>) -> Option<String> {
    if !value.kind().is_table() {
        return value.expected("a table");
    }
    json(value, CONFIG_DEPTH_MAX).map(|json| json.to_string())
}

/// JSON has no dates, so they become text, and neither infinity nor NaN, so they are mistakes.
fn json(value: &Value<'_>, depth_left: usize) -> Option<Json> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return value.expected(format!("at most {CONFIG_DEPTH_MAX} levels of nesting"));
    };
    match value.kind() {
        DeValue::String(text) => Some(Json::String(text.clone().into_owned())),
        DeValue::Integer(number) => {
            let signed = i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(Number::from);
            let number = signed.or_else(|| {
                u64::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .map(Number::from)
            });
            number
                .map(Json::Number)
                .or_else(|| value.expected("a whole number that fits into 64 bits"))
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok().and_then(Number::from_f64);
            number
                .map(Json::Number)
                .or_else(|| value.expected("a number that JSON has"))
        }
        DeValue::Boolean(flag) => Some(Json::Bool(*flag)),
        DeValue::Datetime(time) => Some(Json::String(time.to_string())),
        DeValue::Array(_) => {
            // Not by `collect` into an Option: that would stop at the first mistake.
            let items: Vec<_> = value
                .items("a list")?
                .iter()
                .map(|item| json(item, depth_left))
                .collect();
            items.into_iter().collect::<Option<_>>().map(Json::Array)
        }
        DeValue::Table(_) => {
            let entries = value.entries()?;
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, item)| Some(((*key).to_owned(), json(item, depth_left)?)))
                .collect();
            entries
                .into_iter()
                .collect::<Option<Map<_, _>>>()
                .map(Json::Object)
        }
    }
}
