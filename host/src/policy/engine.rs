//! The WebAssembly engine and the thread that counts its time.
//!
//! Owns the settings that decide what a guest may cost. One engine serves the whole process. It must not know any policy.
//!
//! Invariant: exactly one ticker per engine. Two would halve every deadline; none would make them infinite.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use wasmtime::{Config, Inlining};

use crate::sched;

/// Length of a tick. Shorter costs more than it brings: 1 ms takes about 1 % of a core, 100 us would take 10 %.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Native stack that a guest may use. Workers have several times as much (`server.rs`), since running out of the
/// thread's own stack would end the process.
const GUEST_STACK_BYTES: usize = 512 << 10;

/// The process-wide engine. Dropping it stops the ticker.
pub struct Engine {
    pub(super) inner: wasmtime::Engine,
    /// Closing this channel wakes the ticker and ends it.
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Engine {
    /// Starts the engine and its ticker.
    ///
    /// # Errors
    /// When the machine cannot run compiled WebAssembly, or no thread can be started.
    pub fn new() -> anyhow::Result<Self> {
        Self::start(bare_engine())
    }

    /// An engine that also counts what guests do, in WebAssembly instructions ([`super::Trial::work`]): for judging a
    /// policy without a clock. Calls cost a tenth more.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn counting() -> anyhow::Result<Self> {
        let mut config = settings();
        config.consume_fuel(true);
        Self::start(wasmtime::Engine::new(&config))
    }

    fn start(inner: wasmtime::Result<wasmtime::Engine>) -> anyhow::Result<Self> {
        let inner = inner.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let (stop, stopped) = channel::<()>();
        let engine = inner.weak();
        let thread = std::thread::Builder::new()
            .name("trimtab-ticker".into())
            .spawn(move || {
                // On a worker's core it has to come before the guest that it is to stop.
                sched::take_slices_of(sched::SLICE_MIN);
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            })?;
        Ok(Self {
            inner,
            ticker: Some((stop, thread)),
        })
    }
}

/// The engine without its clock: enough to compile. Machine code fits every engine made here, in any process of this
/// program.
pub(super) fn bare_engine() -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&settings())
}

fn settings() -> Config {
    let mut config = Config::new();
    config
        // Component-model concurrency costs 210 ns a call and 60 ns an import, and policies are synchronous.
        .concurrency_support(false)
        .epoch_interruption(true)
        // With it the compiler keeps all functions of a component until the last: 4 GiB for Python's 18 MB in place of 0.4,
        // and no policy in eight languages decided faster for it.
        .compiler_inlining(Inlining::No)
        // A compile must not take the workers' cores: one thread, off the data path.
        .parallel_compilation(false)
        // A tenth of each component's code in memory, for offsets in backtraces that nobody can look up; functions are named
        // without it.
        .generate_address_map(false)
        // Registering unwind tables is quadratic on some platforms, which hot swaps would feel.
        .native_unwind_info(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .memory_may_move(false)
        // Not needed by a policy, so no attack surface.
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    config
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // The ticker cannot panic; if it did, there is nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// Ticks to arm for a deadline. The current tick may end at any moment, so the last of them comes up to one tick early;
/// `store::Overtime` makes up for it.
pub(super) fn ticks(deadline: Duration) -> u64 {
    deadline.as_nanos().div_ceil(TICK.as_nanos()).max(1) as u64
}
