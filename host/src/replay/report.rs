//! What comes of a replay.
//!
//! Owns the counting. Of the same version every answer and note has to be the same, bit for bit; of another one, what is
//! compared is where the request goes.
//!
//! Invariant: what cannot be compared is counted as that, and never as the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Stream,
    keys::{KeyTally, Keys},
    player::{Outcome, Played, tried_of},
    versions::Casting,
};
use crate::{
    policy::{self, AnswerEvent, BackendsEvent, FaultEvent, FaultKind, PickEvent, StartEvent},
    pool::Snapshot,
};

/// What a replay found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every stream was played by the version that was recorded, so that everything has to be the same.
    pub is_same_version: bool,
    /// `name@version` of those that were recorded.
    pub before: Vec<String>,
    /// `name@version` of those that played.
    pub after: Vec<String>,
    /// Instances.
    pub streams: u64,
    /// Streams that end early, because they could not be written in time.
    pub gaps: u64,
    /// Decisions, retries included and trial picks not.
    pub picks: u64,
    /// Decisions whose answer, or fault, and note are the same.
    pub same: u64,
    /// Decisions that were cut off by time when they were recorded, which cannot be made to happen again.
    pub not_compared: u64,
    /// The first answer that is not the same.
    pub first_difference: Option<Difference>,
    /// Decisions that send the request elsewhere.
    pub moved: u64,
    /// Their part of all.
    pub moved_percent: f64,
    /// Where requests go; by pool and address.
    pub backends: Vec<Share>,
    /// The backend whose number of requests changes most.
    pub worst: Option<Share>,
    /// Which keys change their backend.
    pub keys: Keys,
    /// Decisions that were left to the host.
    pub abstained: Count,
    /// Requests that were refused.
    pub rejected: Count,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, Count>,
    /// Parts of requests that the policy asked for and that are not in the log, so that it found nothing there.
    pub unrecorded: Vec<Unrecorded>,
}

/// A number before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// As recorded.
    pub before: u64,
    /// As replayed.
    pub after: u64,
}

/// Requests of one backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The pool.
    pub pool: String,
    /// The backend's address; `(host)` for what was left to the host, `(rejected)` for what was refused.
    pub backend: String,
    /// As recorded.
    pub before: u64,
    /// As replayed.
    pub after: u64,
    /// Percent of the pool's decisions.
    pub before_percent: f64,
    /// Percent of the pool's decisions.
    pub after_percent: f64,
}

/// An answer that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The pool, ...
    pub pool: String,
    /// ... the worker, ...
    pub worker: u32,
    /// ... the stream in hex, ...
    pub stream: String,
    /// ... and the event in it.
    pub event: u64,
    /// The request, if it was one.
    pub request: Option<String>,
    /// What happened then.
    pub recorded: String,
    /// What happens now.
    pub replayed: String,
}

/// A part of requests that is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unrecorded {
    /// `header x-user`, `cookie sid`.
    pub name: String,
    /// In so many decisions.
    pub picks: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// To the backend with this id.
    Backend(u64),
    /// Where the host wants: the policy abstained or failed.
    Host,
    /// Nowhere: it is refused with this status.
    Reject(u16),
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) streams: u64,
    pub(super) gaps: u64,
    has_other_version: bool,
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    pools: Vec<String>,
    addresses: BTreeMap<u64, String>,
    picks: u64,
    same: u64,
    not_compared: u64,
    moved: u64,
    first_difference: Option<Difference>,
    shares: BTreeMap<(usize, Verdict), Count>,
    keys: KeyTally,
    abstained: Count,
    rejected: Count,
    faults: BTreeMap<&'static str, Count>,
    unrecorded: BTreeMap<String, u64>,
}

/// An answer on its way to a verdict.
enum Answered {
    To(u64),
    Abstained,
    Rejected(u16),
    Failed(Option<FaultKind>),
}

impl Tally {
    pub(super) fn begin(&mut self, start: &StartEvent<'_>, casting: &Casting) {
        self.streams += 1;
        self.has_other_version |= !casting.is_same;
        let version = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
        self.before
            .insert(format!("{}@{}", start.policy, version(&start.digest)));
        self.after.insert(version(&casting.candidate.digest));
        if !self.pools.iter().any(|pool| *pool == start.pool) {
            self.pools.push(start.pool.to_string());
        }
    }

    pub(super) fn meet(&mut self, backends: &BackendsEvent<'_>) {
        for backend in &backends.members {
            self.addresses
                .entry(backend.id)
                .or_insert_with(|| backend.address.clone());
        }
    }

    /// A call that was not a pick had failed when it was recorded.
    pub(super) fn fault(&mut self, stream: &Stream, event: u64, fault: FaultEvent) {
        let recorded = fault.kind();
        let is_same = match (recorded, stream.last) {
            (Some(FaultKind::Deadline), _) => true,
            (Some(recorded), Outcome::Failed(replayed)) => recorded == replayed,
            _ => false,
        };
        if stream.casting.is_same && !is_same {
            let replayed = match stream.last {
                Outcome::Fine => "no fault".to_owned(),
                Outcome::Failed(kind) => format!("fault {}", kind.name()),
            };
            let recorded = format!("fault {}", kind_name(recorded));
            self.differ(stream, event, None, (recorded, replayed));
        }
    }

    pub(super) fn pick(&mut self, stream: &Stream, event: u64, pick: &PickEvent<'_>, played: &Played) {
        if recorded_kind(&pick.answer) == Some(FaultKind::Deadline) {
            self.not_compared += u64::from(!pick.is_trial);
            self.picks += u64::from(!pick.is_trial);
            return;
        }
        let replayed = answer_event(played);
        let is_same = replayed == pick.answer && pick.note.as_deref() == played.note.as_deref();
        if !is_same {
            let texts = (
                shown(&pick.answer, pick.note.as_deref()),
                shown(&replayed, played.note.as_deref()),
            );
            let request = format!("{} {}{}", pick.method, pick.authority, path_of(&pick.target));
            self.differ(stream, event, Some(request), texts);
        }
        if !pick.is_trial {
            self.picks += 1;
            self.same += u64::from(is_same);
            self.compare(stream, pick, played);
        }
    }

    fn compare(&mut self, stream: &Stream, pick: &PickEvent<'_>, played: &Played) {
        let Some(player) = &stream.player else { return };
        let before = answered(&pick.answer, player.recorded(), pick);
        let after = answered(&answer_event(played), player.shown(), pick);
        let before = self.count(&before, |count| &mut count.before);
        let after = self.count(&after, |count| &mut count.after);
        let pool = self.pools.iter().position(|pool| *pool == stream.start.pool);
        let pool = pool.unwrap_or_default();
        self.moved += u64::from(before != after);
        self.shares.entry((pool, before)).or_default().before += 1;
        self.shares.entry((pool, after)).or_default().after += 1;
        if let (Verdict::Backend(before), Verdict::Backend(after), true) =
            (before, after, pick.tried.is_empty())
        {
            self.keys.count(pool, pick.key, before, after);
        }
        self.note_unrecorded(pick, played);
    }

    fn count(&mut self, answered: &Answered, side: impl Fn(&mut Count) -> &mut u64) -> Verdict {
        let (counted, verdict) = match answered {
            Answered::To(id) => return Verdict::Backend(*id),
            Answered::Abstained => (&mut self.abstained, Verdict::Host),
            Answered::Rejected(status) => (&mut self.rejected, Verdict::Reject(*status)),
            Answered::Failed(kind) => (self.faults.entry(kind_name(*kind)).or_default(), Verdict::Host),
        };
        *side(counted) += 1;
        verdict
    }

    fn note_unrecorded(&mut self, pick: &PickEvent<'_>, played: &Played) {
        for name in &played.reads.headers {
            if !pick.fields.iter().any(|(known, _)| known == name) {
                *self.unrecorded.entry(format!("header {name}")).or_default() += 1;
            }
        }
        for name in &played.reads.cookies {
            let is_there = pick.cookies.iter().any(|(known, _)| known == name);
            if !is_there && !pick.fields.iter().any(|(known, _)| known == "cookie") {
                *self.unrecorded.entry(format!("cookie {name}")).or_default() += 1;
            }
        }
    }

    fn differ(
        &mut self,
        stream: &Stream,
        event: u64,
        request: Option<String>,
        (recorded, replayed): (String, String),
    ) {
        self.first_difference.get_or_insert_with(|| Difference {
            pool: stream.start.pool.to_string(),
            worker: stream.start.worker,
            stream: format!("{:x}", stream.number),
            event,
            request,
            recorded,
            replayed,
        });
    }

    /// Whether a backend of this address was seen.
    pub(super) fn knows(&self, address: &str) -> bool {
        self.addresses.values().any(|known| known == address)
    }

    pub(super) fn report(self) -> Report {
        let address = |id: u64| self.addresses.get(&id).cloned().unwrap_or_default();
        let keys = self.keys.report(&self.pools, address);
        let backends = self.backends();
        let worst = backends
            .iter()
            .max_by_key(|share| share.before.abs_diff(share.after))
            .filter(|share| share.before != share.after)
            .cloned();
        Report {
            is_same_version: !self.has_other_version,
            before: self.before.into_iter().collect(),
            after: self.after.into_iter().collect(),
            streams: self.streams,
            gaps: self.gaps,
            picks: self.picks,
            same: self.same,
            not_compared: self.not_compared,
            first_difference: self.first_difference,
            moved: self.moved,
            moved_percent: percent(self.moved, self.picks),
            backends,
            worst,
            keys,
            abstained: self.abstained,
            rejected: self.rejected,
            faults: self.faults,
            unrecorded: self
                .unrecorded
                .into_iter()
                .map(|(name, picks)| Unrecorded { name, picks })
                .collect(),
        }
    }

    fn backends(&self) -> Vec<Share> {
        let mut totals = vec![0; self.pools.len()];
        for ((pool, _), count) in &self.shares {
            totals[*pool] += count.before;
        }
        let share = |((pool, verdict), count): (&(usize, Verdict), &Count)| Share {
            pool: self.pools[*pool].clone(),
            backend: match verdict {
                Verdict::Backend(id) => self.addresses.get(id).cloned().unwrap_or_default(),
                Verdict::Host => "(host)".to_owned(),
                Verdict::Reject(_) => "(rejected)".to_owned(),
            },
            before: count.before,
            after: count.after,
            before_percent: percent(count.before, totals[*pool]),
            after_percent: percent(count.after, totals[*pool]),
        };
        let mut shares: Vec<Share> = self.shares.iter().map(share).collect();
        shares.sort_by(|one, other| (&one.pool, &one.backend).cmp(&(&other.pool, &other.backend)));
        shares
    }
}

impl Report {
    /// Whether everything that could be compared is the same.
    pub fn is_identical(&self) -> bool {
        self.first_difference.is_none() && self.same + self.not_compared == self.picks
    }
}

/// What the host would make of an answer on these backends.
fn answered(answer: &AnswerEvent, snapshot: &Snapshot, pick: &PickEvent<'_>) -> Answered {
    match *answer {
        AnswerEvent::Index(index) => match policy::check(snapshot, index, &tried_of(pick)) {
            Ok(index) => Answered::To(snapshot.members[index].backend.id),
            Err(fault) => Answered::Failed(Some(fault.kind)),
        },
        AnswerEvent::Abstain => Answered::Abstained,
        AnswerEvent::Reject(status) => Answered::Rejected(status),
        AnswerEvent::Fault(fault) => Answered::Failed(fault.kind()),
    }
}

fn answer_event(played: &Played) -> AnswerEvent {
    AnswerEvent::new(&played.answer)
}

fn recorded_kind(answer: &AnswerEvent) -> Option<FaultKind> {
    match answer {
        AnswerEvent::Fault(fault) => fault.kind(),
        _ => None,
    }
}

fn kind_name(kind: Option<FaultKind>) -> &'static str {
    kind.map_or("unknown", FaultKind::name)
}

fn shown(answer: &AnswerEvent, note: Option<&str>) -> String {
    let answer = match answer {
        AnswerEvent::Index(index) => format!("index {index}"),
        AnswerEvent::Abstain => "none".to_owned(),
        AnswerEvent::Reject(status) => format!("reject {status}"),
        AnswerEvent::Fault(fault) => format!("fault {}", kind_name(fault.kind())),
    };
    match note {
        Some(note) => format!("{answer}, note {note:?}"),
        None => answer,
    }
}

/// Queries are nobody's business.
fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

pub(super) fn percent(part: u64, of: u64) -> f64 {
    if of == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / of as f64
}
