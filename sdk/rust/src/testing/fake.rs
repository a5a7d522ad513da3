//! What the host's functions answer in a test.

use std::cell::RefCell;

use crate::hash;

thread_local! {
    static HOST: RefCell<FakeHost> = RefCell::new(FakeHost::default());
}

/// Scripts this thread's host, or looks at what the policy told it.
pub fn with_host<R>(work: impl FnOnce(&mut FakeHost) -> R) -> R {
    HOST.with_borrow_mut(work)
}

/// The state behind the contract's imports. An index out of range answers 0, as in the contract.
#[derive(Debug)]
pub struct FakeHost {
    /// How many backends `len` answers; the length of the columns. [`Native::update`](crate::testing::Native::update)
    /// sets it.
    pub len: usize,
    /// Which of them may be picked; set by `update` too.
    pub usable: Vec<bool>,
    /// Requests in flight, by backend. Missing entries are 0, here and below.
    pub active: Vec<u32>,
    /// How many of these are other nodes', and how many milliseconds ago they said so; nobody does where nothing is said here.
    pub others: Vec<Option<(u32, u32)>>,
    /// Answers `active_changes` by what changed, as the real host does, instead of having everything asked for again. For one
    /// policy at a time: whom it told is not known.
    pub tells_changes: bool,
    /// What `active` was when it was told last.
    pub told: Vec<u32>,
    /// Average microseconds to the response head.
    pub latency_us: Vec<u32>,
    /// Body bytes per second.
    pub throughput: Vec<u64>,
    /// Which backends earlier attempts of the request went to.
    pub tried: Vec<bool>,
    /// `GET` unless set.
    pub method: String,
    /// Host and port.
    pub authority: String,
    /// `/` unless set.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// Cookies in order.
    pub cookies: Vec<(String, String)>,
    /// The key of the request being decided; [`Native::pick`](crate::testing::Native::pick) sets it.
    pub key: u64,
    /// How many turns were taken by delegating.
    pub turn: u64,
    /// How header values are hashed; a suite that compares with the real host puts the host's own hash here.
    pub header_hash: fn(&[u8]) -> u64,
    /// What the policy rejected the request with.
    pub rejected: Option<u16>,
    /// The last note.
    pub note: Option<String>,
    /// Log lines, with their level.
    pub log: Vec<(u8, String)>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self {
            len: 0,
            usable: Vec::new(),
            active: Vec::new(),
            others: Vec::new(),
            tells_changes: false,
            told: Vec::new(),
            latency_us: Vec::new(),
            throughput: Vec::new(),
            tried: Vec::new(),
            method: "GET".to_owned(),
            authority: String::new(),
            path: "/".to_owned(),
            query: None,
            headers: Vec::new(),
            cookies: Vec::new(),
            key: 0,
            turn: 0,
            header_hash: hash::bytes,
            rejected: None,
            note: None,
            log: Vec::new(),
        }
    }
}

impl FakeHost {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The real host gives ties turns, and draws and hashes in its own way; a test wants to know: the smallest cost, the
    /// first of equals, and of turns and hashes the next in a row that begins at [`FakeHost::key`].
    fn delegate_to(&mut self, algorithm: &str, among: &[u32]) -> Option<u32> {
        let fits = |index: &u32| at(&self.usable, *index) && !at(&self.tried, *index);
        let fitting: Vec<u32> = among.iter().copied().filter(fits).collect();
        let active = |index: u32| u64::from(at(&self.active, index));
        let waiting = |index: u32| u64::from(at(&self.latency_us, index)) * (active(index) + 1);
        let least = |cost: &dyn Fn(u32) -> u64| fitting.iter().copied().min_by_key(|&index| cost(index));
        match algorithm {
            "least-connections" | "random-two-choices" => least(&active),
            "least-response-time" | "peak-ewma" => least(&waiting),
            "least-bandwidth" => least(&|index| at(&self.throughput, index)),
            "round-robin" | "weighted-round-robin" => {
                self.turn += 1;
                nth(&fitting, self.turn - 1)
            }
            "ip-hash" | "consistent-hash" | "content-hash" => nth(&fitting, self.key),
            _ => None,
        }
    }

    /// The real host draws two of them at random; a test wants to know: the least active, the first of equals.
    fn delegate(&self, among: &[u32]) -> Option<u32> {
        let fits = |&index: &u32| at(&self.usable, index) && !at(&self.tried, index);
        among
            .iter()
            .copied()
            .filter(fits)
            .min_by_key(|&index| at(&self.active, index))
    }
}

fn at<T: Copy + Default>(column: &[T], index: u32) -> T {
    column.get(index as usize).copied().unwrap_or_default()
}

fn nth(indices: &[u32], number: u64) -> Option<u32> {
    let place = number.checked_rem(indices.len() as u64)?;
    indices.get(place as usize).copied()
}

fn padded<T: Copy + Default>(column: &[T], len: usize) -> Vec<T> {
    (0..len)
        .map(|index| column.get(index).copied().unwrap_or_default())
        .collect()
}

/// The functions that wit-bindgen makes for a component, by the same names and types.
pub(crate) mod imports {
    pub(crate) mod pool {
        use crate::testing::fake::{at, padded, with_host};

        pub(crate) fn active(i: u32) -> u32 {
            with_host(|host| at(&host.active, i))
        }

        pub(crate) fn active_total() -> u32 {
            with_host(|host| host.active.iter().sum())
        }

        pub(crate) fn latency_us(i: u32) -> u32 {
            with_host(|host| at(&host.latency_us, i))
        }

        pub(crate) fn throughput(i: u32) -> u64 {
            with_host(|host| at(&host.throughput, i))
        }

        pub(crate) fn active_all() -> Vec<u32> {
            with_host(|host| {
                host.told = padded(&host.active, host.len);
                host.told.clone()
            })
        }

        pub(crate) fn active_changes() -> u64 {
            with_host(|host| {
                let active = padded(&host.active, host.len);
                if !host.tells_changes || host.told.len() != active.len() {
                    return 3;
                }
                let changed = (0_u64..).zip(&active).zip(&mut host.told);
                let mut changed = changed.filter(|((_, now), told)| *now != *told);
                let mut packed = 0;
                for place in [4, 34] {
                    if let Some(((index, active), told)) = changed.next() {
                        *told = *active;
                        packed = (packed + 1) | (u64::from(*active) << 16 | index) << place;
                    }
                }
                packed | u64::from(changed.next().is_some()) << 2
            })
        }

        pub(crate) fn latency_us_all() -> Vec<u32> {
            with_host(|host| padded(&host.latency_us, host.len))
        }

        pub(crate) fn throughput_all() -> Vec<u64> {
            with_host(|host| padded(&host.throughput, host.len))
        }

        pub(crate) fn delegate(among: &[u32]) -> Option<u32> {
            with_host(|host| host.delegate(among))
        }

        pub(crate) fn delegate_to(algorithm: &str, among: &[u32]) -> Option<u32> {
            with_host(|host| host.delegate_to(algorithm, among))
        }
    }

    pub(crate) mod nodes {
        use crate::testing::fake::{at, with_host};

        pub(crate) fn own_active(i: u32) -> u32 {
            with_host(|host| at(&host.active, i)).saturating_sub(others_active(i))
        }

        pub(crate) fn others_active(i: u32) -> u32 {
            with_host(|host| at(&host.others, i)).map_or(0, |(active, _)| active)
        }

        pub(crate) fn others_age_ms(i: u32) -> u32 {
            with_host(|host| at(&host.others, i)).map_or(u32::MAX, |(_, age_ms)| age_ms)
        }

        pub(crate) fn own_active_all() -> Vec<u32> {
            (0..len()).map(own_active).collect()
        }

        pub(crate) fn others_active_all() -> Vec<u32> {
            (0..len()).map(others_active).collect()
        }

        pub(crate) fn others_age_ms_all() -> Vec<u32> {
            (0..len()).map(others_age_ms).collect()
        }

        fn len() -> u32 {
            with_host(|host| host.len as u32)
        }
    }

    pub(crate) mod request {
        use crate::testing::fake::{at, with_host};

        pub(crate) fn header(name: &str) -> Option<String> {
            with_host(|host| host.header(name).map(str::to_owned))
        }

        pub(crate) fn header_hash(name: &str) -> Option<u64> {
            with_host(|host| {
                host.header(name)
                    .map(|value| (host.header_hash)(value.as_bytes()))
            })
        }

        pub(crate) fn method() -> String {
            with_host(|host| host.method.clone())
        }

        pub(crate) fn authority() -> String {
            with_host(|host| host.authority.clone())
        }

        pub(crate) fn path() -> String {
            with_host(|host| host.path.clone())
        }

        pub(crate) fn query() -> Option<String> {
            with_host(|host| host.query.clone())
        }

        pub(crate) fn cookie(name: &str) -> Option<String> {
            with_host(|host| {
                host.cookies
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
            })
        }

        pub(crate) fn tried(i: u32) -> bool {
            with_host(|host| at(&host.tried, i))
        }

        pub(crate) fn reject(status: u16) {
            with_host(|host| host.rejected = Some(status));
        }
    }

    pub(crate) mod diagnostics {
        use crate::testing::fake::with_host;

        pub(crate) fn log(level: u8, message: &str) {
            with_host(|host| host.log.push((level, message.to_owned())));
        }

        pub(crate) fn note(reason: &str) {
            with_host(|host| host.note = Some(reason.to_owned()));
        }
    }
}
