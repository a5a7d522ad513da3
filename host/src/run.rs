//! `trimtab run`: the control runtime, signals, and the line that says what runs.

use std::{io, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};
use trimtab::{
    control::Handle,
    server::{self, End, Server, StartError},
    systemd::ServiceManager,
};

/// Starts and serves until a signal says otherwise.
pub(crate) fn until_stopped<F>(
    manager: ServiceManager,
    start: impl FnOnce() -> F,
) -> Result<ExitCode, StartError>
where
    F: Future<Output = Result<Server, StartError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(server::BLOCKING_THREADS)
        .build()
        .map_err(StartError::Thread)?;
    raise_open_files();
    runtime.block_on(async {
        outlive_full_files().map_err(StartError::Thread)?;
        // Whoever is told that it serves may send these at once, and what nobody waits for would end the process.
        let early = [SignalKind::hangup(), SignalKind::user_defined2()].map(signal);
        let server = start().await?;
        let signals = Signals::new(early, manager).map_err(StartError::Thread)?;
        announce(server.handle());
        Ok(signals.serve(server).await)
    })
}

/// As many open files as the system lets us have; what it gives at first is for programs that cannot count as far.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it we begin to refuse connections earlier, and say so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// A file that may not grow any more is an error of writing, as a full disk is, and not the end of the process.
fn outlive_full_files() -> io::Result<()> {
    // Once it is heard, the system no longer ends us; nobody has to listen.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    replace: Signal,
    manager: ServiceManager,
}

impl Signals {
    fn new([hangup, replace]: [io::Result<Signal>; 2], manager: ServiceManager) -> io::Result<Self> {
        Ok(Self {
            hangup: hangup?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            replace: replace?,
            manager,
        })
    }

    async fn serve(mut self, server: Server) -> ExitCode {
        let handle = server.handle().clone();
        let mut stopped = std::pin::pin!(server.join());
        let mut is_stopping = false;
        let end = loop {
            tokio::select! {
                end = &mut stopped => break end,
                _ = self.hangup.recv() => {
                    let (handle, manager) = (handle.clone(), self.manager.clone());
                    // In a task of its own, so that a stop need not wait for it. What it changed is in the log already.
                    tokio::spawn(async move {
                        manager.reloading();
                        if handle.reload().await.is_ok_and(|report| !report.changed) {
                            tracing::info!("configuration read again, nothing changed");
                        }
                        manager.ready();
                    });
                    continue;
                }
                _ = self.replace.recv() => {
                    let handle = handle.clone();
                    // What comes of it is in the log.
                    tokio::spawn(async move { handle.upgrade().await });
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
        };
        match end {
            End::Stopped | End::Replaced => ExitCode::SUCCESS,
            End::Failed => ExitCode::FAILURE,
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
