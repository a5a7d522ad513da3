//! TLS as a file may say it: which files, and what is asked of a peer.
//!
//! Owns the values. It must not read certificates; `tls.rs` at the top does, since `parse` works without the files.

use std::{path::PathBuf, time::Duration};

use super::Mistake;

/// `[listener.tls]`: what a listener shows its clients, and asks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Key `certificates`: at least one; the first also serves clients that name no host, or one that none is for.
    pub certificates: Vec<Certificate>,
    /// Key `min_version`: 1.2 or 1.3. Default 1.2.
    pub min_version: TlsVersion,
    /// Key `strict_sni`: whether clients that name no host, or one that no certificate is for, are turned away. Default
    /// false.
    pub strict_sni: bool,
    /// Key `handshake_timeout`: from accepting to the end of the handshake. Default 10 s, 100 ms to 1 min.
    pub handshake_timeout: Duration,
    /// Keys `client_ca`, `client_auth` and `client_crl`; `None` asks clients for no certificate.
    pub clients: Option<ClientCertificates>,
    /// Key `ticket_key`: a secret of at least 32 bytes that tickets are sealed with. Default keys in memory.
    pub ticket_key: Option<NamedFile>,
}

/// An entry of `certificates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Key `cert`, required: PEM, the certificate first, then its intermediates.
    pub cert: NamedFile,
    /// Key `key`: PEM, without a passphrase. Default the same file.
    pub key: NamedFile,
}

/// `[pool.NAME.tls]`: what backends have to show, and what we show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTls {
    /// Key `verify`: whether a backend has to prove who it is. Default true.
    pub verify: bool,
    /// Key `ca`: PEM, who may have signed a backend's certificate. Default the system's authorities.
    pub ca: Option<NamedFile>,
    /// Key `server_name`: what backends are asked for, and whose certificate they must have. Default the host of the
    /// backend's address.
    pub server_name: Option<String>,
    /// Keys `cert` and `key`: what we show a backend that asks. Default nothing.
    pub certificate: Option<Certificate>,
    /// Key `min_version`: 1.2 or 1.3. Default 1.2.
    pub min_version: TlsVersion,
    /// The table, for messages about what is in no file.
    pub place: Place,
}

/// A place in the configuration, for messages that can only be made later. All of them are equal: where something is
/// written does not change what it says.
#[derive(Clone, Debug)]
pub struct Place(Mistake);

impl Place {
    pub(super) fn new(mistake: Mistake) -> Self {
        Self(mistake)
    }

    /// What is wrong there.
    pub fn mistake(&self, message: impl Into<String>) -> Box<Mistake> {
        Box::new(Mistake {
            message: message.into(),
            ..self.0.clone()
        })
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

/// The certificates that clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Key `client_ca`: PEM, who may have signed them.
    pub ca: NamedFile,
    /// Key `client_auth`: whether a client may do without. Default required.
    pub is_required: bool,
    /// Key `client_crl`: PEM, which of them are revoked. Default none.
    pub crl: Option<NamedFile>,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V12,
    /// RFC 8446.
    V13,
}

/// A file that the configuration names, with the place where it does.
#[derive(Clone)]
pub struct NamedFile {
    /// Absolute.
    pub path: PathBuf,
    /// For messages about what is in it.
    place: Mistake,
}

impl NamedFile {
    pub(super) fn new(path: PathBuf, place: Mistake) -> Self {
        Self { path, place }
    }

    /// What is wrong with the file, told at the place that names it.
    pub fn mistake(&self, message: impl Into<String>) -> Box<Mistake> {
        Box::new(Mistake {
            message: message.into(),
            ..self.place.clone()
        })
    }
}

/// As for equality, the place is no part of what it says.
impl std::fmt::Debug for NamedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamedFile").field(&self.path).finish()
    }
}

/// The same file named on another line is the same.
impl PartialEq for NamedFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for NamedFile {}

impl ClientCertificates {
    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        std::iter::once(&self.ca).chain(&self.crl)
    }
}

impl PoolTls {
    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        let own = self.certificate.iter().flat_map(|own| [&own.cert, &own.key]);
        self.ca.iter().chain(own)
    }
}

impl Tls {
    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        let own = self.certificates.iter().flat_map(|one| [&one.cert, &one.key]);
        let clients = self.clients.iter().flat_map(ClientCertificates::files);
        own.chain(clients).chain(&self.ticket_key)
    }
}
