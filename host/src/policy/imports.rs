//! What a guest may call.
//!
//! Owns the host's side of `pool`, `request` and `diagnostics`. Nothing here blocks, allocates more than its answer, or
//! calls back into a guest.
//!
//! Invariant: every function is total. An index out of range, a name that is no header, a call outside `pick`: all have
//! a quiet answer, so a guest cannot fault the host.

use std::sync::Arc;

use super::{
    Tried,
    bindings::trimtab::policy::{diagnostics, pool, request},
    fallback,
    record::Reads,
    request::field_hash,
    store::{Limits, Overtime},
};
use crate::{
    http1::Head,
    pool::{Snapshot, View},
};

/// Log lines of one instance in one second; more are dropped and counted.
const LOG_LINES_PER_SECOND: u32 = 10;
const LOG_LINE_BYTES: usize = 1024;
const NOTE_BYTES: usize = 128;

/// The state behind one instance's imports.
pub(super) struct Guest {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) view: Arc<View>,
    pub(super) limits: Limits,
    /// Reset before every call into the guest.
    pub(super) overtime: Overtime,
    /// The request being decided, while `is_picking`; an empty one otherwise.
    pub(super) head: Head,
    pub(super) is_picking: bool,
    pub(super) tried: Tried,
    pub(super) random: u64,
    pub(super) rejected: Option<u16>,
    pub(super) note: Option<String>,
    /// Only while the instance is recorded or replayed.
    pub(super) reads: Option<Reads>,
    pub(super) log: Log,
    pub(super) wasi: Option<Box<Wasi>>,
}

impl Guest {
    fn head(&self) -> Option<&Head> {
        self.is_picking.then_some(&self.head)
    }

    /// Notes what a recorded or replayed policy asks for.
    #[inline]
    fn reads(&mut self, note: impl FnOnce(&mut Reads)) {
        if let Some(reads) = &mut self.reads {
            note(reads);
        }
    }
}

/// For a component that insists on WASI and was granted an empty one.
pub(super) struct Wasi {
    context: wasmtime_wasi::WasiCtx,
    table: wasmtime_wasi::ResourceTable,
}

impl Wasi {
    /// No arguments, no environment, no files, no network; standard streams go nowhere.
    pub(super) fn empty() -> Self {
        Self {
            context: wasmtime_wasi::WasiCtx::builder().build(),
            table: wasmtime_wasi::ResourceTable::new(),
        }
    }
}

impl wasmtime_wasi::WasiView for Guest {
    fn ctx(&mut self) -> wasmtime_wasi::WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::empty()));
        wasmtime_wasi::WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

/// Who speaks, and how much it already said.
pub(super) struct Log {
    pub(super) pool: Arc<str>,
    pub(super) policy: Arc<str>,
    pub(super) version: Arc<str>,
    second: u64,
    lines: u32,
    dropped: u64,
    /// The last line at level error in the current call: why a guest is about to trap, if it says so.
    last_words: Option<String>,
}

impl Log {
    pub(super) fn new(pool: Arc<str>, policy: Arc<str>, version: Arc<str>) -> Self {
        Self {
            pool,
            policy,
            version,
            second: 0,
            lines: 0,
            dropped: 0,
            last_words: None,
        }
    }

    pub(super) fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }

    /// Another call begins.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.last_words = None;
    }

    /// Whether another line may be written; gives how many were dropped before it.
    fn admit(&mut self, now_us: u64) -> Option<u64> {
        let second = now_us / 1_000_000;
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines >= LOG_LINES_PER_SECOND {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// Cuts at a character's boundary.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

impl pool::Host for Guest {
    fn len(&mut self) -> u32 {
        self.snapshot.members.len() as u32
    }

    fn active(&mut self, i: u32) -> u32 {
        self.view.active(i as usize)
    }

    fn active_total(&mut self) -> u32 {
        self.view.active_total()
    }

    fn latency_us(&mut self, i: u32) -> u32 {
        self.view.latency_us(i as usize)
    }

    fn throughput(&mut self, i: u32) -> u64 {
        self.view.throughput(i as usize)
    }

    fn usable(&mut self, i: u32) -> bool {
        self.snapshot
            .members
            .get(i as usize)
            .is_some_and(|member| member.usable)
    }

    fn active_all(&mut self) -> Vec<u32> {
        self.view.active_column()
    }

    fn latency_us_all(&mut self) -> Vec<u32> {
        self.view.latency_column()
    }

    fn throughput_all(&mut self) -> Vec<u64> {
        self.view.throughput_column()
    }

    fn delegate(&mut self, among: Vec<u32>) -> Option<u32> {
        self.head()?;
        let index = fallback::choose_among(&among, &self.snapshot, &self.view, &self.tried, self.random);
        index.map(|index| index as u32)
    }
}

impl request::Host for Guest {
    fn header(&mut self, name: String) -> Option<String> {
        self.reads(|reads| reads.header(&name));
        let value = self.head()?.field(&name)?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }

    fn header_hash(&mut self, name: String) -> Option<u64> {
        self.reads(|reads| reads.header(&name));
        field_hash(self.head()?, &name)
    }

    fn method(&mut self) -> String {
        self.head()
            .map(|head| head.method().to_owned())
            .unwrap_or_default()
    }

    fn authority(&mut self) -> String {
        self.head()
            .map(|head| head.authority().to_owned())
            .unwrap_or_default()
    }

    fn path(&mut self) -> String {
        self.head().map(|head| head.path().to_owned()).unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        self.head()?.query().map(str::to_owned)
    }

    fn cookie(&mut self, name: String) -> Option<String> {
        self.reads(|reads| reads.cookie(&name));
        self.head()?.cookie(&name).map(str::to_owned)
    }

    fn tried(&mut self, i: u32) -> bool {
        let member = self.snapshot.members.get(i as usize);
        self.is_picking && member.is_some_and(|member| self.tried.contains(member.backend.id))
    }

    fn reject(&mut self, status: u16) {
        if self.is_picking {
            self.rejected = Some(if (400..=599).contains(&status) {
                status
            } else {
                503
            });
        }
    }
}

impl diagnostics::Host for Guest {
    fn log(&mut self, level: u8, mut message: String) {
        cut(&mut message, LOG_LINE_BYTES);
        if level == 0 {
            self.log.last_words = Some(message.clone());
        }
        let Some(dropped) = self.log.admit(crate::clock::now_us()) else {
            return;
        };
        let Log {
            pool,
            policy,
            version,
            ..
        } = &self.log;
        macro_rules! say {
            ($event:ident) => {
                tracing::$event!(target: "policy", %pool, %policy, %version, dropped, "{message}")
            };
        }
        match level {
            0 => say!(error),
            1 => say!(warn),
            2 => say!(info),
            _ => say!(debug),
        }
    }

    fn note(&mut self, mut reason: String) {
        cut(&mut reason, NOTE_BYTES);
        self.note = Some(reason);
    }
}
