//! The case list of bad input, A to M: what a client or a backend must not be able to do, each case by its number.
//!
//! Judged on the bytes that reached the backend, which a second reader parses anew (`strict.rs`), stricter than any
//! that serves. Cases that other tests hold are not here: `cases.toml` names the test of each case, `cargo xtask cases`
//! runs them and counts.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may panic, and a table of cases is read as one"
)]

mod a_framing;
mod b_chunks;
mod c_lines;
mod d_fields;
mod e_hops;
mod f_backends;
mod h_translation;
mod i_slow;
mod j_paths;
mod k_tls;
mod m_admin;
mod stage;
mod strict;
