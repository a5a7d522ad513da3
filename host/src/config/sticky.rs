//! Sticky sessions as a file may say them.
//!
//! Owns the values; `sticky.rs` at the top makes and reads the cookies, and `file/sticky.rs` reads the table.

use std::time::Duration;

use super::{NamedFile, tls::Place};

/// `[pool.NAME.sticky]`: a client comes back to the backend that its cookie names; the policy chooses for those without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Key `cookie`: its name. Default `trimtab`.
    pub cookie: String,
    /// Key `ttl`: how long it holds since the last half of that began. Default until the browser is closed, 1 s to 9600 h.
    pub ttl: Option<Duration>,
    /// Key `path`: of the cookie. Default `/`.
    pub path: String,
    /// Key `domain`: of the cookie. Default none, which is the host that set it and no other.
    pub domain: Option<String>,
    /// Key `secure`: whether it goes over TLS only. Default auto.
    pub secure: Secure,
    /// Key `http_only`: whether scripts cannot see it. Default true.
    pub is_http_only: bool,
    /// Key `same_site`: whether it comes with requests from other sites. Default lax.
    pub same_site: SameSite,
    /// Key `key`: a file with the secret that cookies are signed with. Default one of the cluster, else of the state directory, or else of the
    /// process.
    pub key: Option<NamedFile>,
    /// Where the table is.
    pub place: Place,
}

/// Whether a cookie goes over TLS only (RFC 6265, 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// If it was set over TLS.
    Auto,
    /// Whatever the client speaks to us: for those behind a proxy that speaks TLS.
    Always,
    /// No.
    Never,
}

/// Whether a cookie comes with requests from other sites (RFC 6265bis, 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    Lax,
    /// Always. Only with TLS.
    None,
}
