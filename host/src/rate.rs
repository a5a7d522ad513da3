//! Rates: how much comes in a time, of all clients of a listener and of each of them.
//!
//! Owns token buckets and the table of clients. It must not know what is let in, nor what becomes of the rest.
//!
//! Each worker has a replica of every bucket: it takes from its own at once, and learns what the others took from counters
//! that each of them writes for itself, at most once a millisecond. So the rate holds over all workers, and what they let in too
//! much in a millisecond is made up for in the next ones. Of single clients, what others took is read from a table of
//! hashes: two rows of 65,536 counters, of which the lesser counts. That a client pays for another one takes a collision in both,
//! one in 4 billion for each pair; with 1,000 clients at their limit at the same time, one in 4,000 of the others.
//!
//! Invariants: memory is bounded by the configuration, and nobody waits for anybody.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;

use crate::{
    config::{Rate, Rates},
    pool::add,
};

mod bucket;
mod carried;
mod clients;

pub use carried::Carried;

use bucket::Bucket;
use clients::Clients;

/// How old what a worker knows of the others may be.
const MERGE_EVERY_US: u64 = 1000;
/// Counters in a row, for all clients that there are.
const SLOTS: usize = 1 << 16;
const ROWS: usize = 2;

/// What the workers tell each other about a listener.
#[derive(Debug)]
pub struct Shared {
    workers: Box<[CachePadded<Told>]>,
    /// The same client has the same slots everywhere.
    seed: u64,
}

/// What one worker tells: what it has let in.
#[derive(Debug, Default)]
struct Told {
    requests: AtomicU64,
    connections: AtomicU64,
    client_requests: Slots,
    client_connections: Slots,
}

/// Counts by hashes of clients, row by row. None where nobody else reads them.
type Slots = Box<[AtomicU32]>;

impl Shared {
    /// Nothing was let in yet.
    pub fn new(rates: &Rates, workers: usize) -> Self {
        let slots = |rate: Option<Rate>| match rate {
            Some(_) if workers > 1 => (0..ROWS * SLOTS).map(|_| AtomicU32::new(0)).collect(),
            _ => Slots::default(),
        };
        let told = |_| {
            CachePadded::new(Told {
                client_requests: slots(rates.client_requests),
                client_connections: slots(rates.client_connections),
                ..Told::default()
            })
        };
        Self {
            workers: (0..workers).map(told).collect(),
            seed: fastrand::u64(..),
        }
    }
}

/// Who has had too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All clients together.
    Listener,
    /// This client.
    Client,
}

/// Too much, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Whose it is.
    pub by: By,
    /// When one more would be let in, if nobody else came.
    pub wait_us: u64,
}

/// A listener's rates in one worker.
pub struct Limiter {
    worker: usize,
    shared: Arc<Shared>,
    ipv6_mask: u128,
    requests: Option<Whole>,
    connections: Option<Whole>,
    client_requests: Option<RefCell<Clients>>,
    client_connections: Option<RefCell<Clients>>,
}

impl Limiter {
    /// Full buckets.
    pub fn new(rates: &Rates, shared: Arc<Shared>, worker: usize) -> Self {
        let whole = |rate: Option<Rate>| rate.map(Whole::new);
        let seed = shared.seed;
        let clients = |rate: Option<Rate>| {
            rate.map(|rate| RefCell::new(Clients::new(rate, rates.clients as usize, seed)))
        };
        Self {
            worker,
            ipv6_mask: u128::MAX << (128 - rates.ipv6_prefix),
            requests: whole(rates.requests),
            connections: whole(rates.connections),
            client_requests: clients(rates.client_requests),
            client_connections: clients(rates.client_connections),
            shared,
        }
    }

    /// Whether it keeps the rates that are shared so.
    pub fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// One more request, of the client with this address (mapped to IPv6).
    ///
    /// # Errors
    /// When it is too much.
    pub fn request(&self, client: u128, now_us: u64) -> Result<(), Excess> {
        // A client that has had too much takes nothing from the others.
        self.client(
            &self.client_requests,
            |told| &told.client_requests,
            client,
            now_us,
        )?;
        self.whole(&self.requests, |told| &told.requests, now_us)
    }

    /// One more connection, whoever's it is.
    ///
    /// # Errors
    /// When it is too much.
    pub fn connection(&self, now_us: u64) -> Result<(), Excess> {
        self.whole(&self.connections, |told| &told.connections, now_us)
    }

    /// One more connection of this client.
    ///
    /// # Errors
    /// When it is too much.
    pub fn connection_of(&self, client: u128, now_us: u64) -> Result<(), Excess> {
        let connections = &self.client_connections;
        self.client(connections, |told| &told.client_connections, client, now_us)
    }

    /// What is left of each bucket that is not full, as another node would have it.
    pub fn carry(&self, now_us: u64) -> Carried {
        let whole = |whole: &Option<Whole>| whole.as_ref()?.level(now_us);
        let clients = |clients: &Option<RefCell<Clients>>| {
            let clients = clients.as_ref().map(|clients| clients.borrow().carry(now_us));
            clients.unwrap_or_default()
        };
        Carried {
            requests: whole(&self.requests),
            connections: whole(&self.connections),
            client_requests: clients(&self.client_requests),
            client_connections: clients(&self.client_connections),
        }
    }

    /// Goes on with what another node had left at that time, where that is less than what is left here.
    pub fn go_on_with(&self, carried: &Carried, told_us: u64, now_us: u64) {
        let wholes = [
            (&self.requests, carried.requests),
            (&self.connections, carried.connections),
        ];
        for (whole, level) in wholes {
            if let (Some(whole), Some(level)) = (whole, level) {
                whole.lower((level, told_us), now_us);
            }
        }
        let requests = (&self.client_requests, &carried.client_requests[..]);
        let connections = (&self.client_connections, &carried.client_connections[..]);
        self.lower_clients(requests, |told| &told.client_requests, (told_us, now_us));
        self.lower_clients(connections, |told| &told.client_connections, (told_us, now_us));
    }

    fn lower_clients(
        &self,
        (clients, carried): (&Option<RefCell<Clients>>, &[(u128, f32)]),
        of: impl Fn(&Told) -> &Slots,
        times_us: (u64, u64),
    ) {
        let Some(clients) = clients else { return };
        let mut clients = clients.borrow_mut();
        for (client, level) in carried {
            let slots = clients.slots(*client);
            clients.lower((*client, *level), |row| self.elsewhere(&of, slots[row]), times_us);
        }
    }

    /// What the other workers had let in of the clients in this slot.
    fn elsewhere(&self, of: &impl Fn(&Told) -> &Slots, slot: usize) -> u32 {
        let others = self.shared.workers.iter().enumerate();
        let others = others.filter(|(worker, _)| *worker != self.worker);
        let of_slot = |told: &Told| of(told).get(slot).map_or(0, |count| count.load(Relaxed));
        others.fold(0, |sum: u32, (_, told)| sum.wrapping_add(of_slot(told)))
    }

    fn whole(
        &self,
        whole: &Option<Whole>,
        of: impl Fn(&Told) -> &AtomicU64,
        now_us: u64,
    ) -> Result<(), Excess> {
        let Some(whole) = whole else { return Ok(()) };
        let elsewhere = || {
            let others = self.shared.workers.iter().enumerate();
            let others = others.filter(|(worker, _)| *worker != self.worker);
            others.map(|(_, told)| of(told).load(Relaxed)).sum()
        };
        whole.take(elsewhere, now_us).map_err(|wait_us| Excess {
            by: By::Listener,
            wait_us,
        })?;
        add(of(&self.shared.workers[self.worker]), 1);
        Ok(())
    }

    fn client(
        &self,
        clients: &Option<RefCell<Clients>>,
        of: impl Fn(&Told) -> &Slots,
        client: u128,
        now_us: u64,
    ) -> Result<(), Excess> {
        let Some(clients) = clients else { return Ok(()) };
        let client = self.masked(client);
        let mut clients = clients.borrow_mut();
        let slots = clients.slots(client);
        let elsewhere = |row: usize| self.elsewhere(&of, slots[row]);
        clients
            .take(client, elsewhere, now_us)
            .map_err(|wait_us| Excess {
                by: By::Client,
                wait_us,
            })?;
        for slot in slots {
            // Only this worker writes here.
            if let Some(count) = of(&self.shared.workers[self.worker]).get(slot) {
                count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
            }
        }
        Ok(())
    }

    /// All addresses of a network that is one client's.
    fn masked(&self, client: u128) -> u128 {
        let is_ipv4 = client >> 32 == 0xffff;
        if is_ipv4 { client } else { client & self.ipv6_mask }
    }
}

/// The bucket of all clients together.
struct Whole {
    rate: Rate,
    bucket: Cell<Bucket>,
    /// What the others had let in when they were last asked.
    elsewhere: Cell<u64>,
    merged_us: Cell<u64>,
}

impl Whole {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            bucket: Cell::new(Bucket::full(&rate)),
            elsewhere: Cell::new(0),
            merged_us: Cell::new(0),
        }
    }

    /// What is left; `None` of a full one.
    fn level(&self, now_us: u64) -> Option<f32> {
        self.bucket.get().level_at(&self.rate, now_us)
    }

    fn lower(&self, (level, told_us): (f32, u64), now_us: u64) {
        let mut bucket = self.bucket.get();
        bucket.lower(&self.rate, (level, told_us), now_us);
        self.bucket.set(bucket);
    }

    fn take(&self, elsewhere: impl Fn() -> u64, now_us: u64) -> Result<(), u64> {
        let mut bucket = self.bucket.get();
        bucket.fill(&self.rate, now_us);
        if now_us >= self.merged_us.get() + MERGE_EVERY_US {
            self.merged_us.set(now_us);
            let sum = elsewhere();
            bucket.owe(&self.rate, sum - self.elsewhere.replace(sum));
        }
        let taken = bucket.take(&self.rate);
        self.bucket.set(bucket);
        taken
    }
}

#[cfg(test)]
mod tests;
