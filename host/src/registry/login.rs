//! What a registry wants to know of whoever asks, and how that is said.
//!
//! Owns challenges (RFC 9110, 11.6.1; "Distribution Registry Token Authentication") and the answers to them. It must not send anything.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::url::{Url, escaped};

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password, with each request.
    Basic,
    /// What is given out here, to those who ask for this.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one that is answered, of those that came.
    pub(super) fn find(headers: &HeaderMap) -> Option<Self> {
        let fields = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let mut found: Vec<Self> = fields
            .filter_map(|field| Self::parse(field.to_str().ok()?))
            .collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.into_iter().next()
    }

    fn parse(field: &str) -> Option<Self> {
        let (scheme, rest) = field.trim().split_once(' ').unwrap_or((field.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        let mut take = |name: &str| {
            let at = parameters
                .iter()
                .position(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(parameters.swap_remove(at).1)
        };
        Some(Self::Bearer {
            realm: take("realm")?,
            service: take("service"),
            scope: take("scope"),
        })
    }
}

/// `key=token` and `key="quoted"`, with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut chars = after.trim_start().chars();
        if chars.clone().next() == Some('"') {
            chars.next();
            while let Some(c) = chars.next().filter(|c| *c != '"') {
                value.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
        } else {
            value = chars.as_str().chars().take_while(|c| *c != ',').collect();
            value.truncate(value.trim_end().len());
        }
        found.push((key.trim_matches([' ', ',', '\t']).to_owned(), value));
        let left = chars.as_str();
        rest = left.split_once(',').map_or("", |(_, next)| next);
    }
    found
}

/// Where a token is asked for, to read one repository.
pub(super) fn token_url(
    (realm, service, scope): (&str, Option<&str>, Option<&str>),
    repository: &str,
) -> Option<Url> {
    let mut url = Url::parse(realm)?;
    let own = format!("repository:{repository}:pull");
    let mut query = format!("scope={}", escaped(scope.unwrap_or(&own)));
    if let Some(service) = service {
        query = format!("service={}&{query}", escaped(service));
    }
    let joint = if url.path.contains('?') { '&' } else { '?' };
    url.path = format!("{}{joint}{query}", url.path);
    Some(url)
}

/// What answers a challenge for a name and a password.
pub(super) fn basic(name: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!(
        "Basic {}",
        STANDARD.encode(format!("{name}:{password}"))
    ))
}

/// What was given out.
pub(super) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let token = answer["token"].as_str().or(answer["access_token"].as_str())?;
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
