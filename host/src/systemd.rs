//! What the service manager (systemd) is told: the protocol of sd_notify(3), one datagram a word.
//!
//! Owns the datagrams. It must not read the environment: `main` says where they go. A manager that does not listen is
//! nobody's problem, so nothing here fails.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
};

/// Where it listens; nowhere by default. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager(Option<Arc<UnixDatagram>>);

impl ServiceManager {
    /// The one that listens at `$NOTIFY_SOCKET`: a path, or an abstract name that begins with `@`.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not stop what is managed.
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(socket))))
    }

    /// It serves.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The configuration is being read again; [`Self::ready`] ends that.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// It will end.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Another process is the service from now on.
    pub fn is_now(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.0 {
            // Nobody listens any more: nobody minds.
            let _ = socket.send(words.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_a_datagram() {
        let name = format!("trimtab-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let service = ServiceManager::at(OsStr::new(&format!("@{name}"))).unwrap();
        let heard = || {
            let mut bytes = [0; 200];
            let length = manager.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        service.ready();
        assert_eq!(heard(), "READY=1");
        service.reloading();
        let reloading = heard();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{reloading}");
        service.is_now(7);
        assert_eq!(heard(), "MAINPID=7");
        service.stopping();
        assert_eq!(heard(), "STOPPING=1");
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        ServiceManager::default().ready();
        assert!(ServiceManager::at(OsStr::new("/nowhere/at/all")).is_err());
    }
}
