//! `trimtab demo`: the balancer shows what it does, with nothing but itself.
//!
//! Owns the backends and the load that a demo needs, the walk-through, and what it prints. The balancer is a real one
//! with a real configuration, so that nothing is shown that a user would not get. It must not read the environment, nor
//! install a logger: log lines would garble the table, and everything worth knowing is in it.
//!
//! Invariants: only loopback addresses, all with ports that the system chose; every thread has ended when [`run`] returns;
//! the time is bounded, unless it is to stay.
//! Read next: `demo/stage.rs` (what happens), `demo/acts.rs` (when, and in which words), `demo/table.rs`.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use crate::{
    policy::Compiler,
    server::{self, Server, Source, StartError},
};

mod acts;
mod backends;
mod histogram;
mod load;
mod sample;
mod screen;
mod settings;
mod stage;
mod summary;
mod table;
#[cfg(test)]
mod tests;

use backends::Backends;
use load::Load;
use screen::{Kind, Screen};
use settings::{Choice, Settings};
use stage::Stage;
use summary::{Summary, WHAT_NEXT};
use table::Colour;

/// How the demo is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Length of the walk-through in seconds, 6 to 3600; default 24.
    pub seconds: Option<u64>,
    /// Whether it stays up after the walk-through, until Ctrl-C.
    pub keep: bool,
    /// Whether states may be coloured, which also takes a terminal: false when `NO_COLOR` is set.
    pub colour: bool,
}

/// Over the walk-through's own time: its changes take 30 ms each, and seconds in a build without optimisation on a
/// machine with other work.
const LATE_MAX: Duration = Duration::from_secs(60);

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// No thread, no port on loopback, or a backend that could not come back.
    #[error("the demo cannot run here: {0}")]
    System(#[from] io::Error),
    /// The balancer did not start.
    #[error("the demo's configuration is refused: {0}")]
    Start(#[from] StartError),
    /// A change that a balancer with time to breathe takes was refused.
    #[error("the demo's next configuration is refused: {0}")]
    Refused(String),
    /// The policy that always traps was taken.
    #[error("bug: a policy that always traps was not refused")]
    NotRefused,
    /// Compiling policies took far longer than anybody wants to watch.
    #[error("this machine has too much other work for a demo")]
    Late,
    /// The balancer serves, and not the demo's pool.
    #[error("bug: the demo's pool is not in service")]
    NoPool,
}

/// Shows everything, and fails if a single request of the built-in load did.
pub fn run(options: Options) -> ExitCode {
    let out = io::stdout();
    let kind = if out.is_terminal() {
        Kind::Terminal
    } else {
        Kind::Plain
    };
    let mut screen = Screen::new(Box::new(out), kind);
    // Without signals there is no Ctrl-C to wait for; the walk-through ends by itself.
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    match perform(options, &mut screen, interrupt) {
        Ok(summary) if summary.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            // If nobody reads it, the exit code still says it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole demo, up to the summary.
fn perform(
    options: Options,
    screen: &mut Screen,
    interrupt: impl Future<Output = ()>,
) -> Result<Summary, Error> {
    let backends = Backends::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(server::BLOCKING_THREADS)
        .build()?;
    runtime.block_on(async {
        let settings = Settings {
            addresses: backends.addresses,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            policy: Choice::RoundRobin,
            spare_weight: 0,
        };
        let source = Source::Text {
            text: settings.text(),
            // No path is in the text.
            directory: PathBuf::new(),
        };
        // Its components are part of this program.
        let server = Server::start(source, Compiler::InProcess).await?;
        let summary = show(options, screen, interrupt, &server, &backends, settings).await;
        server.handle().stop().await;
        server.join().await;
        summary
    })
}

async fn show(
    options: Options,
    screen: &mut Screen,
    interrupt: impl Future<Output = ()>,
    server: &Server,
    backends: &Backends,
    settings: Settings,
) -> Result<Summary, Error> {
    let handle = server.handle();
    let listener = handle.listeners().first().map(|(_, address)| *address);
    let listener = listener.ok_or(Error::NoPool)?;
    screen.say(&introduction(&settings.text(), listener, handle.admin()));
    let load = Load::start(listener)?;
    let colour = match screen.kind() {
        Kind::Terminal if options.colour => Colour::On,
        _ => Colour::Off,
    };
    let mut stage = Stage::new(handle, backends, &load, screen, colour, settings)?;
    let acts = async {
        let total = acts::total(options.seconds);
        let played = tokio::time::timeout(total + LATE_MAX, stage.play(total)).await;
        played.map_err(|_| Error::Late)??;
        if options.keep {
            stage.stay_up(listener).await?;
        }
        Ok(())
    };
    let ended: Result<(), Error> = tokio::select! {
        ended = acts => ended,
        () = interrupt => Ok(()),
    };
    ended?;
    let summary = stage.sum_up()?;
    screen.keep_block();
    screen.say(&format!("\n{}\n\n{WHAT_NEXT}", summary.text()));
    Ok(summary)
}

fn introduction(configuration: &str, listener: SocketAddr, admin: Option<SocketAddr>) -> String {
    let mut text = String::from("  Four backends, this configuration, and 32 clients:\n\n");
    for line in configuration.lines() {
        let indent = if line.is_empty() { "" } else { "    " };
        text += &format!("{indent}{line}\n");
    }
    text += &format!("\n  Requests: http://{listener}/   (shares below: swift/brisk/slow/spare)");
    if let Some(admin) = admin {
        text += &format!("\n  Admin:    http://{admin}/");
    }
    text
}
