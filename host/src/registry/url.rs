//! Where something is asked: what of URLs registries need.

use http::{Uri, uri::Scheme};

use crate::config::Endpoint;

/// A URL by http or https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) is_secret: bool,
    /// As the Host field has it.
    pub(super) authority: String,
    /// `host:port`.
    pub(super) address: String,
    /// With the query.
    pub(super) path: String,
}

impl Url {
    pub(super) fn at(endpoint: &Endpoint, path: String) -> Self {
        let Endpoint { is_secret, address } = endpoint;
        let bare = address.strip_suffix(default_port(*is_secret));
        Self {
            is_secret: *is_secret,
            authority: bare.unwrap_or(address).to_owned(),
            address: address.clone(),
            path,
        }
    }

    /// `None` for what is no URL, and for one with a user in it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_secret = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let address = match authority.port() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{authority}{}", default_port(is_secret)),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            is_secret,
            authority: authority.as_str().to_owned(),
            address: address.to_ascii_lowercase(),
            path: path.to_owned(),
        })
    }

    /// Where a `Location` leads from here.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        match location.starts_with('/') && !location.starts_with("//") {
            true => Some(Self {
                path: location.to_owned(),
                ..self.clone()
            }),
            false => Self::parse(location),
        }
    }

    /// Whether what is secret may be told there as well as here.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (self.is_secret, &self.address) == (other.is_secret, &other.address)
    }
}

fn default_port(is_secret: bool) -> &'static str {
    if is_secret { ":443" } else { ":80" }
}

/// As a part of a query (RFC 3986, 2.1).
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
