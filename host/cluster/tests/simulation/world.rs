//! The members, what reaches them when, and the judge who sees all gates at once.

use std::collections::BinaryHeap;

use trimtab_cluster::{
    Action, Closing, Core, Event, Member, MemberId, Message, Mutation, Role, Settings, Standing, WhenAlone,
};

use crate::{clock::Clock, network::Link};

const HEARTBEAT_US: u64 = 100_000;
pub(crate) const LEASE_US: u64 = 400_000;
const MARGIN_US: u64 = 50_000;
/// A kernel closes a gate up to so late, and a thread wakes up.
const LATE_MAX_US: u64 = 15_000;
const STORM_US: std::ops::Range<u64> = 1_000_000..60_000_000;
const CALM_US: std::ops::Range<u64> = 2_000_000..10_000_000;
/// For all members to begin anew, one after the other.
const REPLACED_WITHIN_US: u64 = 15_000_000;
/// Between two gates at a transfer.
const HANDED_OVER_WITHIN_US: u64 = 100_000;
/// Until the next process is the member.
const REPLACED_US: u64 = 100_000;

/// What cluster is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) roles: &'static [Role],
    pub(crate) when_alone: WhenAlone,
    pub(crate) mutation: Option<Mutation>,
}

/// One member's machine.
pub(crate) struct Machine {
    clock: Clock,
    /// `None` while it is down.
    pub(crate) core: Option<Core>,
    /// Counts its starts.
    boot: u32,
    pub(crate) frozen_until_us: u64,
    /// What arrived while it was frozen.
    pub(crate) waiting: Vec<Event>,
    /// When the kernel closes its gate: it does so even for a process that is frozen or dead.
    gate_us: u64,
    /// Whom it voted for in truth, until when, and in which start.
    vote: Option<(MemberId, u64, u32)>,
    /// The wake-up that counts.
    wake_us: u64,
    pub(crate) is_to_part: bool,
    /// How often it parted, to begin anew.
    parted: u32,
}

#[derive(Debug)]
pub(crate) enum Happening {
    Deliver(usize, Event),
    Wake(usize),
    /// The gate of this start is closed.
    Closed(usize, u32),
    Thaw(usize),
    Start(usize),
    /// Whoever is active hands over if it is to part.
    HandOver,
    Fault,
}

/// A happening at its time; of two at one time, the one that was planned first.
struct Planned {
    at_us: u64,
    number: u64,
    what: Happening,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Planned {}

pub(crate) struct World {
    shape: Shape,
    now_us: u64,
    pub(crate) random: fastrand::Rng,
    pub(crate) members: Vec<Machine>,
    /// From, to.
    pub(crate) links: Vec<Vec<Link>>,
    agenda: BinaryHeap<Planned>,
    planned: u64,
    /// What the judge saw first.
    wrong: Option<String>,
    /// Who began the last lease.
    holder: Option<usize>,
    /// Leases that nobody renewed.
    lapsed: u64,
    /// How long no gate was open.
    idle_us: u64,
    /// Leases that began.
    pub(crate) leases: u64,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let machine = |random: &mut fastrand::Rng| Machine {
            clock: Clock::new(random),
            core: None,
            boot: 0,
            frozen_until_us: 0,
            waiting: Vec::new(),
            gate_us: 0,
            vote: None,
            wake_us: u64::MAX,
            is_to_part: false,
            parted: 0,
        };
        let count = shape.roles.len();
        let mut world = Self {
            shape,
            now_us: 0,
            members: (0..count).map(|_| machine(&mut random)).collect(),
            random,
            links: vec![vec![Link::GOOD; count]; count],
            agenda: BinaryHeap::new(),
            planned: 0,
            wrong: None,
            holder: None,
            lapsed: 0,
            idle_us: 0,
            leases: 0,
            steps: 0,
        };
        for member in 0..count {
            let at_us = world.random.u64(..300_000);
            world.plan(at_us, Happening::Start(member));
        }
        world
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(crate) fn plan(&mut self, at_us: u64, what: Happening) {
        self.planned += 1;
        self.agenda.push(Planned {
            at_us,
            number: self.planned,
            what,
        });
    }

    /// A storm and the calm after it.
    pub(crate) fn episode(&mut self) -> Result<(), String> {
        let storm_us = self.random.u64(STORM_US);
        self.plan(1_000_000, Happening::Fault);
        self.run_until(storm_us)?;
        self.agenda
            .retain(|planned| !matches!(planned.what, Happening::Fault));
        self.calm();
        self.run_until(storm_us + 2 * LEASE_US)?;
        let open: Vec<usize> = self.open_gates().collect();
        if open.len() != 1 {
            let cores = self.members.iter().filter_map(|machine| machine.core.as_ref());
            let standings: Vec<_> = cores.map(Core::standing).collect();
            return Err(format!(
                "two leases after the storm {open:?} are active: {standings:?}"
            ));
        }
        let (holder, leases) = (self.holder, self.leases);
        let calm_us = self.random.u64(CALM_US);
        self.run_until(storm_us + 2 * LEASE_US + calm_us)?;
        if (self.holder, self.leases) != (holder, leases) {
            return Err(format!(
                "in the calm the lease moved from {holder:?} to {:?}",
                self.holder
            ));
        }
        self.replace_all()
    }

    /// Everybody is to begin anew, all at the same time. They do it one after the other, and there is somebody active meanwhile.
    fn replace_all(&mut self) -> Result<(), String> {
        // Of two that both have to vote, neither can be missed. Other bugs show in storms.
        let is_meant = matches!(self.shape.mutation, None | Some(Mutation::PartsAtOnce));
        let can_be_missed = self.shape.roles.len() > 2 || self.shape.when_alone == WhenAlone::Serve;
        if !can_be_missed || !is_meant {
            return Ok(());
        }
        let (lapsed, leases, idle_us) = (self.lapsed, self.leases, self.idle_us);
        for member in 0..self.members.len() {
            self.members[member].parted = 0;
            self.order_parting(member, true);
        }
        self.plan(self.now_us, Happening::HandOver);
        self.run_until(self.now_us + REPLACED_WITHIN_US)?;
        let parted: Vec<_> = self.members.iter().map(|machine| machine.parted).collect();
        if parted.iter().any(|count| *count != 1) {
            return Err(format!("of the members that were to begin anew did: {parted:?}"));
        }
        if self.lapsed != lapsed {
            return Err("a lease lapsed while members began anew".to_owned());
        }
        let (leases, idle_us) = (self.leases - leases, self.idle_us - idle_us);
        // Whoever is active hands over once, and rarely again: when two cross that tell it at once.
        let nodes = self
            .shape
            .roles
            .iter()
            .filter(|role| **role == Role::Node)
            .count() as u64;
        if leases == 0 || leases > 2 * nodes || self.open_gates().count() != 1 {
            return Err(format!("{leases} leases while members began anew"));
        }
        if idle_us > LEASE_US + leases * HANDED_OVER_WITHIN_US {
            return Err(format!(
                "nobody was active for {idle_us} us while members began anew"
            ));
        }
        Ok(())
    }

    /// As the server does while it has a process that waits for its place.
    fn hand_over(&mut self) {
        for member in 0..self.members.len() {
            let machine = &self.members[member];
            let standing = machine.core.as_ref().map(Core::standing);
            if machine.is_to_part && matches!(standing, Some(Standing::Active { .. })) {
                self.order_transfer(member);
            }
        }
        self.plan(self.now_us + 20_000, Happening::HandOver);
    }

    fn run_until(&mut self, end_us: u64) -> Result<(), String> {
        while let Some(planned) = self.agenda.peek()
            && planned.at_us <= end_us
        {
            let Some(Planned { at_us, what, .. }) = self.agenda.pop() else {
                break;
            };
            self.note_idle(at_us);
            self.now_us = self.now_us.max(at_us);
            match what {
                Happening::Deliver(to, event) => self.give(to, event),
                Happening::Wake(member) => {
                    if self.members[member].wake_us == at_us {
                        self.members[member].wake_us = u64::MAX;
                        self.give(member, Event::Tick);
                    }
                }
                Happening::Closed(member, boot) => {
                    if self.members[member].boot == boot && self.members[member].core.is_some() {
                        self.members[member].gate_us = self.now_us;
                        self.give(member, Event::Closed);
                    }
                }
                Happening::Thaw(member) => self.thaw(member),
                Happening::Start(member) => {
                    if self.members[member].core.is_none() {
                        self.start(member);
                    }
                }
                Happening::HandOver => self.hand_over(),
                Happening::Fault => {
                    let next_us = self.blow();
                    self.plan(next_us, Happening::Fault);
                }
            }
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
        }
        self.note_idle(end_us);
        self.now_us = end_us;
        Ok(())
    }

    fn note_idle(&mut self, until_us: u64) {
        let open_until_us = self.members.iter().map(|machine| machine.gate_us).max();
        let since_us = open_until_us.unwrap_or(0).max(self.now_us);
        self.idle_us += until_us.saturating_sub(since_us);
    }

    pub(crate) fn start(&mut self, member: usize) {
        let now_us = self.now_us;
        let roles = self.shape.roles.iter().enumerate();
        let members = roles.map(|(at, role)| Member {
            role: *role,
            priority: 100 - at as u16,
        });
        let settings = Settings {
            me: member as MemberId,
            members: members.collect(),
            heartbeat_us: HEARTBEAT_US,
            lease_us: LEASE_US,
            margin_us: MARGIN_US,
            when_alone: self.shape.when_alone,
            unlike: trimtab_cluster::Unlike::Last,
            epoch_floor: 0,
            mutation: self.shape.mutation,
        };
        let machine = &mut self.members[member];
        machine.boot += 1;
        // A gate that a dead process left open is closed first of all.
        machine.gate_us = now_us;
        machine.frozen_until_us = 0;
        machine.core = Some(Core::new(settings, machine.clock.local(now_us)));
        self.give(member, Event::Tick);
    }

    pub(crate) fn thaw(&mut self, member: usize) {
        if self.now_us < self.members[member].frozen_until_us {
            return;
        }
        for event in std::mem::take(&mut self.members[member].waiting) {
            self.give(member, event);
        }
        self.give(member, Event::Tick);
    }

    pub(crate) fn order_transfer(&mut self, member: usize) {
        self.give(member, Event::Transfer(None));
    }

    pub(crate) fn order_parting(&mut self, member: usize, is_meant: bool) {
        self.members[member].is_to_part = is_meant && self.members[member].core.is_some();
        self.give(member, Event::Part(is_meant));
    }

    pub(crate) fn set_fit(&mut self, member: usize, is_fit: bool) {
        self.give(member, Event::Fit(is_fit));
    }

    /// Has a member see an event now, or when it thaws.
    fn give(&mut self, member: usize, event: Event) {
        let now_us = self.now_us;
        let machine = &mut self.members[member];
        let Some(core) = &mut machine.core else { return };
        if now_us < machine.frozen_until_us {
            machine.waiting.push(event);
            return;
        }
        self.steps += 1;
        let local_us = machine.clock.local(now_us);
        let was_active = matches!(core.standing(), Standing::Active { .. });
        let actions = core.step(local_us, event);
        self.note_vote(member);
        for action in actions {
            self.act(member, action, was_active);
        }
        self.note_wake(member);
        self.judge();
    }

    fn act(&mut self, member: usize, action: Action, was_active: bool) {
        let now_us = self.now_us;
        let clock = self.members[member].clock;
        match action {
            Action::Send(to, message) => self.send(member, usize::from(to), message),
            Action::Open { until_us, .. } => {
                let late_us = self.random.u64(..LATE_MAX_US);
                self.members[member].gate_us = clock.moment(until_us) + late_us;
                if !was_active {
                    self.leases += 1;
                    self.holder = Some(member);
                }
            }
            Action::Close(why) => {
                self.lapsed += u64::from(why == Closing::Lapsed);
                let late_us = self.random.u64(..LATE_MAX_US);
                let machine = &self.members[member];
                let happening = Happening::Closed(member, machine.boot);
                self.plan(now_us + late_us, happening);
            }
            Action::NoSuccessor => {}
            Action::Part => {
                let machine = &mut self.members[member];
                if machine.gate_us > now_us {
                    self.wrong = Some(format!("at {now_us} us {member} parted with an open gate"));
                }
                machine.core = None;
                machine.waiting.clear();
                machine.is_to_part = false;
                machine.parted += 1;
                let pause_us = self.random.u64(..REPLACED_US);
                self.plan(now_us + pause_us, Happening::Start(member));
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let event = Event::Received(from as MemberId, message);
        for delay_us in self.links[from][to].carry(&mut self.random) {
            self.plan(self.now_us + delay_us, Happening::Deliver(to, event));
        }
    }

    fn note_wake(&mut self, member: usize) {
        let machine = &self.members[member];
        let Some(core) = &machine.core else { return };
        let due_us = machine.clock.moment(core.wake_us());
        if due_us == u64::MAX {
            return;
        }
        let at_us = due_us.max(self.now_us + 1);
        if at_us < machine.wake_us || machine.wake_us <= self.now_us {
            self.members[member].wake_us = at_us;
            self.plan(at_us, Happening::Wake(member));
        }
    }

    // === The judge ===

    /// What a member promised stays promised over its restarts.
    fn note_vote(&mut self, member: usize) {
        let now_us = self.now_us;
        let machine = &mut self.members[member];
        let Some(core) = &machine.core else { return };
        match core.vote(machine.clock.local(now_us)) {
            Some((to, until_us)) => {
                machine.vote = Some((to, machine.clock.moment(until_us), machine.boot));
            }
            None if machine.vote.is_some_and(|(.., boot)| boot == machine.boot) => machine.vote = None,
            None => {}
        }
    }

    fn open_gates(&self) -> impl Iterator<Item = usize> {
        let machines = self.members.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.gate_us > self.now_us)
            .map(|(at, _)| at)
    }

    fn judge(&mut self) {
        if self.shape.when_alone == WhenAlone::Serve {
            return;
        }
        let open: Vec<usize> = self.open_gates().collect();
        if open.len() > 1 {
            self.wrong = Some(format!(
                "at {} us the members {open:?} have an open gate",
                self.now_us
            ));
        }
        for holder in open {
            let votes_for = |machine: &&Machine| {
                let vote = machine.vote.filter(|(_, until_us, _)| *until_us > self.now_us);
                vote.is_some_and(|(to, ..)| usize::from(to) == holder)
            };
            let votes = self.members.iter().filter(votes_for).count();
            if votes <= self.members.len() / 2 && self.wrong.is_none() {
                self.wrong = Some(format!(
                    "at {} us the gate of {holder} is open without a majority: {votes} votes",
                    self.now_us
                ));
            }
        }
    }
}
