//! The old process's side: it starts the new one, hands over, and hears whether that one serves.
//!
//! Invariant: nothing is given up here. Whoever drops the future of [`Successor::start`] ends the new process.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::channel::{Channel, DESCRIPTORS_MAX, Word};
use crate::{config::Backend, pool::Standing};

/// For the new process to serve. Longer than the compiling of some components, each of which may take a minute.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// For a process that has said its last word to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How the process that takes over is started.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The program: by the name that this one was started by, so that what is installed there now is what runs.
    pub program: PathBuf,
    /// What this one was called.
    pub name: OsString,
    /// Its arguments. Its standard input is the other end of the channel.
    pub arguments: Vec<OsString>,
}

/// What is handed over.
#[derive(Debug, Default)]
pub struct Handover {
    /// Copies of the listening sockets, with their keys.
    pub sockets: Vec<(String, OwnedFd)>,
    /// What is known of each pool's backends.
    pub standings: Vec<(String, Vec<Standing>)>,
    /// What each pool's source named last.
    pub found: Vec<(String, Vec<Backend>)>,
}

/// A new process that serves, beside this one.
#[derive(Debug)]
pub struct Taken {
    /// Its process id.
    pub pid: u32,
    channel: Channel,
    _child: Child,
}

impl Taken {
    /// Tells it that this process accepts nothing more.
    pub fn leave(mut self) {
        // If it has died in this moment, it will not listen to this either.
        let _ = self.channel.say(&Word::Yours, &[]);
    }
}

/// Ends the process unless told otherwise.
struct Guarded(Option<Child>);

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It is reaped in the background.
            let _ = child.start_kill();
        }
    }
}

impl Successor {
    /// Starts the new process and waits until it serves.
    ///
    /// # Errors
    /// Why it does not. It is gone then.
    pub async fn start(&self, handover: Handover) -> Result<Taken, String> {
        let broken = |error: io::Error| format!("cannot start {}: {error}", self.program.display());
        let (ours, theirs) = UnixStream::pair().map_err(broken)?;
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut guarded = Guarded(Some(command.spawn().map_err(broken)?));
        // The command has a copy of the other end, and the end of the new process would not be heard.
        drop(command);
        let talking = tokio::task::spawn_blocking(move || talk(ours, &handover));
        let heard = talking.await.map_err(|error| error.to_string())?;
        match heard {
            Ok((Word::Refused { reason }, _)) => {
                guarded.ended().await;
                Err(reason)
            }
            Ok((_, channel)) => {
                let child = guarded.0.take().ok_or("the new process is gone")?;
                Ok(Taken {
                    pid: child.id().ok_or("the new process ended")?,
                    channel,
                    _child: child,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(format!("it does not serve after {READY_WITHIN:?}"))
            }
            Err(error) => {
                let ended = guarded.ended().await;
                Err(ended.map_or_else(
                    || format!("it does not answer: {error}"),
                    |status| format!("it ended with {status}, without a word"),
                ))
            }
        }
    }
}

impl Guarded {
    /// How it ended, if it does.
    async fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let child = self.0.as_mut()?;
        let waited = tokio::time::timeout(END_WITHIN, child.wait()).await;
        waited.ok()?.ok()
    }
}

/// Says everything, and hears the first word.
fn talk(stream: UnixStream, handover: &Handover) -> io::Result<(Word, Channel)> {
    let mut channel = Channel::new(stream);
    channel.set_patience(READY_WITHIN)?;
    say_all(&mut channel, handover)?;
    loop {
        let (word, _) = channel.hear()?;
        if matches!(word, Word::Ready | Word::Refused { .. }) {
            return Ok((word, channel));
        }
    }
}

pub(super) fn say_all(channel: &mut Channel, handover: &Handover) -> io::Result<()> {
    for some in handover.sockets.chunks(DESCRIPTORS_MAX) {
        let keys = some.iter().map(|(key, _)| key.clone()).collect();
        let descriptors: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
        channel.say(&Word::Sockets { keys }, &descriptors)?;
    }
    for (pool, standings) in &handover.standings {
        let word = Word::Standings {
            pool: pool.clone(),
            standings: standings.clone(),
        };
        channel.say(&word, &[])?;
    }
    for (pool, backends) in &handover.found {
        let word = Word::Found {
            pool: pool.clone(),
            backends: backends.clone(),
        };
        channel.say(&word, &[])?;
    }
    channel.say(&Word::All, &[])
}
