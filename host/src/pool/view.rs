//! One worker's picture of the live load of a pool: columns over the members of one snapshot.
//!
//! Owns the merging of all workers' counters, and of what other nodes said, and the memory of what was written last. The
//! worker's own requests appear in it at once; what other workers did is merged in at most once in [`View::interval_ms`], so that a pick never reads more than its own memory. It must not
//! know which algorithm reads it.
//!
//! Invariant: written by its worker only. Atomics (always relaxed) make it shareable with the guest's host functions
//! without a lock or `unsafe`; they cost what plain numbers do.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{
    Snapshot,
    load::LatencySum,
    others::{Told, is_any_told},
};

/// Merging is taken to cost some 40 ns a backend (an estimate); once in 4 us a backend keeps it near 1 % of a core.
const MERGE_US_PER_BACKEND: usize = 4;
/// Latency and throughput move slowly and cost more to merge: every eighth time, if anybody reads them.
const SLOW_COLUMNS_EVERY: u64 = 8;
/// While nobody has read them, not more often than this: whoever begins to finds nothing older, if requests come often.
const UNREAD_COLUMNS_MS: u64 = 1000;

/// Changes of requests in flight that are remembered: those of many picks, and few enough to be told one by one.
const RECENT: usize = 128;

/// Live columns, indexed like the snapshot's members.
#[derive(Debug)]
pub struct View {
    active: Box<[AtomicU32]>,
    /// What of `active` is other nodes', ...
    others: Box<[AtomicU32]>,
    /// ... and when they told it.
    told_ms: Box<[AtomicU64]>,
    latency_us: Box<[AtomicU32]>,
    throughput: Box<[AtomicU64]>,
    active_total: AtomicU32,
    merged_ms: AtomicU64,
    merges: AtomicU64,
    /// When latency and throughput were merged, ...
    slow_ms: AtomicU64,
    /// ... and whether anybody has read them.
    is_slow_read: AtomicBool,
    /// Whose `active` was written last, at the place of the write's number: backends by their index.
    recent: [AtomicU32; RECENT],
    /// How many writes there were.
    writes: AtomicU64,
}

/// What a backend's columns say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests in flight, those of other nodes included.
    pub active: u32,
    /// Average microseconds to the response head; 0 unmeasured.
    pub latency_us: u32,
    /// Body bytes per second.
    pub throughput: u64,
}

impl View {
    /// Columns for a snapshot, filled.
    pub fn new(snapshot: &Snapshot, now_us: u64) -> Self {
        let view = Self::without_load(snapshot);
        view.merge(snapshot, now_us);
        view
    }

    /// Columns for a snapshot, all 0, to be [`set`](View::set): for trials of a policy.
    pub fn without_load(snapshot: &Snapshot) -> Self {
        let len = snapshot.members.len();
        Self {
            active: (0..len).map(|_| AtomicU32::new(0)).collect(),
            others: (0..len).map(|_| AtomicU32::new(0)).collect(),
            told_ms: (0..len).map(|_| AtomicU64::new(Told::NEVER_MS)).collect(),
            latency_us: (0..len).map(|_| AtomicU32::new(0)).collect(),
            throughput: (0..len).map(|_| AtomicU64::new(0)).collect(),
            active_total: AtomicU32::new(0),
            merged_ms: AtomicU64::new(0),
            merges: AtomicU64::new(0),
            slow_ms: AtomicU64::new(0),
            is_slow_read: AtomicBool::new(false),
            recent: [const { AtomicU32::new(0) }; RECENT],
            writes: AtomicU64::new(0),
        }
    }

    /// Writes a backend's columns, until the next merge. Nothing happens for an index out of range.
    pub fn set(&self, index: usize, figures: Figures) {
        if let Some(active) = self.active.get(index) {
            let others = self.active_total().wrapping_sub(active.load(Relaxed));
            self.active_total
                .store(others.wrapping_add(figures.active), Relaxed);
            active.store(figures.active, Relaxed);
            self.note(index);
            self.latency_us[index].store(figures.latency_us, Relaxed);
            self.throughput[index].store(figures.throughput, Relaxed);
        }
    }

    /// Writes what of a backend's requests in flight is other nodes'. Nothing happens for an index out of range.
    pub fn set_others(&self, index: usize, told: Told) {
        if let Some(others) = self.others.get(index) {
            others.store(told.active, Relaxed);
            self.told_ms[index].store(told.told_ms, Relaxed);
        }
    }

    /// When the columns were filled.
    pub fn merged_ms(&self) -> u64 {
        self.merged_ms.load(Relaxed)
    }

    /// Says that they were filled at that time.
    pub fn set_merged_ms(&self, now_ms: u64) {
        self.merged_ms.store(now_ms, Relaxed);
    }

    /// Writes what is in flight to all backends: a recorded sum, which need not be that of the columns.
    pub fn set_active_total(&self, active: u32) {
        self.active_total.store(active, Relaxed);
    }

    /// A backend's columns; all 0 out of range.
    pub fn figures(&self, index: usize) -> Figures {
        Figures {
            active: self.active(index),
            latency_us: self.latency_us(index),
            throughput: self.throughput(index),
        }
    }

    /// Merges the other workers' counters if that is due.
    #[inline]
    pub fn refresh(&self, snapshot: &Snapshot, now_us: u64) {
        if now_us / 1000 >= self.merged_ms.load(Relaxed) + self.interval_ms() {
            self.merge(snapshot, now_us);
        }
    }

    /// How old another worker's share may be.
    fn interval_ms(&self) -> u64 {
        (self.active.len() * MERGE_US_PER_BACKEND / 1000).max(1) as u64
    }

    #[cold]
    fn merge(&self, snapshot: &Snapshot, now_us: u64) {
        debug_assert_eq!(snapshot.members.len(), self.active.len());
        let merges = self.merges.load(Relaxed);
        self.merges.store(merges + 1, Relaxed);
        self.merged_ms.store(now_us / 1000, Relaxed);
        let is_any_told = is_any_told();
        let mut total = 0;
        for (index, (member, column)) in snapshot.members.iter().zip(&self.active).enumerate() {
            let own: u32 = member.backend.active();
            let mut active = own;
            if is_any_told {
                let told = member.backend.others.told(now_us / 1000);
                self.set_others(index, told);
                // Nobody vouches for the sum of what others said.
                active = own.saturating_add(told.active);
            }
            if column.load(Relaxed) != active {
                column.store(active, Relaxed);
                self.note(index);
            }
            total = u32::saturating_add(total, active);
        }
        self.active_total.store(total, Relaxed);
        if merges == 0 || merges.is_multiple_of(SLOW_COLUMNS_EVERY) && self.is_slow_due(now_us / 1000) {
            self.merge_slow_columns(snapshot, now_us);
        }
    }

    /// Most policies never read latency or throughput, whose merging touches most of what there is of each backend.
    fn is_slow_due(&self, now_ms: u64) -> bool {
        self.is_slow_read.load(Relaxed) || now_ms >= self.slow_ms.load(Relaxed) + UNREAD_COLUMNS_MS
    }

    fn merge_slow_columns(&self, snapshot: &Snapshot, now_us: u64) {
        self.slow_ms.store(now_us / 1000, Relaxed);
        for (index, member) in snapshot.members.iter().enumerate() {
            let latency = member.backend.loads().map(|load| load.latency(now_us));
            let latency = latency
                .fold(LatencySum::default(), LatencySum::merge)
                .average_us(now_us);
            let bytes: u64 = member
                .backend
                .loads()
                .map(|load| load.throughput(now_us / 1000))
                .sum();
            self.latency_us[index].store(latency, Relaxed);
            self.throughput[index].store(bytes, Relaxed);
        }
    }

    #[inline]
    fn note(&self, index: usize) {
        let writes = self.writes.load(Relaxed);
        self.recent[writes as usize % RECENT].store(index as u32, Relaxed);
        self.writes.store(writes + 1, Relaxed);
    }

    /// How many backends there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// How often a backend's requests in flight were written so far.
    #[inline]
    pub fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// Which backend's they were at this write; `None` if that is too long ago, or was not yet.
    #[inline]
    pub fn written(&self, write: u64) -> Option<usize> {
        let age = self.writes().checked_sub(write)?;
        (1..=RECENT as u64)
            .contains(&age)
            .then(|| self.recent[write as usize % RECENT].load(Relaxed) as usize)
    }

    /// One of this worker's requests began.
    #[inline]
    pub fn begin(&self, index: usize) {
        if let Some(active) = self.active.get(index) {
            active.store(active.load(Relaxed) + 1, Relaxed);
            self.note(index);
            self.active_total
                .store(self.active_total.load(Relaxed) + 1, Relaxed);
        }
    }

    /// One of this worker's requests ended.
    #[inline]
    pub fn end(&self, index: usize) {
        if let Some(active) = self.active.get(index) {
            active.store(active.load(Relaxed).saturating_sub(1), Relaxed);
            self.note(index);
            self.active_total
                .store(self.active_total.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }

    /// Requests in flight to a backend; 0 out of range.
    #[inline]
    pub fn active(&self, index: usize) -> u32 {
        self.active.get(index).map_or(0, |value| value.load(Relaxed))
    }

    /// Those of them that are this node's own.
    #[inline]
    pub fn own_active(&self, index: usize) -> u32 {
        self.active(index).saturating_sub(self.others(index).active)
    }

    /// Those that are other nodes'; out of range nobody told anything.
    #[inline]
    pub fn others(&self, index: usize) -> Told {
        match (self.others.get(index), self.told_ms.get(index)) {
            (Some(active), Some(told_ms)) => Told {
                active: active.load(Relaxed),
                told_ms: told_ms.load(Relaxed),
            },
            _ => Told::NOTHING,
        }
    }

    /// Requests in flight to all backends.
    #[inline]
    pub fn active_total(&self) -> u32 {
        self.active_total.load(Relaxed)
    }

    #[inline]
    fn note_slow_read(&self) {
        self.is_slow_read.store(true, Relaxed);
    }

    /// Average latency of a backend in microseconds; 0 unmeasured or out of range.
    #[inline]
    pub fn latency_us(&self, index: usize) -> u32 {
        self.note_slow_read();
        self.latency_us.get(index).map_or(0, |value| value.load(Relaxed))
    }

    /// Body bytes per second of a backend; 0 out of range.
    #[inline]
    pub fn throughput(&self, index: usize) -> u64 {
        self.note_slow_read();
        self.throughput.get(index).map_or(0, |value| value.load(Relaxed))
    }

    /// A copy of the active column.
    pub fn active_column(&self) -> Vec<u32> {
        self.active.iter().map(|value| value.load(Relaxed)).collect()
    }

    /// Copies the active column into one of its length.
    pub(crate) fn copy_active(&self, column: &mut [u32]) {
        for (to, from) in column.iter_mut().zip(&self.active) {
            *to = from.load(Relaxed);
        }
    }

    /// A copy of the latency column.
    pub fn latency_column(&self) -> Vec<u32> {
        self.note_slow_read();
        self.latency_us.iter().map(|value| value.load(Relaxed)).collect()
    }

    /// A copy of the throughput column.
    pub fn throughput_column(&self) -> Vec<u64> {
        self.note_slow_read();
        self.throughput.iter().map(|value| value.load(Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{super::fixture, *};

    #[test]
    fn latency_is_merged_once_a_second_until_somebody_reads_it() {
        let pool = fixture::pool(fixture::config(&["127.0.0.1:1"]), None, Instant::now());
        let snapshot = pool.snapshot();
        let mut now_ms = 1000;
        let view = View::new(&snapshot, now_ms * 1000);
        let mut after = |merges, latency_us| {
            let load = snapshot.members[0].backend.load(0);
            load.record_latency(latency_us, now_ms * 1000);
            for _ in 0..merges {
                now_ms += 1;
                view.refresh(&snapshot, now_ms * 1000);
            }
            // Not by its function, which would be a read.
            view.latency_us[0].load(Relaxed)
        };
        assert_eq!(after(900, 500), 0);
        assert!((400..=500).contains(&after(100 + SLOW_COLUMNS_EVERY, 500)));
        assert!(after(SLOW_COLUMNS_EVERY, 100_000) <= 500);
        assert!(view.latency_us(0) <= 500);
        assert!(after(SLOW_COLUMNS_EVERY, 100_000) > 500);
    }
}
