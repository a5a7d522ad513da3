//! The faults of a storm, one at a time.

use crate::{
    network::Link,
    world::{Happening, World},
};

/// Between two faults.
const PAUSE_MAX_US: u64 = 1_500_000;

impl World {
    /// A fault, and when the next one comes.
    pub(crate) fn blow(&mut self) -> u64 {
        let member = self.random.usize(..self.members.len());
        match self.random.u8(..11) {
            0 | 1 => {
                let other = self.random.usize(..self.members.len());
                self.links[member][other] = Link::bad(&mut self.random);
            }
            2 => self.isolate(member),
            3 => {
                let bad = Link::bad(&mut self.random);
                self.links.iter_mut().flatten().for_each(|link| *link = bad);
            }
            4 => self
                .links
                .iter_mut()
                .flatten()
                .for_each(|link| *link = Link::GOOD),
            5 => {
                let pause_us = self.random.u64(10_000..3_000_000);
                self.freeze(member, pause_us);
            }
            6 | 7 => {
                let pause_us = self.random.u64(..1_500_000);
                self.crash(member, pause_us);
            }
            8 => self.order_transfer(member),
            9 => {
                let is_meant = self.random.u8(..3) > 0;
                self.order_parting(member, is_meant);
            }
            _ => {
                let is_fit = self.random.u8(..3) > 0;
                self.set_fit(member, is_fit);
            }
        }
        if self.random.u8(..60) == 0 {
            // A power cut.
            for member in 0..self.members.len() {
                let pause_us = self.random.u64(..500_000);
                self.crash(member, pause_us);
            }
        }
        let pause_us = self.random.u64(1_000..PAUSE_MAX_US);
        self.now_us() + pause_us
    }

    /// A member that hears, or says, or does neither.
    fn isolate(&mut self, member: usize) {
        let way = self.random.u8(..3);
        for other in 0..self.members.len() {
            if way != 0 {
                self.links[member][other].is_cut = true;
            }
            if way != 1 {
                self.links[other][member].is_cut = true;
            }
        }
    }

    fn freeze(&mut self, member: usize, pause_us: u64) {
        let until_us = self.now_us() + pause_us;
        self.members[member].frozen_until_us = until_us;
        self.plan(until_us, Happening::Thaw(member));
    }

    fn crash(&mut self, member: usize, pause_us: u64) {
        self.members[member].core = None;
        self.members[member].is_to_part = false;
        self.members[member].waiting.clear();
        let at_us = self.now_us() + pause_us;
        self.plan(at_us, Happening::Start(member));
    }

    /// All faults end: whatever is down starts now.
    pub(crate) fn calm(&mut self) {
        self.links
            .iter_mut()
            .flatten()
            .for_each(|link| *link = Link::GOOD);
        for member in 0..self.members.len() {
            self.members[member].frozen_until_us = 0;
            if self.members[member].core.is_none() {
                self.start(member);
            }
            self.thaw(member);
            self.set_fit(member, true);
            self.order_parting(member, false);
        }
    }
}
