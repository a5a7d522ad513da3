//! The policy's own table of the configuration file, read into the policy's own type. Mistakes are refused with the
//! key's name, because an operator sees nothing else.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::json::{self, Mistake, Value};

/// What the operator wrote below `[policy.NAME.config]`.
#[derive(Debug)]
pub struct Settings(Vec<(String, Value)>);

impl Settings {
    /// Reads the host's JSON object.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        match json::parse(json) {
            Ok(Value::Object(entries)) => Ok(Self(entries)),
            Ok(_) => Err("the configuration is not a JSON object".to_owned()),
            Err(place) => Err(format!("the configuration is not a JSON object: {place}")),
        }
    }

    /// Reads the settings into `T`, normally a struct with `#[serde(default)]`. Keys that are not fields of it are
    /// refused, with or without `deny_unknown_fields`.
    ///
    /// # Errors
    /// A sentence that names the key and says what is wrong with it.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        T::deserialize(Table(self.0)).map_err(|Mistake(text)| text)
    }

    /// A number as the operator wrote it, for a message that refuses it; empty if there is none of this key. Printing an
    /// `f64` takes more code than most policies have.
    #[must_use]
    pub fn written(&self, key: &str) -> String {
        let entry = self.0.iter().find(|(known, _)| known == key);
        match entry {
            Some((_, Value::Number(text))) => text.clone(),
            _ => String::new(),
        }
    }

    /// For policies without settings: refuses any key.
    ///
    /// # Errors
    /// A sentence that names the first key.
    pub fn refuse_all(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("unknown key `{key}`: this policy has no settings")),
        }
    }
}

/// The settings as serde asks for them.
struct Table(Vec<(String, Value)>);

impl<'de> Deserializer<'de> for Table {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_map(Entries {
            rest: self.0.into_iter(),
            current: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0.iter().find(|(key, _)| !fields.contains(&key.as_str())) {
            None => self.deserialize_any(visitor),
            Some((key, _)) => Err(Mistake(format!(
                "unknown key `{key}`: this policy knows `{}`",
                fields.join("`, `")
            ))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The keys one by one, so that a value's error can name its key.
struct Entries {
    rest: std::vec::IntoIter<(String, Value)>,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Mistake> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let (key, value) = self.current.take().unwrap_or((String::new(), Value::Null));
        seed.deserialize(value)
            .map_err(|Mistake(text)| Mistake(format!("`{key}`: {text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Example {
        balance: f64,
        header: Option<String>,
    }

    fn read(json: &str) -> Result<Example, String> {
        Settings::parse(json)?.read()
    }

    #[test]
    fn absent_keys_take_their_defaults() {
        assert_eq!(read("{}"), Ok(Example::default()));
        assert_eq!(
            read(r#"{"balance": 2}"#),
            Ok(Example {
                balance: 2.0,
                header: None
            })
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        assert_eq!(
            read(r#"{"blance": 2}"#).unwrap_err(),
            "unknown key `blance`: this policy knows `balance`, `header`"
        );
        assert_eq!(
            Settings::parse(r#"{"x": 1}"#).unwrap().refuse_all().unwrap_err(),
            "unknown key `x`: this policy has no settings"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key() {
        assert_eq!(
            read(r#"{"balance": "much"}"#).unwrap_err(),
            "`balance`: invalid type: string \"much\", expected f64"
        );
    }

    #[test]
    fn a_number_is_told_as_it_was_written() {
        let settings = Settings::parse(r#"{"balance": 1.50, "header": "x"}"#).unwrap();
        assert_eq!(settings.written("balance"), "1.50");
        assert_eq!(settings.written("header") + &settings.written("absent"), "");
    }

    #[test]
    fn only_an_object_is_a_configuration() {
        assert!(
            read("[]")
                .unwrap_err()
                .starts_with("the configuration is not a JSON object")
        );
    }
}
