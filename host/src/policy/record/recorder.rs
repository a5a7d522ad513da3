//! The worker's side of a log: notes what goes into one instance and comes out of it, for so many picks.
//!
//! Owns the stream's events until a batch of them is full. It must not wait, and knows neither files nor threads: whoever
//! takes its batches says at once whether there was room.
//!
//! Invariant: a stream is whole from its first event on. When a batch finds no room, the stream ends before it.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use super::{
    AnswerEvent, BackendEvent, BackendsEvent, CookieEvent, Ending, Event, FaultEvent, FieldEvent, LoadEvent,
    OthersEvent, OutcomesEvent, PickEvent, Reads, StartEvent, StateEvent,
};
use crate::{
    http1::Head,
    policy::{Answer, Facts, Fault, Tried, grants::Restrictions},
    pool::{Figures, Snapshot, Told, View},
};

/// A batch is handed over when it has so many bytes, some 250 picks, ...
const BATCH_BYTES: usize = 32 << 10;
/// Longer ones are cut: they only have to be found again.
const ID_BYTES_MAX: usize = 128;
const ID_FIELD: &str = "x-request-id";

/// Some events of a stream, on their way into a log.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which stream.
    pub stream: u64,
    /// The number of its first event.
    pub first: u64,
    /// Events, one encoded after the other.
    pub events: Vec<u8>,
}

/// Takes a batch, or says at once that there is no room.
type Outlet = Box<dyn FnMut(Batch) -> bool + Send>;

/// What both sides know of a stream.
#[derive(Debug, Default)]
pub struct StreamState(AtomicU8);

impl StreamState {
    const ENDINGS: [Ending; 4] = [Ending::Complete, Ending::Replaced, Ending::Gap, Ending::Full];

    /// Ends it, unless it has ended.
    pub fn end(&self, ending: Ending) {
        let place = Self::ENDINGS.iter().position(|known| *known == ending);
        let code = place.map_or(0, |place| place as u8 + 1);
        // Batches that were handed over before this are seen by whoever sees the end.
        let _ = self
            .0
            .compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        let code = usize::from(self.0.load(Ordering::Acquire));
        Self::ENDINGS.get(code.checked_sub(1)?).copied()
    }
}

/// Records one instance.
pub struct Recorder {
    /// The stream that it writes.
    pub stream: u64,
    /// Whose instance it records.
    pub(in crate::policy) worker: u32,
    state: Arc<StreamState>,
    outlet: Outlet,
    /// Fields that are recorded whether the policy reads them or not, in lower case.
    headers: Arc<[String]>,
    picks_left: u32,
    is_trying: bool,
    events: u64,
    batch: Vec<u8>,
    batch_first: u64,
    columns: Vec<Figures>,
    others: Vec<Told>,
    changed: Changes,
    reads: Reads,
    id: Option<String>,
}

/// Index, requests in flight, latency, throughput.
type Changes = Vec<(u32, u32, u32, u64)>;

/// What is asked of an instance.
pub(in crate::policy) struct Asked<'a> {
    pub(in crate::policy) facts: &'a Facts,
    pub(in crate::policy) tried: &'a Tried,
    pub(in crate::policy) head: &'a Head,
    pub(in crate::policy) view: &'a View,
    pub(in crate::policy) restrictions: Option<&'a Restrictions>,
}

impl Recorder {
    /// For so many picks. `outlet` must not wait.
    pub fn new(
        (stream, worker): (u64, u32),
        state: Arc<StreamState>,
        picks: u32,
        headers: Arc<[String]>,
        outlet: impl FnMut(Batch) -> bool + Send + 'static,
    ) -> Self {
        Self {
            stream,
            worker,
            state,
            outlet: Box::new(outlet),
            headers,
            picks_left: picks,
            is_trying: true,
            events: 0,
            batch: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 8),
            batch_first: 0,
            columns: Vec::new(),
            others: Vec::new(),
            changed: Vec::new(),
            reads: Reads::default(),
            id: None,
        }
    }

    /// Nothing more is wanted, or can be written.
    pub(in crate::policy) fn is_over(&self) -> bool {
        self.state.ending().is_some()
    }

    /// The instance exists, and is about to be shown its first backends.
    pub(in crate::policy) fn start(&mut self, start: StartEvent<'_>) {
        self.push(&Event::Start(start));
    }

    /// The trial pick is over: from now on picks decide.
    pub(in crate::policy) fn tried_out(&mut self) {
        self.is_trying = false;
    }

    pub(in crate::policy) fn backends(&mut self, snapshot: &Snapshot, view: &View) {
        self.columns.clear();
        self.columns.resize(snapshot.members.len(), Figures::default());
        self.others.clear();
        self.others.resize(snapshot.members.len(), Told::NOTHING);
        self.push_others(view);
        let changed = self.changes(view);
        self.push(&Event::Backends(BackendsEvent {
            generation: snapshot.generation,
            in_panic: snapshot.in_panic,
            members: snapshot.members.iter().map(BackendEvent::new).collect(),
            load: load(view, &changed),
        }));
        self.changed = changed;
    }

    /// The instance took the state of another one.
    pub fn state(&mut self, schema: &str, state: &[u8]) {
        self.push(&Event::State(StateEvent {
            schema: schema.into(),
            state: state.into(),
        }));
    }

    pub(in crate::policy) fn outcomes(
        &mut self,
        view: &View,
        (index, latency_us, bytes, status): (&[u32], &[u32], &[u64], &[u16]),
        now_us: u64,
    ) {
        self.push_others(view);
        let changed = self.changes(view);
        self.push(&Event::Outcomes(OutcomesEvent {
            load: load(view, &changed),
            index: index.into(),
            latency_us: latency_us.into(),
            bytes: bytes.into(),
            status: status.into(),
            now_us,
        }));
        self.changed = changed;
    }

    /// A call that is not a pick has failed.
    pub(in crate::policy) fn fault(&mut self, fault: &Fault) {
        self.push(&Event::Fault(FaultEvent::new(fault.kind)));
    }

    /// For the guest to fill during a pick.
    pub(in crate::policy) fn take_reads(&mut self) -> Reads {
        let mut reads = std::mem::take(&mut self.reads);
        reads.clear();
        reads
    }

    pub(in crate::policy) fn pick(
        &mut self,
        asked: &Asked<'_>,
        reads: Reads,
        answer: &Result<Answer, Fault>,
        note: Option<&str>,
    ) {
        if reads.has_more {
            self.state.end(Ending::Gap);
            return;
        }
        self.push_others(asked.view);
        let id = id_of(asked.head);
        self.id = Some(
            id.clone()
                .map_or_else(|| own_id(self.stream, self.events), Cow::into_owned),
        );
        let headers = self.headers.clone();
        let is_trial = self.is_trying;
        let changed = self.changes(asked.view);
        self.push(&Event::Pick(PickEvent {
            is_trial,
            id,
            key: asked.facts.key,
            random: asked.facts.random,
            client: asked.facts.client,
            now_us: asked.facts.now_us,
            tried: asked.tried.ids().into(),
            load: load(asked.view, &changed),
            method: asked.head.method().into(),
            authority: asked.head.authority().into(),
            target: asked.head.target().into(),
            fields: fields(asked, &reads, &headers),
            cookies: cookies(asked, &reads),
            answer: AnswerEvent::new(answer),
            note: note.map(Cow::Borrowed),
        }));
        self.changed = changed;
        self.reads = reads;
        if !is_trial {
            self.picks_left = self.picks_left.saturating_sub(1);
        }
        if self.picks_left == 0 {
            self.flush();
            self.state.end(Ending::Complete);
        }
    }

    /// What the last pick is known by, once.
    pub(in crate::policy) fn take_id(&mut self) -> Option<String> {
        self.id.take()
    }

    /// Hands over what is there.
    pub(in crate::policy) fn flush(&mut self) {
        if self.batch.is_empty() || self.is_over() {
            return;
        }
        let batch = Batch {
            stream: self.stream,
            first: self.batch_first,
            events: std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 8)),
        };
        self.batch_first = self.events;
        if !(self.outlet)(batch) {
            self.state.end(Ending::Gap);
        }
    }

    /// What has changed of the load. To be given back after use, so that its memory is used again.
    fn changes(&mut self, view: &View) -> Changes {
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        for (index, known) in self.columns.iter_mut().enumerate() {
            let now = view.figures(index);
            if now != *known {
                *known = now;
                changed.push((index as u32, now.active, now.latency_us, now.throughput));
            }
        }
        changed
    }

    /// What has changed of other nodes' share; in most pools nothing ever does.
    fn push_others(&mut self, view: &View) {
        let mut changed = Vec::new();
        for (index, known) in self.others.iter_mut().enumerate() {
            let now = view.others(index);
            if now != *known {
                *known = now;
                changed.push((index as u32, now.active, now.told_ms));
            }
        }
        if !changed.is_empty() {
            self.push(&Event::Others(OthersEvent {
                merged_ms: view.merged_ms(),
                changed: changed.into(),
            }));
        }
    }

    fn push(&mut self, event: &Event<'_>) {
        if self.is_over() {
            return;
        }
        match postcard::to_extend(event, std::mem::take(&mut self.batch)) {
            Ok(batch) => self.batch = batch,
            // Encoding into memory cannot fail.
            Err(_) => return self.state.end(Ending::Gap),
        }
        self.events += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
        self.state.end(Ending::Replaced);
    }
}

fn load<'a>(view: &View, changed: &'a Changes) -> LoadEvent<'a> {
    LoadEvent {
        active_total: view.active_total(),
        changed: Cow::Borrowed(changed),
    }
}

/// What a pick without an `x-request-id` is known by.
pub fn own_id(stream: u64, event: u64) -> String {
    format!("{stream:x}-{event}")
}

fn id_of(head: &Head) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(head.field(ID_FIELD)?).ok()?;
    let text = text.get(..text.floor_char_boundary(ID_BYTES_MAX))?;
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// What is not granted is left out: to say that the request lacks it would be wrong.
fn fields<'a>(asked: &Asked<'a>, reads: &'a Reads, configured: &'a [String]) -> Vec<FieldEvent<'a>> {
    let unread = configured.iter().filter(|name| !reads.headers.contains(name));
    let names = reads.headers.iter().chain(unread);
    let head = asked.head;
    match asked.restrictions {
        None => names
            .map(|name| (name.into(), head.field(name).map(Cow::Borrowed)))
            .collect(),
        Some(restrictions) => names
            .filter(|name| restrictions.shows_header(name))
            .map(|name| (name.into(), restrictions.recorded_header(head, name)))
            .collect(),
    }
}

fn cookies<'a>(asked: &Asked<'a>, reads: &'a Reads) -> Vec<CookieEvent<'a>> {
    let value = |name: &str| match asked.restrictions {
        None => asked.head.cookie(name).map(Cow::Borrowed),
        Some(restrictions) => restrictions.recorded_cookie(asked.head, name),
    };
    let names = reads.cookies.iter();
    names.map(|name| (name.into(), value(name))).collect()
}
