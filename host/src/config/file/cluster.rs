//! `[cluster]`: its members, and what has to fit together among its keys.

use std::{net::IpAddr, ops::RangeInclusive, path::Path, time::Duration};

use sha2::{Digest, Sha256};
use trimtab_cluster::Unlike;

use super::{
    super::{
        Cluster, ClusterMember, Config, GateKind, Hooks, LIFETIME_LATE, LIFETIME_UNIT, MemberRole, NamedFile,
        Takeover, WithoutWitness, addresses,
        names::Unique,
        reader::{Keys, Table},
        units::{h, ms, s},
    },
    check_name, file_path, own,
};

pub(in super::super) const CLUSTER: Keys = &[
    "name",
    "node",
    "key_file",
    "takeover",
    "addresses",
    "interface",
    "gate",
    "heartbeat",
    "lease",
    "margin",
    "without_witness",
    "other_policies",
    "preempt_after",
    "on_active",
    "on_standby",
    "on_fault",
    "hook_timeout",
    "member",
];
pub(in super::super) const MEMBER: Keys = &["name", "address", "role", "priority"];

const HEARTBEAT: RangeInclusive<Duration> = ms(10)..=s(10);
const LEASE: RangeInclusive<Duration> = ms(30)..=s(60);
const MARGIN: RangeInclusive<Duration> = ms(1)..=s(10);
/// What a gate of lifetimes needs at least: the kernel's work of taking an address away waits for others.
const LIFETIME_MARGIN_MIN: Duration = Duration::from_millis(250);
const HOOK_TIMEOUT: RangeInclusive<Duration> = ms(100)..=h(1);
const PREEMPT_AFTER: RangeInclusive<Duration> = s(1)..=h(24);
const PRIORITY: RangeInclusive<u32> = 0..=1000;
/// The kernel's own limit for a name.
const INTERFACE_BYTES_MAX: usize = 15;

/// The table, if it is there.
pub(super) fn cluster(root: &Table<'_>, directory: &Path) -> Option<Cluster> {
    let value = root.take("cluster")?;
    let table = value.table(CLUSTER)?;
    let name = table.require("name").and_then(|value| value.parsed(check_name));
    let key = table.require("key_file").and_then(|value| {
        let path = file_path(value.text()?, &value, directory)?;
        Some(NamedFile::new(path, value.mistake("")))
    });
    let members = members(&table);
    let me = table.require("node").and_then(|value| {
        let node = value.text()?;
        let members = members.as_ref()?;
        let place = members.iter().position(|member| member.name == node);
        place.or_else(|| value.expected("the name of a [[cluster.member]]"))
    });
    let (heartbeat, lease, margin) = times(&table);
    let hook = |key| {
        table.take(key).and_then(|value| {
            let items = value.items("a list of strings: a program and its arguments")?;
            items.iter().map(|item| item.text().map(str::to_owned)).collect()
        })
    };
    let hooks = Hooks {
        active: hook("on_active").unwrap_or_default(),
        standby: hook("on_standby").unwrap_or_default(),
        fault: hook("on_fault").unwrap_or_default(),
        timeout: table.duration("hook_timeout", HOOK_TIMEOUT, s(10)),
    };
    let takeover = takeover(&table);
    if let Some(Takeover::Address {
        gate: GateKind::Lifetime,
        ..
    }) = takeover
    {
        check_lifetime(&table, (heartbeat, lease, margin));
    }
    let preempt_after = table
        .take("preempt_after")
        .and_then(|value| value.duration(PREEMPT_AFTER));
    let choices = [
        ("last", Unlike::Last),
        ("never", Unlike::Never),
        ("ignore", Unlike::Ignored),
    ];
    let other_policies = table.choice("other_policies", &choices, Unlike::Last);
    let without_witness = without_witness(&table, members.as_deref().unwrap_or_default());
    Some(Cluster {
        name: name?,
        me: me?,
        key: key?,
        takeover: takeover?,
        heartbeat,
        lease,
        margin,
        without_witness,
        other_policies,
        preempt_after,
        hooks,
        members: members?,
    })
}

/// A member that only votes serves nobody.
pub(super) fn witness(root: &Table<'_>, directory: &Path, cluster: Option<Cluster>) -> Config {
    for key in ["workers", "zone", "peers", "listener", "pool", "policy", "tenant"] {
        if root.take(key).is_some() {
            root.wrong_key(key, "not in the file of a witness, which serves nobody");
        }
    }
    own::serving_nobody(root, directory, cluster)
}

/// What is in a file but for the keys that are about one node. Comments and the order of keys do not count.
pub(super) fn shared(text: &str) -> u64 {
    const OWN: [&str; 12] = [
        "cluster", "admin", "log", "state", "record", "compile", "workers", "zone", "etcd", "fleet", "peers",
        "registry",
    ];
    // It was read before.
    let mut root: toml::Table = text.parse().unwrap_or_default();
    root.retain(|key, _| !OWN.contains(&key));
    let digest = Sha256::digest(format!("{root:?}"));
    let first = digest.iter().take(8);
    first.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn times(table: &Table<'_>) -> (Duration, Duration, Duration) {
    let heartbeat = table.duration("heartbeat", HEARTBEAT, ms(100));
    let lease = table.duration("lease", LEASE, ms(400));
    let margin = table.duration("margin", MARGIN, ms(50));
    if lease < heartbeat * 3 {
        table.wrong_key("lease", "expected at least three heartbeats (key heartbeat)");
    }
    if margin > lease / 4 {
        table.wrong_key("margin", "expected at most a quarter of the lease (key lease)");
    }
    (heartbeat, lease, margin)
}

/// The kernel takes addresses away after whole seconds, and late. All that has to fit into a lease.
fn check_lifetime(table: &Table<'_>, (heartbeat, lease, margin): (Duration, Duration, Duration)) {
    const PRESET: &str =
        "good with gate = \"lifetime\": heartbeat = \"250ms\", lease = \"3s\", margin = \"500ms\"";
    if margin < LIFETIME_MARGIN_MIN {
        let least = LIFETIME_MARGIN_MIN.as_millis();
        table.wrong_key("margin", format!("expected at least {least} ms; {PRESET}"));
    }
    // A renewal finds this much of the lease left, of which whole seconds count.
    let left = lease.saturating_sub(margin + heartbeat + LIFETIME_LATE);
    let lifetime = LIFETIME_UNIT * left.as_secs() as u32;
    if lifetime < (heartbeat * 3).max(LIFETIME_UNIT) {
        let late = LIFETIME_LATE.as_millis();
        table.wrong_key(
            "lease",
            format!(
                "too short: without the margin, a heartbeat and {late} ms there have to be left whole seconds that are three heartbeats \
                 at least, one second at least; {PRESET}"
            ),
        );
    }
}

fn members(table: &Table<'_>) -> Option<Vec<ClusterMember>> {
    let value = table.require("member")?;
    let items = value.items("an array of tables: [[cluster.member]] with two brackets")?;
    let most = trimtab_cluster::MEMBERS_MAX;
    if !(2..=most).contains(&items.len()) {
        return value.expected(format!("2 to {most} members"));
    }
    let (mut names, mut addresses) = (Unique::new("name"), Unique::new("address"));
    let mut found = Vec::new();
    for item in &items {
        let Some(table) = item.table(MEMBER) else { continue };
        let name = table.require("name").and_then(|value| {
            let name = value.parsed(check_name)?;
            names.claim(name.clone(), &value).then_some(name)
        });
        let address = table.require("address").and_then(|value| {
            let address = value.parsed(addresses::listen)?;
            if address.port() == 0 || address.ip().is_unspecified() {
                return value.expected("an address that the others can send to");
            }
            addresses.claim(address, &value).then_some(address)
        });
        let roles = [("node", MemberRole::Node), ("witness", MemberRole::Witness)];
        let role = table.choice("role", &roles, MemberRole::Node);
        let priority = table.whole("priority", PRIORITY, 100) as u16;
        found.extend(name.zip(address).map(|(name, address)| ClusterMember {
            name,
            address,
            role,
            priority,
        }));
    }
    if found.len() == items.len() && found.iter().all(|member| member.role == MemberRole::Witness) {
        return value.expected("at least one member that is no witness");
    }
    (found.len() == items.len()).then_some(found)
}

fn takeover(table: &Table<'_>) -> Option<Takeover> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Bind,
        RoleOnly,
        Address,
    }
    let kinds = [
        ("bind", Kind::Bind),
        ("role-only", Kind::RoleOnly),
        ("address", Kind::Address),
    ];
    let kind = table.choice("takeover", &kinds, Kind::Bind);
    let interface = table.take("interface").and_then(|value| {
        let name = value.text()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
        if name.is_empty() || name.len() > INTERFACE_BYTES_MAX || !name.bytes().all(is_plain) {
            return value.expected("the name of a network interface");
        }
        Some(name.to_owned())
    });
    let addresses = table.take("addresses").and_then(|value| {
        let items = value.items("a list of IP addresses")?;
        if items.is_empty() {
            return value.expected("at least one IP address");
        }
        let address = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| "expected an IP address".to_owned())
        };
        items
            .iter()
            .map(|item| item.parsed(address))
            .collect::<Option<Vec<_>>>()
    });
    let gates = [("nftables", GateKind::Nftables), ("lifetime", GateKind::Lifetime)];
    let gate = table.choice("gate", &gates, GateKind::Nftables);
    if kind != Kind::Address {
        for key in ["addresses", "interface", "gate"] {
            if table.take(key).is_some() {
                table.wrong_key(key, "only with takeover = \"address\"");
            }
        }
    }
    Some(match kind {
        Kind::Bind => Takeover::Bind,
        Kind::RoleOnly => Takeover::RoleOnly,
        Kind::Address => {
            table.require("addresses");
            table.require("interface");
            Takeover::Address {
                addresses: addresses?,
                interface: interface?,
                gate,
            }
        }
    })
}

fn without_witness(table: &Table<'_>, members: &[ClusterMember]) -> Option<WithoutWitness> {
    let choices = [
        ("prefer_safety", WithoutWitness::PreferSafety),
        ("prefer_availability", WithoutWitness::PreferAvailability),
    ];
    let value = table.take("without_witness");
    let chosen = value.as_ref().and_then(|value| value.choice(&choices));
    let is_pair = members.len() == 2;
    match value {
        Some(value) if !members.is_empty() && !is_pair => {
            value.wrong("only for a cluster of two members: here a majority decides");
        }
        None if is_pair => table.wrong_key(
            "without_witness",
            "required with two members: \"prefer_safety\" (one alone does not serve) or \"prefer_availability\" (each alone \
             serves, during a partition both); a third member with role = \"witness\" needs neither",
        ),
        _ => {}
    }
    chosen
}
