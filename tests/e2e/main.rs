//! The balancer as its clients, its origins and its operator see it: real sockets, one process, ports of the system's
//! choice. Each module is a side of it; each test's name is the rule that it holds.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and a table of cases is read as one"
)]

mod canary;
mod chain;
mod discovery;
mod health;
mod hostile;
mod peers;
mod policy;
mod proxy;
mod record;
mod registry;
mod reload;
mod shadow;
mod state;
mod stop;
mod versions;
