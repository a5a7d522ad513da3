//! What is sealed for parties that are in no list of members: a sender, a receiver, and a body of the caller's own.
//!
//! Owns the layout. What the body says, and who may send it, is the caller's business; whether it is new, `session.rs`'. The magic is
//! another one than that of letters, so that none is ever taken for the other, even under one key.
//!
//! Layout, numbers in network order: magic `tp`, version, a zero, cluster (8), from (8), to (8), boot (8), echo (8), sequence (8), the
//! body, seal (32).

use super::{DATAGRAM_BYTES_MAX, SEAL_BYTES, Secrets, Unreadable, open, seal};
use crate::session::Stamp;

const MAGIC: [u8; 2] = *b"tp";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 52;
/// A body may have so many bytes.
pub const BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES - SEAL_BYTES;

/// A body on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel<'a> {
    /// Who sends it.
    pub from: u64,
    /// To whom.
    pub to: u64,
    /// By which it is known to be new.
    pub stamp: Stamp,
    /// An empty one only makes the sender's start known.
    pub body: &'a [u8],
}

/// The datagram. The body has [`BODY_BYTES_MAX`] bytes at most.
pub fn write_parcel(parcel: &Parcel<'_>, secrets: &Secrets) -> Vec<u8> {
    debug_assert!(parcel.body.len() <= BODY_BYTES_MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + parcel.body.len() + SEAL_BYTES);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, 0]);
    let Stamp { boot, echo, sequence } = parcel.stamp;
    for number in [secrets.cluster, parcel.from, parcel.to, boot, echo, sequence] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(parcel.body);
    seal(bytes, secrets)
}

/// The parcel.
///
/// # Errors
/// Why it is not to be believed.
pub fn read_parcel<'a>(bytes: &'a [u8], secrets: &Secrets) -> Result<Parcel<'a>, Unreadable> {
    let (_, mut fields) = open(bytes, secrets, (MAGIC, VERSION))?;
    let mut parcel = || {
        let (from, to) = (fields.number()?, fields.number()?);
        let stamp = Stamp {
            boot: fields.number()?,
            echo: fields.number()?,
            sequence: fields.number()?,
        };
        Some(Parcel {
            from,
            to,
            stamp,
            body: fields.0,
        })
    };
    parcel().ok_or(Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(key: &[u8]) -> Secrets {
        Secrets::new("edge", "", key).unwrap()
    }

    fn parcel(body: &[u8]) -> Parcel<'_> {
        Parcel {
            from: 1,
            to: 2,
            stamp: Stamp {
                boot: 3,
                echo: 4,
                sequence: 5,
            },
            body,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for body in [&b""[..], b"load", &[7; BODY_BYTES_MAX]] {
            let bytes = write_parcel(&parcel(body), &secrets(b"key"));
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
            assert_eq!(read_parcel(&bytes, &secrets(b"key")), Ok(parcel(body)));
        }
    }

    #[test]
    fn what_was_changed_cut_or_sealed_by_another_is_refused() {
        let bytes = write_parcel(&parcel(b"load"), &secrets(b"key"));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(read_parcel(&changed, &secrets(b"key")).is_err(), "byte {place}");
            assert!(
                read_parcel(&bytes[..place], &secrets(b"key")).is_err(),
                "{place} bytes"
            );
        }
        assert_eq!(read_parcel(&bytes, &secrets(b"other")), Err(Unreadable::Seal));
        assert_eq!(
            read_parcel(&[0; DATAGRAM_BYTES_MAX + 1], &secrets(b"key")),
            Err(Unreadable::Malformed)
        );
    }

    #[test]
    fn a_letter_is_no_parcel_and_a_parcel_no_letter() {
        let bytes = write_parcel(&parcel(b""), &secrets(b"key"));
        assert_eq!(
            super::super::read(&bytes, &secrets(b"key")),
            Err(Unreadable::Malformed)
        );
        let mut session = crate::Session::new(0, 2, 11);
        let letter = super::super::write(&session.letter(1, None), &secrets(b"key"));
        assert_eq!(read_parcel(&letter, &secrets(b"key")), Err(Unreadable::Malformed));
    }
}
