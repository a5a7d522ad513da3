//! Recording and replay: whatever happens to a policy, its log makes it decide the same again; and of a changed pool, the
//! differences are those that the algorithm promises.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use trimtab::{
    config::{self, BUILTIN_POLICIES},
    policy::{
        Answer, Batch, Candidate, Ending, Engine, Facts, Frame, LogWriter, Recorder, StreamState, Trial,
        Tried, builtin_component,
    },
    replay::{Order, Report, replay},
};

use crate::{
    chance::Chance,
    run::seed,
    traffic::{Ask, outcomes},
    world::World,
};

/// Picks of each policy, ...
const PICKS: u64 = 10_000;
/// ... in so many worlds.
const WORLDS: u64 = 5;

/// A log under way, in memory.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<LogWriter<Vec<u8>>>>);

impl Log {
    pub(crate) fn new() -> Self {
        let log = LogWriter::new(Vec::new()).expect("memory takes everything");
        Self(Arc::new(Mutex::new(log)))
    }

    fn write(&self, frame: &Frame<'_>) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(frame).expect("memory takes everything");
    }

    /// A recorder for so many picks.
    pub(crate) fn recorder(&self, stream: u64, picks: u32) -> Recorder {
        let log = self.clone();
        let state = Arc::new(StreamState::default());
        Recorder::new((stream, 0), state, picks, Arc::default(), move |batch: Batch| {
            log.write(&Frame::Events {
                stream: batch.stream,
                first: batch.first,
                events: &batch.events,
            });
            true
        })
    }

    fn end(&self, stream: u64) {
        self.write(&Frame::End {
            stream,
            ending: Ending::Replaced,
        });
    }

    /// The file. All recorders have to be gone.
    pub(crate) fn close(self) -> Vec<u8> {
        self.write(&Frame::Close);
        let log = Arc::into_inner(self.0).expect("nobody records any more");
        let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
        log.into_inner()
    }
}

pub(crate) fn candidate(engine: &Engine, name: &str, settings: &str) -> Candidate {
    let spec = config::Policy {
        name: name.to_owned(),
        tenant: None,
        source: config::PolicySource::Builtin(name.to_owned()),
        memory_bytes: 32 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        grants: config::Grants::everything(),
        config_json: settings.to_owned(),
        line: None,
    };
    let bytes = builtin_component(name).expect("a built-in policy");
    Candidate::compile(engine, spec.into(), bytes).expect("a good component")
}

/// Lets everything happen to a policy that happens in a world. Gives what it answered.
fn record(candidate: &Candidate, world: &mut World, log: &Log, stream: u64, picks: u64) -> Vec<Answer> {
    let mut trial = Trial::new(candidate, &world.snapshot()).expect("a policy that starts");
    trial.record(candidate, log.recorder(stream, u32::MAX), world.now_us);
    let mut answers = Vec::new();
    let mut retry: Option<Ask> = None;
    while (answers.len() as u64) < picks {
        world.pass_time();
        if world.dice.one_in(30) {
            let before = world.snapshot().generation;
            world.change();
            if world.snapshot().generation != before {
                trial.update(&world.snapshot()).expect("an update");
                for (index, figures) in world.loads().into_iter().enumerate() {
                    trial.set_load(index, figures);
                }
            }
        }
        let snapshot = world.snapshot();
        if world.dice.one_in(20) {
            let outcomes = outcomes(&mut world.dice, &snapshot);
            trial.observe(&outcomes, world.now_us).expect("outcomes");
        }
        for _ in 0..world.dice.below(4) {
            let (index, figures) = world.change_load();
            trial.set_load(index, figures);
        }
        if snapshot.usable == 0 {
            continue;
        }
        let mut ask = retry.take().unwrap_or_else(|| Ask::random(&mut world.dice, 0));
        ask.facts.now_us = world.now_us;
        let answer = trial
            .pick(&ask.facts, &ask.tried, &mut ask.head.head())
            .expect("an answer");
        answers.push(answer);
        if let Answer::Index(index) = answer
            && let Some(member) = snapshot.members.get(index as usize)
            && world.dice.one_in(4)
        {
            ask.tried.push(member.backend.id);
            retry = Some(ask);
        }
    }
    drop(trial);
    log.end(stream);
    answers
}

fn replayed(log: &[u8], order: &Order) -> Report {
    replay(log, order).unwrap_or_else(|error| panic!("{error}"))
}

fn settings(name: &str, world: u64) -> &'static str {
    match (name, world % 2) {
        ("content-hash", 0) => r#"{"header": "X-User"}"#,
        ("content-hash", _) => r#"{"cookie": "sid"}"#,
        ("chaos", 0) => r#"{"fault": "bad-index", "every": 3}"#,
        ("consistent-hash", 0) => r#"{"balance": 1.5}"#,
        _ => "{}",
    }
}

#[test]
fn every_built_in_policy_decides_the_same_from_its_log() {
    let engine = Engine::new().expect("an engine");
    for name in BUILTIN_POLICIES {
        let log = Log::new();
        let mut answers = 0;
        for number in 0..WORLDS {
            let candidate = candidate(&engine, name, settings(name, number));
            let mut world = World::new(seed().wrapping_add(number));
            answers += record(&candidate, &mut world, &log, number, PICKS / WORLDS).len();
        }
        let report = replayed(&log.close(), &Order::default());
        assert!(report.is_same_version, "{name}");
        assert!(report.is_identical(), "{name}: {:#?}", report.first_difference);
        assert_eq!((report.picks, report.streams), (answers as u64, WORLDS), "{name}");
        assert_eq!((report.moved, report.keys.rehomed), (0, 0), "{name}");
    }
}

#[test]
fn the_first_answer_that_is_not_the_recorded_one_is_named() {
    let engine = Engine::new().expect("an engine");
    let log = Log::new();
    let candidate = candidate(&engine, "round-robin", "{}");
    record(&candidate, &mut World::new(1), &log, 77, 100);
    let bytes = log.close();
    // The recorded answer of a pick is changed, and the digests are made anew, as somebody could who has the program.
    let forged = forge(&bytes);
    let report = replayed(&forged, &Order::default());
    assert!(report.is_same_version && !report.is_identical());
    let first = report.first_difference.expect("a difference");
    assert_eq!((first.stream.as_str(), first.pool.as_str()), ("4d", "trial"));
    assert!(first.recorded.contains("index 4242"), "{first:?}");
    assert_eq!(report.same + 1, report.picks);
}

/// The same log, with another answer in its last pick.
fn forge(bytes: &[u8]) -> Vec<u8> {
    use trimtab::policy::{AnswerEvent, Event, LogReader, decode_events};
    let mut reader = LogReader::new(bytes).expect("a log");
    let mut writer = LogWriter::new(Vec::new()).expect("memory");
    while let Some(frame) = reader.next_frame().expect("a whole log") {
        let Frame::Events {
            stream,
            first,
            events,
        } = frame
        else {
            writer.write(&frame).expect("memory");
            continue;
        };
        let mut events: Vec<Event<'_>> = decode_events(events)
            .map(|event| event.expect("an event"))
            .collect();
        if let Some(Event::Pick(pick)) = events
            .iter_mut()
            .rev()
            .find(|event| matches!(event, Event::Pick(_)))
        {
            pick.answer = AnswerEvent::Index(4242);
        }
        let events: Vec<u8> = events
            .iter()
            .flat_map(|event| postcard::to_stdvec(event).expect("encoded"))
            .collect();
        let events = &events;
        writer
            .write(&Frame::Events {
                stream,
                first,
                events,
            })
            .expect("memory");
    }
    writer.into_inner()
}

/// Five equal backends, and a request for each of a thousand keys, twice.
fn keyed(engine: &Engine, policy: &str, log: &Log) -> BTreeMap<u64, u32> {
    let backend = |number: u32| config::Backend {
        address: format!("10.0.0.{number}:80"),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    let world = World::of((1..=5).map(backend).collect());
    let candidate = candidate(engine, policy, "{}");
    let mut trial = Trial::new(&candidate, &world.snapshot()).expect("a policy that starts");
    trial.record(&candidate, log.recorder(1, u32::MAX), 1);
    let mut homes = BTreeMap::new();
    for number in 0..2000_u64 {
        let facts = Facts {
            key: (number % 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            random: number,
            client: 1,
            now_us: number,
        };
        let mut head = trimtab::http1::Head::of("GET", "a", "/", []);
        let answer = trial
            .pick(&facts, &Tried::default(), &mut head)
            .expect("an answer");
        let Answer::Index(index) = answer else {
            panic!("{answer:?}")
        };
        homes.insert(facts.key, index);
    }
    drop(trial);
    log.end(1);
    homes
}

#[test]
fn without_one_backend_exactly_its_keys_re_home() {
    let engine = Engine::new().expect("an engine");
    let log = Log::new();
    let homes = keyed(&engine, "consistent-hash", &log);
    let order = Order {
        drain: vec!["10.0.0.3:80".to_owned()],
        ..Order::default()
    };
    let report = replayed(&log.close(), &order);
    let of_third = homes.values().filter(|index| **index == 2).count() as u64;
    assert!(of_third > 100, "{of_third}");
    assert!(!report.is_same_version);
    assert_eq!((report.keys.compared, report.keys.rehomed), (1000, of_third));
    assert_eq!((report.picks, report.moved), (2000, 2 * of_third));
    assert!((report.keys.disruption_percent - of_third as f64 / 10.0).abs() < 1e-9);
    let worst = report.worst.as_ref().expect("a change");
    assert_eq!(
        (worst.backend.as_str(), worst.before, worst.after),
        ("10.0.0.3:80", 2 * of_third, 0)
    );
    assert!(report.keys.list.iter().all(|key| key.before == "10.0.0.3:80"));
    assert!(report.faults.is_empty() && report.abstained.after == 0);
}

#[test]
fn another_policy_shows_what_it_would_change_and_what_the_log_does_not_tell_it() {
    let engine = Engine::new().expect("an engine");
    let log = Log::new();
    keyed(&engine, "consistent-hash", &log);
    let bytes = log.close();
    let directory = trimtab_tests::Directory::new();
    let to = |name: &str, settings: Option<&str>| {
        let path = directory.write(name, builtin_component(name).expect("a built-in policy"));
        let order = Order {
            policy: Some(path),
            config_json: settings.map(str::to_owned),
            ..Order::default()
        };
        replayed(&bytes, &order)
    };
    // Every client is the same, so an ip-hash sends all of them to one backend.
    let report = to("ip-hash", None);
    let after: Vec<u64> = report
        .backends
        .iter()
        .map(|share| share.after)
        .filter(|after| *after > 0)
        .collect();
    assert_eq!(after, [2000]);
    // Turns are exact.
    let report = to("round-robin", None);
    assert!(
        report.backends.iter().all(|share| share.after == 400),
        "{:#?}",
        report.backends
    );
    let report = to("content-hash", Some(r#"{"header": "x-user"}"#));
    let missing: Vec<_> = report
        .unrecorded
        .iter()
        .map(|missing| (&*missing.name, missing.picks))
        .collect();
    assert_eq!(missing, [("header x-user", 2000)]);
    let report = to("chaos", Some(r#"{"fault": "bad-index", "every": 4}"#));
    assert_eq!(report.faults["bad-index"].after, 500);
    let left = report
        .backends
        .iter()
        .find(|share| share.backend == "(host)")
        .expect("left to the host");
    assert_eq!((left.before, left.after), (0, 500));
}

#[test]
fn a_log_that_is_not_whole_is_refused_unless_what_is_there_is_enough() {
    let engine = Engine::new().expect("an engine");
    let log = Log::new();
    let candidate = candidate(&engine, "peak-ewma", "{}");
    record(&candidate, &mut World::new(2), &log, 1, 3000);
    let bytes = log.close();
    let cut = &bytes[..bytes.len() - 100];
    let refusal = replay(cut, &Order::default()).expect_err("a refusal").to_string();
    assert!(refusal.contains("truncated"), "{refusal}");
    let order = Order {
        is_partial: true,
        ..Order::default()
    };
    let report = replayed(cut, &order);
    assert!(
        report.is_identical() && (100..3000).contains(&report.picks),
        "{}",
        report.picks
    );
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let refusal = replay(&*changed, &order).expect_err("a refusal").to_string();
    assert!(refusal.contains("was changed"), "{refusal}");
}

#[test]
fn what_is_asked_for_and_not_there_is_a_refusal() {
    let engine = Engine::new().expect("an engine");
    let log = Log::new();
    keyed(&engine, "ip-hash", &log);
    let bytes = log.close();
    let refusal = |order: Order| replay(&*bytes, &order).expect_err("a refusal").to_string();
    let of_pool = refusal(Order {
        pool: Some("other".to_owned()),
        ..Order::default()
    });
    assert!(of_pool.contains("no stream of pool"), "{of_pool}");
    let drained = refusal(Order {
        drain: vec!["10.9.9.9:80".to_owned()],
        ..Order::default()
    });
    assert!(drained.contains("10.9.9.9:80"), "{drained}");
    let mut nothing = Vec::new();
    nothing.write_all(b"something else entirely\n").expect("memory");
    assert!(replay(&*nothing, &Order::default()).is_err());
}
