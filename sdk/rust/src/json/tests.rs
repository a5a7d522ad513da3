//! The reader beside `serde_json`: what that accepts is read alike, and what it refuses is refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(parse(text)?).map_err(|Mistake(text)| text)
}

/// A value of any kind, and the text of any kind of string, with what has to be escaped.
fn any(random: &mut fastrand::Rng, depth: u32) -> serde_json::Value {
    let text = |random: &mut fastrand::Rng| -> String {
        let chars = ['a', '"', '\\', '/', '\u{8}', '\n', '\u{1}', 'ß', '\u{ffff}', '🦀'];
        (0..random.usize(..6))
            .map(|_| *random.choice(&chars).unwrap())
            .collect()
    };
    match random.u32(..if depth == 0 { 6 } else { 8 }) {
        0 => json!(null),
        1 => json!(random.bool()),
        2 => json!(random.u64(..) >> random.u32(..64)),
        3 => json!(random.i64(..) >> random.u32(..64)),
        4 => json!(f64::from_bits(random.u64(..) & !(1 << 62))),
        5 => json!(text(random)),
        6 => (0..random.u32(..4)).map(|_| any(random, depth - 1)).collect(),
        _ => (0..random.u32(..4))
            .map(|_| (text(random), any(random, depth - 1)))
            .collect(),
    }
}

#[test]
fn what_serde_json_writes_is_read_as_it_was() {
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..20_000 {
        let value = any(&mut random, 4);
        let text = if round % 2 == 0 {
            value.to_string()
        } else {
            serde_json::to_string_pretty(&value).unwrap()
        };
        assert_eq!(read::<serde_json::Value>(&text), Ok(value), "{text}");
    }
}

/// `serde_json` reads some fractions less exactly, unless it is built to be slower, and takes -0 for one.
fn rounded(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Array(values) => values.into_iter().map(rounded).collect(),
        serde_json::Value::Object(entries) => {
            let rounded = entries.into_iter().map(|(key, value)| (key, rounded(value)));
            rounded.collect()
        }
        serde_json::Value::Number(number) => {
            json!(format!("{:.12e}", number.as_f64().unwrap() + 0.0))
        }
        other => other,
    }
}

#[test]
fn whatever_else_it_is_it_is_refused_where_serde_json_refuses_it() {
    let mut random = fastrand::Rng::with_seed(2);
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\ud83e\\udd80\"",
        "\"\\ud83e\"",
        "\"\\udd80\"",
        "\"\\x\"",
        "\"\u{1}\"",
        "0",
        "-",
        "01",
        "1.",
        ".5",
        "1e5",
        "1E+",
        "-0",
        "null",
        "true",
        "nul",
        " ",
        "\n",
        "\u{a0}",
        "\"",
        "\\u00e9",
    ];
    let (mut good, mut bad) = (0, 0);
    for _ in 0..300_000 {
        let text: String = (0..random.usize(1..7))
            .map(|_| *random.choice(&pieces).unwrap())
            .collect();
        let expected = serde_json::from_str::<serde_json::Value>(&text);
        match (read::<serde_json::Value>(&text), expected) {
            (Ok(read), Ok(expected)) => {
                assert_eq!(rounded(read), rounded(expected), "{text}");
                good += 1;
            }
            (Err(_), Err(_)) => bad += 1,
            (read, expected) => panic!("{text}: {read:?}, and serde_json: {expected:?}"),
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} and {bad}");
}

#[test]
fn it_does_not_go_deeper_than_the_stack() {
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(100)).is_ok());
    assert!(parse(&nested(101)).is_err() && parse(&nested(1_000_000)).is_err());
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Choice {
    Plain,
    Held(u8),
    Named { at: f32 },
}

#[derive(Debug, PartialEq, Deserialize)]
struct All {
    choices: Vec<Choice>,
    table: BTreeMap<String, i16>,
    pair: (bool, char),
    maybe: Option<f64>,
    #[serde(default)]
    unsaid: Option<u64>,
}

#[test]
fn every_shape_of_settings_is_read() {
    let text = r#"{"choices": ["plain", {"held": 7}, {"named": {"at": 0.5}}], "table": {"a": -3},
        "pair": [true, "x"], "maybe": 2}"#;
    let all = All {
        choices: vec![Choice::Plain, Choice::Held(7), Choice::Named { at: 0.5 }],
        table: BTreeMap::from([("a".to_owned(), -3)]),
        pair: (true, 'x'),
        maybe: Some(2.0),
        unsaid: None,
    };
    assert_eq!(read::<All>(text), Ok(all));
}

#[test]
fn mistakes_are_told_as_serde_tells_them() {
    let told = [
        (
            read::<u8>("256").map(drop),
            "invalid value: integer `256`, expected u8",
        ),
        (
            read::<u8>("-1").map(drop),
            "invalid value: integer `-1`, expected u8",
        ),
        (
            read::<u8>("1.5").map(drop),
            "invalid type: floating point number, expected u8",
        ),
        (
            read::<f64>("1e999").map(drop),
            "invalid type: floating point number, expected f64",
        ),
        (
            read::<bool>("\"yes\"").map(drop),
            "invalid type: string \"yes\", expected a boolean",
        ),
        (
            read::<String>("[]").map(drop),
            "invalid type: sequence, expected a string",
        ),
        (
            read::<Vec<u8>>("{}").map(drop),
            "invalid type: map, expected a sequence",
        ),
        (
            read::<(u8, u8)>("[1]").map(drop),
            "invalid length 1, expected a tuple of size 2",
        ),
        (
            read::<(u8, u8)>("[1, 2, 3]").map(drop),
            "invalid length 3, expected 2 elements in sequence",
        ),
        (
            read::<Choice>("\"other\"").map(drop),
            "unknown variant `other`, expected one of `plain`, `held`, `named`",
        ),
        (
            read::<Choice>("null").map(drop),
            "invalid type: null, expected enum Choice",
        ),
        (
            read::<f64>("true").map(drop),
            "invalid type: boolean `true`, expected f64",
        ),
    ];
    for (told, expected) in told {
        assert_eq!(told, Err(expected.to_owned()));
    }
}
