//! The headers of the specification (proxy-protocol.txt, 2.1 and 2.2), cut and bent in every way.

use super::*;

fn ends(source: &str, destination: &str) -> Option<Endpoints> {
    Some(Endpoints {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

fn header(len: usize, endpoints: Option<Endpoints>) -> Result<Beginning, Malformed> {
    Ok(Beginning::Header { len, endpoints })
}

/// Version 2 with this command and kind, and what follows.
fn binary(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, kind]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0x01, 0xbb];

#[test]
fn a_line_says_both_ends() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\r\n";
    assert_eq!(
        read(line),
        header(line.len(), ends("192.0.2.1:12345", "192.0.2.2:443"))
    );
    let line = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
    assert_eq!(
        read(line),
        header(line.len(), ends("[2001:db8::1]:0", "[::1]:65535"))
    );
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 whatever 1\r\n"] {
        assert_eq!(read(unknown.as_bytes()), header(unknown.len(), None));
    }
}

#[test]
fn what_follows_a_header_is_not_looked_at() {
    let line = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let more = format!("{line}PROXY nonsense\n");
    assert_eq!(
        read(more.as_bytes()),
        header(line.len(), ends("192.0.2.1:1", "192.0.2.2:2"))
    );
    let mut more = binary(0x21, 0x11, V4);
    let len = more.len();
    more.extend(b"\xff\xff\xff");
    assert_eq!(read(&more), header(len, ends("192.0.2.1:12345", "192.0.2.2:443")));
}

#[test]
fn a_line_that_is_not_exactly_one_is_refused() {
    for bad in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\n",
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    ] {
        assert!(read(bad.as_bytes()).is_err(), "{bad}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert!(read(endless.as_bytes()).is_err());
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(read(longest.as_bytes()), header(107, None));
}

#[test]
fn a_binary_header_says_both_ends() {
    let bytes = binary(0x21, 0x11, V4);
    assert_eq!(read(&bytes), header(28, ends("192.0.2.1:12345", "192.0.2.2:443")));
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15], v6[31], v6[33], v6[35]) = (0x20, 0x01, 1, 2, 3, 4);
    assert_eq!(
        read(&binary(0x21, 0x21, &v6)),
        header(52, ends("[2001::1]:3", "[::2]:4"))
    );
}

#[test]
fn a_proxy_may_speak_for_itself() {
    assert_eq!(read(&binary(0x20, 0x00, b"")), header(16, None));
    // Whatever it says beside that is skipped.
    assert_eq!(read(&binary(0x20, 0x11, V4)), header(28, None));
    assert_eq!(read(&binary(0x20, 0x77, b"abc")), header(19, None));
    assert_eq!(read(&binary(0x21, 0x00, b"abc")), header(19, None));
    assert_eq!(read(&binary(0x21, 0x31, &[0; 216])), header(232, None));
}

#[test]
fn a_binary_header_that_is_not_exactly_one_is_refused() {
    for (bad, why) in [
        (binary(0x11, 0x11, V4), "version"),
        (binary(0x31, 0x11, V4), "version"),
        (binary(0x22, 0x11, V4), "command"),
        (binary(0x21, 0x12, V4), "datagrams"),
        (binary(0x21, 0x13, V4), "transport"),
        (binary(0x21, 0x41, V4), "family"),
        (binary(0x21, 0x31, V4), "short for Unix sockets"),
        (binary(0x21, 0x11, &V4[..11]), "short for its addresses"),
        (binary(0x21, 0x21, V4), "short for its addresses"),
        (binary(0x21, 0x11, &[V4, &[1]].concat()), "cut extension"),
        (binary(0x21, 0x11, &[V4, &[1, 0]].concat()), "cut extension"),
        (
            binary(0x21, 0x11, &[V4, &[1, 0, 2, 9]].concat()),
            "long extension",
        ),
        (
            binary(0x21, 0x11, &[V4, &[3, 0, 3, 0, 0, 0]].concat()),
            "short checksum",
        ),
        (
            binary(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0]].concat()),
            "wrong checksum",
        ),
        (binary(0x21, 0x00, &[0; BYTES_MAX]), "too long"),
    ] {
        assert!(read(&bad).is_err(), "{why}");
    }
}

#[test]
fn extensions_are_skipped_and_their_checksum_holds() {
    // CRC-32C of "123456789" is the check value of the algorithm.
    assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
    let alpn = [&[1, 0, 2][..], b"h2"].concat();
    let mut bytes = binary(
        0x21,
        0x11,
        &[V4, &alpn, &[3, 0, 4, 0, 0, 0, 0], &[4, 0, 0]].concat(),
    );
    let at = FIXED + V4.len() + alpn.len() + 3;
    let sum = checksum(&bytes, at);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(
        read(&bytes),
        header(bytes.len(), ends("192.0.2.1:12345", "192.0.2.2:443"))
    );
    // Of another type, it is no checksum any more.
    for flipped in (12..bytes.len()).filter(|flipped| *flipped != at - 3) {
        let mut bent = bytes.clone();
        bent[flipped] ^= 1;
        assert!(
            !matches!(
                read(&bent),
                Ok(Beginning::Header {
                    endpoints: Some(_),
                    ..
                })
            ),
            "byte {flipped}"
        );
    }
}

#[test]
fn a_part_of_a_header_waits_for_the_rest() {
    let binary = binary(0x21, 0x11, &[V4, &[1, 0, 2, 9, 9]].concat());
    for whole in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\r\n"[..], &binary] {
        for cut in 0..whole.len() {
            match read(&whole[..cut]) {
                Ok(Beginning::Part(least)) => assert!(cut < least && least <= whole.len(), "{cut}"),
                other => panic!("{cut} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn other_protocols_are_not_taken_for_a_header() {
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXIES",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\nGET",
        b"\0",
    ] {
        assert_eq!(read(other), Ok(Beginning::Other), "{other:?}");
    }
}

#[test]
fn what_is_written_is_read_as_it_was() {
    for version in [Version::V1, Version::V2] {
        for (endpoints, read_as) in [
            (
                ends("192.0.2.1:1", "192.0.2.2:2"),
                ends("192.0.2.1:1", "192.0.2.2:2"),
            ),
            (
                ends("[2001:db8::1]:1", "[::1]:2"),
                ends("[2001:db8::1]:1", "[::1]:2"),
            ),
            // A listener of both families sees IPv4 in the form of IPv6.
            (
                ends("[::ffff:192.0.2.1]:1", "192.0.2.2:2"),
                ends("192.0.2.1:1", "192.0.2.2:2"),
            ),
            (
                ends("192.0.2.1:1", "[::1]:2"),
                ends("[::ffff:192.0.2.1]:1", "[::1]:2"),
            ),
            (None, None),
        ] {
            let mut bytes = b"kept".to_vec();
            write(version, endpoints, &mut bytes);
            let bytes = bytes.strip_prefix(b"kept").unwrap();
            assert_eq!(
                read(bytes),
                header(bytes.len(), read_as),
                "{version:?} {endpoints:?}"
            );
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let mut bytes = binary(0x20 | random.u8(0..4), random.u8(..), V4);
        bytes.extend((0..random.usize(0..40)).map(|_| random.u8(0..5)));
        let length = random.usize(0..60);
        bytes[15] = length as u8;
        let at = random.usize(12..bytes.len());
        bytes[at] = random.u8(..);
        bytes.truncate(random.usize(0..=bytes.len()));
        if let Ok(Beginning::Header { len, .. }) = read(&bytes) {
            assert!(len <= bytes.len());
        }
    }
}
