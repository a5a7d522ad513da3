//! Tickets of TLS sessions that several nodes, and one process after the other, can read.
//!
//! Owns what a ticket is sealed with: keys that follow from a secret in a file and from the time, so that whoever has
//! the same file and a clock that is right has the same keys, and nobody has to send one. In a cluster the secret of its
//! members takes the place of a file. Without either the library keeps keys in memory, which is safer and ends with the
//! process. It must not know what is in a ticket.
//!
//! Invariant: a ticket is good for the six hours that it is made in and the next six, under the demands on clients that
//! it was made under. Nothing is locked, since nothing changes.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::ProducesTickets;

use super::Bytes;
use crate::config::Mistake;

/// A key is in use for so long. The library's own keys are, too.
const PERIOD_S: u64 = 6 * 60 * 60;
/// What clients are told: until then a ticket may be good (RFC 8446, 4.6.1).
const LIFETIME_S: u32 = 2 * PERIOD_S as u32;
const SECRET_BYTES_MIN: usize = 32;
const PERIOD_BYTES: usize = 8;

/// What the nodes of a cluster have in common without a file for it.
#[derive(Clone)]
pub struct SharedSecret(pub [u8; 32]);

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret")
    }
}

/// Seals sessions and opens them.
pub(super) struct Tickets {
    root: Prk,
    /// What clients have to show: a session that began under other demands is none.
    clients: [u8; 32],
    random: SystemRandom,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    pub(super) fn of(secret: &Bytes<'_>, clients: [u8; 32]) -> Result<Self, Box<Mistake>> {
        if secret.bytes.len() < SECRET_BYTES_MIN {
            let message = format!("expected a secret of at least {SECRET_BYTES_MIN} bytes in it");
            return Err(secret.file.mistake(message));
        }
        Ok(Self::new(&secret.bytes, clients))
    }

    /// Those of a cluster's nodes, for their listeners of this name.
    pub(super) fn shared(secret: &SharedSecret, listener: &str, clients: [u8; 32]) -> Self {
        Self::new(&[&secret.0[..], listener.as_bytes()].concat(), clients)
    }

    fn new(secret: &[u8], clients: [u8; 32]) -> Self {
        Self {
            root: Salt::new(HKDF_SHA256, b"trimtab tickets").extract(secret),
            clients,
            random: SystemRandom::new(),
        }
    }

    fn key(&self, period: [u8; PERIOD_BYTES]) -> Option<LessSafeKey> {
        let info = [&self.clients[..], &period];
        let okm = self.root.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }

    /// The period, a number used once, and what is sealed with both.
    fn seal(&self, session: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let period = (now_s / PERIOD_S).to_be_bytes();
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = [&period[..], &nonce, session].concat();
        let sealed = ticket.get_mut(PERIOD_BYTES + NONCE_LEN..)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key(period)?
            .seal_in_place_separate_tag(nonce, Aad::empty(), sealed);
        ticket.extend_from_slice(tag.ok()?.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let (period, rest) = ticket.split_first_chunk::<PERIOD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = now_s / PERIOD_S;
        // The next one is that of a node whose clock is a little ahead.
        if !(now.saturating_sub(1)..=now + 1).contains(&u64::from_be_bytes(*period)) {
            return None;
        }
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let session = self.key(*period)?.open_in_place(nonce, Aad::empty(), &mut sealed);
        Some(session.ok()?.to_vec())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now_s())
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
