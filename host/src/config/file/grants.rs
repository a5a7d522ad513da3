//! `[policy.NAME.grants]`: what a policy may read of a request.

use std::collections::BTreeMap;

use http::HeaderName;

use super::{
    super::{
        grants::{Grant, Grants, Listed},
        reader::{Table, Value},
    },
    GRANTS,
};

const LEVELS: [(&str, Grant); 3] = [
    ("allow", Grant::Allow),
    ("hash", Grant::Hash),
    ("deny", Grant::Deny),
];
/// For what is a number of its own, where a hash would say as much.
const ALLOW_OR_DENY: [(&str, Grant); 2] = [("allow", Grant::Allow), ("deny", Grant::Deny)];
/// The key of all names that are not listed.
const OTHERS: &str = "*";

/// What a policy's table says, with these for what it leaves out.
pub(super) fn grants(policy: &Table<'_>, defaults: Grants) -> Grants {
    let table = policy.table("grants", GRANTS);
    let choice = |key, default| table.choice(key, &LEVELS, default);
    Grants {
        client: choice("client", defaults.client),
        method: choice("method", defaults.method),
        authority: choice("authority", defaults.authority),
        path: choice("path", defaults.path),
        query: choice("query", defaults.query),
        load: table.choice("load", &ALLOW_OR_DENY, defaults.load),
        headers: listed(table.take("headers"), defaults.headers, header_name),
        cookies: listed(table.take("cookies"), defaults.cookies, cookie_name),
    }
}

fn listed(
    value: Option<Value<'_>>,
    default: Listed,
    name: impl Fn(&str) -> Result<String, &'static str>,
) -> Listed {
    let Some(entries) = value.and_then(|value| value.entries()) else {
        return default;
    };
    let mut listed = Listed {
        named: BTreeMap::new(),
        others: default.others,
    };
    for (written, value) in entries {
        let Some(grant) = value.choice(&LEVELS) else {
            continue;
        };
        if written == OTHERS {
            listed.others = grant;
            continue;
        }
        match name(written) {
            Ok(name) => {
                if listed.named.insert(name, grant).is_some() {
                    value.wrong("the same name is listed in another case");
                }
            }
            Err(message) => value.wrong(message),
        }
    }
    listed
}

fn header_name(text: &str) -> Result<String, &'static str> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if name == http::header::COOKIE => Err("cookies have grants of their own: `cookies`"),
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err("expected a header's name, or \"*\" for those not listed"),
    }
}

/// RFC 6265, 4.1.1: the characters of a token.
fn cookie_name(text: &str) -> Result<String, &'static str> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected a cookie's name, or \"*\" for those not listed"),
    }
}
