//! What a cookie tells, and to whom.

use std::collections::HashSet;

use super::*;
use crate::config::Config;

const NOW_S: u64 = 1_790_000_000;

fn config(keys: &str) -> config::Sticky {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[pool.main]\nbackends = [\"127.0.0.1:1\"]\nsticky = {{ {keys} }}\n"
    );
    let config = Config::parse(&text, "test", std::path::Path::new("")).unwrap();
    config.pools["main"].sticky.clone().unwrap()
}

fn sticky(keys: &str, secret: &str, pool: &str) -> Sticky {
    Sticky::new(config(keys), Secret::of(secret.as_bytes()), pool, 1)
}

/// The cookie's value.
fn set(sticky: &Sticky, id: u64, now_s: u64, random: u32) -> String {
    let field = sticky.write(id, now_s, (false, random));
    let (value, _) = field.split_once(';').unwrap();
    value.split_once('=').unwrap().1.to_owned()
}

#[test]
fn what_was_written_is_read() {
    let sticky = sticky("", "a", "main");
    for id in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        let value = set(&sticky, id, NOW_S, 7);
        assert_eq!(value.len(), 64);
        assert_eq!(
            sticky.read(&value, NOW_S + 1_000_000_000),
            Some(Ticket { id, is_fresh: true })
        );
    }
}

#[test]
fn nobody_else_can_write_one() {
    let own = sticky("", "a", "main");
    let value = set(&own, 5, NOW_S, 7);
    for other in [sticky("", "b", "main"), sticky("", "a", "other")] {
        assert_eq!(other.read(&value, NOW_S), None);
    }
    for at in 0..value.len() {
        let mut forged = value.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(
            own.read(std::str::from_utf8(&forged).unwrap(), NOW_S),
            None,
            "digit {at}"
        );
    }
    let longer = format!("{value}0");
    for odd in [
        "",
        "x",
        &value[1..],
        &longer,
        &"0".repeat(64),
        &"g".repeat(64),
        &"é".repeat(32),
    ] {
        assert_eq!(own.read(odd, NOW_S), None, "{odd}");
    }
}

#[test]
fn a_cookie_tells_nothing() {
    let sticky = sticky("", "a", "main");
    let values: HashSet<_> = (0..100).map(|random| set(&sticky, 5, NOW_S, random)).collect();
    assert_eq!(values.len(), 100, "those of one backend are all different");
    let id = format!("{:016x}", 5u64.swap_bytes());
    assert!(values.iter().all(|value| !value.contains(&id)));
}

#[test]
fn a_cookie_expires_and_is_renewed_in_its_second_half() {
    let sticky = sticky("ttl = \"1h\"", "a", "main");
    let value = set(&sticky, 5, NOW_S, 7);
    let read = |after_s| sticky.read(&value, NOW_S + after_s).map(|ticket| ticket.is_fresh);
    assert_eq!(
        [read(0), read(1799), read(1800), read(3599), read(3600)],
        [Some(true), Some(true), Some(false), Some(false), None]
    );
    assert_eq!(read(u64::MAX / 2), None, "whatever the clock says");
    let shorter = self::sticky("ttl = \"10m\"", "a", "main");
    assert_eq!(
        shorter.read(&value, NOW_S),
        Some(Ticket {
            id: 5,
            is_fresh: false
        })
    );
}

#[test]
fn attributes_are_as_configured() {
    let field = |keys: &str, is_https| {
        let field = sticky(keys, "a", "main").write(5, NOW_S, (is_https, 7));
        let (name, rest) = field.split_once('=').unwrap();
        format!("{name}{}", &rest[64..])
    };
    assert_eq!(field("", false), "trimtab; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(field("", true), "trimtab; Path=/; Secure; HttpOnly; SameSite=Lax");
    let keys = "cookie = \"sid\", ttl = \"2m\", path = \"/a\", domain = \"shop.example\", secure = \"always\", \
        http_only = false, same_site = \"none\"";
    assert_eq!(
        field(keys, false),
        "sid; Path=/a; Domain=shop.example; Max-Age=120; Secure; SameSite=None"
    );
    assert_eq!(
        field("secure = \"never\", same_site = \"strict\"", true),
        "trimtab; Path=/; HttpOnly; SameSite=Strict"
    );
}
