//! What a guest may call.
//!
//! Owns the host's side of `pool`, `nodes`, `request` and `diagnostics`. Nothing here blocks, allocates more than its answer, or
//! calls back into a guest.
//!
//! Invariant: every function is total. An index out of range, a name that is no header, a call outside `pick`: all have
//! a quiet answer, so a guest cannot fault the host.

use std::sync::Arc;

use super::{
    Facts, Tried,
    bindings::trimtab::policy::{diagnostics, nodes, pool, request},
    changes::{self, Known},
    fallback,
    grants::Restrictions,
    lent::Column,
    native::{Algorithm, Ground, Native},
    record::Reads,
    request::field_hash,
    store::{Limits, Overtime, Owner},
    text::tame,
    wasi::Wasi,
};
use crate::{
    http1::Head,
    pool::{Snapshot, Told, View},
    tenant::Tenant,
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
    /// `None` where the policy may read everything.
    pub(super) restrictions: Option<Box<Restrictions>>,
    /// Reset before every call into the guest.
    pub(super) overtime: Overtime,
    /// The request being decided, while `is_picking`; an empty one otherwise.
    pub(super) head: Head,
    pub(super) is_picking: bool,
    pub(super) tried: Tried,
    /// Those of the pick; of `update` and `outcomes`, the time of the call.
    pub(super) facts: Facts,
    /// What `pool.delegate-to` remembers from pick to pick.
    pub(super) native: Native,
    pub(super) rejected: Option<u16>,
    pub(super) note: Option<String>,
    /// Only while the instance is recorded or replayed.
    pub(super) reads: Option<Reads>,
    pub(super) log: Log,
    /// What the guest knows of the requests in flight.
    pub(super) known: Known,
    pub(super) column: Column,
    /// Of a guest that was granted it, once it used it.
    pub(super) wasi: Option<Box<Wasi>>,
}

impl Guest {
    fn head(&self) -> Option<&Head> {
        self.is_picking.then_some(&self.head)
    }

    /// The same, if the guest may see all of it and nobody notes what it reads.
    #[inline]
    pub(super) fn open_head(&self) -> Option<&Head> {
        self.head()
            .filter(|_| self.restrictions.is_none() && self.reads.is_none())
    }

    /// Lets an algorithm of the host choose, for the current pick.
    fn delegated(&mut self, algorithm: Option<Algorithm>, among: &[u32]) -> Option<u32> {
        if !self.is_picking {
            return None;
        }
        let ground = Ground {
            snapshot: &self.snapshot,
            view: &self.view,
            tried: &self.tried,
            facts: &self.facts,
            head: &self.head,
            among: Some(among),
        };
        let index = match algorithm {
            Some(algorithm) => self.native.choose(algorithm, &ground),
            None => fallback::choose_among(&ground),
        };
        index.map(|index| index as u32)
    }

    #[inline]
    pub(super) fn hides_load(&self) -> bool {
        self.restrictions
            .as_ref()
            .is_some_and(|restrictions| restrictions.hides_load())
    }

    #[inline]
    fn own_active_of(&self, index: usize) -> u32 {
        match self.hides_load() {
            true => 0,
            false => self.view.own_active(index),
        }
    }

    #[inline]
    fn told_of(&self, index: usize) -> Told {
        match self.hides_load() {
            true => Told::NOTHING,
            false => self.view.others(index),
        }
    }

    /// Notes what a recorded or replayed policy asks for. What it is not granted it does not read.
    #[inline]
    fn reads_header(&mut self, name: &str) {
        if let Some(reads) = &mut self.reads {
            let restrictions = self.restrictions.as_ref();
            if restrictions.is_none_or(|restrictions| restrictions.shows_header(name)) {
                reads.header(name);
            }
        }
    }

    #[inline]
    fn reads_cookie(&mut self, name: &str) {
        if let Some(reads) = &mut self.reads {
            let restrictions = self.restrictions.as_ref();
            if restrictions.is_none_or(|restrictions| restrictions.shows_cookie(name)) {
                reads.cookie(name);
            }
        }
    }
}

/// Who speaks, and how much it already said.
pub(super) struct Log {
    pub(super) pool: Arc<str>,
    pub(super) policy: Arc<str>,
    pub(super) version: Arc<str>,
    tenant: Option<Arc<Tenant>>,
    second: u64,
    lines: u32,
    dropped: u64,
    /// The last line at level error in the current call: why a guest is about to trap, if it says so.
    last_words: Option<String>,
}

impl Log {
    pub(super) fn new(owner: &Owner<'_>, policy: Arc<str>, version: Arc<str>) -> Self {
        Self {
            pool: owner.pool.into(),
            policy,
            version,
            tenant: owner.tenant.cloned(),
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
        let is_within = |tenant: &Arc<Tenant>| tenant.admit_log(now_us);
        if self.lines >= LOG_LINES_PER_SECOND || !self.tenant.as_ref().is_none_or(is_within) {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

impl pool::Host for Guest {
    fn len(&mut self) -> u32 {
        self.snapshot.members.len() as u32
    }

    fn active(&mut self, i: u32) -> u32 {
        if self.hides_load() {
            return 0;
        }
        self.view.active(i as usize)
    }

    fn active_total(&mut self) -> u32 {
        if self.hides_load() {
            return 0;
        }
        self.view.active_total()
    }

    fn latency_us(&mut self, i: u32) -> u32 {
        if self.hides_load() {
            return 0;
        }
        self.view.latency_us(i as usize)
    }

    fn throughput(&mut self, i: u32) -> u64 {
        if self.hides_load() {
            return 0;
        }
        self.view.throughput(i as usize)
    }

    fn usable(&mut self, i: u32) -> bool {
        self.snapshot
            .members
            .get(i as usize)
            .is_some_and(|member| member.usable)
    }

    fn active_all(&mut self) -> Vec<u32> {
        self.known = Known::until(self.view.writes());
        if self.hides_load() {
            return vec![0; self.snapshot.members.len()];
        }
        self.view.active_column()
    }

    fn active_changes(&mut self) -> u64 {
        if self.hides_load() {
            return changes::NONE;
        }
        self.known.next(&self.view)
    }

    fn latency_us_all(&mut self) -> Vec<u32> {
        if self.hides_load() {
            return vec![0; self.snapshot.members.len()];
        }
        self.view.latency_column()
    }

    fn throughput_all(&mut self) -> Vec<u64> {
        if self.hides_load() {
            return vec![0; self.snapshot.members.len()];
        }
        self.view.throughput_column()
    }

    fn delegate(&mut self, among: Vec<u32>) -> Option<u32> {
        self.delegated(None, &among)
    }

    fn delegate_to(&mut self, algorithm: String, among: Vec<u32>) -> Option<u32> {
        let named = Algorithm::named(&algorithm);
        if named.is_none() {
            diagnostics::Host::log(
                self,
                1,
                format!("delegates to {algorithm:?}, which the host does not have"),
            );
        }
        self.delegated(Some(named?), &among)
    }
}

impl nodes::Host for Guest {
    fn own_active(&mut self, i: u32) -> u32 {
        self.own_active_of(i as usize)
    }

    fn others_active(&mut self, i: u32) -> u32 {
        self.told_of(i as usize).active
    }

    fn others_age_ms(&mut self, i: u32) -> u32 {
        self.told_of(i as usize).age_ms(self.facts.now_us / 1000)
    }

    fn own_active_all(&mut self) -> Vec<u32> {
        let indices = 0..self.snapshot.members.len();
        indices.map(|index| self.own_active_of(index)).collect()
    }

    fn others_active_all(&mut self) -> Vec<u32> {
        let indices = 0..self.snapshot.members.len();
        indices.map(|index| self.told_of(index).active).collect()
    }

    fn others_age_ms_all(&mut self) -> Vec<u32> {
        let now_ms = self.facts.now_us / 1000;
        let indices = 0..self.snapshot.members.len();
        indices.map(|index| self.told_of(index).age_ms(now_ms)).collect()
    }
}

impl request::Host for Guest {
    fn header(&mut self, name: String) -> Option<String> {
        self.reads_header(&name);
        let head = self.head()?;
        if let Some(restrictions) = &self.restrictions {
            return restrictions.header(head, &name);
        }
        let value = head.field(&name)?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }

    fn header_hash(&mut self, name: String) -> Option<u64> {
        self.reads_header(&name);
        let head = self.head()?;
        match &self.restrictions {
            None => field_hash(head, &name),
            Some(restrictions) => restrictions.header_hash(head, &name),
        }
    }

    fn method(&mut self) -> String {
        let method = self.head().map(|head| match &self.restrictions {
            None => head.method().to_owned(),
            Some(restrictions) => restrictions.method(head),
        });
        method.unwrap_or_default()
    }

    fn authority(&mut self) -> String {
        let authority = self.head().map(|head| match &self.restrictions {
            None => head.authority().to_owned(),
            Some(restrictions) => restrictions.authority(head),
        });
        authority.unwrap_or_default()
    }

    fn path(&mut self) -> String {
        let path = self.head().map(|head| match &self.restrictions {
            None => head.path().to_owned(),
            Some(restrictions) => restrictions.path(head),
        });
        path.unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        let head = self.head()?;
        match &self.restrictions {
            None => head.query().map(str::to_owned),
            Some(restrictions) => restrictions.query(head),
        }
    }

    fn cookie(&mut self, name: String) -> Option<String> {
        self.reads_cookie(&name);
        let head = self.head()?;
        match &self.restrictions {
            None => head.cookie(&name).map(str::to_owned),
            Some(restrictions) => restrictions.cookie(head, &name),
        }
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
    fn log(&mut self, level: u8, message: String) {
        let message = tame(message, LOG_LINE_BYTES);
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

    fn note(&mut self, reason: String) {
        self.note = Some(tame(reason, NOTE_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use trimtab_tests::guest::Guest as Module;

    use super::*;
    use crate::{
        config::{self, Grant},
        policy::{Answer, Candidate, Engine, Trial, fixture as policies},
        pool::{Figures, fixture},
    };

    /// What it answers whose pick is as many as are in flight to the first backend, if anybody tells anything of it.
    fn answer(load: Grant) -> Answer {
        let import = |name: &str| {
            format!(
                "(import \"trimtab:policy/nodes@0.1.1\" \"{name}\" (func ${name} (param i32) (result i32)))"
            )
        };
        let module = Module {
            imports: ["own-active", "others-active", "others-age-ms"]
                .map(import)
                .concat(),
            pick: "(if (i32.eq (call $others-age-ms (i32.const 0)) (i32.const -1))
                     (then (return (call $none))))
                   (call $some
                     (i32.add (call $own-active (i32.const 0)) (call $others-active (i32.const 0))))"
                .to_owned(),
            ..Module::default()
        };
        let spec = config::Policy {
            grants: config::Grants {
                load,
                ..config::Grants::everything()
            },
            ..policies::spec("p")
        };
        let engine = Engine::new().unwrap();
        let candidate = Candidate::compile(&engine, spec.into(), &module.bare()).unwrap();
        let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let pool = fixture::pool(fixture::config(&addresses), None, Instant::now());
        let mut trial = Trial::new(&candidate, &pool.snapshot()).unwrap();
        let figures = Figures {
            active: 2,
            ..Figures::default()
        };
        trial.set_load(0, figures);
        let told = Told {
            active: 1,
            told_ms: 0,
        };
        trial.set_others(0, told);
        let asked = trial.pick(&Facts::default(), &Tried::default(), &mut Head::default());
        asked.unwrap()
    }

    #[test]
    fn who_is_not_granted_the_load_is_told_nothing_of_any_node() {
        assert_eq!(answer(Grant::Allow), Answer::Index(2));
        assert_eq!(answer(Grant::Deny), Answer::Abstain);
    }
}
