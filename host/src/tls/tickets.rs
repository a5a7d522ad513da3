//! Tickets that every node of a cluster makes and takes, so that clients of a node that failed resume their sessions at the next.
//!
//! Owns their keys. Nothing is sent for that: keys follow from the secret that the members share, what the ticket is good for, and the
//! time of day. So they also outlive a restart of all nodes. What a ticket says is rustls' business.
//!
//! Invariant: no lock and no memory. Workers share what is here, and handshakes write nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::ProducesTickets;
use sha2::Sha256;

/// So long tickets are made with one key. As rustls' own, so that what a key gives away is bounded.
const PERIOD_S: u64 = 6 * 60 * 60;
/// So long clients may keep a ticket.
const LIFETIME_S: u32 = 12 * 60 * 60;
/// Keys that are good beside the present one: those of the last periods, for that long, and the next, since clocks differ.
const PAST: u64 = LIFETIME_S as u64 / PERIOD_S;
const NAME_BYTES: usize = 16;
/// Of SHA-256.
const BLOCK_BYTES: usize = 64;

/// What the members of a cluster share beforehand.
#[derive(Clone)]
pub struct SharedSecret(Hmac<Sha256>);

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSecret").finish_non_exhaustive()
    }
}

impl SharedSecret {
    /// Of bytes that are for this purpose only.
    pub fn of(bytes: &[u8; 32]) -> Self {
        // A key as long as the hash's block has one form only.
        let mut key = [0; BLOCK_BYTES];
        key[..bytes.len()].copy_from_slice(bytes);
        Self(Hmac::<Sha256>::new(&key.into()))
    }

    fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Of one listener: a ticket of another is not good there.
pub(super) struct SharedTickets {
    secret: SharedSecret,
    /// The listener, and what clients have to show there.
    scope: Vec<u8>,
    clock: fn() -> u64,
}

impl std::fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedTickets").finish_non_exhaustive()
    }
}

impl SharedTickets {
    pub(super) fn new(secret: SharedSecret, listener: &str, clients: &[u8]) -> Self {
        Self {
            secret,
            scope: [clients, listener.as_bytes()].concat(),
            clock: since_1970_s,
        }
    }

    /// What a ticket of a period begins with. Says nothing to others, not even which tickets are older.
    fn name(&self, period: u64) -> [u8; NAME_BYTES] {
        let derived = self.secret.derive(&[b"name", &self.scope, &period.to_le_bytes()]);
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&derived[..NAME_BYTES]);
        name
    }

    fn key(&self, period: u64) -> Option<LessSafeKey> {
        let bytes = self.secret.derive(&[b"key", &self.scope, &period.to_le_bytes()]);
        Some(LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok()?,
        ))
    }

    fn period(&self) -> u64 {
        (self.clock)() / PERIOD_S
    }
}

fn since_1970_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let period = self.period();
        let name = self.name(period);
        // Nodes count nothing together, so chance keeps nonces apart.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = [&name[..], &nonce, plain].concat();
        let (head, body) = ticket.split_at_mut(NAME_BYTES + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed =
            self.key(period)?
                .seal_in_place_separate_tag(nonce, Aad::from(&head[..NAME_BYTES]), body);
        ticket.extend(sealed.ok()?.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = self.period();
        // Names are no secrets; what is secret is compared by the cipher.
        let mut good = (now.saturating_sub(PAST)..=now + 1).rev();
        let period = good.find(|period| self.name(*period) == *name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .key(period)?
            .open_in_place(nonce, Aad::from(name), &mut plain);
        let length = opened.ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secret: u8, scope: &str, clock: fn() -> u64) -> SharedTickets {
        let secret = SharedSecret::of(&[secret; 32]);
        SharedTickets {
            clock,
            ..SharedTickets::new(secret, scope, b"nobody")
        }
    }

    #[test]
    fn a_ticket_of_one_node_is_good_at_another() {
        let ticket = at(1, "web", || 1_000_000).encrypt(b"a session").unwrap();
        assert!(!ticket.windows(9).any(|part| part == b"a session"));
        let taken = at(1, "web", || 1_000_000).decrypt(&ticket);
        assert_eq!(taken.as_deref(), Some(&b"a session"[..]));
    }

    #[test]
    fn a_ticket_of_another_secret_or_another_listener_is_not() {
        let ticket = at(1, "web", || 1_000_000).encrypt(b"a session").unwrap();
        assert_eq!(at(2, "web", || 1_000_000).decrypt(&ticket), None);
        assert_eq!(at(1, "api", || 1_000_000).decrypt(&ticket), None);
        let others = SharedTickets {
            clock: || 1_000_000,
            ..SharedTickets::new(SharedSecret::of(&[1; 32]), "web", b"known ones")
        };
        assert_eq!(others.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_is_good_for_its_lifetime_and_between_clocks_that_differ() {
        let ticket = at(1, "web", || 10 * PERIOD_S + 1).encrypt(b"a session").unwrap();
        let is_taken = |clock| at(1, "web", clock).decrypt(&ticket).is_some();
        assert!(is_taken(|| 10 * PERIOD_S + 1 + u64::from(LIFETIME_S)));
        assert!(is_taken(|| 10 * PERIOD_S - 1), "the other clock is behind");
        assert!(!is_taken(|| 13 * PERIOD_S));
        assert!(!is_taken(|| 9 * PERIOD_S - 1));
    }

    #[test]
    fn a_ticket_that_was_changed_anywhere_is_none() {
        let tickets = at(1, "web", || 1_000_000);
        let ticket = tickets.encrypt(b"a session").unwrap();
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{place}");
            assert_eq!(tickets.decrypt(&ticket[..place]), None, "{place}");
        }
    }
}
