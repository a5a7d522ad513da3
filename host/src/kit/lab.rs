//! Instances of a policy, asked about situations.
//!
//! Owns the way from a [`Scene`] to answers: one fresh instance for each, everything it can see scripted. It must not know
//! what the answers should be.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    KitError,
    field::Field,
    scene::{Ask, Scene, Step, address},
    subject::Subject,
};
use crate::{
    config::{self, HashOn},
    http1::Head,
    policy::{Answer, Candidate, Code, Engine, Facts, Outcome, Trial, Tried, key_of},
};

/// Time between two requests.
const PACE_US: u64 = 500;

/// A compiled policy, and whatever is needed to ask instances of it.
pub(super) struct Lab {
    engine: Engine,
    candidate: Candidate,
    code: Arc<Code>,
    /// What a request's key is made of.
    pub(super) key: HashOn,
}

/// What a policy answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    /// This backend, by its number, or by its place in the pool of a case.
    Backend(u32),
    NoOpinion,
    Reject(u16),
}

impl Lab {
    /// Compiles, by an engine that counts instructions.
    pub(super) fn open(subject: &Subject) -> Result<Self, KitError> {
        let engine = Engine::counting().map_err(|error| KitError(format!("{error:#}")))?;
        let refused = |refusal: crate::policy::Refusal| KitError(refusal.to_string());
        let code = Arc::new(Code::compile(&engine, &subject.wasm).map_err(refused)?);
        let candidate = Candidate::admit(&engine, subject.spec.clone(), &code).map_err(refused)?;
        Ok(Self {
            engine,
            candidate,
            code,
            key: subject.claims.sticky.clone().unwrap_or(HashOn::ClientIp),
        })
    }

    /// The compiled policy.
    pub(super) fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// The same policy with other settings.
    pub(super) fn configured(&self, settings_json: &str) -> Result<Candidate, String> {
        let spec = config::Policy {
            config_json: settings_json.to_owned(),
            ..(*self.candidate.spec).clone()
        };
        let admitted = Candidate::admit(&self.engine, Arc::new(spec), &self.code);
        admitted.map_err(|refusal| refusal.to_string())
    }

    /// A fresh instance that was shown the pool of a scene, to which nothing has happened yet.
    pub(super) fn stand(&self, scene: &Scene) -> Result<Stand<'_>, String> {
        let placed: Vec<_> = scene.spots.iter().map(super::scene::Spot::placed).collect();
        let field = Field::new(&placed, scene.panic_threshold, vec![self.key.clone()]);
        let trial = Trial::in_pool(&self.candidate, field.pool(), &field.snapshot(), field.view())
            .map_err(|fault| fault.to_string())?;
        Ok(Stand {
            trial,
            field,
            numbers: scene.spots.iter().map(|spot| spot.number).collect(),
            all: scene.spots.iter().map(|spot| spot.number).collect(),
            key: &self.key,
        })
    }

    /// Lets a scene happen, and gives the picks, each seen by `judge` first.
    pub(super) fn play(
        &self,
        scene: &Scene,
        mut judge: impl FnMut(&Ask, Picked) -> Result<(), String>,
    ) -> Result<Vec<Picked>, String> {
        let mut stand = self.stand(scene)?;
        let mut picks = Vec::new();
        for step in &scene.steps {
            if let Some((ask, picked)) = stand.take(step)? {
                judge(ask, picked)?;
                picks.push(picked);
            }
        }
        Ok(picks)
    }
}

/// An instance at work in a pool.
pub(super) struct Stand<'a> {
    pub(super) trial: Trial,
    pub(super) field: Field,
    /// The numbers of the backends that are in the pool now, by index.
    numbers: Vec<u32>,
    /// Those of all backends of the scene.
    all: Vec<u32>,
    key: &'a HashOn,
}

impl Stand<'_> {
    /// Lets something happen. The pick of a request while no backend is usable is not made: the host makes none either.
    pub(super) fn take<'s>(&mut self, step: &'s Step) -> Result<Option<(&'s Ask, Picked)>, String> {
        match step {
            Step::Pick(_) if self.field.snapshot().usable == 0 => {}
            Step::Pick(ask) => return Ok(Some((ask, self.ask(ask)?))),
            Step::State(number, state) => {
                self.field.set_state(id(*number), *state);
                self.update()?;
            }
            Step::Weight(number, weight) => {
                self.field.set_weight(id(*number), *weight);
                self.update()?;
            }
            Step::Reload(numbers) => {
                let known = |number: &u32| self.all.iter().position(|known| known == number);
                let places: Vec<usize> = numbers.iter().filter_map(known).collect();
                self.numbers = places.iter().map(|place| self.all[*place]).collect();
                self.field.reload(&places);
                self.update()?;
            }
            Step::Load(number, figures) => {
                if let Some(index) = self.index(*number) {
                    self.field.set_figures(index, *figures);
                    self.trial.set_load(index, *figures);
                }
            }
            Step::Outcome(number, latency_us, status) => {
                if let Some(index) = self.index(*number) {
                    let outcome = Outcome {
                        index,
                        latency_us: *latency_us,
                        bytes: 1000,
                        status: *status,
                    };
                    let observed = self.trial.observe(&[outcome], self.field.now_us);
                    observed.map_err(|fault| fault.to_string())?;
                }
            }
        }
        Ok(None)
    }

    /// Shows the backends as they are now.
    pub(super) fn update(&mut self) -> Result<(), String> {
        let updated = self
            .trial
            .update_with_load(&self.field.snapshot(), self.field.view());
        updated.map_err(|fault| fault.to_string())
    }

    /// Asks about a request, and checks the answer as the host would.
    pub(super) fn ask(&mut self, ask: &Ask) -> Result<Picked, String> {
        self.field.now_us += PACE_US;
        let mut head = head(ask, self.key);
        let random = mix(ask.noise);
        let client = if *self.key == HashOn::ClientIp {
            client(ask.user)
        } else {
            client(ask.noise)
        };
        let facts = Facts {
            key: key_of(std::slice::from_ref(self.key), &head, client, random),
            random,
            client,
            now_us: self.field.now_us,
        };
        let mut tried = Tried::default();
        ask.tried.iter().for_each(|number| tried.push(id(*number)));
        let answer = self
            .trial
            .pick(&facts, &tried, &mut head)
            .map_err(|fault| fault.to_string())?;
        Ok(match answer {
            Answer::Index(index) => {
                let accepted = self.trial.accept(index, &tried);
                let index = accepted.map_err(|fault| fault.to_string())?;
                Picked::Backend(self.numbers[index])
            }
            Answer::Abstain => Picked::NoOpinion,
            Answer::Reject(status) => Picked::Reject(status),
        })
    }

    /// The index of the backend of this number.
    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.numbers.iter().position(|known| *known == number)
    }

    /// Instructions that `run` takes.
    pub(super) fn work_of<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<u64, String> {
        let before = self.trial.work().unwrap_or(0);
        run(self)?;
        Ok(self.trial.work().unwrap_or(0).saturating_sub(before))
    }
}

impl std::fmt::Display for Picked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(number) => write!(f, "b{number}"),
            Self::NoOpinion => f.write_str("no opinion"),
            Self::Reject(status) => write!(f, "a refusal with {status}"),
        }
    }
}

fn id(number: u32) -> u64 {
    xxh3_64(address(number).as_bytes())
}

/// Spreads any number over all bits; the finalizer of SplitMix64.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// An IPv4 client.
fn client(number: u64) -> u128 {
    0xffff_0a00_0000 | u128::from(mix(number) & 0xff_ffff)
}

/// A head whose key is the user's, and everything else is noise.
fn head(ask: &Ask, key: &HashOn) -> Head {
    let (user, noise) = (ask.user, ask.noise);
    let part = |source: bool| if source { user } else { noise };
    let query = match key {
        HashOn::Query(name) => format!("{name}=u{user}&x={noise}"),
        _ => format!("x={noise}"),
    };
    let path = part(*key == HashOn::Path);
    let target = format!("/s{}/{path}?{query}", path % 7);
    let host = format!("h{}.example", part(*key == HashOn::Host));
    let mut fields = vec![
        ("user-agent".to_owned(), format!("agent/{}", noise % 5)),
        ("x-user".to_owned(), format!("u{noise}")),
    ];
    match key {
        HashOn::Header(name) => {
            fields.retain(|(known, _)| known != name);
            fields.push((name.clone(), format!("u{user}")));
        }
        HashOn::Cookie(name) => fields.push(("cookie".to_owned(), format!("n={noise}; {name}=u{user}"))),
        _ => fields.push(("cookie".to_owned(), format!("sid=s{noise}"))),
    }
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let method = if noise % 9 == 0 { "POST" } else { "GET" };
    Head::of(method, &host, &target, fields)
}
