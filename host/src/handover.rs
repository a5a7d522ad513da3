//! One process of this program takes over from another, without a moment in which nobody listens.
//!
//! Owns what is handed over (listening sockets, and what operators and checks said of backends), the words that the two
//! processes say to each other about it, and the start of the new process. It must not know what a configuration makes
//! of a socket, nor serve anything.
//!
//! The sockets are the very same in both processes (SCM_RIGHTS, unix(7)), and so are their queues of connections: what
//! waits in one when the old process closes it, the new one accepts. The old process hands over copies and goes on
//! accepting until the new one says that it serves; so whatever the new one dies of, nothing has changed.
//! Read next: `handover/successor.rs` (the old process's side), `handover/inherited.rs` (the new one's).

mod channel;
mod inherited;
mod successor;
#[cfg(test)]
mod tests;

pub(crate) use inherited::is_at;
pub use inherited::{Inheritance, Sockets};
pub use successor::{Handover, Started, Successor, Taken, Waiting};

/// The admin listener's key among those of the listeners, which begin with `listener.`.
pub const ADMIN: &str = "admin";

/// A listener's key, which cannot be the admin listener's.
pub fn listener_key(key: &str) -> String {
    format!("listener.{key}")
}
