//! Whether this thread has anything else to do.
//!
//! Owns the thread's clocks. A worker that runs, or waits for a core to run on, more than half of the time is busy: from
//! there on a request waits for others more often than not. The scheduler counts both times; where it does not show
//! them, the time waited for a core is missing, and a worker that others crowd out seems less busy than it is.

use std::{cell::RefCell, fs::File, os::unix::fs::FileExt, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Time between two looks. A look costs about a microsecond.
const LOOK_EVERY_US: u64 = 50_000;
/// Older than this, the last look says nothing about now.
const LOOK_AGE_MAX_US: u64 = 1_000_000;
const BUSY_PERCENT: u64 = 50;

/// The CPU time of this thread.
pub(super) fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Whether this thread was busy between the last two looks. Looks are made here, and only who is over a limit asks; so
/// after a pause the first answer is no.
pub(super) fn is_busy(now_us: u64) -> bool {
    thread_local! {
        static METER: RefCell<Meter> = RefCell::new(Meter::new());
    }
    METER.with_borrow_mut(|meter| {
        if now_us.saturating_sub(meter.looked_us) >= LOOK_EVERY_US {
            let wanted_us = meter.wanted_us();
            meter.look(now_us, wanted_us);
        }
        meter.is_busy
    })
}

struct Meter {
    /// Times of this thread: run, and waited to run.
    schedstat: Option<File>,
    looked_us: u64,
    /// At that time: how long this thread had wanted to run.
    wanted_us: u64,
    is_busy: bool,
}

impl Meter {
    fn new() -> Self {
        Self {
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            looked_us: 0,
            wanted_us: 0,
            is_busy: false,
        }
    }

    fn wanted_us(&self) -> u64 {
        let told = self.schedstat.as_ref().and_then(read);
        told.unwrap_or_else(|| thread_cpu().as_micros() as u64)
    }

    fn look(&mut self, now_us: u64, wanted_us: u64) {
        let passed_us = now_us.saturating_sub(self.looked_us);
        let ran_us = wanted_us.saturating_sub(self.wanted_us);
        self.is_busy = passed_us <= LOOK_AGE_MAX_US && ran_us * 100 >= passed_us * BUSY_PERCENT;
        (self.looked_us, self.wanted_us) = (now_us, wanted_us);
    }
}

/// Nanoseconds run, nanoseconds waited, and a count, in one line.
fn read(schedstat: &File) -> Option<u64> {
    let mut line = [0; 64];
    let length = schedstat.read_at(&mut line, 0).ok()?;
    parse(std::str::from_utf8(&line[..length]).ok()?)
}

fn parse(line: &str) -> Option<u64> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((ran.saturating_add(waited)) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_busy_from_half_of_the_time_on() {
        let mut meter = Meter::new();
        meter.look(10_000_000, 5_000_000);
        assert!(!meter.is_busy, "nothing is known yet");
        meter.look(10_100_000, 5_050_000);
        assert!(meter.is_busy);
        meter.look(10_200_000, 5_099_999);
        assert!(!meter.is_busy);
        meter.look(20_200_000, 15_099_999);
        assert!(!meter.is_busy, "long ago");
    }

    #[test]
    fn the_schedulers_line_is_read() {
        assert_eq!(parse("292380 1007620 3\n"), Some(1300));
        assert_eq!(parse("292380\n"), None);
        assert_eq!(parse(""), None);
    }
}
