//! `[pool.NAME.sticky]`.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use super::{
    super::{
        addresses,
        reader::{Keys, Value},
        sticky::{SameSite, Secure, Sticky},
        tls::Place,
        units::{h, s},
    },
    tls::named,
};

pub(in super::super) const STICKY: Keys = &[
    "cookie",
    "ttl",
    "path",
    "domain",
    "secure",
    "http_only",
    "same_site",
    "key",
];
const NAME_DEFAULT: &str = "trimtab";
/// Browsers keep none for longer than 400 days.
const TTL: RangeInclusive<Duration> = s(1)..=h(9600);
const SECURE: [(&str, Secure); 3] = [
    ("auto", Secure::Auto),
    ("always", Secure::Always),
    ("never", Secure::Never),
];
const SAME_SITE: [(&str, SameSite); 3] = [
    ("strict", SameSite::Strict),
    ("lax", SameSite::Lax),
    ("none", SameSite::None),
];

pub(super) fn sticky(value: &Value<'_>, directory: &Path) -> Option<Sticky> {
    let table = value.table(STICKY)?;
    let secure = table.choice("secure", &SECURE, Secure::Auto);
    let same_site = table.choice("same_site", &SAME_SITE, SameSite::Lax);
    if same_site == SameSite::None && secure == Secure::Never {
        table.wrong_key(
            "same_site",
            "\"none\" is believed over TLS only, and secure is \"never\"",
        );
    }
    Some(Sticky {
        cookie: table
            .take("cookie")
            .and_then(|value| value.parsed(name))
            .unwrap_or_else(|| NAME_DEFAULT.to_owned()),
        ttl: table.take("ttl").and_then(|value| value.duration(TTL)),
        path: table
            .take("path")
            .and_then(|value| value.parsed(path))
            .unwrap_or_else(|| "/".to_owned()),
        domain: table
            .take("domain")
            .and_then(|value| value.parsed(addresses::server_name)),
        secure,
        is_http_only: table.flag("http_only", true),
        same_site,
        key: table.take("key").and_then(|value| named(&value, directory)),
        place: Place::new(value.mistake(String::new())),
    })
}

/// RFC 6265, 4.1.1: a token.
fn name(text: &str) -> Result<String, String> {
    let is_token = http::HeaderName::from_bytes(text.as_bytes()).is_ok();
    if !is_token || text.len() > 64 {
        return Err("expected a cookie's name: up to 64 letters, digits, dashes and underscores".to_owned());
    }
    Ok(text.to_owned())
}

/// What follows it in the field is ours.
fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
    if !is_path || text.len() > 1024 {
        return Err("expected a path that begins with `/`, without spaces and semicolons".to_owned());
    }
    Ok(text.to_owned())
}
