//! Letters there and back, and bytes that are none.

use super::*;

fn secrets() -> Secrets {
    Secrets::new("edge", "a b w", b"a key of the cluster").unwrap()
}

fn letter(message: Option<Message>) -> Letter {
    Letter {
        from: 1,
        to: 2,
        boot: 0x0102_0304_0506_0708,
        echo: 9,
        sequence: 10,
        is_same_list: true,
        message,
    }
}

fn all() -> Vec<Letter> {
    let ask = Ask {
        epoch: u64::MAX,
        round: 2,
        holds: true,
        lease_us: 400_000,
    };
    let refuse = |refusal| Message::Refuse { round: 3, refusal };
    let messages = [
        Message::Ask(ask),
        Message::Grant { round: 7 },
        refuse(Refusal::Busy {
            holder: 1,
            wait_us: 5,
        }),
        refuse(Refusal::Stale { seen: 6 }),
        refuse(Refusal::Longer),
        Message::Release {
            epoch: 4,
            round: 5,
            to: Some(1),
        },
        Message::Release {
            epoch: 4,
            round: 5,
            to: None,
        },
        Message::Beat(Beat {
            active: false,
            fit: true,
            presence: Presence::Here,
            epoch: 8,
        }),
        Message::Beat(Beat {
            active: false,
            fit: false,
            presence: Presence::Silent,
            epoch: 8,
        }),
        Message::Beat(Beat {
            active: false,
            fit: false,
            presence: Presence::Parting,
            epoch: 8,
        }),
        Message::Serves(Serves {
            config: 0x1122_3344_5566_7788,
            policies: 9,
        }),
    ];
    std::iter::once(None)
        .chain(messages.map(Some))
        .map(letter)
        .collect()
}

#[test]
fn every_letter_is_read_as_it_was_written() {
    for letter in all() {
        let bytes = write(&letter, &secrets());
        assert!(bytes.len() <= 134, "{} bytes: {letter:?}", bytes.len());
        assert_eq!(read(&bytes, &secrets()), Ok(letter));
    }
}

#[test]
fn strangers_are_told_apart() {
    let bytes = write(&letter(None), &secrets());
    let other = |cluster, members, key: &[u8]| read(&bytes, &Secrets::new(cluster, members, key).unwrap());
    assert_eq!(
        other("core", "a b w", b"a key of the cluster"),
        Err(Unreadable::Cluster)
    );
    assert_eq!(other("edge", "a b w", b"another key"), Err(Unreadable::Seal));
    let elsewhere = other("edge", "a b x", b"a key of the cluster").unwrap();
    assert!(!elsewhere.is_same_list);
    let mut newer = bytes.clone();
    newer[2] += 1;
    assert_eq!(read(&newer, &secrets()), Err(Unreadable::Version));
    assert!(Secrets::new("edge", "", b"").is_none());
}

#[test]
fn not_a_bit_can_be_changed() {
    for letter in all() {
        let bytes = write(&letter, &secrets());
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(read(&changed, &secrets()).is_err(), "bit {at} of {letter:?}");
        }
    }
}

/// With a seal that fits: what a member with a bug, or of a later time, could send.
#[test]
fn no_bytes_make_the_reader_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let secrets = secrets();
    let (mut letters, mut refused) = (0, 0);
    for round in 0..200_000 {
        let mut bytes = write(&random.choice(all()).unwrap(), &secrets);
        bytes.truncate(bytes.len() - SEAL_BYTES);
        for _ in 0..random.usize(..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, random.u8(..)),
                _ => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(round % 40)),
            }
        }
        let mut mac = secrets.mac.clone();
        mac.update(&bytes);
        bytes.extend(mac.finalize().into_bytes());
        match read(&bytes, &secrets) {
            Ok(_) => letters += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(letters > 10_000 && refused > 10_000, "{letters} {refused}");
    for length in 0..2000 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        assert!(read(&bytes, &secrets).is_err());
    }
}
