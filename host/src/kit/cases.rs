//! The author's own cases: each has an instance of its own, which is asked what the case asks.
//!
//! Owns what a case means. How one is written is `config::author`'s business.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    field::{Field, Placed},
    lab::Lab,
};
use crate::{
    config::{
        HashOn,
        author::{Case, Expected},
    },
    http1::Head,
    policy::{Answer, Facts, Trial, Tried, client_bits, key_of},
    pool::Figures,
};

/// Time between two requests of a case, in microseconds.
const PACE_US: u64 = 1000;

/// Whether the policy picks what the case expects.
///
/// # Errors
/// What it does instead.
pub(super) fn run(lab: &Lab, case: &Case) -> Result<(), String> {
    let placed: Vec<_> = case
        .backends
        .iter()
        .map(|known| Placed {
            backend: known.backend.clone(),
            state: known.state,
            ramp: 100,
            figures: Figures {
                active: known.active,
                latency_us: known.latency_us,
                throughput: known.throughput,
            },
            others: known.others,
        })
        .collect();
    let mut field = Field::new(&placed, 0, vec![HashOn::ClientIp]);
    let configured;
    let candidate = match &case.settings_json {
        Some(json) => {
            configured = lab.configured(json)?;
            &configured
        }
        None => lab.candidate(),
    };
    let snapshot = field.snapshot();
    field.now_us += PACE_US;
    let trial = Trial::in_pool(candidate, field.pool(), &snapshot, field.view());
    let mut trial = trial.map_err(|fault| fault.to_string())?;
    if snapshot.usable == 0 {
        return Err("no backend of the case is usable, so nobody would ask the policy".to_owned());
    }
    let mut tried = Tried::default();
    for place in &case.tried {
        tried.push(snapshot.members[*place].backend.id);
    }
    let mut head = head(case);
    for (number, expected) in case.expect.iter().enumerate() {
        let facts = facts(case, &head, number as u64, field.now_us);
        field.now_us += PACE_US;
        let answer = trial
            .pick(&facts, &tried, &mut head)
            .map_err(|fault| fault.to_string())?;
        let at = if case.expect.len() > 1 {
            format!("request {}: ", number + 1)
        } else {
            String::new()
        };
        let answer = match answer {
            Answer::Index(index) => trial
                .accept(index, &tried)
                .map(Picked::Backend)
                .map_err(|fault| format!("{at}{fault}"))?,
            Answer::Abstain => Picked::NoOpinion,
            Answer::Reject(status) => Picked::Reject(status),
        };
        if !answer.fits(expected) {
            return Err(format!(
                "{at}expected {}, and it is {}",
                show(expected, case),
                answer.show(case)
            ));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Picked {
    Backend(usize),
    NoOpinion,
    Reject(u16),
}

impl Picked {
    fn fits(self, expected: &Expected) -> bool {
        match (self, expected) {
            (Self::Backend(place), Expected::AnyOf(places)) => places.contains(&place),
            (Self::NoOpinion, Expected::NoOpinion) => true,
            (Self::Reject(status), Expected::Reject(expected)) => status == *expected,
            _ => false,
        }
    }

    fn show(self, case: &Case) -> String {
        match self {
            Self::Backend(place) => case.backends[place].backend.address.clone(),
            Self::NoOpinion => "no opinion (\"none\")".to_owned(),
            Self::Reject(status) => format!("a refusal with {status}"),
        }
    }
}

fn show(expected: &Expected, case: &Case) -> String {
    match expected {
        Expected::AnyOf(places) => {
            let names: Vec<_> = places
                .iter()
                .map(|place| case.backends[*place].backend.address.as_str())
                .collect();
            names.join(" or ")
        }
        Expected::NoOpinion => Picked::NoOpinion.show(case),
        Expected::Reject(status) => Picked::Reject(*status).show(case),
    }
}

fn facts(case: &Case, head: &Head, number: u64, now_us: u64) -> Facts {
    let random = case.request.random.wrapping_add(number);
    let client: IpAddr = case.request.client;
    let client = client_bits(client);
    let key = match &case.request.key {
        Some(key) => xxh3_64(key.as_bytes()),
        None => key_of(&[HashOn::ClientIp], head, client, random),
    };
    Facts {
        key,
        random,
        client,
        now_us,
    }
}

fn head(case: &Case) -> Head {
    let request = &case.request;
    let mut fields: Vec<(&str, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    if !request.cookies.is_empty() {
        let pairs = request
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        fields.push(("cookie", pairs.collect::<Vec<_>>().join("; ")));
    }
    let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    Head::of(&request.method, &request.host, &request.path, fields)
}
