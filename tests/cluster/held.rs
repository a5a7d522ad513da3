//! A thread that does not run, as one that hangs. The others of its process go on, which no signal could do: ptrace(2) stops it.

use std::marker::PhantomData;

/// The thread goes on when this is dropped.
pub(crate) struct Held {
    thread: libc::pid_t,
    /// Only the thread that stopped it may let it go.
    _here: PhantomData<*const ()>,
}

impl Held {
    /// Stops the thread of this name.
    pub(crate) fn stop(process: u32, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let is_meant = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|known| known.trim_end() == name)
        };
        let path = threads.map(|entry| entry.unwrap().path()).find(is_meant);
        let path = path.unwrap_or_else(|| panic!("no thread is called {name}"));
        let thread = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        trace(libc::PTRACE_SEIZE, thread).unwrap();
        trace(libc::PTRACE_INTERRUPT, thread).unwrap();
        wait(thread);
        Self {
            thread,
            _here: PhantomData,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A thread that is gone needs nothing.
        let _ = trace(libc::PTRACE_DETACH, self.thread);
    }
}

#[allow(unsafe_code, reason = "std does not trace")]
fn trace(request: libc::c_uint, thread: libc::pid_t) -> std::io::Result<()> {
    // SAFETY: none of the three requests reads or writes memory of ours.
    match unsafe { libc::ptrace(request, thread, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[allow(unsafe_code, reason = "std waits for whole processes")]
fn wait(thread: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the status is ours, and lives longer than the call.
    let waited = unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
    assert_eq!(waited, thread, "{}", std::io::Error::last_os_error());
}
