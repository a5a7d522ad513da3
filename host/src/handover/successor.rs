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
    /// This process is a member of a cluster.
    pub is_member: bool,
}

/// What has become of a new process.
#[derive(Debug)]
pub enum Started {
    /// It serves.
    Serves(Taken),
    /// It could, and waits for this process's place in the cluster.
    Waits(Waiting),
}

/// A new process that waits for a place. Whoever drops it ends the process.
#[derive(Debug)]
pub struct Waiting {
    guarded: Guarded,
    channel: Channel,
}

impl Waiting {
    /// Tells it that this process is no member any more, and waits until it serves.
    ///
    /// # Errors
    /// Why it does not. It is gone then.
    pub async fn admit(self) -> Result<Taken, String> {
        let Self { guarded, mut channel } = self;
        let talking = tokio::task::spawn_blocking(move || {
            channel.say(&Word::Place, &[])?;
            first(channel)
        });
        match guarded
            .judge(talking.await.map_err(|error| error.to_string())?)
            .await?
        {
            Started::Serves(taken) => Ok(taken),
            Started::Waits(_) => Err("it asks for a place that it has".to_owned()),
        }
    }
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
#[derive(Debug)]
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
    /// Starts the new process and waits until it serves, or waits for a place.
    ///
    /// # Errors
    /// Why it does not. It is gone then.
    pub async fn start(&self, handover: Handover) -> Result<Started, String> {
        let broken = |error: io::Error| format!("cannot start {}: {error}", self.program.display());
        let (ours, theirs) = UnixStream::pair().map_err(broken)?;
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let guarded = Guarded(Some(command.spawn().map_err(broken)?));
        // The command has a copy of the other end, and the end of the new process would not be heard.
        drop(command);
        let talking = tokio::task::spawn_blocking(move || talk(ours, &handover));
        guarded
            .judge(talking.await.map_err(|error| error.to_string())?)
            .await
    }
}

impl Guarded {
    /// What a word means for the process.
    async fn judge(mut self, heard: io::Result<(Word, Channel)>) -> Result<Started, String> {
        match heard {
            Ok((Word::Refused { reason }, _)) => {
                self.ended().await;
                Err(reason)
            }
            Ok((Word::Waits, channel)) => Ok(Started::Waits(Waiting {
                guarded: self,
                channel,
            })),
            Ok((_, channel)) => {
                let child = self.0.take().ok_or("the new process is gone")?;
                Ok(Started::Serves(Taken {
                    pid: child.id().ok_or("the new process ended")?,
                    channel,
                    _child: child,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(format!("it does not serve after {READY_WITHIN:?}"))
            }
            Err(error) => {
                let ended = self.ended().await;
                Err(ended.map_or_else(
                    || format!("it does not answer: {error}"),
                    |status| format!("it ended with {status}, without a word"),
                ))
            }
        }
    }

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
    first(channel)
}

/// The first word that says what becomes of the process.
fn first(mut channel: Channel) -> io::Result<(Word, Channel)> {
    loop {
        let (word, _) = channel.hear()?;
        if matches!(word, Word::Ready | Word::Waits | Word::Refused { .. }) {
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
    if handover.is_member {
        channel.say(&Word::Member, &[])?;
    }
    channel.say(&Word::All, &[])
}
