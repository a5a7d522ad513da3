//! Where picks are measured: pools with load, a request, and a seat as a worker has it.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use trimtab::{
    clock, config,
    http1::Head,
    policy::{
        Candidate, Choice, Chooser, Decision, Deployment, Ended, Facts, Instance, Rebuild, Seat, Tried,
    },
    pool::{Pool, Snapshot},
};
use trimtab_policy::testing::Dice;

/// Picks between two readings of the clock. The proxy reads it once a request, and for more than the pick.
const PICKS_PER_READING: u64 = 32;
/// Requests in flight from this worker.
const IN_FLIGHT: usize = 32;

/// A policy's limits: a deadline that a busy machine cannot miss.
pub(crate) fn spec(name: &str) -> Arc<config::Policy> {
    Arc::new(config::Policy {
        name: name.into(),
        tenant: None,
        grants: config::Grants::everything(),
        source: config::PolicySource::Builtin(name.into()),
        memory_bytes: 32 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        config_json: "{}".into(),
        line: None,
    })
}

/// A pool with load on it; a tenth of one of ten or more drains.
pub(crate) fn pool(size: usize) -> Pool {
    let backend = |index: usize| config::Backend {
        address: format!("10.0.{}.{}:80", index / 256, index % 256),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    let backends: Vec<_> = (0..size).map(backend).collect();
    let sockets: Vec<_> = backends
        .iter()
        .map(|backend| backend.address.parse().unwrap())
        .collect();
    let second = Duration::from_secs(1);
    let config = config::Pool {
        name: "bench".into(),
        tenant: None,
        policy: "any".into(),
        fallback: "least-connections".into(),
        hash_on: vec![config::HashOn::ClientIp],
        backends,
        discover: None,
        connect_timeout: second,
        protocol: config::PoolProtocol::Http1,
        send_proxy: None,
        tls: None,
        response_timeout: second,
        request_timeout: None,
        body_timeout: second,
        idle_timeout: second,
        idle_connections: 1,
        panic_threshold: 50,
        overflow: None,
        zone: None,
        drain_timeout: second,
        slow_start: Duration::ZERO,
        load_view: config::LoadView::Node,
        health: None,
        outlier: None,
        limits: None,
        record: None,
        sticky: None,
        retry: config::Retry {
            attempts: NonZeroU32::MIN,
            ..config::Retry::default()
        },
    };
    let now = Instant::now();
    let pool = Pool::new(Arc::new(config), &sockets, 2, None, now);
    let mut dice = Dice::new(1);
    for (index, member) in pool.snapshot().members.iter().enumerate() {
        if index % 10 == 1 && size >= 10 {
            pool.set_draining(member.backend.id, true, now);
        }
        // The other worker's load, and a past of this one.
        let (load, now_us) = (member.backend.load(1), clock::now_us());
        (0..dice.roll() % 8).for_each(|_| load.begin());
        load.record_latency(500 + dice.roll() % 5000, now_us);
        load.record_bytes(0, dice.roll() % 4_000_000, now_us / 1000);
    }
    pool
}

/// Changes the pool: one backend leaves or comes back.
pub(crate) fn flip(pool: &Pool) {
    let member = &pool.snapshot().members[5];
    pool.set_draining(member.backend.id, member.usable, Instant::now());
}

/// A worker's seat, with requests in flight.
pub(crate) struct Stage {
    seat: Seat,
    head: Head,
    dice: Dice,
    in_flight: VecDeque<(usize, u64)>,
    snapshot: Arc<Snapshot>,
    /// Faults would be ordered here, so there must be someone to receive.
    _rebuilds: UnboundedReceiver<Rebuild>,
}

impl Stage {
    pub(crate) fn new(candidate: &Arc<Candidate>, size: usize) -> Self {
        let pool = Arc::new(pool(size));
        let instance = Instance::build(candidate, &pool).unwrap();
        let deployment = Arc::new(Deployment::new(candidate.clone(), "bench", 2));
        let (orders, rebuilds) = unbounded_channel();
        let seat = Seat::new(0, pool, deployment, instance, orders);
        let snapshot = seat.snapshot().clone();
        Self {
            seat,
            head: head(),
            dice: Dice::new(2),
            in_flight: VecDeque::new(),
            snapshot,
            _rebuilds: rebuilds,
        }
    }

    /// Makes so many picks. Each begins a request and, once enough are in flight, ends the oldest.
    pub(crate) fn run(&mut self, picks: u64) {
        let mut now_us = clock::now_us();
        for pick in 0..picks {
            if pick % PICKS_PER_READING == 0 {
                now_us = clock::now_us();
            }
            self.seat.sync(now_us);
            let random = self.dice.roll();
            let facts = Facts {
                key: random.rotate_left(17),
                random,
                client: 0xffff_0a00_0000 | u128::from(random as u32),
                now_us,
            };
            let decision = self.seat.decide(&facts, &Tried::default(), &mut self.head);
            let Decision::Send(choice) = decision else {
                panic!("{decision:?}")
            };
            assert_eq!(choice.chooser, Chooser::Policy);
            self.begin(choice.index, now_us);
        }
    }

    /// One decision by itself.
    pub(crate) fn decide(&mut self) -> Choice {
        let facts = Facts {
            key: 1,
            random: 1,
            client: 1,
            now_us: clock::now_us(),
        };
        match self.seat.decide(&facts, &Tried::default(), &mut self.head) {
            Decision::Send(choice) => choice,
            decision => panic!("{decision:?}"),
        }
    }

    fn begin(&mut self, index: usize, now_us: u64) {
        let generation = self.snapshot.generation;
        self.seat.begin(generation, index);
        self.in_flight.push_back((index, now_us));
        if self.in_flight.len() > IN_FLIGHT
            && let Some((index, began_us)) = self.in_flight.pop_front()
        {
            let backend = self.snapshot.members[index].backend.id;
            self.seat.end(&Ended {
                generation,
                index,
                backend,
                latency_us: 500 + now_us - began_us,
                bytes: 1000,
                status: Some(200),
                now_us,
            });
        }
    }
}

/// What a browser sends.
fn head() -> Head {
    let request = http::Request::builder()
        .uri("/static/app.js?v=3")
        .header("host", "shop.example")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )
        .header(
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        )
        .header("accept-language", "en-US,en;q=0.5")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("cookie", "theme=dark; sid=4f1c0e5b9a")
        .header("connection", "keep-alive");
    Head::from_parts(&request.body(()).unwrap().into_parts().0)
}
