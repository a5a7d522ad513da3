//! Running policies: call by call as the host does, or thousands of picks at once.

use crate::hash;
use crate::policy::{Observer, Outcome, Policy, Stateful};
use crate::pool::Snapshot;
use crate::request::{Facts, Request};
use crate::runtime::Runner;
use crate::testing::{FakeHost, PoolBuilder, with_host};

/// A policy outside a sandbox, whichever it is: the contract's calls as a trait. `policy!` defines `native()`, which
/// makes one. The imports answer what [`with_host`] scripts on this thread.
pub trait Native {
    /// The contract's `configure`.
    ///
    /// # Errors
    /// The policy's own.
    fn configure(&mut self, json: &str) -> Result<(), String>;

    /// The contract's `update`. The host's `len` and `usable` follow; its live columns stay as scripted.
    fn update(&mut self, snapshot: Snapshot);

    /// The contract's `pick`. The host's `rejected` and `note` are cleared before.
    fn pick(&mut self, facts: Facts) -> Option<u32>;

    /// The contract's `outcomes`; `false` when the policy does not observe.
    fn outcomes(&mut self, outcomes: &[Outcome], now_us: u64) -> bool;

    /// The contract's `schema` and `export-state`; `None` when the policy keeps no state.
    fn export_state(&self) -> Option<(&'static str, Vec<u8>)>;

    /// The contract's `import-state`.
    ///
    /// # Errors
    /// The policy's own, or that it keeps no state.
    fn import_state(&mut self, state: &[u8]) -> Result<(), String>;
}

/// A [`Native`] of a known type, with the optional interfaces that were asked for.
pub struct Driven<P> {
    runner: Runner<P>,
    observe: Option<Observe<P>>,
    keep: Option<Keep<P>>,
}

/// The function of `observer`.
type Observe<P> = fn(&mut Runner<P>, &[Outcome], u64);

/// The functions of `stateful`.
struct Keep<P> {
    schema: &'static str,
    export: fn(&Runner<P>) -> Vec<u8>,
    import: fn(&mut Runner<P>, &[u8]) -> Result<(), String>,
}

impl<P: Policy> Driven<P> {
    /// A fresh policy.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default would suggest that it is configured"
    )]
    pub fn new() -> Self {
        Self {
            runner: Runner::new(),
            observe: None,
            keep: None,
        }
    }

    /// Exports `observer`.
    #[must_use]
    pub fn observing(mut self) -> Self
    where
        P: Observer,
    {
        self.observe = Some(Runner::outcomes);
        self
    }

    /// Exports `stateful`.
    #[must_use]
    pub fn keeping(mut self) -> Self
    where
        P: Stateful,
    {
        self.keep = Some(Keep {
            schema: P::SCHEMA,
            export: Runner::export_state,
            import: Runner::import_state,
        });
        self
    }
}

impl<P: Policy> Native for Driven<P> {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        self.runner.configure(json)
    }

    fn update(&mut self, snapshot: Snapshot) {
        with_host(|host| {
            host.len = snapshot.ids.len();
            host.usable = snapshot.usable.iter().map(|&usable| usable != 0).collect();
        });
        self.runner.update(snapshot);
    }

    fn pick(&mut self, facts: Facts) -> Option<u32> {
        with_host(|host| (host.rejected, host.note, host.key) = (None, None, facts.key));
        self.runner.pick(facts)
    }

    fn outcomes(&mut self, outcomes: &[Outcome], now_us: u64) -> bool {
        self.observe.is_some_and(|observe| {
            observe(&mut self.runner, outcomes, now_us);
            true
        })
    }

    fn export_state(&self) -> Option<(&'static str, Vec<u8>)> {
        self.keep
            .as_ref()
            .map(|keep| (keep.schema, (keep.export)(&self.runner)))
    }

    fn import_state(&mut self, state: &[u8]) -> Result<(), String> {
        let keep = self.keep.as_ref().ok_or("this policy keeps no state")?;
        (keep.import)(&mut self.runner, state)
    }
}

/// Random numbers that repeat: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(hash::mix(seed))
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(hash::GOLDEN);
        hash::mix(self.0)
    }

    /// A first attempt with a random key from a random client of 10.0.0.0/8.
    pub fn facts(&mut self) -> Facts {
        let client_lo = 0xffff_0a00_0000 | self.roll() >> 40;
        Facts {
            key: self.roll(),
            random: self.roll(),
            client_lo,
            ..Facts::default()
        }
    }

    /// The same as the request a policy sees.
    pub fn request(&mut self) -> Request {
        Request::new(self.facts())
    }
}

/// A policy in service: configured, told about a pool, and asked again and again. Starts with a fresh [`FakeHost`].
pub struct Trial {
    policy: Box<dyn Native>,
    addresses: Vec<String>,
    dice: Dice,
    now_us: u64,
}

/// What a pick means to pass per request: a millisecond, a thousand requests a second.
const STEP_US: u64 = 1000;

impl Trial {
    /// Puts a policy without settings into service.
    #[must_use]
    pub fn new(policy: Box<dyn Native>, pool: PoolBuilder) -> Self {
        Self::configured(policy, "{}", pool)
    }

    /// Puts a policy with these settings (a JSON object) into service.
    ///
    /// # Panics
    /// When the policy refuses the settings.
    #[must_use]
    pub fn configured(mut policy: Box<dyn Native>, settings: &str, pool: PoolBuilder) -> Self {
        with_host(|host| *host = FakeHost::default());
        policy.configure(settings).expect("the policy takes its settings");
        let mut trial = Self {
            policy,
            addresses: Vec::new(),
            dice: Dice::new(1),
            now_us: 0,
        };
        trial.update(pool);
        trial
    }

    /// Tells the policy about another pool.
    pub fn update(&mut self, pool: PoolBuilder) {
        let snapshot = pool.snapshot();
        self.addresses.clone_from(&snapshot.addresses);
        self.policy.update(snapshot);
    }

    /// Tells the policy how attempts ended.
    ///
    /// # Panics
    /// When the policy does not observe.
    pub fn observe(&mut self, outcomes: &[Outcome]) {
        assert!(
            self.policy.outcomes(outcomes, self.now_us),
            "the policy does not observe"
        );
    }

    /// Gives the policy the state of another version of it, as the host does at a swap.
    ///
    /// # Errors
    /// The policy's own, or that one of the two keeps no state or another one.
    pub fn take_over(&mut self, old: &Self) -> Result<(), String> {
        let (old, new) = (old.policy.export_state(), self.policy.export_state());
        match (old, new) {
            (Some((old, state)), Some((new, _))) if old == new => self.policy.import_state(&state),
            (old, new) => Err(format!(
                "the schemas are {:?} and {:?}",
                old.map(|(schema, _)| schema),
                new.map(|(schema, _)| schema)
            )),
        }
    }

    /// Lets time pass.
    pub fn wait_us(&mut self, us: u64) {
        self.now_us += us;
    }

    /// A random request of now, to change before [`ask`](Trial::ask).
    pub fn facts(&mut self) -> Facts {
        self.now_us += STEP_US;
        Facts {
            now_us: self.now_us,
            ..self.dice.facts()
        }
    }

    /// The picked backend's name, for this request.
    ///
    /// # Panics
    /// When the index is out of range.
    pub fn ask(&mut self, facts: Facts) -> Option<&str> {
        let index = self.policy.pick(facts)?;
        Some(&self.addresses[index as usize])
    }

    /// One random request's backend.
    pub fn pick(&mut self) -> Option<&str> {
        let facts = self.facts();
        self.ask(facts)
    }

    /// The names of the next picks, joined by spaces.
    pub fn sequence(&mut self, picks: usize) -> String {
        let names: Vec<String> = (0..picks)
            .map(|_| self.pick().unwrap_or("-").to_owned())
            .collect();
        names.join(" ")
    }

    /// Makes many picks that end at once, and counts them.
    pub fn run(&mut self, picks: usize) -> Shares {
        Shares((0..picks).map(|_| self.pick().map(str::to_owned)).collect())
    }

    /// Makes many picks whose requests stay in flight for the next `span` picks, and counts them.
    pub fn run_overlapping(&mut self, picks: usize, span: usize) -> Shares {
        let mut shares = Shares(Vec::new());
        for pick in 0..picks {
            let name = self.pick().map(str::to_owned);
            self.add_active(name.as_deref(), 1);
            shares.0.push(name);
            if let Some(done) = pick.checked_sub(span) {
                self.add_active(shares.0[done].as_deref(), -1);
            }
        }
        shares
    }

    fn add_active(&self, name: Option<&str>, change: i32) {
        let Some(index) = self
            .addresses
            .iter()
            .position(|address| Some(address.as_str()) == name)
        else {
            return;
        };
        with_host(|host| {
            host.active.resize(host.len, 0);
            host.active[index] = host.active[index].saturating_add_signed(change);
        });
    }
}

/// Who was picked, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares(Vec<Option<String>>);

impl Shares {
    /// How many picks went to this backend.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.0
            .iter()
            .filter(|picked| picked.as_deref() == Some(name))
            .count()
    }

    /// The same as a fraction of all picks, 0 to 1.
    #[must_use]
    pub fn share(&self, name: &str) -> f64 {
        self.count(name) as f64 / self.0.len().max(1) as f64
    }

    /// The longest run of picks in a row that went to this backend.
    #[must_use]
    pub fn longest_run(&self, name: &str) -> usize {
        self.0
            .chunk_by(|a, b| a == b)
            .filter(|run| run[0].as_deref() == Some(name))
            .map(<[_]>::len)
            .max()
            .unwrap_or(0)
    }
}
