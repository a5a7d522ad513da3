//! What is in a log: everything that an instance was told, in the order it was told, and what it answered.
//!
//! Owns the events and their encoding (postcard). `docs/replay.md` describes each for people without this program.
//!
//! Invariant: events are only added at the end of [`Event`], and fields never; a change of either is a new version of
//! the file's format (`file.rs`).

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize, Serializer};

use super::super::{Answer, FaultKind};
use crate::{
    config::Grants,
    pool::{Backend, Figures, Member, Snapshot, State, Told, View},
};

/// One thing that happened to an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event<'a> {
    /// It was instantiated and configured. The first of each stream.
    Start(StartEvent<'a>),
    /// `update`: it was shown these backends.
    Backends(BackendsEvent<'a>),
    /// `import-state`: it took the state of another instance.
    State(StateEvent<'a>),
    /// `outcomes`: it was told how attempts ended.
    Outcomes(OutcomesEvent<'a>),
    /// `pick`: it was asked for a decision.
    Pick(PickEvent<'a>),
    /// The call before this one failed, and was not a pick.
    Fault(FaultEvent),
    /// What other nodes have in flight, as the call after this one finds it.
    Others(OthersEvent<'a>),
}

/// What an instance is one of, and where it serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartEvent<'a> {
    /// The program that recorded.
    pub recorded_by: Cow<'a, str>,
    /// The pool that it decides for.
    pub pool: Cow<'a, str>,
    /// The worker that it belongs to.
    pub worker: u32,
    /// The policy's name in the configuration.
    pub policy: Cow<'a, str>,
    /// SHA-256 of the component, in hex.
    pub digest: Cow<'a, str>,
    /// What `configure` was given.
    pub config_json: Cow<'a, str>,
    /// The limit of its memory.
    pub memory_bytes: u64,
    /// Whether it was granted an empty WASI context, whose clocks and randomness are not in the log.
    pub has_wasi: bool,
    /// What it may read of a request.
    pub grants: Grants,
    /// Milliseconds since 1970, ...
    pub unix_ms: u64,
    /// ... at this time of the clock that picks are told.
    pub now_us: u64,
}

/// The backends of a snapshot, as the guest sees them, and their load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendsEvent<'a> {
    /// The snapshot's generation.
    pub generation: u64,
    /// Whether health was ignored.
    pub in_panic: bool,
    /// In order.
    pub members: Vec<BackendEvent>,
    /// What differs from no load at all.
    pub load: LoadEvent<'a>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendEvent {
    /// Hash of the address.
    pub id: u64,
    /// As configured.
    pub address: String,
    /// The weight in force.
    pub weight: u32,
    /// Slow start, percent of the weight.
    pub ramp: u8,
    /// Number of the zone.
    pub zone: u16,
    /// Priority tier.
    pub tier: u8,
    /// Draining 0, down 1, ejected 2, ready 3.
    pub state: u8,
    /// Whether it may be picked.
    pub usable: bool,
    /// What the configuration says of it.
    pub labels: BTreeMap<String, String>,
}

/// What has changed of the load since the event before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadEvent<'a> {
    /// Requests in flight to all backends.
    pub active_total: u32,
    /// Index, requests in flight, average latency in microseconds, bytes per second.
    pub changed: Cow<'a, [(u32, u32, u32, u64)]>,
}

/// What has changed of other nodes' requests since the last call; before an `update`, what differs from none known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OthersEvent<'a> {
    /// When the columns were filled: the time of an `update`, which is told none.
    pub merged_ms: u64,
    /// Index, requests in flight, and when that was told; both times in milliseconds, of the clock that picks are told.
    pub changed: Cow<'a, [(u32, u32, u64)]>,
}

/// The state of another instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvent<'a> {
    /// The name of its layout.
    pub schema: Cow<'a, str>,
    /// As it was exported.
    #[serde(serialize_with = "at_once")]
    pub state: Cow<'a, [u8]>,
}

/// Encodes the same as byte by byte does; but a worker waits, and it may be a megabyte.
fn at_once<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// How attempts ended, as parallel lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomesEvent<'a> {
    /// The load while the guest was told.
    pub load: LoadEvent<'a>,
    /// By the last backends.
    pub index: Cow<'a, [u32]>,
    /// Microseconds to the response head, or to the failure.
    pub latency_us: Cow<'a, [u32]>,
    /// Body bytes both ways.
    pub bytes: Cow<'a, [u64]>,
    /// The response's status, or 0.
    pub status: Cow<'a, [u16]>,
    /// When it was told.
    pub now_us: u64,
}

/// A header field by its lower-case name; without a value if the request lacks it.
pub type FieldEvent<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);
/// A cookie, likewise.
pub type CookieEvent<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

/// A decision: all that the guest could read, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PickEvent<'a> {
    /// It is the pick before service, which decides nothing.
    pub is_trial: bool,
    /// The request's `x-request-id`. Without one it is known by the stream and the event's number.
    pub id: Option<Cow<'a, str>>,
    /// The key, ...
    pub key: u64,
    /// ... random bits, ...
    pub random: u64,
    /// ... client, or the hash of it, ...
    pub client: u128,
    /// ... and time that it was told.
    pub now_us: u64,
    /// Ids of the backends that were tried before.
    pub tried: Cow<'a, [u64]>,
    /// The load while it decided.
    pub load: LoadEvent<'a>,
    /// `GET`, ...
    pub method: Cow<'a, str>,
    /// Host and port as the client addressed it.
    pub authority: Cow<'a, str>,
    /// Path and query.
    pub target: Cow<'a, str>,
    /// The header fields that it read or that are configured, unless they are not granted; hashes where only those are.
    pub fields: Vec<FieldEvent<'a>>,
    /// The cookies that it read, likewise.
    pub cookies: Vec<CookieEvent<'a>>,
    /// What it answered.
    pub answer: AnswerEvent,
    /// Its note.
    pub note: Option<Cow<'a, str>>,
}

/// An answer, before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerEvent {
    /// This backend.
    Index(u32),
    /// The host is to choose.
    Abstain,
    /// The request is to be refused with this status.
    Reject(u16),
    /// It failed.
    Fault(FaultEvent),
}

/// What went wrong, by the place in [`FaultKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultEvent(pub u8);

impl FaultEvent {
    /// A fault of this kind.
    pub fn new(kind: FaultKind) -> Self {
        let place = FaultKind::ALL.iter().position(|known| *known == kind);
        Self(place.unwrap_or(FaultKind::ALL.len()) as u8)
    }

    /// `None` of a kind that this program does not have.
    pub fn kind(self) -> Option<FaultKind> {
        FaultKind::ALL.get(usize::from(self.0)).copied()
    }
}

impl AnswerEvent {
    /// What an instance said.
    pub fn new(answer: &Result<Answer, super::super::Fault>) -> Self {
        match answer {
            Ok(Answer::Index(index)) => Self::Index(*index),
            Ok(Answer::Abstain) => Self::Abstain,
            Ok(Answer::Reject(status)) => Self::Reject(*status),
            Err(fault) => Self::Fault(FaultEvent::new(fault.kind)),
        }
    }
}

impl LoadEvent<'_> {
    /// What each changed backend has now.
    pub fn figures(&self) -> impl Iterator<Item = (usize, Figures)> {
        self.changed
            .iter()
            .map(|(index, active, latency_us, throughput)| {
                let figures = Figures {
                    active: *active,
                    latency_us: *latency_us,
                    throughput: *throughput,
                };
                (*index as usize, figures)
            })
    }
}

impl OthersEvent<'_> {
    /// Shows it in these columns.
    pub fn apply(&self, view: &View) {
        view.set_merged_ms(self.merged_ms);
        for (index, active, told_ms) in &*self.changed {
            let told = Told {
                active: *active,
                told_ms: *told_ms,
            };
            view.set_others(*index as usize, told);
        }
    }
}

impl BackendEvent {
    pub(super) fn new(member: &Member) -> Self {
        Self {
            id: member.backend.id,
            address: member.backend.address.to_string(),
            weight: member.weight,
            ramp: member.ramp,
            zone: member.zone,
            tier: member.tier,
            state: match member.state {
                State::Draining => 0,
                State::Down => 1,
                State::Ejected { .. } => 2,
                State::Ready => 3,
            },
            usable: member.usable,
            labels: (*member.labels).clone(),
        }
    }

    fn member(&self) -> Member {
        // Nobody connects to a backend of a log.
        let nowhere = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
        let mut backend = Backend::new(&self.address, nowhere, 1);
        backend.id = self.id;
        Member {
            backend: backend.into(),
            configured: self.weight,
            weight: self.weight,
            ramp: self.ramp,
            zone: self.zone,
            tier: self.tier,
            labels: self.labels.clone().into(),
            state: match self.state {
                0 => State::Draining,
                1 => State::Down,
                2 => State::Ejected {
                    until: std::time::Instant::now(),
                },
                _ => State::Ready,
            },
            usable: self.usable,
        }
    }
}

impl BackendsEvent<'_> {
    /// The snapshot that was recorded.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            generation: self.generation,
            members: self.members.iter().map(BackendEvent::member).collect(),
            usable: self.members.iter().filter(|member| member.usable).count(),
            in_panic: self.in_panic,
        }
    }
}

/// The events of a batch, in order.
///
/// # Errors
/// When the bytes are not events; after which nothing follows.
pub fn decode_events(mut bytes: &[u8]) -> impl Iterator<Item = Result<Event<'static>, postcard::Error>> + '_ {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(bytes) {
            Ok((event, rest)) => {
                bytes = rest;
                Some(Ok(event))
            }
            Err(error) => {
                bytes = &[];
                Some(Err(error))
            }
        }
    })
}
