//! Messages as bytes: a datagram with its sender, its receiver and a seal.
//!
//! Owns the layout and the seal (HMAC-SHA256 over all that precedes it). Whether a datagram is new is `session.rs`' business.
//! Reading never panics, whatever the bytes, and looks at nothing behind the header before the seal is known to fit.
//!
//! Layout, numbers in network order: magic `tt`, version, kind, cluster (8), members (8), from (1), to (1), boot (8), echo (8),
//! sequence (8), the kind's own fields, seal (32). 134 bytes at most, so no path's MTU matters.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

mod parcel;

pub use parcel::{BODY_BYTES_MAX, Parcel, read_parcel, write_parcel};

use crate::{
    message::{Ask, Beat, Message, Presence, Refusal, Serves},
    settings::MemberId,
};

const MAGIC: [u8; 2] = *b"tt";
/// Another version has another layout. One that is not known is counted and ignored.
pub const VERSION: u8 = 1;
const SEAL_BYTES: usize = 32;
/// Longer ones are not ours.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
const NOBODY: u8 = u8::MAX;

/// What all members of a cluster share.
#[derive(Clone)]
pub struct Secrets {
    mac: Hmac<Sha256>,
    cluster: u64,
    members: u64,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Of a cluster's name, its list of members as any text, and the key that they share. `None` for an empty key.
    pub fn new(cluster: &str, members: &str, key: &[u8]) -> Option<Self> {
        let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        (!key.is_empty()).then(|| Self {
            mac,
            cluster: digest(cluster),
            members: digest(members),
        })
    }
}

/// The first bytes of a text's SHA-256: enough to tell clusters apart by mistake; on purpose takes the key.
pub fn digest(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// Tells the starts of the sender apart.
    pub boot: u64,
    /// The receiver's start that the sender has heard of; 0 for none.
    pub echo: u64,
    /// Counts what the sender sent since it started.
    pub sequence: u64,
    /// Whether the sender has the same list of members.
    pub is_same_list: bool,
    /// What it says; `None` only makes the sender's start known.
    pub message: Option<Message>,
}

/// Why a datagram is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Too short, too long, or not of this protocol.
    Malformed,
    /// Of another version of it.
    Version,
    /// Of another cluster.
    Cluster,
    /// Made with another key, or changed on its way.
    Seal,
}

/// The datagram.
pub fn write(letter: &Letter, secrets: &Secrets) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, kind(letter.message.as_ref())]);
    bytes.extend(secrets.cluster.to_be_bytes());
    bytes.extend(secrets.members.to_be_bytes());
    bytes.extend([letter.from, letter.to]);
    for number in [letter.boot, letter.echo, letter.sequence] {
        bytes.extend(number.to_be_bytes());
    }
    if let Some(message) = &letter.message {
        write_message(message, &mut bytes);
    }
    seal(bytes, secrets)
}

/// The bytes, with their seal behind them.
fn seal(mut bytes: Vec<u8>, secrets: &Secrets) -> Vec<u8> {
    let mut mac = secrets.mac.clone();
    mac.update(&bytes);
    bytes.extend(mac.finalize().into_bytes());
    bytes
}

fn kind(message: Option<&Message>) -> u8 {
    match message {
        None => 0,
        Some(Message::Ask(_)) => 1,
        Some(Message::Grant { .. }) => 2,
        Some(Message::Refuse { .. }) => 3,
        Some(Message::Release { .. }) => 4,
        Some(Message::Beat(_)) => 5,
        Some(Message::Serves(_)) => 6,
    }
}

fn write_message(message: &Message, bytes: &mut Vec<u8>) {
    let mut put = |number: u64| bytes.extend(number.to_be_bytes());
    match *message {
        Message::Ask(ask) => {
            put(ask.epoch);
            put(ask.round);
            put(ask.lease_us);
            bytes.push(u8::from(ask.holds));
        }
        Message::Grant { round } => put(round),
        Message::Refuse { round, refusal } => {
            put(round);
            let (reason, holder, number) = match refusal {
                Refusal::Busy { holder, wait_us } => (0, holder, wait_us),
                Refusal::Stale { seen } => (1, NOBODY, seen),
                Refusal::Longer => (2, NOBODY, 0),
            };
            put(number);
            bytes.extend([reason, holder]);
        }
        Message::Release { epoch, round, to } => {
            put(epoch);
            put(round);
            bytes.push(to.unwrap_or(NOBODY));
        }
        Message::Beat(beat) => {
            put(beat.epoch);
            let presence = match beat.presence {
                Presence::Here => 0,
                Presence::Silent => 1,
                Presence::Parting => 2,
            };
            bytes.push(u8::from(beat.active) | u8::from(beat.fit) << 1 | presence << 2);
        }
        Message::Serves(serves) => {
            put(serves.config);
            put(serves.policies);
        }
    }
}

/// The letter.
///
/// # Errors
/// Why it is not to be believed.
pub fn read(bytes: &[u8], secrets: &Secrets) -> Result<Letter, Unreadable> {
    let (kind, mut fields) = open(bytes, secrets, (MAGIC, VERSION))?;
    letter(&mut fields, kind, secrets).ok_or(Unreadable::Malformed)
}

/// What is behind the cluster's name in a sealed datagram of this magic and version, and the byte before that name.
fn open<'a>(
    bytes: &'a [u8],
    secrets: &Secrets,
    expected: ([u8; 2], u8),
) -> Result<(u8, Fields<'a>), Unreadable> {
    if bytes.len() > DATAGRAM_BYTES_MAX {
        return Err(Unreadable::Malformed);
    }
    let (sealed, seal) = bytes
        .split_last_chunk::<SEAL_BYTES>()
        .ok_or(Unreadable::Malformed)?;
    let mut fields = Fields(sealed);
    let mut header = || {
        Some((
            fields.chunk::<2>()?,
            fields.byte()?,
            fields.byte()?,
            fields.number()?,
        ))
    };
    let (magic, version, kind, cluster) = header().ok_or(Unreadable::Malformed)?;
    if magic != expected.0 {
        return Err(Unreadable::Malformed);
    }
    if version != expected.1 {
        return Err(Unreadable::Version);
    }
    if cluster != secrets.cluster {
        return Err(Unreadable::Cluster);
    }
    let mut mac = secrets.mac.clone();
    mac.update(sealed);
    mac.verify_slice(seal).map_err(|_| Unreadable::Seal)?;
    Ok((kind, fields))
}

fn letter(fields: &mut Fields<'_>, kind: u8, secrets: &Secrets) -> Option<Letter> {
    let is_same_list = fields.number()? == secrets.members;
    let letter = Letter {
        is_same_list,
        from: fields.byte()?,
        to: fields.byte()?,
        boot: fields.number()?,
        echo: fields.number()?,
        sequence: fields.number()?,
        message: match kind {
            0 => None,
            kind => Some(message(fields, kind)?),
        },
    };
    fields.0.is_empty().then_some(letter)
}

fn message(fields: &mut Fields<'_>, kind: u8) -> Option<Message> {
    Some(match kind {
        1 => Message::Ask(Ask {
            epoch: fields.number()?,
            round: fields.number()?,
            lease_us: fields.number()?,
            holds: fields.flag()?,
        }),
        2 => Message::Grant {
            round: fields.number()?,
        },
        3 => {
            let (round, number) = (fields.number()?, fields.number()?);
            let (reason, holder) = (fields.byte()?, fields.byte()?);
            let refusal = match reason {
                0 => Refusal::Busy {
                    holder,
                    wait_us: number,
                },
                1 => Refusal::Stale { seen: number },
                2 => Refusal::Longer,
                _ => return None,
            };
            Message::Refuse { round, refusal }
        }
        4 => Message::Release {
            epoch: fields.number()?,
            round: fields.number()?,
            to: Some(fields.byte()?).filter(|to| *to != NOBODY),
        },
        5 => {
            let epoch = fields.number()?;
            let flags = fields.byte()?;
            Message::Beat(Beat {
                active: flags & 1 != 0,
                fit: flags & 2 != 0,
                presence: match flags >> 2 & 3 {
                    0 => Presence::Here,
                    2 => Presence::Parting,
                    _ => Presence::Silent,
                },
                epoch,
            })
        }
        6 => Message::Serves(Serves {
            config: fields.number()?,
            policies: fields.number()?,
        }),
        _ => return None,
    })
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        self.byte().and_then(|byte| match byte {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
