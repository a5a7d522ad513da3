//! What a process finds around it: sockets, the process before it, and the service manager.
//!
//! Owns the environment's part of it, and how this program is started again.

use std::{
    ffi::{OsStr, OsString},
    io,
    net::TcpListener,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use listenfd::ListenFd;
use trimtab::{
    handover::{Inheritance, Successor},
    server::Surroundings,
    systemd::ServiceManager,
};

/// Looks around, before anything else runs.
pub(crate) fn find(file: &Path, inherits: bool) -> anyhow::Result<Surroundings> {
    let inheritance = match inherits {
        true => inherit().context("standard input is no process that hands over")?,
        false => Inheritance::of_activated(activated().context("LISTEN_FDS")?),
    };
    let service_manager = match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) => {
            ServiceManager::at(&name).with_context(|| format!("NOTIFY_SOCKET={}", name.display()))?
        }
        None => ServiceManager::default(),
    };
    Ok(Surroundings {
        inheritance,
        successor: successor(file),
        service_manager,
    })
}

fn inherit() -> io::Result<Inheritance> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    Inheritance::hear(UnixStream::from(input))
}

/// What the service manager has opened. Something else than a listening TCP socket is a mistake in its unit.
fn activated() -> io::Result<Vec<TcpListener>> {
    let mut found = ListenFd::from_env();
    let sockets = (0..found.len()).map(|index| found.take_tcp_listener(index));
    sockets.filter_map(Result::transpose).collect()
}

/// The same name and arguments, so that what is found there next time is what is installed then.
fn successor(file: &Path) -> Option<Successor> {
    let name = std::env::args_os().next()?;
    let program = program(&name)?;
    let arguments = ["run".into(), "--inherit".into(), OsString::from(file)];
    Some(Successor {
        program,
        name,
        arguments: arguments.into(),
    })
}

/// As the shell found it: a name without a slash is looked for in `PATH`. The working directory may change later.
fn program(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(name));
    let found = candidates.find(|candidate| candidate.is_file());
    // Started by a name that leads nowhere: what runs is then all there is.
    found.or_else(|| std::env::current_exe().ok())
}
