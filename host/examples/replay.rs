//! A million decisions recorded and replayed, timed: `cargo run --release -p trimtab --example replay [PICKS] [POLICY]`.
//!
//! Owns the measuring only. Exits with a failure if a single decision differs.
#![allow(clippy::print_stdout, reason = "it is a report")]

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use trimtab::{
    config,
    http1::Head,
    policy::{
        Batch, Candidate, Ending, Engine, Facts, Frame, LogWriter, Outcome, Recorder, StreamState, Trial,
        Tried, builtin_component,
    },
    pool::{Figures, Pool},
    replay::{Order, replay},
};

const BACKENDS: u64 = 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let picks = arguments
        .next()
        .map_or(1_000_000, |text| text.parse().expect("a number of picks"));
    let policy = arguments.next().unwrap_or_else(|| "peak-ewma".to_owned());
    let engine = Engine::new().expect("an engine");
    let candidate = candidate(&engine, &policy);
    let plain = time(|| {
        std::hint::black_box(decide(&candidate, picks, None));
    });
    let mut log = Vec::new();
    let recorded = time(|| log = record(&candidate, picks));
    let mut report = None;
    let replayed = time(|| report = Some(replay(&*log, &Order::default()).expect("a whole log")));
    let report = report.expect("it was replayed");
    let each = |time: Duration| time.as_nanos() as f64 / picks as f64;
    println!("{picks} decisions of {policy}, {BACKENDS} backends");
    println!(
        "decided, not recorded  {:8.3} s  {:7.0} ns each",
        plain.as_secs_f64(),
        each(plain)
    );
    println!(
        "decided and recorded   {:8.3} s  {:7.0} ns each (digests included)",
        recorded.as_secs_f64(),
        each(recorded)
    );
    println!(
        "replayed and compared  {:8.3} s  {:7.0} ns each",
        replayed.as_secs_f64(),
        each(replayed)
    );
    println!(
        "log                    {:8} bytes  {:4.0} each",
        log.len(),
        log.len() as f64 / picks as f64
    );
    println!("the same: {} of {}", report.same, report.picks);
    assert!(
        report.is_identical() && report.picks == picks,
        "{:#?}",
        report.first_difference
    );
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn candidate(engine: &Engine, name: &str) -> Candidate {
    let spec = config::Policy {
        name: name.to_owned(),
        tenant: None,
        source: config::PolicySource::Builtin(name.to_owned()),
        memory_bytes: 32 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        grants: config::Grants::everything(),
        config_json: "{}".to_owned(),
        line: None,
    };
    let bytes = builtin_component(name).expect("the name of a built-in policy");
    Candidate::compile(engine, spec.into(), bytes).expect("a good component")
}

fn record(candidate: &Candidate, picks: u64) -> Vec<u8> {
    let log = LogWriter::new(Vec::new()).expect("memory");
    let log = Arc::new(Mutex::new(log));
    let writer = log.clone();
    let write = move |frame: &Frame<'_>| {
        let mut log = writer.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(frame).expect("memory");
    };
    let outlet = {
        let write = write.clone();
        move |batch: Batch| {
            write(&Frame::Events {
                stream: batch.stream,
                first: batch.first,
                events: &batch.events,
            });
            true
        }
    };
    let state = Arc::new(StreamState::default());
    let recorder = Recorder::new((1, 0), state, u32::MAX, Arc::default(), outlet);
    decide(candidate, picks, Some(recorder));
    write(&Frame::End {
        stream: 1,
        ending: Ending::Replaced,
    });
    write(&Frame::Close);
    drop(write);
    let log = Arc::into_inner(log).expect("nobody else writes");
    log.into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_inner()
}

/// Picks with a changing load, and outcomes for every 64 of them.
fn decide(candidate: &Candidate, picks: u64, recorder: Option<Recorder>) -> u64 {
    let pool = pool();
    let snapshot = pool.snapshot();
    let mut trial = Trial::new(candidate, &snapshot).expect("a policy that starts");
    if let Some(recorder) = recorder {
        trial.record(candidate, recorder, 1);
    }
    let mut random = fastrand::Rng::with_seed(1);
    let mut head = Head::of(
        "GET",
        "shop.example",
        "/cart/items?page=1",
        [("host", &b"shop.example"[..])],
    );
    let mut outcomes = Vec::new();
    let mut sum = 0;
    for number in 0..picks {
        let facts = Facts {
            key: random.u64(..),
            random: random.u64(..),
            client: 0xffff_0a00_0000 | u128::from(random.u32(..1000)),
            now_us: 1_000_000 + number * 20,
        };
        trial.set_load(
            random.usize(..BACKENDS as usize),
            Figures {
                active: random.u32(..20),
                latency_us: random.u32(500..5000),
                throughput: random.u64(..1_000_000),
            },
        );
        let answer = trial
            .pick(&facts, &Tried::default(), &mut head)
            .expect("an answer");
        if let trimtab::policy::Answer::Index(index) = answer {
            sum += u64::from(index);
            outcomes.push(Outcome {
                index: index as usize,
                latency_us: random.u32(500..5000),
                bytes: 1000,
                status: Some(200),
            });
        }
        if outcomes.len() == 64 {
            trial.observe(&outcomes, facts.now_us).expect("outcomes");
            outcomes.clear();
        }
    }
    sum
}

fn pool() -> Pool {
    let second = Duration::from_secs(1);
    let backend = |number| config::Backend {
        address: format!("10.0.0.{number}:80"),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    let config = config::Pool {
        name: "timed".to_owned(),
        policy: "any".to_owned(),
        fallback: "least-connections".to_owned(),
        tenant: None,
        hash_on: vec![config::HashOn::ClientIp],
        backends: (0..BACKENDS).map(backend).collect(),
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
        sticky: None,
        retry: config::Retry {
            attempts: NonZeroU32::MIN,
            ..config::Retry::default()
        },
        limits: None,
        record: None,
    };
    let sockets: Vec<_> = config
        .backends
        .iter()
        .map(|backend| backend.address.parse().expect("a numeric address"))
        .collect();
    Pool::new(config.into(), &sockets, 1, None, Instant::now())
}
