//! Sticky sessions: a cookie that names a backend, and that only who has the key can have made.
//!
//! Owns the cookie's form and its check. It must not know whether the backend that it names can serve.
//!
//! A cookie is 64 hex digits: a seal of 16 bytes, and 16 bytes under a veil, which are the backend's id, when the cookie
//! expires, and four random ones. The seal is HMAC-SHA256 over those, the veil one over the seal. So a cookie tells its
//! holder nothing: neither an address, nor whether two clients have the same backend.
//!
//! Invariants: what is read was written with the same key, for the same pool; comparing takes the same time whatever is
//! compared.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::config::{self, SameSite, Secure};

/// One block of SHA-256, which is the most that a key of its HMAC can use.
const KEY_BYTES: usize = 64;
const SEAL_BYTES: usize = 16;
const BODY_BYTES: usize = 16;
/// Both in hex.
const DIGITS: usize = 2 * (SEAL_BYTES + BODY_BYTES);

/// What cookies are signed with. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; KEY_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of whatever has enough of randomness in it.
    pub fn of(bytes: &[u8]) -> Self {
        let mut key = [0; KEY_BYTES];
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        key[..digest.len()].copy_from_slice(&digest);
        Self(key)
    }

    fn mac(&self, purpose: &str, pool: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.0.into());
        for text in [purpose, pool] {
            mac.update(&(text.len() as u64).to_le_bytes());
            mac.update(text.as_bytes());
        }
        mac
    }
}

/// A pool's sticky sessions.
#[derive(Debug)]
pub struct Sticky {
    config: config::Sticky,
    secret: Secret,
    seal: Hmac<Sha256>,
    veil: Hmac<Sha256>,
    counts: Box<[CachePadded<Counts>]>,
}

/// How often something came of requests, in one worker.
#[derive(Debug, Default)]
struct Counts([AtomicU64; Outcome::ALL.len()]);

/// What comes of a request's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend that it names serves.
    Kept,
    /// There is none.
    New,
    /// It was made by somebody else or for another pool, or has expired.
    Refused,
    /// The backend that it names is gone, or cannot serve.
    Moved,
}

impl Outcome {
    /// Each, with its word in metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Kept, "kept"),
        (Self::New, "new"),
        (Self::Refused, "refused"),
        (Self::Moved, "moved"),
    ];
}

/// A cookie that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The backend's.
    pub id: u64,
    /// It need not be replaced yet.
    pub is_fresh: bool,
}

impl Sticky {
    /// Sessions of this pool.
    pub fn new(config: config::Sticky, secret: Secret, pool: &str, workers: usize) -> Self {
        Self {
            seal: secret.mac("seal", pool),
            veil: secret.mac("veil", pool),
            config,
            secret,
            counts: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Whether it is made of the same.
    pub fn is_of(&self, config: &config::Sticky, secret: &Secret) -> bool {
        self.config == *config && self.secret == *secret
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.config.cookie
    }

    /// What a cookie says at this time, in seconds since 1970; `None` if it is not to be believed.
    pub fn read(&self, value: &str, now_s: u64) -> Option<Ticket> {
        let bytes: [u8; SEAL_BYTES + BODY_BYTES] = from_hex(value)?;
        let (seal, body) = bytes.split_at(SEAL_BYTES);
        let body = self.veiled(seal, body);
        let mut mac = self.seal.clone();
        mac.update(&body);
        mac.verify_truncated_left(seal).ok()?;
        let [i0, i1, i2, i3, i4, i5, i6, i7, e0, e1, e2, e3, ..] = body;
        let expires_s = u64::from(u32::from_le_bytes([e0, e1, e2, e3]));
        if expires_s != 0 && now_s >= expires_s {
            return None;
        }
        let left_s = expires_s.saturating_sub(now_s);
        let is_fresh = match self.config.ttl.map(|ttl| ttl.as_secs()) {
            None => expires_s == 0,
            // One of a longer or no time was set before the configuration changed.
            Some(ttl_s) => expires_s != 0 && left_s > ttl_s / 2 && left_s <= ttl_s,
        };
        Some(Ticket {
            id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            is_fresh,
        })
    }

    /// The value of a `Set-Cookie` field for this backend.
    pub fn write(&self, id: u64, now_s: u64, (is_https, random): (bool, u32)) -> String {
        let ttl_s = self.config.ttl.map(|ttl| ttl.as_secs());
        let expires_s = ttl_s.map_or(0, |ttl_s| u32::try_from(now_s + ttl_s).unwrap_or(u32::MAX));
        let mut body = [0; BODY_BYTES];
        body[..8].copy_from_slice(&id.to_le_bytes());
        body[8..12].copy_from_slice(&expires_s.to_le_bytes());
        body[12..].copy_from_slice(&random.to_le_bytes());
        let mut mac = self.seal.clone();
        mac.update(&body);
        let seal = mac.finalize().into_bytes();
        let seal = &seal[..SEAL_BYTES];
        let mut field = format!("{}=", self.config.cookie);
        for byte in seal.iter().chain(&self.veiled(seal, &body)) {
            // Writing to a string cannot fail.
            let _ = write!(field, "{byte:02x}");
        }
        self.write_attributes(&mut field, ttl_s, is_https);
        field
    }

    fn write_attributes(&self, field: &mut String, ttl_s: Option<u64>, is_https: bool) {
        let config = &self.config;
        let _ = write!(field, "; Path={}", config.path);
        if let Some(domain) = &config.domain {
            let _ = write!(field, "; Domain={domain}");
        }
        if let Some(ttl_s) = ttl_s {
            let _ = write!(field, "; Max-Age={ttl_s}");
        }
        let is_secure = match config.secure {
            Secure::Auto => is_https,
            Secure::Always => true,
            Secure::Never => false,
        };
        field.push_str(if is_secure { "; Secure" } else { "" });
        field.push_str(if config.is_http_only { "; HttpOnly" } else { "" });
        field.push_str(match config.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
    }

    /// Puts the veil on, or takes it off.
    fn veiled(&self, seal: &[u8], body: &[u8]) -> [u8; BODY_BYTES] {
        let mut mac = self.veil.clone();
        mac.update(seal);
        let veil = mac.finalize().into_bytes();
        let mut veiled = [0; BODY_BYTES];
        for (out, (one, other)) in veiled.iter_mut().zip(body.iter().zip(veil)) {
            *out = one ^ other;
        }
        veiled
    }

    /// Counts one more. Only that worker may call this.
    pub fn count(&self, worker: usize, outcome: Outcome) {
        let count = &self.counts[worker].0[outcome as usize];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// The sum over all workers.
    pub fn total(&self, outcome: Outcome) -> u64 {
        let counts = self.counts.iter();
        counts
            .map(|counts| counts.0[outcome as usize].load(Relaxed))
            .sum()
    }
}

fn from_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    if text.len() != DIGITS {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
