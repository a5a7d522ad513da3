//! What can be asked: the query's parameters.
//!
//! Owns their words and every message about a mistake in them.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderName, Method, StatusCode};

use super::super::{
    answer::{Refusal, refusal},
    endpoint::decode,
};
use crate::{http1::Head, policy};

const PARAMETERS: &str = "id; or host, path, method, header (name:value, any number), client, listener, pool";

/// What somebody wants to know.
#[derive(Debug)]
pub(super) enum Question {
    /// Where this request would go.
    Request(Asked),
    /// Why this one went where it did.
    Id(String),
}

/// A request that nobody sent.
#[derive(Debug)]
pub(super) struct Asked {
    method: String,
    host: String,
    path: String,
    fields: Vec<(String, String)>,
    client: IpAddr,
    pub(super) listener: Option<String>,
    pub(super) pool: Option<String>,
}

impl Question {
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut asked = Asked {
            method: "GET".to_owned(),
            host: String::new(),
            path: "/".to_owned(),
            fields: Vec::new(),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listener: None,
            pool: None,
        };
        let (mut id, mut others) = (None, 0);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(&value.replace('+', " "));
            let value = value.ok_or_else(|| bad(format!("{name} has a bad percent escape")))?;
            if name == "id" {
                id = Some(value);
            } else {
                others += 1;
                asked.set(name, value)?;
            }
        }
        match id {
            Some(_) if others > 0 => Err(bad("id stands alone: the request is the recorded one".to_owned())),
            Some(id) => Ok(Self::Id(id)),
            None if others == 0 => Err(bad(format!("nothing is asked; parameters are {PARAMETERS}"))),
            None => Ok(Self::Request(asked)),
        }
    }
}

impl Asked {
    fn set(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        let wrong = |expected: &str| bad(format!("{name} = {value:?}: expected {expected}"));
        match name {
            "host" => self.host = value,
            "path" if value.starts_with('/') => self.path = value,
            "path" => return Err(wrong("a path that begins with /")),
            "method" => {
                let method = Method::from_bytes(value.as_bytes());
                method.map_err(|_| wrong("a method, like GET"))?;
                self.method = value;
            }
            "client" => self.client = value.parse().map_err(|_| wrong("an IP address"))?,
            "header" => {
                let field = value.split_once(':').and_then(|(name, value)| {
                    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                    Some((name.as_str().to_owned(), value.trim().to_owned()))
                });
                self.fields.push(field.ok_or_else(|| wrong("name:value"))?);
            }
            "listener" => self.listener = Some(value),
            "pool" => self.pool = Some(value),
            _ => return Err(bad(format!("{name}: unknown; parameters are {PARAMETERS}"))),
        }
        Ok(())
    }

    pub(super) fn head(&self) -> Head {
        let has_host = self.fields.iter().any(|(name, _)| name == "host");
        let host = (!has_host && !self.host.is_empty()).then_some(("host", self.host.as_bytes()));
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (&**name, value.as_bytes()));
        Head::of(
            &self.method,
            &self.host,
            &self.path,
            host.into_iter().chain(fields),
        )
    }

    pub(super) fn client_bits(&self) -> u128 {
        policy::client_bits(self.client)
    }
}

fn bad(error: String) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, error)
}
