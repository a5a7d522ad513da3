//! Calls every import and has every export of the contract's world `full-policy`; `cargo xtask freeze` keeps it as a
//! component with each release of the contract.
//!
//! The path of a request names a function, its query the arguments, and the answer is told as the note. `/turn` picks
//! backends in turn, which is the state that it keeps. What it has to answer is in `everything.json`.
#![cfg(target_arch = "wasm32")]

use serde::Deserialize;
use trimtab_policy::{
    Stateful,
    bindings::policy::trimtab::policy::{diagnostics, nodes, pool, request},
    prelude::*,
    state,
};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    word: String,
}

#[derive(Default)]
struct Everything {
    config: Config,
    turns: u64,
    updates: u64,
    outcomes: Vec<Outcome>,
    told_us: u64,
}

fn ask_pool(path: &str, argument: &str) -> Option<String> {
    let index = argument.parse().unwrap_or(0);
    let (name, among) = argument.split_once('=').unwrap_or((argument, argument));
    let among: Vec<u32> = among.split(',').filter_map(|index| index.parse().ok()).collect();
    Some(match path {
        "/len" => pool::len().to_string(),
        "/active" => pool::active(index).to_string(),
        "/active-total" => pool::active_total().to_string(),
        "/own-active" => nodes::own_active(index).to_string(),
        "/others-active" => nodes::others_active(index).to_string(),
        "/others-age-ms" => nodes::others_age_ms(index).to_string(),
        "/own-active-all" => format!("{:?}", nodes::own_active_all()),
        "/others-active-all" => format!("{:?}", nodes::others_active_all()),
        "/others-age-ms-all" => format!("{:?}", nodes::others_age_ms_all()),
        "/latency-us" => pool::latency_us(index).to_string(),
        "/throughput" => pool::throughput(index).to_string(),
        "/usable" => pool::usable(index).to_string(),
        "/active-all" => format!("{:?}", pool::active_all()),
        "/active-changes" => format!("{:x}", pool::active_changes()),
        "/latency-us-all" => format!("{:?}", pool::latency_us_all()),
        "/throughput-all" => format!("{:?}", pool::throughput_all()),
        "/delegate" => format!("{:?}", pool::delegate(&among)),
        "/delegate-to" => format!("{:?}", pool::delegate_to(name, &among)),
        _ => return None,
    })
}

fn ask_request(path: &str, argument: &str) -> Option<String> {
    Some(match path {
        "/header" => format!("{:?}", request::header(argument)),
        "/header-hash" => format!("{:x?}", request::header_hash(argument)),
        "/method" => request::method(),
        "/authority" => request::authority(),
        "/path" => request::path(),
        "/query" => format!("{:?}", request::query()),
        "/cookie" => format!("{:?}", request::cookie(argument)),
        "/tried" => request::tried(argument.parse().unwrap_or(0)).to_string(),
        _ => return None,
    })
}

fn numbers(backend: Backend<'_>) -> String {
    format!(
        "id {:x} weight {} ramp {} zone {} tier {} usable {}",
        backend.id(),
        backend.weight(),
        backend.ramp(),
        backend.zone(),
        backend.tier(),
        backend.is_usable()
    )
}

fn words(backend: Backend<'_>) -> String {
    let (address, rack, row) = (backend.address(), backend.label("rack"), backend.label("row"));
    format!("{address} rack {rack:?} row {row:?}")
}

fn facts(request: &Request) -> String {
    format!(
        "key {} random {} client {} attempt {} now {}",
        request.key(),
        request.random(),
        request.client(),
        request.attempt(),
        request.now_us()
    )
}

impl Everything {
    fn ask_own(&self, path: &str, argument: &str, request: &Request, pool: &Pool) -> Option<String> {
        let index = argument.parse().unwrap_or(0);
        match path {
            "/settings" => Some(self.config.word.clone()),
            "/updates" => Some(self.updates.to_string()),
            "/generation" => Some((pool.generation() > 0).to_string()),
            "/outcomes" => Some(format!("{} outcomes at {}", self.outcomes.len(), self.told_us)),
            "/outcome" => self.outcomes.get(index).map(|outcome| format!("{outcome:?}")),
            "/facts" => Some(facts(request)),
            "/numbers" => pool.get(index).map(numbers),
            "/words" => pool.get(index).map(words),
            _ => None,
        }
    }

    fn turn(&mut self, pool: &Pool) -> Pick {
        self.turns += 1;
        let turn = (self.turns - 1) % pool.len().max(1) as u64;
        (turn as usize).into()
    }
}

impl Policy for Everything {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        if self.config.word == "refuse" {
            Err("`word` is `refuse`".into())
        } else {
            Ok(())
        }
    }

    fn update(&mut self, _pool: &Pool) {
        self.updates += 1;
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let (path, argument) = (request.path(), request.query().unwrap_or_default());
        match path.as_str() {
            "/pick" => return argument.parse::<u32>().ok().into(),
            "/reject" => return request.reject(argument.parse().unwrap_or(0)),
            "/trap" => panic!("asked to"),
            "/log" => diagnostics::log(argument.parse().unwrap_or(0), "a line of everything"),
            "/turn" => return self.turn(pool),
            _ => {}
        }
        let answer = ask_pool(&path, &argument)
            .or_else(|| ask_request(&path, &argument))
            .or_else(|| self.ask_own(&path, &argument, request, pool));
        if let Some(answer) = answer {
            diagnostics::note(&answer);
        }
        Pick::NoOpinion
    }
}

impl Observer for Everything {
    fn outcomes(&mut self, outcomes: &[Outcome], _pool: &Pool, now_us: u64) {
        self.outcomes = outcomes.to_vec();
        self.told_us = now_us;
    }
}

impl Stateful for Everything {
    const SCHEMA: &'static str = "everything/1";

    fn export_state(&self) -> Vec<u8> {
        state::write([self.turns])
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.turns = *state::read(bytes)?.first().ok_or("no number")?;
        Ok(())
    }
}

policy!(Everything, observer, stateful);
