//! How long a ticket is good, and for whom.

use super::*;

const NOW_S: u64 = 1_800_000_000 / PERIOD_S * PERIOD_S;

fn tickets(secret: u8, clients: u8) -> Tickets {
    Tickets {
        root: Salt::new(HKDF_SHA256, b"trimtab tickets").extract(&[secret; 32]),
        clients: [clients; 32],
        random: SystemRandom::new(),
    }
}

#[test]
fn whoever_has_the_secret_opens_a_ticket_until_the_second_key_after_it() {
    let ticket = tickets(1, 0).seal(b"session", NOW_S).unwrap();
    for (after_s, is_good) in [
        (0, true),
        (PERIOD_S, true),
        (2 * PERIOD_S - 1, true),
        (2 * PERIOD_S, false),
    ] {
        let opened = tickets(1, 0).open(&ticket, NOW_S + after_s);
        assert_eq!(opened.as_deref(), is_good.then_some(&b"session"[..]), "{after_s}");
    }
    assert!(
        tickets(1, 0).open(&ticket, NOW_S - 1).is_some(),
        "a clock behind ours"
    );
    assert_eq!(tickets(1, 0).open(&ticket, NOW_S - PERIOD_S - 1), None);
}

#[test]
fn nobody_else_opens_it_and_nothing_of_it_may_change() {
    let ticket = tickets(1, 0).seal(b"session", NOW_S).unwrap();
    assert_eq!(tickets(2, 0).open(&ticket, NOW_S), None);
    assert_eq!(tickets(1, 1).open(&ticket, NOW_S), None, "other demands");
    for at in 0..ticket.len() {
        let mut other = ticket.clone();
        other[at] ^= 1;
        assert_eq!(tickets(1, 0).open(&other, NOW_S), None, "{at}");
        assert_eq!(tickets(1, 0).open(&ticket[..at], NOW_S), None, "{at}");
    }
    assert_ne!(tickets(1, 0).seal(b"session", NOW_S).unwrap(), ticket);
}

#[test]
fn each_period_has_a_key_of_its_own() {
    let ticket = tickets(1, 0).seal(b"session", NOW_S).unwrap();
    let mut later = ticket;
    later[..PERIOD_BYTES].copy_from_slice(&(NOW_S / PERIOD_S + 1).to_be_bytes());
    assert_eq!(tickets(1, 0).open(&later, NOW_S), None);
}
