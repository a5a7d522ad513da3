//! A tenant's share of a worker's time.
//!
//! Owns the account: a bucket that fills with the tenant's percentage of the time that passes, up to that of a window,
//! and that its guests' time empties. While it is in debt its guests do not run, unless nobody else wants the worker.
//!
//! The clock that costs 25 ns tells time, and not whose it was: a worker may lose its core in the middle of a pick. The
//! clock that tells CPU time is a system call. So a pick is timed by the first; one that seems long is charged as long
//! as that clock can be believed, and for a while after it the second clock has the last word on the tenant's picks. A
//! guest that runs long once in a hundred picks is thus charged all of it but the first.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::busy;

/// What a tenant may save up, and so the longest burst at full speed: its percentage of this.
const WINDOW_US: u64 = 500_000;
/// A pick that seems longer may have been interrupted.
const LONG_US: u64 = 200;
/// How long the CPU clock has the last word after such a pick.
const SUSPICION_US: u64 = 10_000_000;
/// Time without a pick that counts at most, so that no sum overflows.
const ABSENCE_MAX_US: u64 = 3_600_000_000;

/// A tenant's use of one worker, which is its only writer.
#[derive(Debug, Default)]
pub struct Account {
    /// In microseconds of a hundred percent; negative is a debt.
    balance: AtomicI64,
    filled_us: AtomicU64,
    suspected_until_us: AtomicU64,
    used_us: AtomicU64,
    throttled: AtomicU64,
}

impl Account {
    pub(super) fn used_us(&self) -> u64 {
        self.used_us.load(Relaxed)
    }

    pub(super) fn throttled(&self) -> u64 {
        self.throttled.load(Relaxed)
    }
}

/// An account and the percentage that fills it.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    percent: u64,
    account: &'a Account,
}

/// A guest that runs.
#[derive(Debug)]
pub struct Run {
    began_us: u64,
    /// The thread's CPU time, where that is to be known.
    cpu: Option<Duration>,
}

impl<'a> Share<'a> {
    pub(super) fn new(percent: u64, account: &'a Account) -> Self {
        Self { percent, account }
    }

    /// Whether the tenant's guests may run now. Has to be asked by the account's worker.
    #[inline]
    pub fn admits(self, now_us: u64) -> bool {
        self.admits_while(now_us, busy::is_busy)
    }

    fn admits_while(self, now_us: u64, is_busy: impl FnOnce(u64) -> bool) -> bool {
        let Account {
            balance, filled_us, ..
        } = self.account;
        let passed_us = now_us.saturating_sub(filled_us.load(Relaxed)).min(ABSENCE_MAX_US);
        let full = (WINDOW_US * self.percent) as i64;
        let now = full.min(balance.load(Relaxed) + (passed_us * self.percent) as i64);
        filled_us.store(now_us, Relaxed);
        balance.store(now, Relaxed);
        if now >= 0 {
            return true;
        }
        if is_busy(now_us) {
            let throttled = &self.account.throttled;
            throttled.store(throttled.load(Relaxed) + 1, Relaxed);
            return false;
        }
        // What nobody else wanted is no debt.
        balance.store(0, Relaxed);
        true
    }

    /// One of its guests begins to run.
    #[inline]
    pub fn begin(self, now_us: u64) -> Run {
        let is_suspected = now_us < self.account.suspected_until_us.load(Relaxed);
        Run {
            began_us: now_us,
            cpu: is_suspected.then(busy::thread_cpu),
        }
    }

    /// It has ended.
    #[inline]
    pub fn end(self, run: &Run, now_us: u64) {
        self.charge(run, now_us, busy::thread_cpu);
    }

    #[inline]
    fn charge(self, run: &Run, now_us: u64, cpu: impl FnOnce() -> Duration) {
        let seemed_us = now_us.saturating_sub(run.began_us);
        let mut used_us = seemed_us;
        if seemed_us > LONG_US {
            let suspected_until = &self.account.suspected_until_us;
            used_us = match run.cpu {
                Some(before) => {
                    let ran_us = cpu().saturating_sub(before).as_micros() as u64;
                    if ran_us > LONG_US {
                        suspected_until.store(now_us + SUSPICION_US, Relaxed);
                    }
                    ran_us
                }
                None => {
                    suspected_until.store(now_us + SUSPICION_US, Relaxed);
                    LONG_US
                }
            };
        }
        let Account {
            balance,
            used_us: sum,
            ..
        } = self.account;
        balance.store(balance.load(Relaxed) - (used_us * 100) as i64, Relaxed);
        sum.store(sum.load(Relaxed) + used_us, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: u64 = 10;

    /// A worker that asks every 100 us, and whose guest runs as long as `cost` says of each pick that it gets. Gives the
    /// share of the time that it ran.
    fn run(account: &Account, seconds: u64, is_busy: bool, cost: impl Fn(u64) -> u64) -> f64 {
        let share = Share::new(PERCENT, account);
        let began_us = account.filled_us.load(Relaxed) + 10_000_000;
        let (mut now_us, mut ran_us, mut picks) = (began_us, 0, 0);
        while now_us < began_us + seconds * 1_000_000 {
            if share.admits_while(now_us, |_| is_busy) {
                let run = Run {
                    began_us: now_us,
                    cpu: (now_us < account.suspected_until_us.load(Relaxed)).then_some(Duration::ZERO),
                };
                let cost_us = cost(picks);
                picks += 1;
                share.charge(&run, now_us + cost_us, || Duration::from_micros(cost_us));
                ran_us += cost_us;
                now_us += cost_us;
            }
            now_us += 100;
        }
        ran_us as f64 / (now_us - began_us) as f64
    }

    #[test]
    fn a_guest_within_its_share_is_never_throttled() {
        let account = Account::default();
        let share = run(&account, 20, true, |_| 5);
        assert!((0.04..0.05).contains(&share), "{share}");
        assert_eq!(account.throttled(), 0);
    }

    #[test]
    fn a_guest_over_its_share_gets_it_and_no_more() {
        for cost in [50, 1000, 40_000] {
            let account = Account::default();
            let share = run(&account, 60, true, |_| cost);
            assert!((0.095..0.115).contains(&share), "{cost} us a pick: {share}");
            assert!(account.throttled() > 1000);
        }
    }

    #[test]
    fn a_guest_that_runs_long_once_in_a_hundred_picks_is_charged_for_it() {
        // 1 ms in 100 picks of 100 us is 9 percent; 4 ms are 28.
        let account = Account::default();
        let share = run(&account, 60, true, |pick| if pick % 100 == 7 { 4000 } else { 1 });
        assert!((0.095..0.115).contains(&share), "{share}");
        assert!(account.throttled() > 1000);
    }

    #[test]
    fn a_guest_may_use_what_nobody_wants_and_owes_nothing_for_it() {
        let account = Account::default();
        let share = run(&account, 10, false, |_| 1000);
        assert!(share > 0.9, "{share}");
        assert_eq!(account.throttled(), 0);
        let share = Share::new(PERCENT, &account);
        let now_us = account.filled_us.load(Relaxed) + 1_000_000;
        assert!(share.admits_while(now_us, |_| true), "no debt is left");
    }

    #[test]
    fn a_worker_that_lost_its_core_is_not_the_guests_fault() {
        let account = Account::default();
        let share = Share::new(PERCENT, &account);
        // Each pick seems to take 50 ms and takes 1 us.
        for pick in 0..100 {
            let now_us = 1_000_000 + pick * 100_000;
            assert!(share.admits_while(now_us, |_| true), "pick {pick}");
            let cpu = (now_us < account.suspected_until_us.load(Relaxed)).then_some(Duration::ZERO);
            let run = Run {
                began_us: now_us,
                cpu,
            };
            share.charge(&run, now_us + 50_000, || Duration::from_micros(1));
        }
        assert!(account.used_us() < 1000, "{}", account.used_us());
    }
}
