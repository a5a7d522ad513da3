//! What a plugin implements, and the macro that turns it into a component.

use crate::pool::{Backend, Pool};
use crate::request::Request;
use crate::settings::Settings;

/// A load-balancing algorithm. The host keeps one value of it per worker thread and pool and never enters it twice at
/// once, so a policy is plain single-threaded code. Only [`pick`](Policy::pick) has to be written.
pub trait Policy: Default + 'static {
    /// Takes the policy's own table from the configuration file. Called once, before anything else; an error is shown
    /// to the operator and the policy does not go into service. The default knows no keys and refuses any.
    ///
    /// # Errors
    /// A sentence for the operator: which key is wrong, and what would be right.
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        settings.refuse_all()
    }

    /// Called before the first pick and after every change of the pool, never per request: expensive preparation
    /// (tables, rings) belongs here. Keep it under 1 ms; the worker waits for it.
    fn update(&mut self, pool: &Pool) {
        let _ = pool;
    }

    /// Chooses the backend for one attempt of one request. Called only while at least one backend is usable.
    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick;
}

/// A policy that also learns how its requests ended. Export it with `policy!(Name, observer)`.
pub trait Observer: Policy {
    /// Takes finished attempts, oldest first. Called between two picks, at the latest when 64 wait or 100 ms after the
    /// first while requests arrive. `now_us` is on the clock of [`Request::now_us`].
    fn outcomes(&mut self, outcomes: &[Outcome], pool: &Pool, now_us: u64);
}

/// A policy whose state survives its replacement by another version. Export it with `policy!(Name, stateful)`. It does
/// not survive a fault: what a policy believed when it failed may be why.
pub trait Stateful: Policy {
    /// Names the layout of the state, for instance `cursor/1`. State is handed over only between equal schemas, and a
    /// version with another schema than the one in service is refused.
    const SCHEMA: &'static str;

    /// The state, at most 1 MiB; [`state::write`](crate::state::write) makes it of numbers. Backends are best named by
    /// their ids ([`PerBackend::by_id`](crate::PerBackend::by_id)): the next version may number them otherwise.
    fn export_state(&self) -> Vec<u8>;

    /// Takes over the state of the version that served before: after the first update, before the first pick for a
    /// request.
    ///
    /// # Errors
    /// A reason; the new version is then not put into service.
    fn import_state(&mut self, state: &[u8]) -> Result<(), String>;
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The backend, by the last update.
    pub index: usize,
    /// Microseconds from the attempt's start to the response head, or to the failure.
    pub latency_us: u32,
    /// Body bytes in both directions.
    pub bytes: u64,
    /// The response's HTTP status, 0 when no response came.
    pub status: u16,
}

impl Outcome {
    /// Whether the backend failed: no response, or a 5xx.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status == 0 || self.status >= 500
    }
}

/// A policy's answer: a backend, or no opinion. Made with `into()` from a [`Backend`], an index, or an option of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The backend with this index in the last update.
    Backend(u32),
    /// The host chooses, and counts no fault; after [`Request::reject`] the request is refused.
    NoOpinion,
}

impl From<u32> for Pick {
    fn from(index: u32) -> Self {
        Self::Backend(index)
    }
}

impl From<usize> for Pick {
    fn from(index: usize) -> Self {
        // The contract counts backends in 32 bits; an index that does not fit is no backend, and out of range it stays.
        Self::Backend(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

impl From<Backend<'_>> for Pick {
    fn from(backend: Backend<'_>) -> Self {
        backend.index().into()
    }
}

impl<T: Into<Pick>> From<Option<T>> for Pick {
    fn from(choice: Option<T>) -> Self {
        choice.map_or(Self::NoOpinion, Into::into)
    }
}

impl From<Pick> for Option<u32> {
    fn from(pick: Pick) -> Self {
        match pick {
            Pick::Backend(index) => Some(index),
            Pick::NoOpinion => None,
        }
    }
}

/// Exports a [`Policy`] as the component's `picker`; write it once, at the crate's root.
///
/// `policy!(Name, observer)` exports an [`Observer`] too, `policy!(Name, stateful)` a [`Stateful`],
/// `policy!(Name, observer, stateful)` both. Natively it defines `native()`, which makes the same policy for tests and
/// for the host's conformance suite ([`testing::Native`](crate::testing::Native)).
#[macro_export]
macro_rules! policy {
    ($policy:ident $(, $optional:ident)* $(,)?) => {
        $(const _: fn() = $crate::__policy_optional!(check $optional, $policy);)*

        /// This policy outside a sandbox, driven call by call.
        #[cfg(not(target_arch = "wasm32"))]
        #[allow(dead_code, unreachable_pub, reason = "reached only where the policy is a library")]
        #[must_use]
        pub fn native() -> ::std::boxed::Box<dyn $crate::testing::Native> {
            let driven = $crate::testing::Driven::<$policy>::new();
            $(let driven = $crate::__policy_optional!(native $optional, driven);)*
            ::std::boxed::Box::new(driven)
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unused_qualifications, reason = "expanded where anything may be in scope")]
        const _: () = {
            struct Plugin;

            impl $crate::runtime::Slot for Plugin {
                type Policy = $policy;

                fn with<R>(work: impl FnOnce(&mut $crate::runtime::Runner<$policy>) -> R) -> R {
                    ::std::thread_local! {
                        static RUNNER: ::std::cell::RefCell<$crate::runtime::Runner<$policy>> =
                            ::std::cell::RefCell::new($crate::runtime::Runner::new());
                    }
                    RUNNER.with_borrow_mut(work)
                }
            }

            $crate::bindings::policy::export_policy!(Plugin with_types_in $crate::bindings::policy);
            $($crate::__policy_optional!(export $optional, Plugin);)*
        };
    };
}

/// The part of [`policy!`] that knows the optional interfaces.
#[doc(hidden)]
#[macro_export]
macro_rules! __policy_optional {
    (check observer, $policy:ident) => {
        || $crate::runtime::is_observer::<$policy>()
    };
    (check stateful, $policy:ident) => {
        || $crate::runtime::is_stateful::<$policy>()
    };
    (native observer, $driven:ident) => {
        $driven.observing()
    };
    (native stateful, $driven:ident) => {
        $driven.keeping()
    };
    (export observer, $plugin:ident) => {
        $crate::bindings::observing::export_observing!($plugin with_types_in $crate::bindings::observing);
    };
    (export stateful, $plugin:ident) => {
        $crate::bindings::keeping::export_keeping!($plugin with_types_in $crate::bindings::keeping);
    };
}
