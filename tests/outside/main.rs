//! Programs that others wrote, as clients of the balancer. What is missing is installed from the system's packages; nothing
//! is skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod curl;
