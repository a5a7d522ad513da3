//! The components of all releases in the host of today.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::unbounded_channel;
use trimtab::{
    config,
    http1::Head,
    policy::{
        Answer, Candidate, Decision, Deployment, Engine, Facts, Instance, Outcome, Refusal, Seat, Trial,
        Tried, client_bits,
    },
    pool::{Figures, Pool, Told},
};
use trimtab_tests::Lines;
use wit_component::{StringEncoding, embed_component_metadata};

use crate::{
    compatible::Contract,
    releases,
    transcript::{Backend, Observe, Pick, State, Step, Transcript},
};

/// Each frozen component with its transcript.
fn fixtures() -> Vec<(PathBuf, Transcript)> {
    let mut fixtures = Vec::new();
    for release in releases() {
        let files = fs::read_dir(&release)
            .expect("a release")
            .map(|entry| entry.expect("an entry").path());
        let mut components: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .collect();
        components.sort();
        assert!(!components.is_empty(), "{} has no components", release.display());
        fixtures.extend(components.into_iter().map(|component| {
            let answers = component.with_extension("json");
            let text =
                fs::read_to_string(&answers).unwrap_or_else(|error| panic!("{}: {error}", answers.display()));
            let transcript =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", answers.display()));
            (component, transcript)
        }));
    }
    fixtures
}

#[test]
fn every_component_ever_released_answers_as_it_did() {
    let log = Lines::keep();
    for (path, transcript) in fixtures() {
        let wrong = play(&path, &transcript, log);
        assert!(wrong.is_empty(), "{}:\n{}", path.display(), wrong.join("\n"));
    }
}

#[test]
fn settings_that_were_refused_are_refused() {
    for (path, transcript) in fixtures() {
        let Some(refused) = transcript.refused else {
            continue;
        };
        let candidate = candidate(&path, &refused.settings).expect("its settings are read by itself only");
        let pool = pool(&transcript.backends);
        let refusal = Trial::new(&candidate, &pool.snapshot())
            .err()
            .expect("a refusal")
            .to_string();
        assert!(
            refusal.contains(&refused.because),
            "{}: {refusal}",
            path.display()
        );
    }
}

#[test]
fn state_is_handed_on() {
    for (path, transcript) in fixtures() {
        let Some(State {
            target,
            before,
            after,
        }) = transcript.state
        else {
            continue;
        };
        let candidate = Arc::new(candidate(&path, &transcript.settings).expect("a fit component"));
        let pool = Arc::new(pool(&transcript.backends));
        let build = || {
            let deployment = Arc::new(Deployment::new(candidate.clone(), "main", 1));
            (
                deployment,
                Instance::build(&candidate, &pool).expect("it is admitted"),
            )
        };
        let ((first, instance), (second, successor)) = (build(), build());
        let mut seat = Seat::new(0, pool.clone(), first, instance, unbounded_channel().0);
        let picks = |seat: &mut Seat, count: usize| -> Vec<usize> {
            (0..count).map(|_| decide(seat, &target)).collect()
        };
        assert_eq!(picks(&mut seat, before.len()), before, "{}", path.display());
        seat.install(second, successor);
        assert_eq!(
            picks(&mut seat, after.len()),
            after,
            "{} after the swap",
            path.display()
        );
    }
}

/// A later release of the same track adds functions, and this one calls none of them.
#[test]
fn a_policy_of_a_later_release_is_served_if_it_uses_nothing_new() {
    let later = "0.1.99";
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/everything");
    let text = fs::read_to_string(source.join("bare.wat")).expect("the source");
    let mut module = wat::parse_str(text.replace("VERSION", later)).expect("a module");
    let (resolve, worlds) = Contract::current().at(later);
    let (_, world) = worlds
        .iter()
        .find(|(name, _)| name == "policy")
        .expect("the world");
    embed_component_metadata(&mut module, &resolve, *world, StringEncoding::UTF8).expect("embedded");
    let candidate = compile(&module, &serde_json::json!({})).expect("a fit component");
    let snapshot = pool(&[Backend::at("10.0.0.1:80")]).snapshot();
    let mut trial = Trial::new(&candidate, &snapshot).expect("it starts");
    let answer = trial.pick(&Facts::default(), &Tried::default(), &mut head("GET", "/", &[]));
    assert_eq!(answer.expect("an answer"), Answer::Index(0));
}

/// A GET's backend.
fn decide(seat: &mut Seat, target: &str) -> usize {
    let mut head = head("GET", target, &[]);
    match seat.decide(&Facts::default(), &Tried::default(), &mut head) {
        Decision::Send(choice) => choice.index,
        other => panic!("{other:?} for {target}"),
    }
}

/// Makes all steps, and tells what came out otherwise.
fn play(path: &Path, transcript: &Transcript, log: Lines) -> Vec<String> {
    let candidate = candidate(path, &transcript.settings)
        .unwrap_or_else(|refusal| panic!("{} does not load any more: {refusal}", path.display()));
    let pool = pool(&transcript.backends);
    let mut trial = Trial::new(&candidate, &pool.snapshot())
        .unwrap_or_else(|fault| panic!("{} does not start any more: {fault}", path.display()));
    set_load(&trial, transcript);
    let mut wrong = Vec::new();
    for step in &transcript.steps {
        match step {
            Step::Pick(pick) => wrong.extend(ask(&mut trial, &pool, pick, log)),
            Step::Observe(observe) => tell(&mut trial, observe),
            Step::Drain { drain } => {
                let id = pool.snapshot().members[*drain].backend.id;
                pool.set_draining(id, true, Instant::now());
                trial.update(&pool.snapshot()).expect("it takes an update");
                set_load(&trial, transcript);
            }
        }
    }
    wrong
}

fn set_load(trial: &Trial, transcript: &Transcript) {
    for (index, load) in transcript.load.iter().enumerate() {
        let figures = Figures {
            active: load.active,
            latency_us: load.latency_us,
            throughput: load.throughput,
        };
        trial.set_load(index, figures);
        if let Some(told_ms) = load.told_ms {
            let active = load.others;
            trial.set_others(index, Told { active, told_ms });
        }
    }
}

/// One pick, and what is wrong with it.
fn ask(trial: &mut Trial, pool: &Pool, pick: &Pick, log: Lines) -> Option<String> {
    let mut tried = Tried::default();
    for index in &pick.tried {
        tried.push(pool.snapshot().members[*index].backend.id);
    }
    let facts = Facts {
        key: pick.key,
        random: pick.random,
        client: pick.client.map_or(0, client_bits),
        now_us: pick.now_us,
    };
    let mut head = head(&pick.method, &pick.target, &pick.headers);
    let answer = match trial.pick(&facts, &tried, &mut head) {
        Ok(Answer::Index(index)) => index.to_string(),
        Ok(Answer::Abstain) => "none".to_owned(),
        Ok(Answer::Reject(status)) => format!("reject {status}"),
        Err(_) => "fault".to_owned(),
    };
    let note = trial.take_note();
    let is_logged = pick.log.as_ref().is_none_or(|words| !log.with(words).is_empty());
    let is_noted = pick.note.is_none() || pick.note == note;
    let is_right = answer == pick.answer && is_noted && is_logged;
    (!is_right).then(|| format!("{}: {answer}, {note:?}, logged {is_logged}", pick.target))
}

fn tell(trial: &mut Trial, observe: &Observe) {
    let outcomes: Vec<Outcome> = (observe.outcomes.iter())
        .map(|outcome| Outcome {
            index: outcome.index,
            latency_us: outcome.latency_us,
            bytes: outcome.bytes,
            status: outcome.status,
        })
        .collect();
    trial
        .observe(&outcomes, observe.now_us)
        .expect("it takes outcomes");
}

fn head(method: &str, target: &str, fields: &[(String, String)]) -> Head {
    let mut request = http::Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(name, value);
    }
    Head::from_parts(&request.body(()).expect("a head").into_parts().0)
}

fn candidate(path: &Path, settings: &serde_json::Value) -> Result<Candidate, Refusal> {
    compile(&fs::read(path).expect("a component"), settings)
}

fn compile(bytes: &[u8], settings: &serde_json::Value) -> Result<Candidate, Refusal> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().expect("an engine"));
    let spec = config::Policy {
        name: "fixture".into(),
        tenant: None,
        grants: config::Grants::everything(),
        source: config::PolicySource::File("fixture.wasm".into()),
        memory_bytes: 16 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        config_json: settings.to_string(),
        line: None,
    };
    Candidate::compile(engine, Arc::new(spec), bytes)
}

/// A pool of these backends, of which only the first tier serves.
fn pool(backends: &[Backend]) -> Pool {
    let second = Duration::from_secs(1);
    let backends: Vec<_> = (backends.iter())
        .map(|backend| config::Backend {
            address: backend.address.as_str().into(),
            weight: backend.weight,
            zone: backend.zone.as_deref().map(Into::into),
            tier: backend.tier,
            labels: backend.labels.clone(),
        })
        .collect();
    let sockets: Vec<_> = (backends.iter())
        .map(|backend| backend.address.parse().expect("a numeric address"))
        .collect();
    let config = config::Pool {
        protocol: config::PoolProtocol::Http1,
        send_proxy: None,
        tls: None,
        name: "main".into(),
        policy: "fixture".into(),
        tenant: None,
        fallback: "least-connections".into(),
        hash_on: vec![config::HashOn::ClientIp],
        backends,
        discover: None,
        connect_timeout: second,
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
