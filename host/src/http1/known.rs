//! Fields of responses that come over and over, in the form that the HTTP library wants.
//!
//! Owns a few of them, each until another takes its place. To make a field's name and value anew costs several times as much as
//! to find them here. It must not know what a field means.
//!
//! Invariant: what is found is what was asked for, byte for byte, and has been judged when it was made.

use http::{HeaderName, HeaderValue, header};

const PLACES: usize = 64;
/// A longer value is hardly said twice, and would be kept in memory.
const VALUE_BYTES_MAX: usize = 64;

/// The fields of a worker.
#[derive(Debug)]
pub struct Known {
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// The name as it was sent: names keep their case.
    sent: Vec<u8>,
    name: HeaderName,
    value: HeaderValue,
}

impl Default for Known {
    fn default() -> Self {
        // No field has this name.
        let empty = Place {
            sent: Vec::new(),
            name: header::CONNECTION,
            value: HeaderValue::from_static(""),
        };
        Self {
            places: vec![empty; PLACES],
        }
    }
}

impl Known {
    /// The field, if its value is short. `None` as well of what is none.
    #[inline]
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let place = self.places.get_mut(place_of(name, value))?;
        if place.sent == name && !name.is_empty() {
            // A name that is said with another value each time is not made again.
            if place.value != value {
                place.value = HeaderValue::from_bytes(value).ok()?;
            }
        } else {
            *place = Place {
                sent: name.to_vec(),
                name: HeaderName::from_bytes(name).ok()?,
                value: HeaderValue::from_bytes(value).ok()?,
            };
        }
        Some((place.name.clone(), place.value.clone()))
    }
}

/// Where a field is, if it is there.
#[inline]
fn place_of(name: &[u8], value: &[u8]) -> usize {
    let byte = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(*byte));
    // Values of one name mostly differ at their end, and in length.
    (name.len() * 7 + value.len() * 5 + byte(name.first()) * 3 + byte(value.last()) * 11) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_itself_whatever_was_there_before() {
        let mut known = Known::default();
        for round in 0..3 {
            for number in 0..500 {
                let (name, value) = (format!("X-{}", number / 100), format!("{number}"));
                let (found, said) = known.field(name.as_bytes(), value.as_bytes()).unwrap();
                assert_eq!(found, name.to_lowercase().as_str(), "{round}");
                assert_eq!(said, value, "{round}");
            }
        }
    }

    #[test]
    fn a_field_that_comes_again_is_the_same_one() {
        let mut known = Known::default();
        let first = known.field(b"server", b"b").unwrap();
        let again = known.field(b"server", b"b").unwrap();
        assert_eq!(first, again);
        assert_eq!(first.1.as_bytes().as_ptr(), again.1.as_bytes().as_ptr());
        assert_eq!(known.field(b"Server", b"b").unwrap(), again);
    }

    #[test]
    fn what_is_no_field_and_what_is_long_is_not_known() {
        let mut known = Known::default();
        assert_eq!(known.field(b"", b""), None);
        assert_eq!(known.field(b"a b", b"1"), None);
        assert_eq!(known.field(b"a", b"1\n"), None);
        assert_eq!(known.field(b"a", &[b'x'; VALUE_BYTES_MAX + 1]), None);
        assert!(known.field(b"a", &[b'x'; VALUE_BYTES_MAX]).is_some());
    }
}
