//! What is answered, as JSON.
//!
//! Owns the shape, and the redaction: header fields and cookies are told by name and length, queries not at all, unless
//! the pool's `record.show` names the field.

use std::{collections::BTreeMap, net::Ipv6Addr};

use serde::Serialize;

use super::source_of;
use crate::{
    config::{self, Grant, HashOn},
    policy::{self, Answer, Candidate, Chooser, Fault, PickEvent, Reads, Reason, Recorded, Step, Tried},
    pool::{Figures, Snapshot, Told},
    replay::{Remade, head_of},
};

/// Where a request would go.
#[derive(Serialize)]
pub(super) struct Hypothesis<'a> {
    /// `None` where the pool was named.
    pub(super) route: Option<Route>,
    pub(super) pool: &'a str,
    pub(super) policy: Policy,
    pub(super) state: &'static str,
    pub(super) key: Key,
    /// The parts of the request that the policy read.
    pub(super) reads: Vec<String>,
    pub(super) candidates: Vec<Backend>,
    pub(super) decision: Decided,
}

/// Where a request went.
#[derive(Serialize)]
pub(super) struct Live<'a> {
    pub(super) id: &'a str,
    pub(super) attempts: Vec<Attempt>,
}

/// One attempt to serve it.
#[derive(Serialize)]
pub(super) struct Attempt {
    pool: String,
    policy: Policy,
    stream: String,
    event: u64,
    now_us: u64,
    request: Request,
    key: Key,
    candidates: Vec<Backend>,
    decision: Decided,
    re_executed: &'static str,
}

#[derive(Serialize)]
pub(super) struct Route {
    listener: String,
    index: usize,
    host: Option<String>,
    path_prefix: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Policy {
    name: String,
    version: String,
    digest: String,
}

#[derive(Serialize)]
pub(super) struct Key {
    /// In hex, because many readers of JSON round numbers of this size.
    hash: String,
    /// As in the configuration; `random` of a request that has none of the pool's sources, or none that is granted.
    source: String,
}

#[derive(Serialize)]
struct Request {
    method: String,
    authority: String,
    path: String,
    client: String,
    headers: BTreeMap<String, String>,
    cookies: BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(super) struct Backend {
    address: String,
    id: String,
    state: &'static str,
    usable: bool,
    tried: bool,
    weight: u32,
    ramp: u8,
    zone: u16,
    tier: u8,
    active: u32,
    others: Option<Others>,
    latency_us: u32,
    bytes_per_second: u64,
}

/// What of the requests in flight is other nodes'.
#[derive(Serialize)]
struct Others {
    active: u32,
    age_ms: u32,
}

/// What came of it.
#[derive(Default, Serialize)]
pub(super) struct Decided {
    /// `None` if the request goes nowhere.
    backend: Option<String>,
    index: Option<usize>,
    /// `policy`, or the step of the fallback chain.
    chosen_by: Option<&'static str>,
    /// Why it was not the policy.
    reason: Option<&'static str>,
    fault: Option<String>,
    /// The status with which the policy refuses the request.
    rejected: Option<u16>,
    note: Option<String>,
}

impl Route {
    pub(super) fn new(listener: &str, index: usize, rule: &config::Route) -> Self {
        Self {
            listener: listener.to_owned(),
            index,
            host: rule.host.clone(),
            path_prefix: rule.path_prefix.clone(),
        }
    }
}

impl Policy {
    pub(super) fn new(candidate: &Candidate) -> Self {
        Self {
            name: candidate.spec.name.clone(),
            version: candidate.version.to_string(),
            digest: candidate.digest.to_string(),
        }
    }
}

impl Key {
    pub(super) fn new(hash: u64, source: Option<&HashOn>) -> Self {
        let source = source.map_or_else(
            || "random".to_owned(),
            |source| match source {
                HashOn::ClientIp => "client-ip".to_owned(),
                HashOn::Header(name) => format!("header:{name}"),
                HashOn::Cookie(name) => format!("cookie:{name}"),
                HashOn::Query(name) => format!("query:{name}"),
                HashOn::Path => "path".to_owned(),
                HashOn::Host => "host".to_owned(),
            },
        );
        Self {
            hash: format!("{hash:016x}"),
            source,
        }
    }

    /// A log has the hash and not where it is from: that is the source, if any, that gives the same.
    fn of_recorded(pick: &PickEvent<'_>, sources: &[HashOn]) -> Self {
        let head = head_of(pick);
        let fits = |source: &HashOn| {
            let hash = policy::key_from(source, &head, pick.client);
            hash.filter(|hash| *hash == pick.key)
        };
        match source_of(sources, fits) {
            Some((hash, source)) => Self::new(hash, Some(source)),
            None if pick.key == pick.random => Self::new(pick.key, None),
            None => Self {
                hash: format!("{:016x}", pick.key),
                source: "not in the recording".to_owned(),
            },
        }
    }
}

impl Attempt {
    pub(super) fn new(recorded: &Recorded, remade: &Remade, sources: &[HashOn]) -> Self {
        let tried = remade.tried();
        let played = &remade.played;
        Self {
            pool: recorded.pool.to_string(),
            policy: Policy::new(&recorded.candidate),
            stream: format!("{:x}", recorded.stream),
            event: remade.event,
            now_us: remade.pick.now_us,
            request: Request::new(&remade.pick, recorded),
            key: Key::of_recorded(&remade.pick, sources),
            candidates: candidates(&remade.snapshot, &tried, remade.pick.now_us, |index| {
                let load = remade.load.get(index).copied();
                load.unwrap_or((Figures::default(), Told::NOTHING))
            }),
            decision: Decided::new(
                &played.answer,
                played.note.as_deref(),
                played.host_choice,
                &remade.snapshot,
                &tried,
            ),
            re_executed: if remade.is_same { "same" } else { "different" },
        }
    }

    pub(super) fn time(&self) -> u64 {
        self.now_us
    }
}

impl Request {
    fn new(pick: &PickEvent<'_>, recorded: &Recorded) -> Self {
        let show = &recorded.show;
        let path = pick
            .target
            .split_once('?')
            .map_or(&*pick.target, |(path, _)| path);
        let client = match recorded.candidate.spec.grants.client {
            Grant::Allow => Ipv6Addr::from_bits(pick.client).to_canonical().to_string(),
            Grant::Hash => "(hashed)".to_owned(),
            Grant::Deny | Grant::Unsaid => "(not granted)".to_owned(),
        };
        let fields = pick.fields.iter().map(|(name, value)| {
            let value = value.as_deref().map(String::from_utf8_lossy);
            (name.to_string(), shown(name, value.as_deref(), show))
        });
        let cookies = pick.cookies.iter();
        Self {
            method: pick.method.to_string(),
            authority: pick.authority.to_string(),
            path: path.to_owned(),
            client,
            headers: fields.collect(),
            cookies: cookies
                .map(|(name, value)| (name.to_string(), shown("cookie", value.as_deref(), show)))
                .collect(),
        }
    }
}

/// A field's value, if it may be seen.
fn shown(field: &str, value: Option<&str>, show: &[String]) -> String {
    match value {
        None => "(absent)".to_owned(),
        Some(value) if show.iter().any(|name| name == field) => value.to_owned(),
        Some(value) => format!("(redacted, {} bytes)", value.len()),
    }
}

impl Decided {
    pub(super) fn new(
        answer: &Result<Answer, Fault>,
        note: Option<&str>,
        host_choice: Option<(usize, Step)>,
        snapshot: &Snapshot,
        tried: &Tried,
    ) -> Self {
        let decided = match answer {
            Err(fault) => Self::failed(fault, None),
            Ok(Answer::Reject(status)) => Self {
                rejected: Some(*status),
                ..Self::default()
            },
            Ok(Answer::Abstain) => Self {
                reason: Some(Reason::Abstained.name()),
                ..Self::default()
            },
            Ok(Answer::Index(index)) => match policy::check(snapshot, *index, tried) {
                Ok(index) => Self {
                    chosen_by: Some("policy"),
                    ..Self::to(snapshot, index)
                },
                Err(fault) => Self::failed(&fault, None),
            },
        };
        let decided = match (decided.reason, host_choice) {
            (Some(_), Some((index, step))) => Self {
                chosen_by: Some(step.name()),
                reason: decided.reason,
                fault: decided.fault,
                ..Self::to(snapshot, index)
            },
            _ => decided,
        };
        Self {
            note: note.map(str::to_owned),
            ..decided
        }
    }

    /// The client's session is kept, and nobody asked.
    pub(super) fn sticky(snapshot: &Snapshot, index: usize) -> Self {
        let member = snapshot.members.get(index);
        Self {
            backend: member.map(|member| member.backend.address.to_string()),
            index: Some(index),
            chosen_by: Some(Chooser::Sticky.name()),
            ..Self::default()
        }
    }

    /// No backend is usable.
    pub(super) fn nobody() -> Self {
        Self {
            reason: Some("no backend is usable"),
            ..Self::default()
        }
    }

    pub(super) fn failed(fault: &Fault, note: Option<&str>) -> Self {
        Self {
            reason: Some(Reason::Fault.name()),
            fault: Some(format!("{}: {fault}", fault.kind.name())),
            note: note.map(str::to_owned),
            ..Self::default()
        }
    }

    fn to(snapshot: &Snapshot, index: usize) -> Self {
        let member = snapshot.members.get(index);
        Self {
            backend: member.map(|member| member.backend.address.to_string()),
            index: Some(index),
            ..Self::default()
        }
    }
}

/// `header x-user`, `cookie sid`.
pub(super) fn names(reads: &Reads) -> Vec<String> {
    let headers = reads.headers.iter().map(|name| format!("header {name}"));
    let cookies = reads.cookies.iter().map(|name| format!("cookie {name}"));
    headers.chain(cookies).collect()
}

pub(super) fn candidates(
    snapshot: &Snapshot,
    tried: &Tried,
    now_us: u64,
    load: impl Fn(usize) -> (Figures, Told),
) -> Vec<Backend> {
    let members = snapshot.members.iter().enumerate();
    let backend = |(index, member): (usize, &crate::pool::Member)| {
        let (figures, told) = load(index);
        Backend {
            address: member.backend.address.to_string(),
            id: format!("{:016x}", member.backend.id),
            state: member.state.name(),
            usable: member.usable,
            tried: tried.contains(member.backend.id),
            weight: member.weight,
            ramp: member.ramp,
            zone: member.zone,
            tier: member.tier,
            active: figures.active,
            others: (told != Told::NOTHING).then(|| Others {
                active: told.active,
                age_ms: told.age_ms(now_us / 1000),
            }),
            latency_us: figures.latency_us,
            bytes_per_second: figures.throughput,
        }
    };
    members.map(backend).collect()
}
