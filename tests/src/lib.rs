//! What end-to-end tests are made of: origins, a balancer, clients and guests, all in one process.
//!
//! A test starts its own origins and its own balancer on ports that the system chooses, so tests run side by side.
//! Whatever waits has a deadline ([`DEADLINE`]) that is only there to end a test that hangs: no test passes or fails by
//! how long something took.
//!
//! Invariant: nothing here knows what is right. Judging is the tests' business, on the bytes that really went by.

mod balancer;
mod client;
mod directory;
mod lines;
mod load;
mod origin;
mod port;
mod raw;
mod wait;

pub mod dns;
pub mod fault;
pub mod frames;
pub mod guest;
pub mod tls;

pub use balancer::{Balancer, Setup};
pub use client::{Client, Response, ask_admin, get, get_with};
pub use directory::Directory;
pub use lines::Lines;
pub use load::{Load, Outcome};
pub use origin::Origin;
pub use port::Port;
pub use raw::{Peer, RawOrigin, ok};
pub use wait::{DEADLINE, LONG, wait_until, within};
