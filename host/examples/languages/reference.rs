//! The policy, natively, and what it is asked: pools, load, headers and retries from a seed.
//!
//! Owns the definition that every language has to meet, see `examples/languages/README.md`. It shares no code with any of
//! them.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use trimtab::{
    config,
    http1::Head,
    policy::{Answer, Candidate, Facts, Trial, Tried},
    pool::{Figures, Pool, Snapshot},
};

/// Decisions with one set of backends.
const DECISIONS_PER_POOL: usize = 500;
const BACKENDS_MAX: usize = 40;

/// Whether a request has a session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Session {
    Some,
    None,
}

impl Session {
    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::Some => Some("user-4f1c0e5b9a"),
            Self::None => None,
        }
    }
}

/// A pool and its load.
pub(crate) struct Scene {
    pool: Pool,
    active: Vec<u32>,
}

impl Scene {
    /// The one on which picks are timed: all usable, with load.
    pub(crate) fn timed(backends: usize) -> Self {
        let weights = (0..backends).map(|index| 1 + index as u32 % 3).collect();
        let active = (0..backends).map(|index| 50 - index as u32 % 7).collect();
        Self {
            pool: pool(weights),
            active,
        }
    }

    fn random(dice: &mut fastrand::Rng) -> Self {
        let backends = dice.usize(1..=BACKENDS_MAX);
        // One of weight 0 is never usable.
        let weights = (0..backends).map(|_| *dice.choice(&[0, 1, 1, 2, 3, 100, 65_535]).unwrap_or(&1));
        let pool = pool(weights.collect());
        for member in &pool.snapshot().members {
            if dice.u8(0..8) == 0 {
                pool.set_draining(member.backend.id, true, Instant::now());
            }
        }
        Self {
            pool,
            active: vec![0; backends],
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.pool.snapshot()
    }

    pub(crate) fn show_load(&self, trial: &Trial) {
        for (index, active) in self.active.iter().enumerate() {
            let figures = Figures {
                active: *active,
                ..Figures::default()
            };
            trial.set_load(index, figures);
        }
    }

    fn shift_load(&mut self, dice: &mut fastrand::Rng) {
        for active in &mut self.active {
            *active = match dice.u8(0..4) {
                0 => 0,
                1 => dice.u32(0..4),
                2 => dice.u32(0..1000),
                _ => dice.u32(0..1 << 20),
            };
        }
    }
}

fn pool(weights: Vec<u32>) -> Pool {
    let backend = |(index, weight): (usize, u32)| config::Backend {
        address: format!("10.0.0.{index}:80"),
        weight,
        zone: Some(format!("zone-{}", index % 3)),
        tier: 0,
        labels: BTreeMap::from([("größe".to_owned(), format!("{index}"))]),
    };
    let backends: Vec<_> = weights.into_iter().enumerate().map(backend).collect();
    let sockets: Vec<_> = (0..backends.len())
        .map(|index| ([10, 0, 0, index as u8], 80).into())
        .collect();
    let second = Duration::from_secs(1);
    let config = config::Pool {
        name: "languages".into(),
        tenant: None,
        policy: "any".into(),
        fallback: "least-connections".into(),
        hash_on: vec![config::HashOn::ClientIp],
        backends,
        protocol: config::PoolProtocol::Http1,
        send_proxy: None,
        tls: None,
        discover: None,
        connect_timeout: second,
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
    Pool::new(Arc::new(config), &sockets, 1, None, Instant::now())
}

/// A browser's request, perhaps with a session.
pub(crate) fn head(session: Option<&str>) -> Head {
    let mut request = http::Request::builder()
        .uri("/static/app.js?v=3")
        .header("host", "shop.example")
        .header("accept-language", "en-US,en;q=0.5");
    if let Some(session) = session {
        // The name in another case than the policy asks for.
        request = request.header("X-Session", session.as_bytes());
    }
    let (parts, ()) = request.body(()).expect("a request").into_parts();
    Head::from_parts(&parts)
}

pub(crate) fn facts(number: u64) -> Facts {
    Facts {
        key: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        random: number.wrapping_mul(0xd134_2543_de82_ef95),
        client: 0xffff_0a00_0001,
        now_us: number,
    }
}

/// A session's name: short, long, empty, of one byte to four a character; or none.
fn session(dice: &mut fastrand::Rng) -> Option<String> {
    let number = dice.u32(0..1000);
    Some(match dice.u8(0..12) {
        0..=4 => return None,
        5 | 6 => format!("user-{number}"),
        7 => String::new(),
        8 => format!("größe-{number}-ß"),
        9 => format!("日本語-{number}"),
        10 => format!("🦀{number}🚢"),
        _ => format!("{number}").repeat(100),
    })
}

/// The policy: a session's hash says which of the backends that are ready; without a session it is the one with
/// the fewest requests for its weight, the first of equal ones.
fn decide(scene: &Scene, tried: &Tried, session: Option<&str>) -> Answer {
    let snapshot = scene.snapshot();
    let member = |index: &usize| &snapshot.members[*index];
    let usable: Vec<usize> = (0..snapshot.members.len())
        .filter(|index| member(index).usable)
        .collect();
    let untried = usable
        .iter()
        .copied()
        .filter(|index| !tried.contains(member(index).backend.id));
    let untried: Vec<usize> = untried.collect();
    let ready = if untried.is_empty() { usable } else { untried };
    let index = match session {
        Some(session) if !ready.is_empty() => {
            let hash = session.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
            });
            Some(ready[hash as usize % ready.len()])
        }
        Some(_) => None,
        None => ready.into_iter().min_by(|&one, &other| {
            let weight = |index: usize| u64::from(snapshot.members[index].weight);
            let active = |index: usize| u64::from(scene.active[index]);
            (active(one) * weight(other)).cmp(&(active(other) * weight(one)))
        }),
    };
    index.map_or(Answer::Abstain, |index| Answer::Index(index as u32))
}

/// Asks component and reference the same. Gives how many answers were equal, which is all.
///
/// # Errors
/// The first difference, or the component's fault.
pub(crate) fn compare(candidate: &Candidate, seed: u64, decisions: usize) -> Result<usize> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::random(&mut dice);
    let mut trial = Trial::new(candidate, &scene.snapshot())?;
    for number in 0..decisions {
        if number > 0 && number % DECISIONS_PER_POOL == 0 {
            scene = Scene::random(&mut dice);
            trial.update(&scene.snapshot())?;
        }
        if number % 5 == 0 {
            scene.shift_load(&mut dice);
            scene.show_load(&trial);
        }
        let mut tried = Tried::default();
        while dice.u8(0..8) == 0 {
            let snapshot = scene.snapshot();
            tried.push(snapshot.members[dice.usize(0..snapshot.members.len())].backend.id);
        }
        let session = session(&mut dice);
        let answer = trial.pick(&facts(number as u64), &tried, &mut head(session.as_deref()))?;
        let expected = decide(&scene, &tried, session.as_deref());
        if answer != expected {
            bail!(
                "decision {number} is {answer:?}, the reference's {expected:?}; session {session:?}, {} tried",
                tried.attempts()
            );
        }
    }
    Ok(decisions)
}
