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

use wasmtime::{Config, Inlining, UpdateDeadline};

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
        let mut config = Config::new();
        config
            // Component-model concurrency costs 210 ns a call and 60 ns an import, and policies are synchronous.
            .concurrency_support(false)
            .epoch_interruption(true)
            .compiler_inlining(Inlining::InterModule)
            // A compile must not take the workers' cores: one thread, off the data path.
            .parallel_compilation(false)
            // Registering unwind tables is quadratic on some platforms, which hot swaps would feel.
            .native_unwind_info(false)
            .max_wasm_stack(GUEST_STACK_BYTES)
            .memory_may_move(false)
            // Not needed by a policy, so no attack surface.
            .wasm_memory64(false)
            .wasm_relaxed_simd(false);
        let inner = wasmtime::Engine::new(&config).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let (stop, stopped) = channel::<()>();
        let engine = inner.weak();
        let thread = std::thread::Builder::new()
            .name("trimtab-ticker".into())
            .spawn(move || {
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

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // The ticker cannot panic; if it did, there is nothing to do about it here.
            let _ = thread.join();
        }
    }
}

/// The deadline of one call. The ticks measure time by the wall, and a thread that the system has taken off its core, as
/// happens on a busy machine, loses ticks without running: an honest guest would be cut off, and its instance thrown away.
/// So at the deadline the guest gets the same time once more, this time measured on the thread's own clock. Reading that
/// clock costs a system call, which only those pay who need longer than their deadline.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    ticks: u64,
    /// The thread's clock at the deadline, in nanoseconds.
    passed_at: Option<u64>,
}

impl Allowance {
    /// For a call of so many ticks that begins now.
    #[inline]
    pub(super) fn begin(&mut self, ticks: u64) {
        self.ticks = ticks;
        self.passed_at = None;
    }

    /// The deadline is over: whether the guest is given another tick.
    #[cold]
    pub(super) fn decide(&mut self) -> UpdateDeadline {
        let now = thread_ns();
        let passed_at = *self.passed_at.get_or_insert(now);
        let is_spent = u128::from(now - passed_at) >= TICK.as_nanos() * u128::from(self.ticks);
        if is_spent {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        }
    }
}

/// How long this thread has run.
fn thread_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ticks to arm so that a guest gets at least `deadline`: the current tick may end at any moment, hence one more.
pub(super) fn ticks(deadline: Duration) -> u64 {
    deadline.as_nanos().div_ceil(TICK.as_nanos()) as u64 + 1
}
