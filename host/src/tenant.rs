//! Tenants at run time: what their guests have used, and whether they may use more.
//!
//! Owns the accounts of memory, CPU time and log lines. It must not know guests or pools: callers say what was used, and
//! do something about a no. A tenant lives over reloads, because what its old instances hold still counts.
//!
//! Invariant: a worker's CPU account has one writer. Memory and log lines are shared by all workers, and touched only
//! where memory grows or a line is written, never by an ordinary pick.
//! Read next: `tenant/share.rs` (the CPU account), `config/tenant.rs` (the budgets).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::config;

mod busy;
mod share;

pub use share::{Account, Run, Share};

/// A tenant of the balancer.
#[derive(Debug)]
pub struct Tenant {
    budgets: ArcSwap<config::Tenant>,
    /// Of `budgets`, where every pick can read it: percent of a worker; 0 is no limit.
    cpu: AtomicU64,
    /// Of `budgets`, or more while a reload is being prepared.
    memory_max: AtomicU64,
    memory: AtomicU64,
    memory_denied: AtomicU64,
    /// A second, and how many lines were written in it.
    log: AtomicU64,
    log_dropped: AtomicU64,
    accounts: Box<[CachePadded<Account>]>,
}

/// Bits of `log` that count; more lines than fit are never allowed in a second.
const LOG_COUNT_BITS: u32 = 20;

impl Tenant {
    /// A tenant that has used nothing yet.
    pub fn new(budgets: Arc<config::Tenant>, workers: usize) -> Self {
        let tenant = Self {
            cpu: AtomicU64::new(0),
            memory_max: AtomicU64::new(0),
            budgets: ArcSwap::new(budgets.clone()),
            memory: AtomicU64::new(0),
            memory_denied: AtomicU64::new(0),
            log: AtomicU64::new(0),
            log_dropped: AtomicU64::new(0),
            accounts: (0..workers).map(|_| CachePadded::default()).collect(),
        };
        tenant.set(budgets);
        tenant
    }

    /// Puts these budgets into force.
    pub fn set(&self, budgets: Arc<config::Tenant>) {
        let cpu = budgets.cpu.map_or(0, |percent| u64::from(percent.get()));
        self.cpu.store(cpu, Relaxed);
        self.memory_max.store(budgets.memory_bytes, Relaxed);
        self.budgets.store(budgets);
    }

    /// Lets instances for these budgets be built before they are in force, which takes nothing from those that serve.
    pub fn make_room(&self, budgets: &config::Tenant) {
        self.memory_max.fetch_max(budgets.memory_bytes, Relaxed);
    }

    /// The budgets in force.
    pub fn budgets(&self) -> Arc<config::Tenant> {
        self.budgets.load_full()
    }

    /// Takes memory into account, if there is room for it.
    pub fn claim(&self, bytes: u64) -> bool {
        let most = self.memory_max.load(Relaxed);
        let claimed = self.memory.fetch_update(Relaxed, Relaxed, |held| {
            held.checked_add(bytes).filter(|held| *held <= most)
        });
        self.memory_denied.fetch_add(u64::from(claimed.is_err()), Relaxed);
        claimed.is_ok()
    }

    /// Gives back what was claimed.
    pub fn release(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Relaxed);
    }

    /// Whether one of its guests may write another log line.
    pub fn admit_log(&self, now_us: u64) -> bool {
        let second = now_us / 1_000_000;
        let most = u64::from(self.budgets.load().log_lines);
        let written = self.log.fetch_update(Relaxed, Relaxed, |log| {
            // Never back: workers that straddle a second's end would begin it anew in turn.
            let second = second.max(log >> LOG_COUNT_BITS);
            let count = match log >> LOG_COUNT_BITS == second {
                true => log & ((1 << LOG_COUNT_BITS) - 1),
                false => 0,
            };
            (count < most).then_some((second << LOG_COUNT_BITS) | (count + 1))
        });
        self.log_dropped.fetch_add(u64::from(written.is_err()), Relaxed);
        written.is_ok()
    }

    /// What its guests may use of a worker's time; `None` without a limit, and then nothing is accounted.
    #[inline]
    pub fn share(&self, worker: usize) -> Option<Share<'_>> {
        match self.cpu.load(Relaxed) {
            0 => None,
            percent => Some(Share::new(percent, self.accounts.get(worker)?)),
        }
    }

    /// Memory and tables of its guests, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// How often one of them was denied more.
    pub fn memory_denied(&self) -> u64 {
        self.memory_denied.load(Relaxed)
    }

    /// Log lines dropped because others had been written in the same second.
    pub fn log_dropped(&self) -> u64 {
        self.log_dropped.load(Relaxed)
    }

    /// Time spent in its guests, in microseconds, while it had a CPU share.
    pub fn cpu_us(&self) -> u64 {
        self.accounts.iter().map(|account| account.used_us()).sum()
    }

    /// Decisions that the host made because its guests had used their share.
    pub fn throttled(&self) -> u64 {
        self.accounts.iter().map(|account| account.throttled()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(memory_bytes: u64, log_lines: u32) -> Tenant {
        Tenant::new(Arc::new(budgets(memory_bytes, log_lines)), 1)
    }

    fn budgets(memory_bytes: u64, log_lines: u32) -> config::Tenant {
        config::Tenant {
            name: "shop".into(),
            hosts: Vec::new(),
            memory_bytes,
            deadline: std::time::Duration::from_millis(1),
            cpu: None,
            log_lines,
            series: 100,
        }
    }

    #[test]
    fn memory_is_granted_up_to_the_budget_and_again_when_it_came_back() {
        let tenant = tenant(100, 0);
        assert!(tenant.claim(60) && tenant.claim(40));
        assert!(!tenant.claim(1) && !tenant.claim(u64::MAX));
        tenant.release(40);
        assert!(tenant.claim(40));
        assert_eq!((tenant.memory(), tenant.memory_denied()), (100, 2));
    }

    #[test]
    fn a_reload_makes_room_before_it_takes_any() {
        let tenant = tenant(100, 0);
        tenant.make_room(&budgets(50, 0));
        assert!(tenant.claim(100), "what serves keeps its budget");
        tenant.make_room(&budgets(200, 0));
        assert!(tenant.claim(100), "what is built has its new one");
        tenant.set(Arc::new(budgets(200, 0)));
        assert!(!tenant.claim(1));
    }

    #[test]
    fn log_lines_are_counted_by_the_second() {
        let tenant = tenant(0, 2);
        let written = |now_us| (0..5).filter(|_| tenant.admit_log(now_us)).count();
        assert_eq!(
            (written(1_000_000), written(1_999_999), written(2_000_000)),
            (2, 0, 2)
        );
        assert_eq!(tenant.log_dropped(), 3 + 5 + 3);
    }

    #[test]
    fn a_worker_still_in_the_last_second_does_not_begin_the_next_anew() {
        let tenant = tenant(0, 2);
        let times = [2_000_000, 1_999_999, 2_000_000, 1_999_999, 2_000_001];
        let admitted = times.map(|now_us| tenant.admit_log(now_us));
        assert_eq!(admitted, [true, true, false, false, false]);
    }
}
