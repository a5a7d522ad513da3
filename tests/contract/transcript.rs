//! The form of `*.json` beside each frozen component: what it is asked, and what it has to answer.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All that one component is put through.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transcript {
    /// Its table of the configuration file.
    pub(crate) settings: serde_json::Value,
    /// Settings that it does not take.
    pub(crate) refused: Option<Refused>,
    pub(crate) backends: Vec<Backend>,
    /// The live load, by backend; none where it is not said.
    #[serde(default)]
    pub(crate) load: Vec<Load>,
    pub(crate) steps: Vec<Step>,
    /// What it hands to its next version.
    pub(crate) state: Option<State>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    pub(crate) settings: serde_json::Value,
    /// Words of the refusal.
    pub(crate) because: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    pub(crate) address: String,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    pub(crate) zone: Option<String>,
    #[serde(default)]
    pub(crate) tier: u8,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

impl Backend {
    /// One with nothing special.
    pub(crate) fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            weight: one(),
            zone: None,
            tier: 0,
            labels: BTreeMap::new(),
        }
    }
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    pub(crate) active: u32,
    /// How many of them are other nodes'; ...
    #[serde(default)]
    pub(crate) others: u32,
    /// ... and when they said so, if they did.
    pub(crate) told_ms: Option<u64>,
    pub(crate) latency_us: u32,
    pub(crate) throughput: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Step {
    Pick(Pick),
    Observe(Observe),
    /// An operator takes the backend with this index out.
    Drain {
        drain: usize,
    },
}

/// A request, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pick {
    /// Path and query.
    pub(crate) target: String,
    #[serde(default = "get")]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) key: u64,
    #[serde(default)]
    pub(crate) random: u64,
    pub(crate) client: Option<std::net::IpAddr>,
    #[serde(default)]
    pub(crate) now_us: u64,
    /// Indices that earlier attempts went to.
    #[serde(default)]
    pub(crate) tried: Vec<usize>,
    /// An index, `none`, `reject STATUS` or `fault`.
    #[serde(default = "none")]
    pub(crate) answer: String,
    /// The reason that it gives, where that is looked at.
    pub(crate) note: Option<String>,
    /// Words of a line that it logs.
    pub(crate) log: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observe {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) now_us: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) index: usize,
    pub(crate) latency_us: u32,
    pub(crate) bytes: u64,
    pub(crate) status: Option<u16>,
}

/// Picks for one request, the same over and over, before and after a swap of the component for itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) target: String,
    pub(crate) before: Vec<usize>,
    pub(crate) after: Vec<usize>,
}
