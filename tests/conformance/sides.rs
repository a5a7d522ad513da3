//! The two builds of a policy behind one face.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use trimtab::{
    config,
    policy::{Answer, Candidate, Engine, Outcome, Trial},
    pool::{Figures, Snapshot},
};
use trimtab_policy::testing::{FakeHost, Native, with_host};

use crate::traffic::Ask;

/// A build of a policy in service. Faults come as their message.
pub(crate) trait Side {
    fn name(&self) -> &'static str;

    /// Shows the backends; none has any load afterwards.
    fn update(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String>;

    fn set_load(&mut self, index: usize, figures: Figures);

    fn pick(&mut self, ask: &Ask) -> Result<Answer, String>;

    /// Whether the host takes this answer; only the side that has the real host knows.
    fn accept(&self, index: u32, ask: &Ask) -> Result<(), String>;

    fn observe(&mut self, outcomes: &[Outcome], now_us: u64) -> Result<(), String>;
}

/// A policy's two builds, from which any number of instances can be made.
pub(crate) struct Builds {
    native: fn() -> Box<dyn Native>,
    candidate: Candidate,
}

impl Builds {
    /// Compiles the component, which takes half a second in a debug build of the compiler.
    pub(crate) fn new(name: &str, native: fn() -> Box<dyn Native>) -> Self {
        Self {
            native,
            candidate: candidate(name),
        }
    }

    /// Two instances with the same settings and the same first update.
    pub(crate) fn start(&mut self, settings: &str, snapshot: &Arc<Snapshot>) -> [Box<dyn Side>; 2] {
        self.candidate.spec = Arc::new(config::Policy {
            config_json: settings.into(),
            ..(*self.candidate.spec).clone()
        });
        [
            Box::new(NativeSide::new((self.native)(), settings, snapshot)),
            Box::new(ComponentSide::new(&self.candidate, snapshot)),
        ]
    }
}

/// The native build, under the SDK's test host.
struct NativeSide {
    policy: Box<dyn Native>,
    snapshot: Arc<Snapshot>,
}

impl NativeSide {
    fn new(mut policy: Box<dyn Native>, settings: &str, snapshot: &Arc<Snapshot>) -> Self {
        with_host(|host| {
            *host = FakeHost {
                // Values that only the host hashes must hash alike.
                header_hash: xxhash_rust::xxh3::xxh3_64,
                ..FakeHost::default()
            };
        });
        policy.configure(settings).expect("settings that fit");
        let mut side = Self {
            policy,
            snapshot: snapshot.clone(),
        };
        side.update(snapshot).expect("native updates cannot fail");
        side
    }
}

impl Side for NativeSide {
    fn name(&self) -> &'static str {
        "native"
    }

    fn update(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.snapshot = snapshot.clone();
        with_host(|host| {
            host.active = vec![0; snapshot.members.len()];
            host.latency_us.clone_from(&host.active);
            host.throughput = vec![0; snapshot.members.len()];
        });
        self.policy.update(columns(snapshot));
        Ok(())
    }

    fn set_load(&mut self, index: usize, figures: Figures) {
        with_host(|host| {
            host.active[index] = figures.active;
            host.latency_us[index] = figures.latency_us;
            host.throughput[index] = figures.throughput;
        });
    }

    fn pick(&mut self, ask: &Ask) -> Result<Answer, String> {
        with_host(|host| {
            let owned = |pairs: &[(&str, String)]| -> Vec<(String, String)> {
                let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
                pairs.iter().map(own).collect()
            };
            host.tried = ask.tried_in(&self.snapshot);
            host.method = ask.head.method.to_owned();
            host.authority.clone_from(&ask.head.authority);
            host.path.clone_from(&ask.head.path);
            host.query.clone_from(&ask.head.query);
            host.headers = owned(&ask.head.headers);
            host.cookies = owned(&ask.head.cookies);
        });
        let answer = self.policy.pick(trimtab_policy::Facts {
            key: ask.facts.key,
            random: ask.facts.random,
            client_hi: (ask.facts.client >> 64) as u64,
            client_lo: ask.facts.client as u64,
            attempt: ask.tried.attempts(),
            now_us: ask.facts.now_us,
        });
        let rejected = with_host(|host| host.rejected);
        Ok(match (answer, rejected) {
            (Some(index), _) => Answer::Index(index),
            (None, Some(status)) => Answer::Reject(status),
            (None, None) => Answer::Abstain,
        })
    }

    fn accept(&self, _index: u32, _ask: &Ask) -> Result<(), String> {
        Ok(())
    }

    fn observe(&mut self, outcomes: &[Outcome], now_us: u64) -> Result<(), String> {
        let outcome = |outcome: &Outcome| trimtab_policy::Outcome {
            index: outcome.index,
            latency_us: outcome.latency_us,
            bytes: outcome.bytes,
            status: outcome.status.unwrap_or(0),
        };
        let outcomes: Vec<_> = outcomes.iter().map(outcome).collect();
        // One that does not observe ignores them, and so does its component.
        self.policy.outcomes(&outcomes, now_us);
        Ok(())
    }
}

/// The lists of the contract, made here a second time: the host's own making of them is under test.
fn columns(snapshot: &Snapshot) -> trimtab_policy::Snapshot {
    let mut columns = trimtab_policy::Snapshot {
        generation: snapshot.generation,
        ..trimtab_policy::Snapshot::default()
    };
    for member in &snapshot.members {
        columns.ids.push(member.backend.id);
        columns.addresses.push(member.backend.address.to_string());
        columns.weights.push(member.weight);
        columns.ramps.push(member.ramp);
        columns.zones.push(member.zone);
        columns.tiers.push(member.tier);
        columns.usable.push(u8::from(member.usable));
        columns
            .labels
            .push((*member.labels).clone().into_iter().collect());
    }
    columns
}

/// The component, in the real host.
struct ComponentSide(Trial);

impl ComponentSide {
    fn new(candidate: &Candidate, snapshot: &Arc<Snapshot>) -> Self {
        Self(Trial::new(candidate, snapshot).expect("the component starts"))
    }
}

impl Side for ComponentSide {
    fn name(&self) -> &'static str {
        "component"
    }

    fn update(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.0.update(snapshot).map_err(|fault| fault.to_string())
    }

    fn set_load(&mut self, index: usize, figures: Figures) {
        self.0.set_load(index, figures);
    }

    fn pick(&mut self, ask: &Ask) -> Result<Answer, String> {
        let mut head = ask.head.head();
        let answer = self.0.pick(&ask.facts, &ask.tried, &mut head);
        answer.map_err(|fault| fault.to_string())
    }

    fn accept(&self, index: u32, ask: &Ask) -> Result<(), String> {
        let accepted = self.0.accept(index, &ask.tried);
        accepted.map(|_| ()).map_err(|fault| fault.to_string())
    }

    fn observe(&mut self, outcomes: &[Outcome], now_us: u64) -> Result<(), String> {
        self.0
            .observe(outcomes, now_us)
            .map_err(|fault| fault.to_string())
    }
}

/// A component in the real host, in service.
pub(crate) fn component(candidate: &Candidate, snapshot: &Arc<Snapshot>) -> Box<dyn Side> {
    Box::new(ComponentSide::new(candidate, snapshot))
}

/// Compiles a built-in policy's component.
pub(crate) fn candidate(name: &str) -> Candidate {
    let directory = std::env::var("TRIMTAB_POLICIES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist").into());
    let path = Path::new(&directory).join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    compile(name, &bytes)
}

/// Compiles a component. The deadline is the longest there is: the machine may be busy.
pub(crate) fn compile(name: &str, bytes: &[u8]) -> Candidate {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new().expect("an engine"));
    let spec = config::Policy {
        name: name.into(),
        tenant: None,
        grants: config::Grants::everything(),
        source: config::PolicySource::Builtin(name.into()),
        memory_bytes: 32 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        config_json: "{}".into(),
        line: None,
    };
    Candidate::compile(engine, Arc::new(spec), bytes).expect("a fit component")
}
