//! A member whose process is replaced by another one, which is nobody's child here.

use crate::lab::{HOSTS, Lab};

impl Lab {
    /// Has another process of the program take over; [`Self::wait_for_upgrade`] waits for it.
    pub(crate) fn begin_upgrade(&self, member: usize) {
        assert_eq!(self.successors[member], None);
        self.signal(member, "-USR2");
    }

    pub(crate) fn wait_for_upgrade(&mut self, member: usize) {
        let log = format!("{}.log", HOSTS[member]);
        let old = self.id(member);
        let is_of_this = |line: &&str| line.contains("another process has taken over");
        let seen = std::cell::Cell::new(None);
        self.wait_until("another process takes over", |lab| {
            let text = lab.read(&log);
            let pid = text.lines().rfind(is_of_this).and_then(|line| {
                let (_, rest) = line.split_once("\"pid\":")?;
                rest.split(|c: char| !c.is_ascii_digit())
                    .next()?
                    .parse::<u32>()
                    .ok()
            });
            // One of an upgrade before is gone.
            seen.set(pid.filter(|pid| *pid != old && runs(*pid)));
            seen.get().is_some()
        });
        assert!(self.wait_for_end(member).success(), "{}", self.logs());
        self.successors[member] = seen.get();
    }

    /// Ends a process that took over, and starts one that is this one's own again.
    pub(crate) fn adopt(&mut self, member: usize) {
        self.signal(member, "-TERM");
        let id = self.successors[member].take().unwrap();
        self.wait_until("the successor ends", |_| !runs(id));
        self.start(member);
    }
}

/// A process that nobody waits for is a zombie at its end.
fn runs(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}
