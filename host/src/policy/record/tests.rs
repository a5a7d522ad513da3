//! What a log keeps, what it notices, and what a worker does when nobody takes it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
};

use super::{recordings::lock, *};
use crate::{
    config,
    http1::Head,
    policy::{Candidate, Engine, Facts, FaultKind, Instance, Trial, Tried, fixture as policies},
    pool::{Pool, fixture},
};

const ADDRESSES: [&str; 3] = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];

fn pool() -> Pool {
    fixture::pool(fixture::config(&ADDRESSES), None, std::time::Instant::now())
}

fn candidate(engine: &Engine) -> Arc<Candidate> {
    builtin(engine, "round-robin")
}

fn builtin(engine: &Engine, name: &str) -> Arc<Candidate> {
    Arc::new(policies::builtin(engine, name))
}

fn segment(engine: &Engine, picks: u32) -> Segment {
    Segment {
        pool: "shop".into(),
        candidate: candidate(engine),
        workers: 1,
        picks,
        headers: Arc::new(["x-extra".to_owned()]),
        show: Arc::default(),
    }
}

fn pick(instance: &mut Instance, number: u64) -> crate::policy::Answer {
    let facts = Facts {
        key: number,
        random: number,
        client: 1,
        now_us: number,
    };
    let mut head = Head::of("GET", "a", "/x?y=1", [("x-extra", &b"1"[..]), ("x-other", b"2")]);
    instance.pick(&facts, &Tried::default(), &mut head).unwrap()
}

fn recorder(picks: u32, outlet: impl FnMut(Batch) -> bool + Send + 'static) -> (Recorder, Arc<StreamState>) {
    let state = Arc::new(StreamState::default());
    let headers = Arc::new(["x-extra".to_owned()]);
    (
        Recorder::new((7, 0), state.clone(), picks, headers, outlet),
        state,
    )
}

/// A log of one stream with some frames.
fn log() -> Vec<u8> {
    let mut log = LogWriter::new(Vec::new()).unwrap();
    for first in 0..4 {
        let frame = Frame::Events {
            stream: 1,
            first,
            events: &[first as u8; 40],
        };
        log.write(&frame).unwrap();
    }
    let end = Frame::End {
        stream: 1,
        ending: Ending::Complete,
    };
    log.write(&end).unwrap();
    log.write(&Frame::Close).unwrap();
    log.into_inner()
}

/// All frames, or what is wrong.
fn read(bytes: &[u8]) -> Result<u64, LogError> {
    let mut log = LogReader::new(bytes)?;
    while log.next_frame()?.is_some() {}
    Ok(log.frames())
}

#[test]
fn what_is_written_is_read() {
    let bytes = log();
    let mut log = LogReader::new(&*bytes).unwrap();
    for number in 0..4 {
        let frame = log.next_frame().unwrap().unwrap();
        let expected = Frame::Events {
            stream: 1,
            first: number,
            events: &[number as u8; 40],
        };
        assert_eq!(frame, expected);
    }
    assert!(matches!(log.next_frame(), Ok(Some(Frame::End { .. }))));
    assert!(matches!(log.next_frame(), Ok(Some(Frame::Close))));
    assert!(matches!(log.next_frame(), Ok(None)));
}

/// With no two values alike.
fn start(engine: &Engine) -> StartEvent<'static> {
    StartEvent {
        recorded_by: "trimtab".into(),
        pool: "größe".into(),
        worker: 3,
        policy: "p".into(),
        digest: candidate(engine).digest.to_string().into(),
        config_json: "{}".into(),
        memory_bytes: 1 << 40,
        has_wasi: true,
        grants: config::Grants::for_tenants(),
        unix_ms: 1,
        now_us: 2,
    }
}

#[test]
fn every_event_is_decoded_as_it_was_encoded() {
    let engine = Engine::new().unwrap();
    let snapshot = pool().snapshot();
    let load = LoadEvent {
        active_total: 5,
        changed: vec![(1, 2, 3, u64::MAX)].into(),
    };
    let events = [
        Event::Start(start(&engine)),
        Event::Backends(BackendsEvent {
            generation: 9,
            in_panic: true,
            members: snapshot.members.iter().map(BackendEvent::new).collect(),
            load: load.clone(),
        }),
        Event::State(StateEvent {
            schema: "turns/1".into(),
            state: vec![1, 2, 3].into(),
        }),
        Event::Outcomes(OutcomesEvent {
            load: load.clone(),
            index: vec![0].into(),
            latency_us: vec![1].into(),
            bytes: vec![2].into(),
            status: vec![503].into(),
            now_us: 7,
        }),
        Event::Pick(PickEvent {
            is_trial: false,
            id: Some("id".into()),
            key: u64::MAX,
            random: 1,
            client: u128::MAX,
            now_us: 3,
            tried: vec![8].into(),
            load,
            method: "GET".into(),
            authority: "a".into(),
            target: "/".into(),
            fields: vec![("x".into(), Some(vec![0xff].into())), ("y".into(), None)],
            cookies: vec![("c".into(), Some("1".into()))],
            answer: AnswerEvent::Fault(FaultEvent::new(FaultKind::Memory)),
            note: Some("because".into()),
        }),
        Event::Fault(FaultEvent::new(FaultKind::Host)),
        Event::Others(OthersEvent {
            merged_ms: 1,
            changed: vec![(0, u32::MAX, 1 << 40)].into(),
        }),
    ];
    let bytes = events
        .iter()
        .flat_map(|event| postcard::to_stdvec(event).unwrap())
        .collect::<Vec<_>>();
    let decoded: Result<Vec<_>, _> = decode_events(&bytes).collect();
    assert_eq!(decoded.unwrap(), events);
    let Event::Backends(backends) = &events[1] else {
        unreachable!()
    };
    let again: Vec<_> = backends
        .snapshot()
        .members
        .iter()
        .map(BackendEvent::new)
        .collect();
    assert_eq!(again, backends.members);
    assert!(decode_events(&bytes[..bytes.len() - 1]).any(|event| event.is_err()));
}

#[test]
fn fault_kinds_keep_their_numbers() {
    for (number, kind) in FaultKind::ALL.into_iter().enumerate() {
        assert_eq!(FaultEvent::new(kind), FaultEvent(number as u8));
        assert_eq!(FaultEvent(number as u8).kind(), Some(kind));
    }
    assert_eq!(FaultEvent(200).kind(), None);
}

#[test]
fn a_changed_byte_is_noticed_in_its_frame_wherever_it_is() {
    let bytes = log();
    assert_eq!(read(&bytes).unwrap(), 6);
    // Frames 1 to 4 have the same length.
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let length = u32::from_le_bytes(bytes[header..header + 4].try_into().unwrap()) as usize + 36;
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let wrong = read(&bytes).unwrap_err();
        match at.checked_sub(header) {
            None => assert!(matches!(wrong, LogError::Header), "{at}: {wrong}"),
            Some(after) => {
                let frame = (after / length) as u64 + 1;
                let named = match wrong {
                    LogError::Digest(named) | LogError::Truncated(named) => named,
                    other => panic!("{at}: {other}"),
                };
                assert!(named == frame || frame > 4, "{at}: frame {named}, not {frame}");
            }
        }
    }
}

#[test]
fn a_frame_that_is_missing_or_moved_is_noticed() {
    let bytes = log();
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let length = u32::from_le_bytes(bytes[header..header + 4].try_into().unwrap()) as usize + 36;
    let second = header + length..header + 2 * length;
    let without = [&bytes[..second.start], &bytes[second.end..]].concat();
    assert!(matches!(read(&without), Err(LogError::Digest(2))));
    let twice = [&bytes[..second.end], &bytes[second.start..]].concat();
    assert!(matches!(read(&twice), Err(LogError::Digest(3))));
    let more = [&bytes[..], &bytes[second]].concat();
    assert!(matches!(read(&more), Err(LogError::AfterClose(6))));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = log();
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_stream_has_what_was_read_and_configured_and_ends_after_its_picks() {
    let engine = Engine::new().unwrap();
    let batches = Arc::new(Mutex::new(Vec::new()));
    let taken = batches.clone();
    let (recorder, state) = recorder(20, move |batch| {
        lock(&taken).push(batch);
        true
    });
    let pool = pool();
    let mut instance = Instance::build_recorded(&candidate(&engine), &pool, recorder).unwrap();
    for number in 0..30 {
        pick(&mut instance, number);
    }
    assert_eq!(state.ending(), Some(Ending::Complete));
    let bytes: Vec<u8> = lock(&batches)
        .iter()
        .flat_map(|batch| batch.events.clone())
        .collect();
    let events: Vec<_> = decode_events(&bytes).map(Result::unwrap).collect();
    assert!(matches!(events[0], Event::Start(_)) && matches!(events[1], Event::Backends(_)));
    let picks: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Pick(pick) => Some(pick),
            _ => None,
        })
        .collect();
    assert_eq!(picks.len(), 21);
    assert!(picks[0].is_trial && !picks[1].is_trial);
    // Round robin reads nothing; `x-other` is nobody's business.
    assert_eq!(picks[1].fields, [("x-extra".into(), Some(b"1"[..].into()))]);
    assert_eq!((&*picks[1].method, &*picks[1].target), ("GET", "/x?y=1"));
}

#[test]
fn an_instance_answers_the_same_whether_it_is_recorded_or_not() {
    let engine = Engine::new().unwrap();
    let (recorder, _) = recorder(1000, |_| true);
    let (candidate, snapshot) = (candidate(&engine), pool().snapshot());
    let mut recorded = Trial::new(&candidate, &snapshot).unwrap();
    recorded.record(&candidate, recorder, 1);
    let mut plain = Trial::new(&candidate, &snapshot).unwrap();
    for number in 0..100 {
        let facts = Facts {
            key: number,
            random: number,
            client: 1,
            now_us: number,
        };
        let ask = |trial: &mut Trial| trial.pick(&facts, &Tried::default(), &mut Head::default());
        assert_eq!(ask(&mut recorded).unwrap(), ask(&mut plain).unwrap());
    }
}

#[test]
fn a_worker_whose_batches_find_no_room_goes_on_without_recording() {
    let engine = Engine::new().unwrap();
    // Room for one, and nobody who takes it.
    let (queue, _unread) = mpsc::sync_channel(1);
    let (recorder, state) = recorder(u32::MAX, move |batch| queue.try_send(batch).is_ok());
    let pool = pool();
    let mut instance = Instance::build_recorded(&candidate(&engine), &pool, recorder).unwrap();
    for number in 0..5_000 {
        pick(&mut instance, number);
    }
    assert_eq!(state.ending(), Some(Ending::Gap));
}

/// A disk that stands still until it is told to go on, and then keeps what it is given.
struct Stuck {
    go_on: mpsc::Receiver<()>,
    is_going: bool,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_going {
            let _ = self.go_on.recv();
            self.is_going = true;
        }
        lock(&self.kept).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_stands_still_ends_the_recording_and_the_log_says_so() {
    let engine = Engine::new().unwrap();
    let recordings = Recordings::new(Storage {
        directory: None,
        disk_bytes: 1 << 30,
        memory_bytes: 1 << 20,
    });
    let (go_on, waits) = mpsc::channel();
    let kept = Arc::default();
    let disk = Stuck {
        go_on: waits,
        is_going: false,
        kept: Arc::clone(&kept),
    };
    // The header is written through a buffer, so that only the thread meets the disk.
    let output: Box<dyn Write + Send> = Box::new(io::BufWriter::with_capacity(1 << 10, disk));
    let file = writer::File::new(LogWriter::new(output).unwrap(), "stuck".into(), u64::MAX);
    let mut opened = recordings
        .open_with(&segment(&engine, u32::MAX), Some(file), None)
        .unwrap();
    let recorder = opened.recorders.remove(0);
    let pool = pool();
    let mut instance = Instance::build_recorded(&candidate(&engine), &pool, recorder).unwrap();
    // More than the queue takes: the test would hang here if a pick waited for the disk.
    for number in 0..100_000 {
        pick(&mut instance, number);
    }
    go_on.send(()).unwrap();
    drop(instance);
    recordings.finish();
    let bytes = lock(&kept).clone();
    let mut log = LogReader::new(&*bytes).unwrap();
    let mut endings = Vec::new();
    while let Some(frame) = log.next_frame().unwrap() {
        if let Frame::End { ending, .. } = frame {
            endings.push(ending);
        }
    }
    assert_eq!(endings, [Ending::Gap]);
}

#[test]
fn the_oldest_files_are_removed_when_there_is_too_much() {
    let engine = Engine::new().unwrap();
    let directory = std::env::temp_dir().join(format!("trimtab-record-{}", std::process::id()));
    let recordings = Recordings::new(Storage {
        directory: Some(directory.clone()),
        disk_bytes: 100 << 10,
        memory_bytes: 1 << 20,
    });
    let pool = pool();
    let mut paths = Vec::new();
    for _ in 0..6 {
        let mut opened = recordings.open(&segment(&engine, 500)).unwrap();
        paths.extend(opened.path);
        let recorder = opened.recorders.remove(0);
        let mut instance = Instance::build_recorded(&candidate(&engine), &pool, recorder).unwrap();
        for number in 0..500 {
            pick(&mut instance, number);
        }
        drop(instance);
        // Closed, so that it may be removed.
        recordings.finish();
    }
    let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
    let bytes: u64 = paths
        .iter()
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .sum();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(!left[0] && left[5], "{left:?}");
    assert!(left.is_sorted(), "{left:?}");
    assert!(bytes <= 130 << 10, "{bytes} bytes");
}

#[test]
fn memory_keeps_whole_streams_and_the_latest() {
    let engine = Engine::new().unwrap();
    let mut recent = recent::Recent::new(100);
    for stream in 0..3 {
        recent.open(Recorded::new(
            stream,
            "shop".into(),
            candidate(&engine),
            Arc::default(),
        ));
        recent.add(stream, &[0; 40]);
    }
    let streams = |recent: &recent::Recent| recent.all().iter().map(|kept| kept.stream).collect::<Vec<_>>();
    assert_eq!(streams(&recent), [2, 1]);
    recent.add(2, &[0; 90]);
    assert_eq!(
        streams(&recent),
        [0_u64; 0],
        "one that is too large leaves as a whole"
    );
    recent.add(2, &[0; 1]);
    assert_eq!(streams(&recent), [0_u64; 0]);
}
