//! Rates on virtual time.

use std::{num::NonZeroU32, time::Duration};

use super::*;

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate {
        amount: NonZeroU32::new(per_second)?,
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(burst)?,
    })
}

fn none() -> Rates {
    Rates {
        requests: None,
        connections: None,
        client_requests: None,
        client_connections: None,
        clients: 1024,
        ipv6_prefix: 64,
    }
}

fn limiters(rates: &Rates, workers: usize) -> Vec<Limiter> {
    let shared = Arc::new(Shared::new(rates, workers));
    (0..workers)
        .map(|worker| Limiter::new(rates, shared.clone(), worker))
        .collect()
}

const SECOND_US: u64 = 1_000_000;
const ANN: u128 = 0xffff_0a00_0001;
const BOB: u128 = 0xffff_0a00_0002;

#[test]
fn a_burst_is_let_in_and_then_the_rate() {
    let rates = Rates {
        requests: rate(10, 5),
        ..none()
    };
    let limiter = &limiters(&rates, 1)[0];
    let let_in = |from: u64, to: u64| {
        let every_ms = (from..to).step_by(1000);
        every_ms.filter(|now| limiter.request(ANN, *now).is_ok()).count()
    };
    let begin = 5 * SECOND_US;
    assert_eq!(let_in(begin, begin + 10_000), 5, "the burst");
    assert_eq!(let_in(begin + 10_000, begin + 10 * SECOND_US), 99, "the rate");
    assert_eq!(
        let_in(begin + 60 * SECOND_US, begin + 60 * SECOND_US + 10_000),
        5,
        "no more is saved up"
    );
}

#[test]
fn who_is_refused_is_told_when_to_come_again() {
    let rates = Rates {
        client_requests: rate(4, 1),
        ..none()
    };
    let limiter = &limiters(&rates, 1)[0];
    assert_eq!(limiter.request(ANN, SECOND_US), Ok(()));
    let excess = limiter.request(ANN, SECOND_US + 50_000).unwrap_err();
    assert_eq!(excess.by, By::Client);
    assert!(
        (200_000..=200_001).contains(&excess.wait_us),
        "{}",
        excess.wait_us
    );
    assert!(limiter.request(ANN, SECOND_US + 249_000).is_err());
    assert_eq!(limiter.request(ANN, SECOND_US + 250_001), Ok(()));
}

#[test]
fn a_client_that_has_had_too_much_takes_nothing_from_the_others() {
    let rates = Rates {
        requests: rate(10, 10),
        client_requests: rate(1, 2),
        ..none()
    };
    let limiter = &limiters(&rates, 1)[0];
    let ann = (0..100)
        .filter(|_| limiter.request(ANN, SECOND_US).is_ok())
        .count();
    assert_eq!(ann, 2);
    let bob = (0..100)
        .filter(|_| limiter.request(BOB, SECOND_US).is_ok())
        .count();
    assert_eq!(bob, 2);
    let others = (1..100)
        .filter(|other| limiter.request(BOB + other, SECOND_US).is_ok())
        .count();
    assert_eq!(others, 6, "10 of all together");
    assert_eq!(limiter.request(1 << 100, SECOND_US).unwrap_err().by, By::Listener);
}

/// Requests that are let in when every worker is asked every 100 us for so many seconds.
fn offered(limiters: &[Limiter], client: impl Fn(u64) -> u128, seconds: u64) -> usize {
    let mut let_in = 0;
    for now_us in (SECOND_US..(1 + seconds) * SECOND_US).step_by(100) {
        let each = limiters.iter();
        let_in += each
            .filter(|limiter| limiter.request(client(now_us), now_us).is_ok())
            .count();
    }
    let_in
}

#[test]
fn a_rate_holds_over_all_workers() {
    let rates = Rates {
        requests: rate(1000, 100),
        ..none()
    };
    for workers in [1, 2, 8] {
        let let_in = offered(&limiters(&rates, workers), |_| ANN, 10);
        // What is let in too much at the beginning, before they have heard of each other, is owed and not kept.
        assert!(
            (10_000..=10_200).contains(&let_in),
            "{workers} workers let in {let_in}"
        );
    }
}

#[test]
fn a_clients_rate_holds_over_all_workers() {
    let rates = Rates {
        client_requests: rate(1000, 100),
        ..none()
    };
    for workers in [1, 2, 8] {
        let let_in = offered(&limiters(&rates, workers), |_| ANN, 10);
        // Each has a bucket for a client that it has not seen, and learns of the others' in the first millisecond.
        assert!(
            (10_000..=10_200).contains(&let_in),
            "{workers} workers let in {let_in}"
        );
    }
}

#[test]
fn workers_that_let_in_nothing_take_nothing() {
    let rates = Rates {
        client_requests: rate(100, 10),
        ..none()
    };
    let limiters = limiters(&rates, 4);
    assert!((1000..=1010).contains(&offered(&limiters[2..3], |_| ANN, 10)));
}

#[test]
fn clients_do_not_pay_for_each_other() {
    let rates = Rates {
        client_requests: rate(10, 10),
        ..none()
    };
    let limiters = limiters(&rates, 2);
    for now_us in (SECOND_US..3 * SECOND_US).step_by(1000) {
        let _ = limiters[0].request(ANN, now_us);
        let _ = limiters[1].request(ANN, now_us);
        if now_us % 200_000 == 0 {
            assert_eq!(limiters[0].request(BOB, now_us), Ok(()), "5 a second");
        }
    }
}

#[test]
fn a_table_that_is_full_forgets_who_was_not_seen_for_longest() {
    let rates = Rates {
        client_requests: rate(1, 1),
        ..none()
    };
    let limiter = &limiters(&rates, 1)[0];
    let mut now_us = SECOND_US;
    for other in 0..100_000 {
        now_us += 1;
        assert_eq!(
            limiter.request(BOB + 1 + other, now_us),
            Ok(()),
            "a new one has a full bucket"
        );
        if other == 0 {
            assert_eq!(limiter.request(ANN, now_us), Ok(()));
        } else if other % 64 == 0 {
            assert!(
                limiter.request(ANN, now_us).is_err(),
                "seen just now, so it is not forgotten: {other}"
            );
        }
    }
}

#[test]
fn a_network_of_ipv6_is_one_client_and_an_address_of_ipv4_is_one() {
    let rates = Rates {
        client_connections: rate(1, 1),
        ..none()
    };
    let limiter = &limiters(&rates, 1)[0];
    let address = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(v6) => v6.to_bits(),
    };
    for (one, same, other) in [
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
    ] {
        assert!(limiter.connection_of(address(one), SECOND_US).is_ok());
        assert!(limiter.connection_of(address(same), SECOND_US).is_err(), "{same}");
        assert!(
            limiter.connection_of(address(other), SECOND_US).is_ok(),
            "{other}"
        );
    }
}

#[test]
fn another_node_goes_on_with_what_is_left() {
    let rates = Rates {
        requests: rate(1, 100),
        client_requests: rate(1, 5),
        ..none()
    };
    let there = limiters(&rates, 2);
    let here = limiters(&rates, 2);
    let begin = 5 * SECOND_US;
    // One worker knows more of a client than the other.
    there[1].request(ANN, begin).unwrap();
    for _ in 0..4 {
        there[0].request(ANN, begin + 2_000).unwrap();
    }
    assert!(there[1].request(ANN, begin + 4_000).is_err());
    let carried = there[0].carry(begin + 4_000).merge(there[1].carry(begin + 4_000));
    assert_eq!(carried.client_requests.len(), 1, "nobody else has asked");

    // Told on another clock, and a second ago: one more may come since.
    let (told, now) = (90 * SECOND_US, 91 * SECOND_US);
    for limiter in &here {
        limiter.go_on_with(&carried, told, now);
    }
    assert!(here[0].request(ANN, now).is_ok());
    assert_eq!(here[0].request(ANN, now).unwrap_err().by, By::Client);
    assert!(here[1].request(ANN, now + 2_000).is_err(), "in each worker");
    assert!(here[1].request(BOB, now).is_ok());
    let left = here[1].carry(now).requests.unwrap();
    assert!((94.0..97.0).contains(&left), "{left} of all clients'");

    // Told again, it is no second debt; and what is left here counts if it is less.
    here[0].go_on_with(&carried, now, now);
    let again = here[0].carry(now).client_requests[0].1;
    here[0].go_on_with(&carried, now, now);
    assert_eq!(here[0].carry(now).client_requests[0].1, again);
}
