//! A pool to which everything happens that can happen to one: failures, drains, ejections, slow starts, new weights,
//! reloads that add, remove and reorder backends.
//!
//! It is the host's own [`Pool`], so who is usable is decided by the real rules. Time is made up.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use trimtab::{
    config,
    pool::{Figures, Pool, Snapshot},
};
use trimtab_policy::testing::Dice;

use crate::chance::Chance;

const BACKENDS_MAX: u64 = 64;

/// The pool, its load, and the time.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now_us: u64,
    start: Instant,
    config: Arc<config::Pool>,
    pool: Pool,
    loads: BTreeMap<u64, Figures>,
}

impl World {
    /// A random pool, all of whose backends are healthy.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let size = 1 + dice.below(BACKENDS_MAX);
        let backends = (0..size).map(|_| backend(&mut dice)).collect();
        let panic_threshold = dice.one_of(&[0, 50, 100]);
        let slow_start = Duration::from_secs(dice.one_of(&[0, 10]));
        let config = Arc::new(config(distinct(backends), panic_threshold, slow_start));
        let start = Instant::now();
        Self {
            now_us: 1_000_000,
            start,
            pool: make(&config, None, start),
            config,
            loads: BTreeMap::new(),
            dice,
        }
    }

    /// The backends now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.pool.snapshot()
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    /// Lets time pass: mostly little, as between requests; sometimes much.
    pub(crate) fn pass_time(&mut self) {
        self.now_us += match self.dice.below(1000) {
            0 => self.dice.below(30_000_000),
            1..100 => self.dice.below(100_000),
            _ => self.dice.below(2_000),
        };
    }

    /// One change of the pool, perhaps without effect.
    pub(crate) fn change(&mut self) {
        let now = self.now();
        let snapshot = self.snapshot();
        let place = self.dice.below(snapshot.members.len() as u64) as usize;
        let id = snapshot.members[place].backend.id;
        match self.dice.below(20) {
            0..5 => drop(self.pool.set_down(id, true, now)),
            5..11 => drop(self.pool.set_down(id, false, now)),
            11 => drop(self.pool.set_draining(id, true, now)),
            12..14 => drop(self.pool.set_draining(id, false, now)),
            14 => drop(self.pool.set_weight(id, weight(&mut self.dice), now)),
            15..17 => drop(self.pool.eject(id, now)),
            17..19 => drop(self.pool.advance(now)),
            _ => self.reload(),
        }
    }

    /// Another configuration: some backends leave, some join, in another order.
    fn reload(&mut self) {
        let mut backends = self.config.backends.clone();
        if self.dice.one_in(2) && backends.len() > 1 {
            let leaving = self.dice.below(backends.len() as u64) as usize;
            backends.remove(leaving);
        }
        if self.dice.one_in(2) && (backends.len() as u64) < BACKENDS_MAX {
            backends.push(backend(&mut self.dice));
        }
        let turn = self.dice.below(backends.len() as u64) as usize;
        backends.rotate_left(turn);
        self.set_backends(distinct(backends));
    }

    /// A reload with these backends.
    pub(crate) fn set_backends(&mut self, backends: Vec<config::Backend>) {
        self.config = Arc::new(config::Pool {
            backends,
            ..(*self.config).clone()
        });
        self.pool = make(&self.config, Some(&self.pool), self.now());
    }

    /// A pool of these backends, healthy or dead as `set_down` says.
    pub(crate) fn of(backends: Vec<config::Backend>) -> Self {
        let start = Instant::now();
        let config = Arc::new(config(backends, 0, Duration::ZERO));
        Self {
            now_us: 1_000_000,
            start,
            pool: make(&config, None, start),
            config,
            loads: BTreeMap::new(),
            dice: Dice::new(0),
        }
    }

    /// Makes the backend at this place healthy or not.
    pub(crate) fn set_down(&self, place: usize, down: bool) {
        let id = self.snapshot().members[place].backend.id;
        assert!(
            self.pool.set_down(id, down, self.now()),
            "the backend was not so before"
        );
    }

    /// Changes the load of a random backend, and gives its index.
    pub(crate) fn change_load(&mut self) -> (usize, Figures) {
        let snapshot = self.snapshot();
        let index = self.dice.below(snapshot.members.len() as u64) as usize;
        let dice = &mut self.dice;
        let active = match dice.below(10) {
            0 => 0,
            1 => dice.below(1_000_000),
            _ => dice.below(12),
        };
        let latency_us = match dice.below(10) {
            0 => 0,
            1 => dice.below(1 << 32),
            _ => 1 + dice.below(50_000),
        };
        let throughput = match dice.below(10) {
            0 => 0,
            1 => dice.below(1 << 42),
            _ => dice.below(10_000_000),
        };
        let figures = Figures {
            active: active as u32,
            latency_us: latency_us as u32,
            throughput,
        };
        self.loads.insert(snapshot.members[index].backend.id, figures);
        (index, figures)
    }

    /// The load of every backend, in the order of the snapshot.
    pub(crate) fn loads(&self) -> Vec<Figures> {
        let snapshot = self.snapshot();
        let ids = snapshot.members.iter().map(|member| member.backend.id);
        ids.map(|id| self.loads.get(&id).copied().unwrap_or_default())
            .collect()
    }
}

fn weight(dice: &mut Dice) -> u32 {
    match dice.below(20) {
        0 | 1 => 0,
        2 => dice.below(65_536) as u32,
        3..8 => dice.below(16) as u32,
        _ => 1,
    }
}

fn backend(dice: &mut Dice) -> config::Backend {
    let host = dice.below(1 << 24);
    let mut labels = BTreeMap::new();
    for name in ["rack", "version", "größe"] {
        if dice.one_in(3) {
            labels.insert(name.to_owned(), format!("{}", dice.below(9)));
        }
    }
    config::Backend {
        address: format!("10.{}.{}.{}:80", host >> 16, host >> 8 & 255, host & 255),
        weight: weight(dice),
        zone: dice.one_of(&[None, Some("a"), Some("b")]).map(str::to_owned),
        tier: dice.one_of(&[0, 0, 0, 0, 1, 2]),
        labels,
    }
}

/// Addresses are unique in a configuration.
fn distinct(mut backends: Vec<config::Backend>) -> Vec<config::Backend> {
    let mut known = BTreeSet::new();
    backends.retain(|backend| known.insert(backend.address.clone()));
    backends
}

fn make(config: &Arc<config::Pool>, previous: Option<&Pool>, now: Instant) -> Pool {
    let sockets: Vec<_> = config
        .backends
        .iter()
        .map(|backend| backend.address.parse().expect("a numeric address"))
        .collect();
    Pool::new(config.clone(), &sockets, 1, previous, now)
}

fn config(backends: Vec<config::Backend>, panic_threshold: u8, slow_start: Duration) -> config::Pool {
    let count = |number| NonZeroU32::new(number).expect("not 0");
    let second = Duration::from_secs(1);
    config::Pool {
        name: "world".into(),
        tenant: None,
        policy: "any".into(),
        fallback: "least-connections".into(),
        hash_on: vec![config::HashOn::ClientIp],
        backends,
        discover: None,
        connect_timeout: second,
        protocol: config::PoolProtocol::Http1,
        tls: None,
        send_proxy: None,
        response_timeout: second,
        request_timeout: None,
        body_timeout: second,
        idle_timeout: second,
        idle_connections: 1,
        panic_threshold,
        overflow: None,
        zone: None,
        drain_timeout: second,
        slow_start,
        load_view: config::LoadView::Node,
        // Without active checks a reload would forget who is down.
        health: Some(config::Health {
            kind: config::HealthKind::Tcp,
            port: None,
            tls: false,
            interval: second,
            timeout: second,
            rise: count(1),
            fall: count(1),
        }),
        outlier: Some(config::Outlier {
            consecutive_failures: count(5),
            base_ejection: second,
            max_ejection: 60 * second,
            max_ejected: 50,
        }),
        sticky: None,
        retry: config::Retry {
            attempts: count(10),
            ..config::Retry::default()
        },
        limits: None,
        record: None,
    }
}
