//! One pull: the manifest, then the component that it names.
//!
//! Owns what is asked and in which order, logging in, and where a registry may send us on to. It must not keep anything.
//!
//! Invariant: nothing is taken that is longer than was said or has another digest; and the password goes to the registry and to where it
//! has tokens given out, by TLS unless the file says `http://`.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    login::{Challenge, basic, bearer, token_url},
    manifest::{self, MANIFEST},
    url::Url,
};
use crate::{
    config::{Artifact, Mistake, PoolTls, Registry, show_size},
    outgoing::{self, Broken, Driver, with_causes},
    policy::digest,
};

/// OCI Distribution Specification 1.1: what every registry has to take.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// A token, or what else is said to us.
const TOLD_BYTES_MAX: usize = 64 << 10;
/// Characters of it that a message has.
const TOLD_CHARS_MAX: usize = 200;
/// One is usual, from a registry to where its blobs are.
const REDIRECTS_MAX: usize = 5;
const AGENT: &str = concat!("trimtab/", env!("CARGO_PKG_VERSION"));

/// Why there is no component.
#[derive(Debug)]
pub(super) enum Failed {
    /// It may go better in a moment.
    Away(String),
    /// It will not.
    Refused(String),
    /// Nor this, and the cause is at another place of the configuration.
    Wrong(Box<Mistake>),
}

/// What a pull brings.
pub(super) struct Pulled {
    pub(super) manifest: Vec<u8>,
    pub(super) component: Vec<u8>,
}

pub(super) struct Pull<'a> {
    artifact: &'a Artifact,
    registry: &'a Registry,
    /// For the registry itself.
    authorization: Option<HeaderValue>,
}

/// The head of an answer, and the connection that the rest comes by.
type Answer = (Response<Incoming>, Driver);

impl<'a> Pull<'a> {
    pub(super) fn new(artifact: &'a Artifact, registry: &'a Registry) -> Self {
        Self {
            artifact,
            registry,
            authorization: None,
        }
    }

    pub(super) async fn run(mut self, bytes_max: usize) -> Result<Pulled, Failed> {
        let wanted = &self.artifact.digest;
        let manifest = self.get("manifests", wanted, MANIFEST_BYTES_MAX).await?;
        if digest(&manifest) != *wanted {
            return Err(Failed::Refused(
                "the registry's manifest has another digest".to_owned(),
            ));
        }
        let layer = manifest::layer(&manifest).map_err(Failed::Refused)?;
        let bytes = usize::try_from(layer.bytes).unwrap_or(usize::MAX);
        if bytes > bytes_max {
            let (size, most) = (show_size(layer.bytes), show_size(bytes_max as u64));
            let text = format!("has {size}, and allowed are {most} (key compile.size)");
            return Err(Failed::Refused(text));
        }
        let component = self.get("blobs", &layer.digest, bytes).await?;
        if component.len() != bytes || digest(&component) != layer.digest {
            let text = "the registry's component has other bytes than its digest says";
            return Err(Failed::Refused(text.to_owned()));
        }
        Ok(Pulled { manifest, component })
    }

    /// What the registry has under a digest.
    async fn get(&mut self, kind: &str, digest: &str, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let repository = &self.artifact.repository;
        let path = format!("/v2/{repository}/{kind}/sha256:{digest}");
        let url = Url::at(&self.registry.endpoint, path);
        let mut answer = self.follow(url.clone()).await?;
        if answer.0.status() == StatusCode::UNAUTHORIZED {
            self.authorization = Some(self.log_in(&answer.0).await?);
            answer = self.follow(url).await?;
        }
        let (response, _connection) = answer;
        let status = response.status();
        if status == StatusCode::OK {
            return read(response, bytes_max).await;
        }
        let told = told(response).await;
        let asked = if kind == "manifests" {
            "the manifest"
        } else {
            "the component"
        };
        let text = match (status, &self.registry.user) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                let name = &self.artifact.registry;
                format!(
                    "nobody may read it ({told}); for somebody, [registry.\"{name}\"] has the keys user and password_file"
                )
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(user)) => {
                format!("user \"{}\" may not read it ({told})", user.name)
            }
            (StatusCode::NOT_FOUND, _) => format!("the registry does not have {asked} ({told})"),
            _ => format!("the registry does not give {asked} out: {told}"),
        };
        Err(failed(status, text))
    }

    /// Asks, and again where the answer leads.
    async fn follow(&self, mut url: Url) -> Result<Answer, Failed> {
        let mut authorization = self.authorization.as_ref();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(&url, authorization).await?;
            if !is_redirect(answer.0.status()) {
                return Ok(answer);
            }
            let location = answer.0.headers().get(header::LOCATION);
            let next = location
                .and_then(|location| url.join(location.to_str().ok()?))
                .ok_or_else(|| Failed::Refused(format!("{} leads nowhere", url.authority)))?;
            if url.is_secret && !next.is_secret {
                let text = format!(
                    "{} leads from https:// to http://{}",
                    url.authority, next.authority
                );
                return Err(Failed::Refused(text));
            }
            if !next.is_same_place(&url) {
                authorization = None;
            }
            url = next;
        }
        Err(Failed::Refused(format!(
            "is led on more than {REDIRECTS_MAX} times"
        )))
    }

    async fn ask(&self, url: &Url, authorization: Option<&HeaderValue>) -> Result<Answer, Failed> {
        let mut request = Request::get(&url.path)
            .header(header::HOST, &url.authority)
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, format!("{MANIFEST}, */*;q=0.1"));
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(Bytes::new()))
            .map_err(|error| Failed::Refused(format!("{} cannot be asked: {error}", url.authority)))?;
        let tls = url.is_secret.then(|| self.tls_to(url));
        let sent = outgoing::send(&url.address, tls.as_ref(), request).await;
        sent.map_err(|broken| match broken {
            Broken::Unsent(text) | Broken::Cut(text) => Failed::Away(format!("{}: {text}", url.authority)),
        })
    }

    /// Elsewhere than at the registry, certificates are for other names, and ours is nobody's business.
    fn tls_to(&self, url: &Url) -> PoolTls {
        let tls = self.registry.tls.clone();
        match url.is_same_place(&Url::at(&self.registry.endpoint, String::new())) {
            true => tls,
            false => PoolTls {
                server_name: None,
                certificate: None,
                ..tls
            },
        }
    }

    /// What the registry wants to see with each request.
    async fn log_in(&self, response: &Response<Incoming>) -> Result<HeaderValue, Failed> {
        let challenge = Challenge::find(response.headers())
            .ok_or_else(|| Failed::Refused("the registry wants a login that is not known here".to_owned()))?;
        let own = self.password().await?;
        match challenge {
            Challenge::Basic => own.ok_or_else(|| {
                let name = &self.artifact.registry;
                Failed::Refused(format!(
                    "the registry wants a user: [registry.\"{name}\"] has the keys user and password_file"
                ))
            }),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let parts = (&*realm, service.as_deref(), scope.as_deref());
                let url = token_url(parts, &self.artifact.repository)
                    .filter(|url| url.is_secret || !self.registry.endpoint.is_secret)
                    .ok_or_else(|| {
                        Failed::Refused(format!(
                            "the registry has tokens given out at {realm:?}, which is not https://"
                        ))
                    })?;
                self.token(&url, own).await
            }
        }
    }

    async fn password(&self) -> Result<Option<HeaderValue>, Failed> {
        let Some(user) = self.registry.user.clone() else {
            return Ok(None);
        };
        let name = user.name.clone();
        let password = tokio::task::spawn_blocking(move || outgoing::password(&user)).await;
        let password = password
            .map_err(|error| Failed::Refused(error.to_string()))?
            .map_err(Failed::Wrong)?;
        Ok(basic(&name, &password))
    }

    async fn token(&self, url: &Url, own: Option<HeaderValue>) -> Result<HeaderValue, Failed> {
        let (response, _connection) = self.ask(url, own.as_ref()).await?;
        let status = response.status();
        if status == StatusCode::OK {
            let answer = read(response, TOLD_BYTES_MAX).await?;
            return bearer(&answer)
                .ok_or_else(|| Failed::Refused(format!("{} gives out no token", url.authority)));
        }
        let told = format!("{} gives out no token: {}", url.authority, told(response).await);
        match &self.registry.user {
            Some(user) if !is_passing(status) => Err(Failed::Wrong(user.password.mistake(format!(
                "{told} (asked as user \"{}\", for {})",
                user.name, self.artifact
            )))),
            _ => Err(failed(status, told)),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn failed(status: StatusCode, text: String) -> Failed {
    match is_passing(status) {
        true => Failed::Away(text),
        false => Failed::Refused(text),
    }
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Vec<u8>, Failed> {
    let read = Limited::new(response.into_body(), bytes_max).collect().await;
    match read {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let most = show_size(bytes_max as u64);
            Err(Failed::Refused(format!(
                "the registry sends more than {most}, which is what was to come"
            )))
        }
        Err(error) => Err(Failed::Away(with_causes(&*error))),
    }
}

/// What is said in place of what was asked for: a status, and the first error in it.
async fn told(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = read(response, TOLD_BYTES_MAX).await.unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = &answer["errors"][0];
    let word = |key: &str| first[key].as_str().unwrap_or_default();
    let text = format!("status {} {} {}", status.as_u16(), word("code"), word("message"));
    let is_plain = |c: &char| !c.is_control();
    text.trim_end()
        .chars()
        .filter(is_plain)
        .take(TOLD_CHARS_MAX)
        .collect()
}
