//! Histories without a balancer.

use super::*;

fn version(letter: char, config: &str, since_ms: u64) -> Version {
    Version {
        digest: letter.to_string().repeat(DIGITS),
        bytes: 100,
        origin: Origin::Upload,
        config_json: config.to_owned(),
        since_ms,
        compile_ms: 1,
    }
}

fn upload(letter: char, at_ms: u64) -> Upload {
    Upload {
        digest: letter.to_string().repeat(DIGITS),
        bytes: 100,
        at_ms,
        compile_ms: 1,
    }
}

fn says(letter: char, config: &str) -> FileSays {
    FileSays {
        policy: "mine".into(),
        origin: Origin::File("mine.wasm".into()),
        digest: letter.to_string().repeat(DIGITS),
        config_json: config.to_owned(),
    }
}

fn letters(versions: &Versions) -> String {
    versions
        .of("shop")
        .iter()
        .map(|version| &version.digest[..1])
        .collect()
}

fn all() -> BTreeSet<&'static str> {
    BTreeSet::from(["shop"])
}

#[test]
fn the_one_in_service_is_first_and_going_back_twice_is_going_nowhere() {
    let mut versions = Versions::default();
    for letter in ['a', 'b', 'c'] {
        versions.serve("shop", version(letter, "{}", 1), None);
    }
    assert_eq!(letters(&versions), "cba");
    for expected in ["bca", "cba"] {
        let previous = versions.find("shop", &Sought::Previous, "{}").unwrap();
        versions.serve("shop", previous, Some(says('c', "{}")));
        assert_eq!(letters(&versions), expected);
    }
}

#[test]
fn the_same_component_with_other_settings_is_another_version() {
    let mut versions = Versions::default();
    versions.serve("shop", version('a', "{\"x\":1}", 1), None);
    versions.serve("shop", version('a', "{\"x\":2}", 2), None);
    assert_eq!(letters(&versions), "aa");
    let digest = Sought::Digest("a".repeat(DIGITS));
    let found = versions.find("shop", &digest, "{}").unwrap();
    assert_eq!(found.config_json, "{\"x\":2}", "the last ones");
}

#[test]
fn a_pin_holds_until_the_file_says_something_else() {
    let mut versions = Versions::default();
    versions.serve("shop", version('b', "{}", 1), Some(says('a', "{}")));
    assert!(versions.in_place_of("shop", &says('a', "{}")).is_some());
    for other in [
        says('c', "{}"),
        says('a', "{\"x\":1}"),
        FileSays {
            policy: "other".into(),
            ..says('a', "{}")
        },
        FileSays {
            origin: Origin::Builtin("chaos".into()),
            ..says('a', "{}")
        },
    ] {
        assert!(versions.in_place_of("shop", &other).is_none(), "{other:?}");
    }
}

#[test]
fn a_digest_may_be_cut_short_but_not_until_it_means_two() {
    let mut versions = Versions::default();
    let (one, two) = (
        "abcdef0011".to_owned() + &"0".repeat(54),
        "abcdef0022".to_owned() + &"0".repeat(54),
    );
    for digest in [&one, &two] {
        versions.upload(Upload {
            digest: digest.clone(),
            ..upload('x', 1)
        });
    }
    let find = |digits: &str| versions.find("shop", &Sought::Digest(digits.into()), "{}");
    assert_eq!(find("abcdef001").unwrap().digest, one);
    assert_eq!(find(&two).unwrap().digest, two);
    for (digits, reason) in [
        ("abcdef00", "several digests"),
        ("abcdef0", "is no digest"),
        ("ABCDEF01", "is no digest"),
        ("abcdef03", "begins with"),
        ("../../../etc", "is no digest"),
    ] {
        let error = find(digits).unwrap_err();
        assert!(error.contains(reason), "{digits}: {error}");
    }
}

#[test]
fn an_upload_takes_the_settings_that_it_is_given() {
    let mut versions = Versions::default();
    versions.upload(upload('e', 1));
    let found = versions.find("shop", &Sought::Digest("e".repeat(12)), "{\"x\":1}");
    let found = found.unwrap();
    assert_eq!(
        (found.config_json.as_str(), found.origin),
        ("{\"x\":1}", Origin::Upload)
    );
}

#[test]
fn only_so_many_are_kept_and_never_the_one_in_service_dropped() {
    let mut versions = Versions::default();
    for (at, letter) in ('a'..='f').enumerate() {
        versions.serve("shop", version(letter, "{}", at as u64), None);
    }
    versions.trim(&all(), 3, u64::MAX);
    assert_eq!(letters(&versions), "fed");
    versions.trim(&all(), 3, 200);
    assert_eq!(letters(&versions), "fe");
    versions.trim(&all(), 3, 0);
    assert_eq!(letters(&versions), "f");
}

#[test]
fn uploads_make_room_for_uploads() {
    let mut versions = Versions::default();
    for at in 0..UPLOADS_MAX as u64 + 4 {
        let digest = format!("{at:064x}");
        versions.upload(Upload {
            digest,
            ..upload('x', at)
        });
    }
    assert_eq!(versions.uploads().len(), UPLOADS_MAX);
    versions.trim(&all(), 3, 250);
    assert_eq!(versions.uploads().len(), 2);
    assert_eq!(
        versions.uploads()[0].at_ms,
        UPLOADS_MAX as u64 + 3,
        "the youngest stay"
    );
}

#[test]
fn pools_that_are_gone_are_forgotten() {
    let mut versions = Versions::default();
    versions.serve("gone", version('a', "{}", 1), None);
    versions.trim(&all(), 3, u64::MAX);
    assert!(versions.digests().is_empty());
}
