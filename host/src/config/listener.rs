//! Listeners as a file may say them: where clients connect, what they may use, and where their requests go.
//!
//! Owns the values, and what a listener is known by over reloads. `file/listener.rs` reads them.

use std::{net::SocketAddr, time::Duration};

use super::{ProxyProtocol, Rates, Tls};

/// `[[listener]]`: a socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Key `name`, default the address. Unique.
    pub name: String,
    /// Key `listen`, required, `address:port`. Unique.
    pub listen: SocketAddr,
    /// Key `protocol`, default http.
    pub protocol: Protocol,
    /// `[listener.tls]`; without it the listener speaks plain text.
    pub tls: Option<Tls>,
    /// Key `peek_sni`: whether a connection's first bytes are looked at for the server's name of a TLS handshake, which is
    /// passed on like the rest. Default whether a route has a `server_name`.
    pub peek_sni: bool,
    /// `[listener.proxy_protocol]`; without it, whoever connects is the client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `[listener.http2]`; off with `http2 = "off"`.
    pub http2: Option<Http2>,
    /// Key `forwarded`: what happens to `X-Forwarded-For/-Proto/-Host` of clients. Default replace.
    pub forwarded: Forwarded,
    /// Key `paths`: what becomes of a path that other readers could see differently. Default strict.
    pub paths: Paths,
    /// Key `underscores`: what becomes of header fields with one in their name. Default drop.
    pub underscores: Underscores,
    /// Key `upgrades`: protocols that a request may ask for, in lower case. Default websocket.
    pub upgrades: Vec<String>,
    /// Key `connect`: whether CONNECT is passed on, for backends that are proxies. Default false.
    pub connect: bool,
    /// Key `via`: whether `Via` is added both ways (RFC 9110, 7.6.3). Default true.
    pub via: bool,
    /// `[listener.limits]`
    pub limits: Limits,
    /// `[listener.rates]`; without it nothing is counted.
    pub rates: Option<Rates>,
    /// `[[listener.route]]`: the first match wins; at least one.
    pub routes: Vec<Route>,
}

impl Listener {
    /// What a listener is known by over reloads: its address. Port 0 is another port each time, so there it is the name.
    pub fn key(&self) -> String {
        match self.listen.port() {
            0 => self.name.clone(),
            _ => self.listen.to_string(),
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, 1.1 and 1.0.
    Http,
    /// Bytes, passed on as they are.
    Tcp,
}

/// `[listener.http2]`: what one connection may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Key `streams`: requests at once. Default 100, 1 to 10000.
    pub streams: u32,
    /// Key `stream_window`: how much of a request's body a client may send ahead. Default 256 KiB, 64 KiB to 16 MiB.
    pub stream_window: u32,
    /// Key `window`: the same for all requests of a connection together. Default 1 MiB, 64 KiB to 64 MiB.
    pub window: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 256 << 10,
            window: 1 << 20,
        }
    }
}

/// What happens to the `X-Forwarded-*` fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The client's are dropped and ours are set: right when clients connect directly.
    Replace,
    /// Our address is appended to `X-Forwarded-For`, the others are kept if present: right behind another proxy of yours.
    Append,
    /// Passed through untouched, none added.
    Off,
}

/// What becomes of a request's path before anybody sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Brought into its one form; refused if it has none.
    Strict,
    /// The same, and `%2f` and `%5c` are letters like others.
    EncodedSlashes,
    /// Left alone: right only if neither routes nor policies decide who may do what.
    AsSent,
}

/// What becomes of header fields with an underscore in their name, which CGI and its heirs take for a dash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// They go no further, and no policy sees them.
    Drop,
    /// They are fields like any other.
    Pass,
}

/// `[listener.limits]`: what one client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Key `connections`: at once, of all workers together. When there are as many, the one that has been idle for longest
    /// is closed, and if none is idle, the new one. Default as many as there can be open files, 1 to 10,000,000.
    pub connections: Option<u32>,
    /// Key `header_bytes`: request line and header fields together. Above: 431, or 414 for the target. Default 64 KiB,
    /// 8 KiB to 1 MiB.
    pub header_bytes: usize,
    /// Key `headers`: number of header fields. Above: 431. Default 100, 10 to 1000.
    pub headers: usize,
    /// Key `header_timeout`: from a request's first byte to the end of its head. Above: 408 and close. Default 10 s,
    /// 100 ms to 10 min.
    pub header_timeout: Duration,
    /// Key `idle_timeout`: how long a kept-alive connection may wait for its next request. Default 75 s, 1 s to 1 h.
    pub idle_timeout: Duration,
    /// Key `body_timeout`: longest pause in a request's body, and in the client's reading of a response. Default 30 s,
    /// 100 ms to 1 h.
    pub body_timeout: Duration,
    /// Key `body_rate_min`: bytes a second that a request's body has to bring while it is waited for, measured over
    /// [`Self::body_timeout`]. 0 is off. Default 100 B, 0 B to 1 MiB.
    pub body_rate_min: u64,
    /// Key `tunnel_timeout`: longest silence, both ways, after an upgrade, and of a TCP connection. Default 1 h, 1 s to
    /// 24 h.
    pub tunnel_timeout: Duration,
    /// Key `half_closed_timeout`: the same once one side has ended. Default 5 min, 1 s to 24 h.
    pub half_closed_timeout: Duration,
}

/// `[[listener.route]]`: which requests go to a pool. A route with neither host nor prefix takes all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Key `host`: compared in lower case, without port and trailing dot. `*.example.com` takes every name below it. Of a
    /// listener for TCP, key `server_name`: the same of the name in a TLS handshake.
    pub host: Option<String>,
    /// Key `path_prefix`: begins with `/`, matches whole segments: `/api` takes `/api` and `/api/x`, not `/apix`.
    pub path_prefix: Option<String>,
    /// Key `pool`, required.
    pub pool: String,
}
