//! Where the balancer is, in what policies are told.
//!
//! Owns the one word of a policy's settings that is not the same for all balancers. It must not know what zones are for.

use serde_json::Value;

/// In a policy's settings, a text that stands for the zone of the balancer that it works in.
pub(super) const OWN_ZONE: &str = "{zone}";

/// Whether these settings, as JSON, have a place for the zone.
pub(crate) fn asks_for_zone(config_json: &str) -> bool {
    config_json.contains(OWN_ZONE)
        && serde_json::from_str(config_json).is_ok_and(|settings| has_place(&settings))
}

/// The settings with this zone in the places that are for it.
pub(crate) fn in_zone(config_json: &str, zone: &str) -> String {
    let settings = serde_json::from_str(config_json).map(|settings| placed(settings, zone));
    settings.map_or_else(|_| config_json.to_owned(), |settings| settings.to_string())
}

fn has_place(settings: &Value) -> bool {
    match settings {
        Value::String(text) => text == OWN_ZONE,
        Value::Array(items) => items.iter().any(has_place),
        Value::Object(entries) => entries.values().any(has_place),
        _ => false,
    }
}

fn placed(settings: Value, zone: &str) -> Value {
    match settings {
        Value::String(text) if text == OWN_ZONE => Value::String(zone.to_owned()),
        Value::Array(items) => items.into_iter().map(|item| placed(item, zone)).collect(),
        Value::Object(entries) => {
            let entries = entries.into_iter();
            entries.map(|(key, value)| (key, placed(value, zone))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_values_stand_for_the_zone() {
        for (settings, placed) in [
            (r#"{"zone":"{zone}"}"#, Some(r#"{"zone":"a"}"#)),
            (
                r#"{"near":[1,{"x":"{zone}"}]}"#,
                Some(r#"{"near":[1,{"x":"a"}]}"#),
            ),
            (r#"{"{zone}":1}"#, None),
            (r#"{"x":"in {zone}"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(asks_for_zone(settings), placed.is_some(), "{settings}");
            assert_eq!(in_zone(settings, "a"), placed.unwrap_or(settings));
        }
    }
}
