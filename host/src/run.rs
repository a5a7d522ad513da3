//! `trimtab run`: the control runtime, signals, and the line that says what runs.

use std::{io, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};
use trimtab::{
    control::Handle,
    server::{self, Server, StartError},
};

/// Starts and serves until a signal says otherwise.
pub(crate) fn until_stopped<F>(start: impl FnOnce() -> F) -> Result<ExitCode, StartError>
where
    F: Future<Output = Result<Server, StartError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(server::BLOCKING_THREADS)
        .build()
        .map_err(StartError::Thread)?;
    runtime.block_on(async {
        let server = start().await?;
        let signals = Signals::new().map_err(StartError::Thread)?;
        announce(server.handle());
        Ok(signals.serve(server).await)
    })
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn serve(mut self, server: Server) -> ExitCode {
        let handle = server.handle().clone();
        let mut stopped = std::pin::pin!(server.join());
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = self.hangup.recv() => {
                    let handle = handle.clone();
                    // In a task of its own, so that a stop need not wait for it. What it changed is in the log already.
                    tokio::spawn(async move {
                        if handle.reload().await.is_ok_and(|report| !report.changed) {
                            tracing::info!("configuration read again, nothing changed");
                        }
                    });
                    continue;
                }
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if is_stopping {
                tracing::warn!("stopped at once, by a second signal");
                // Returning would wait for the threads that still serve.
                std::process::exit(1);
            }
            is_stopping = true;
            tracing::info!("stopping; requests in flight may finish");
            let handle = handle.clone();
            tokio::spawn(async move { handle.stop().await });
        }
        // Nothing else asks for a stop, so without a signal the control task has failed.
        if is_stopping {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Of listeners and pools, so many are named when a balancer starts; tenants have thousands.
const NAMED_MAX: usize = 20;

fn announce(handle: &Handle) {
    let (listeners, pools) = (handle.listeners(), handle.pools());
    let listeners = named(&listeners, |(name, address)| format!("{name}={address}"));
    let pools = named(&pools, |view| {
        let candidate = &view.deployment.candidate;
        format!(
            "{}={}@{}",
            view.pool.name(),
            candidate.spec.name,
            candidate.version
        )
    });
    let admin = handle
        .admin()
        .map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listeners,
        admin,
        workers = handle.metrics().workers.len(),
        pools,
        "trimtab runs"
    );
}

/// The first of them by name, and how many more there are.
fn named<T>(all: &[T], name: impl Fn(&T) -> String) -> String {
    let mut names: Vec<String> = all.iter().take(NAMED_MAX).map(name).collect();
    if all.len() > NAMED_MAX {
        names.push(format!("and {} more", all.len() - NAMED_MAX));
    }
    names.join(" ")
}
