//! One worker's seat by itself, without sockets and with made-up time: whatever its policies do, a decision comes out.
//!
//! [`Stage`] is what a worker and the control task do with a seat. Read next: `chain.rs` (who decides when the policy does
//! not), `caution.rs` (breaker and quarantine), `state.rs` (what survives a swap).

mod caution;
mod chain;
mod state;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use trimtab::{
    clock, config,
    http1::Head,
    policy::{
        Candidate, Choice, Chooser, Decision, Deployment, Engine, Facts, Instance, Rebuild, Seat, Tried,
        builtin_component,
    },
    pool::Pool,
};
use trimtab_tests::guest::Guest;

const LOOP: &str = "(loop $forever (br $forever))";
const HOG: &str = "(if (i32.lt_s (memory.grow (i32.const 4096)) (i32.const 0)) (then unreachable))";

/// A seat of one worker over some backends.
struct Stage {
    pool: Arc<Pool>,
    seat: Seat,
    orders: UnboundedReceiver<Rebuild>,
    /// Later than any real time of the test, so that both can be compared.
    now_us: u64,
}

impl Stage {
    /// A pool of three with this fallback, and this component in service.
    fn new(fallback: &str, candidate: &Arc<Candidate>) -> Self {
        let pool = Arc::new(pool(fallback));
        let (rebuilds, orders) = unbounded_channel();
        let instance = Instance::build(candidate, &pool).expect("it is admitted");
        let deployment = Arc::new(Deployment::new(candidate.clone(), "main", 1));
        let seat = Seat::new(0, pool.clone(), deployment, instance, rebuilds);
        Self {
            pool,
            seat,
            orders,
            now_us: clock::now_us() + 3_600_000_000,
        }
    }

    /// Takes a backend out of service.
    fn drain(&mut self, index: usize) {
        let id = self.pool.snapshot().members[index].backend.id;
        self.pool.set_draining(id, true, Instant::now());
    }

    /// Decides a GET, after earlier attempts at these backends. A millisecond passes.
    fn ask(&mut self, target: &str, tried: &[usize]) -> Decision {
        self.now_us += 1000;
        self.seat.sync(self.now_us);
        let mut ids = Tried::default();
        for index in tried {
            ids.push(self.seat.snapshot().members[*index].backend.id);
        }
        let facts = Facts {
            key: self.now_us,
            random: self.now_us.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            client: 1,
            now_us: self.now_us,
        };
        let request = http::Request::builder().uri(target).header("host", "a");
        let mut head = Head::from_parts(&request.body(()).expect("a head").into_parts().0);
        self.seat.decide(&facts, &ids, &mut head)
    }

    /// The same, when a backend has to come out.
    fn choice(&mut self, target: &str, tried: &[usize]) -> Choice {
        match self.ask(target, tried) {
            Decision::Send(choice) => choice,
            other => panic!("{other:?} for {target}"),
        }
    }

    fn chooser(&mut self, target: &str) -> Chooser {
        self.choice(target, &[]).chooser
    }

    /// Builds what was ordered, as the control task does; gives how long that would have waited.
    fn rebuild(&mut self) -> Option<Duration> {
        let order = self.orders.try_recv().ok()?;
        let instance = Instance::build(&order.deployment.candidate, &self.pool).expect("it is built again");
        assert!(self.seat.expects(&order.deployment));
        self.seat.install(order.deployment, instance);
        Some(order.pause)
    }

    /// Swaps another version in.
    fn swap(&mut self, candidate: &Arc<Candidate>) -> Arc<Deployment> {
        let instance = Instance::build(candidate, &self.pool).expect("it is admitted");
        let deployment = Arc::new(Deployment::new(candidate.clone(), "main", 1));
        self.seat.install(deployment.clone(), instance);
        deployment
    }

    fn faults(&self) -> u64 {
        self.seat.deployment().faults()
    }
}

fn pool(fallback: &str) -> Pool {
    let second = Duration::from_secs(1);
    let backend = |number: usize| config::Backend {
        address: format!("10.0.0.{number}:80"),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    let backends: Vec<_> = (0..3).map(backend).collect();
    let sockets: Vec<_> = (backends.iter())
        .map(|backend| backend.address.parse().expect("a numeric address"))
        .collect();
    let config = config::Pool {
        name: "main".into(),
        policy: "any".into(),
        tenant: None,
        fallback: fallback.into(),
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
        panic_threshold: 0,
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
    Pool::new(Arc::new(config), &sockets, 1, None, Instant::now())
}

/// A version of the policy `mine`.
fn candidate(bytes: &[u8]) -> Arc<Candidate> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().expect("an engine"));
    let spec = config::Policy {
        name: "mine".into(),
        tenant: None,
        grants: config::Grants::everything(),
        source: config::PolicySource::File("mine.wasm".into()),
        memory_bytes: 16 << 20,
        deadline: Duration::from_millis(2),
        wasi: config::Wasi::None,
        config_json: "{}".into(),
        line: None,
    };
    Arc::new(Candidate::compile(engine, Arc::new(spec), bytes).expect("a fit component"))
}

fn builtin(name: &str) -> Arc<Candidate> {
    candidate(builtin_component(name).expect("a built-in"))
}

fn guest(guest: &Guest) -> Arc<Candidate> {
    candidate(&guest.build())
}

/// A guest that picks backend 1, and from this pick on does something else. The first pick is that of its admission.
fn turning(pick: u32, bad: &str) -> Guest {
    Guest {
        pick: format!(
            "(if (i32.ge_u (global.get $picks) (i32.const {pick})) (then {bad})) {}",
            Guest::always(1)
        ),
        ..Guest::default()
    }
}

/// A guest that picks backend 1, and traps when the request has a query.
fn dying_of_queries() -> Guest {
    Guest {
        pick: format!(
            "(call $query (i32.const 32)) (if (i32.load8_u (i32.const 32)) (then unreachable)) {}",
            Guest::always(1)
        ),
        ..Guest::default()
    }
}
