//! TLS: from the files of a configuration to what handshakes need.
//!
//! Owns certificates and keys in memory, the choice of one by the name that a client asks for, and what is asked of a
//! peer. It must not open connections (`proxy` does), nor know what is spoken inside of them beyond its name (ALPN).
//!
//! Invariant: what is made here was read whole and fits together, so a handshake fails only for what the peer does.

use std::{io::Read, sync::Arc};

use rustls::crypto::CryptoProvider;
use sha2::{Digest, Sha256};

use crate::config::{Mistake, NamedFile};

mod client;
mod server;
mod tickets;

pub use client::{Connectors, Offer, Originator};
pub use server::{ALPN_H2, ALPN_HTTP1, Terminator};

/// A certificate with all its intermediates has some KiB; the largest public list of revoked ones some MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A file as it was read: once, so that what is compared is what is used.
struct Bytes<'a> {
    file: &'a NamedFile,
    bytes: Vec<u8>,
}

impl<'a> Bytes<'a> {
    fn read(file: &'a NamedFile) -> Result<Self, Box<Mistake>> {
        let mut bytes = Vec::new();
        // One byte more than allowed, so that it can be seen that it is too many.
        let opened = std::fs::File::open(&file.path);
        let read = opened.and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let shown = file.path.display();
        match read {
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
                Err(file.mistake(format!("expected at most 16 MiB: {shown}")))
            }
            Ok(_) => Ok(Self { file, bytes }),
            Err(error) => Err(file.mistake(format!("cannot be read: {shown} ({error})"))),
        }
    }
}

/// What tells two states of the same files apart.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
