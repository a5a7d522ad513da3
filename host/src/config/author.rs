//! What a policy's author writes: the folder's `policy.toml`, and a file of cases.
//!
//! Owns their keys and defaults, and every message about a mistake in them. It must not know how a policy is built, run
//! or judged; that is `kit`. Invariant: as with a configuration, what exists can be used.
//! Read next: `author/cases.rs` (situations and expected picks), `docs` of the keys in `sdk/README.md`.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    HashOn, Mistakes, Wasi,
    file::{load_with, policy, pool::hash_source},
    reader::{Keys, Table, Value},
};

mod cases;

pub use cases::{BackendState, Case, CaseBackend, CaseOthers, CaseRequest, Expected};

/// The name of the file that makes a folder a policy's.
pub const MANIFEST: &str = "policy.toml";

const ROOT: Keys = &[
    "name",
    "language",
    "component",
    "tests",
    "memory",
    "deadline",
    "wasi",
    "build",
    "settings",
    "claims",
];
const BUILD: Keys = &["run", "needs"];
const CLAIMS: Keys = &[
    "always_picks",
    "order_blind",
    "follows_load",
    "sticky",
    "moves_percent",
    "fair",
    "slow_start",
];
const NAME_CHARS_MAX: usize = 64;
const MOVES_PERCENT: RangeInclusive<u32> = 0..=100;

/// A policy's folder, as its `policy.toml` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Key `name`, required: lower-case letters, digits and hyphens, beginning with a letter.
    pub name: String,
    /// Key `language`, default `other`. Only people read it.
    pub language: String,
    /// Key `component`, required: what the build leaves; relative to the file, made absolute here.
    pub component: PathBuf,
    /// Key `tests`: a file of cases, made absolute here. Default none.
    pub tests: Option<PathBuf>,
    /// Key `memory`, as of `[policy.NAME]`.
    pub memory_bytes: usize,
    /// Key `deadline`, as of `[policy.NAME]`.
    pub deadline: Duration,
    /// Key `wasi`, as of `[policy.NAME]`.
    pub wasi: Wasi,
    /// `[[build]]`: the steps, in order.
    pub build: Vec<Step>,
    /// `[settings]` as JSON text. Default `{}`.
    pub settings_json: String,
    /// `[claims]`
    pub claims: Claims,
}

/// `[[build]]`: a step of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Key `run`, required: a program and its arguments, started without a shell in the folder of the file.
    pub run: Vec<String>,
    /// Key `needs`: how to get what the step needs, told when it fails. Default nothing.
    pub needs: Option<String>,
}

/// `[claims]`: what a policy may be held to beyond the rules for all. Every claim is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Key `always_picks`: it neither abstains nor rejects.
    pub always_picks: bool,
    /// Key `order_blind`: the order of the pool does not matter, as long as no two backends are equally good.
    pub order_blind: bool,
    /// Key `follows_load`: it prefers backends with less load, and more load never means more picks.
    pub follows_load: bool,
    /// Key `sticky`: requests with an equal key go to the same backend. The value says what the key is.
    pub sticky: Option<HashOn>,
    /// Key `moves_percent`: of a sticky policy, how many of the other backends' keys may move when one leaves or joins.
    /// Default 0, 0 to 100.
    pub moves_percent: u32,
    /// Key `fair`: shares that the backends of an idle pool get.
    pub fair: Option<Fair>,
    /// Key `slow_start`: shares follow the ramps of backends that came back. Needs `fair = "weights"`.
    pub slow_start: bool,
}

/// What fair shares are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fair {
    /// Each backend gets as much as any other.
    Equal,
    /// In proportion to the weights.
    Weights,
}

impl Manifest {
    /// Reads a policy's `policy.toml`.
    ///
    /// # Errors
    /// Every mistake in it, in the order of its lines.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        load_with(path, manifest, ROOT)
    }
}

/// Reads a file of cases.
///
/// # Errors
/// Every mistake in it, in the order of its lines.
pub fn load_cases(path: &Path) -> Result<Vec<Case>, Mistakes> {
    load_with(path, |root, _| cases::cases(root), cases::ROOT)
}

/// Whether a policy may be called this.
///
/// # Errors
/// What it should be instead.
pub fn check_policy_name(text: &str) -> Result<String, String> {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let begins = text.starts_with(|letter: char| letter.is_ascii_lowercase());
    if begins && text.len() <= NAME_CHARS_MAX && !text.ends_with('-') && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected at most {NAME_CHARS_MAX} lower-case letters, digits and hyphens, beginning with a letter"
    ))
}

fn manifest(root: &Table<'_>, directory: &Path) -> Option<Manifest> {
    let path = |value: Value<'_>| match value.text()? {
        "" => value.expected("a file's path"),
        text => Some(directory.join(text)),
    };
    let name = root
        .require("name")
        .and_then(|value| value.parsed(check_policy_name));
    let component = root.require("component").and_then(path);
    let steps = root.take("build").and_then(|value| {
        let items = value.items("an array of tables: [[build]] with two brackets")?;
        Some(items.iter().filter_map(step).collect())
    });
    let settings = root
        .take("settings")
        .and_then(|value| policy::config_json(&value));
    Some(Manifest {
        language: root
            .take("language")
            .and_then(|value| value.text())
            .unwrap_or("other")
            .to_owned(),
        tests: root.take("tests").and_then(path),
        memory_bytes: policy::memory(root, None),
        deadline: policy::deadline(root, None),
        wasi: root.choice(
            "wasi",
            &[("none", Wasi::None), ("empty", Wasi::Empty)],
            Wasi::None,
        ),
        build: steps.unwrap_or_default(),
        settings_json: settings.unwrap_or_else(|| "{}".to_owned()),
        claims: claims(&root.table("claims", CLAIMS)),
        name: name?,
        component: component?,
    })
}

fn step(value: &Value<'_>) -> Option<Step> {
    let table = value.table(BUILD)?;
    let run = table.require("run")?;
    let words = run.items("a program and its arguments, like [\"make\", \"all\"]")?;
    if words.is_empty() {
        return run.expected("a program and its arguments");
    }
    let words: Vec<_> = words.iter().map(|word| word.text().map(str::to_owned)).collect();
    Some(Step {
        run: words.into_iter().collect::<Option<_>>()?,
        needs: table
            .take("needs")
            .and_then(|value| value.text())
            .map(str::to_owned),
    })
}

fn claims(table: &Table<'_>) -> Claims {
    let claims = Claims {
        always_picks: table.flag("always_picks", false),
        order_blind: table.flag("order_blind", false),
        follows_load: table.flag("follows_load", false),
        sticky: table.take("sticky").and_then(|value| sticky(&value)),
        moves_percent: table.whole("moves_percent", MOVES_PERCENT, 0),
        fair: table
            .take("fair")
            .and_then(|value| value.choice(&[("weights", Fair::Weights), ("equal", Fair::Equal)])),
        slow_start: table.flag("slow_start", false),
    };
    if claims.slow_start && claims.fair != Some(Fair::Weights) {
        table.wrong_key("slow_start", "only with fair = \"weights\"");
    }
    if claims.moves_percent > 0 && claims.sticky.is_none() {
        table.wrong_key("moves_percent", "only with sticky");
    }
    claims
}

/// `true` means the key that the host hashes, which is by default the client's address.
fn sticky(value: &Value<'_>) -> Option<HashOn> {
    match value.kind().as_bool() {
        Some(sticky) => sticky.then_some(HashOn::ClientIp),
        None if value.kind().is_str() => value.parsed(hash_source),
        None => value.expected("true, or what the key is, like \"header:x-user\""),
    }
}

#[cfg(test)]
mod tests;
