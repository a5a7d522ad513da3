//! What a listener needs for handshakes with its clients.
//!
//! Owns the choice of a certificate, and when tickets of earlier sessions go on being good. Certificates are chosen by
//! the names that are in them; a file says no names, so none can disagree.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring::Ticketer},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{
        ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{Bytes, digest, provider, tickets::Tickets};
use crate::config::{Certificate, ClientCertificates, Mistake, NamedFile, Tls, TlsVersion};

/// What HTTP/2 is called in a handshake (RFC 7301).
pub const ALPN_H2: &[u8] = b"h2";
/// What HTTP/1.1 is called there.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Ends TLS for one listener. Shared by all workers; a handshake reads it.
#[derive(Debug)]
pub struct Terminator {
    config: Arc<ServerConfig>,
    /// Of all that it was made of.
    made_of: [u8; 32],
    /// Of what clients have to show. Tickets outlive a new certificate of ours, and nothing of this.
    clients: [u8; 32],
    /// Tickets are sealed by a secret of the file's, and not by one in memory.
    has_ticket_key: bool,
}

impl Terminator {
    /// Reads the files, for a listener that speaks these protocols, the best one first. If they and the settings are those
    /// of `known`, that is the answer, with all it remembers.
    ///
    /// # Errors
    /// Every file that is not what it should be.
    pub fn load(tls: &Tls, spoken: &[&[u8]], known: Option<&Arc<Self>>) -> Result<Arc<Self>, Vec<Mistake>> {
        let mut wrong = Vec::new();
        let mut read = |file| Bytes::read(file).map_err(|mistake| wrong.push(*mistake)).ok();
        let files: Vec<_> = tls.files().filter_map(&mut read).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let is_required = tls.clients.as_ref().is_some_and(|clients| clients.is_required);
        let settings = [
            tls.min_version as u8,
            u8::from(tls.strict_sni),
            u8::from(is_required),
        ];
        let contents = files.iter().map(|file| file.bytes.as_slice());
        let made_of = digest(contents.chain([&settings[..]]).chain(spoken.iter().copied()));
        if let Some(known) = known.filter(|known| known.made_of == made_of) {
            return Ok(known.clone());
        }
        let ticket_key = tls.ticket_key.as_ref();
        let ticket_key = files
            .iter()
            .find(|read| ticket_key.is_some_and(|key| std::ptr::eq(read.file, key)));
        let of_clients = files.iter().skip(2 * tls.certificates.len());
        let of_clients = of_clients.take(tls.clients.iter().flat_map(ClientCertificates::files).count());
        let of_clients = of_clients.map(|file| file.bytes.as_slice());
        let clients = digest(of_clients.chain([&[u8::from(is_required)][..]]));
        let tickets: Option<Arc<dyn ProducesTickets>> = match ticket_key {
            Some(secret) => {
                let tickets = Tickets::of(secret, clients).map_err(|mistake| vec![*mistake])?;
                Some(Arc::new(tickets))
            }
            None => known
                .filter(|known| known.clients == clients && !known.has_ticket_key)
                .map(|known| known.config.ticketer.clone()),
        };
        let mut config = server_config(tls, &files, tickets)?;
        config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(Self {
            config: Arc::new(config),
            made_of,
            clients,
            has_ticket_key: ticket_key.is_some(),
        }))
    }

    /// Whether this and that are one, or both are none.
    pub fn is_same(this: Option<&Arc<Self>>, that: Option<&Arc<Self>>) -> bool {
        this.map(Arc::as_ptr) == that.map(Arc::as_ptr)
    }

    /// For handshakes.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

fn server_config(
    tls: &Tls,
    files: &[Bytes<'_>],
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, Vec<Mistake>> {
    let provider = provider();
    let resolver = Resolver::new(tls, files, &provider)?;
    let one = |mistake: Box<Mistake>| vec![*mistake];
    let verifier = match &tls.clients {
        Some(clients) => client_verifier(clients, files, &provider).map_err(one)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let versions: &[_] = match tls.min_version {
        TlsVersion::V12 => &[&TLS12, &TLS13],
        TlsVersion::V13 => &[&TLS13],
    };
    let failed = |error: rustls::Error| vec![*tls.certificates[0].cert.mistake(error.to_string())];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.ticketer = match tickets {
        Some(tickets) => tickets,
        None => Ticketer::new().map_err(failed)?,
    };
    Ok(config)
}

/// Certificates by the names in them.
#[derive(Debug)]
struct Resolver {
    /// In lower case; below a wildcard's name, with the dot: `.shop.example`. Of several for one name (one with an RSA
    /// key and one with another), the first that the client can verify.
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that name no host, or one that is not there. Empty if those are turned away.
    default: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    fn new(tls: &Tls, files: &[Bytes<'_>], provider: &CryptoProvider) -> Result<Self, Vec<Mistake>> {
        let mut wrong = Vec::new();
        let mut names: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let mut default = Vec::new();
        for (certificate, files) in tls.certificates.iter().zip(files.chunks(2)) {
            let (key, own_names) = match certified_key(certificate, files, provider) {
                Ok(certified) => certified,
                Err(mistake) => {
                    wrong.push(*mistake);
                    continue;
                }
            };
            // Those for the same names with a key of another kind stand in for it too.
            let is_of_default = |default: &[Arc<CertifiedKey>]| {
                let first = default.first().and_then(|first| names_in(&first.cert).ok());
                first.is_none_or(|first| first == own_names)
            };
            if !tls.strict_sni && is_of_default(&default) {
                default.push(key.clone());
            }
            for name in own_names {
                let name = name.strip_prefix('*').map(str::to_owned).unwrap_or(name);
                names.entry(name).or_default().push(key.clone());
            }
        }
        if wrong.is_empty() {
            Ok(Self { names, default })
        } else {
            Err(wrong)
        }
    }

    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let below = name.find('.').and_then(|dot| name.get(dot..));
            self.names
                .get(&name)
                .or_else(|| self.names.get(below.unwrap_or_default()))
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = self.find(hello.server_name());
        let verifiable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = fitting.iter().find(verifiable).or(fitting.first());
        chosen.cloned()
    }
}

/// A chain with its key, and the names that it is for.
fn certified_key(
    certificate: &Certificate,
    files: &[Bytes<'_>],
    provider: &CryptoProvider,
) -> Result<(Arc<CertifiedKey>, Vec<String>), Box<Mistake>> {
    let [cert, key] = files else {
        return Err(certificate.cert.mistake("bug: two files make a certificate"));
    };
    let chain = certificates(cert)?;
    let key = private_key(key)?;
    let names = names_in(&chain).map_err(|error| {
        let message = format!("the first certificate in it cannot be used: {error}");
        certificate.cert.mistake(message)
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let cert = certificate.cert.path.display();
            certificate
                .key
                .mistake(format!("is not the key of the certificate in {cert}"))
        }
        error => certificate.key.mistake(format!("cannot be used: {error}")),
    })?;
    Ok((Arc::new(certified), names))
}

fn names_in(chain: &[CertificateDer<'_>]) -> Result<Vec<String>, webpki::Error> {
    let first = chain.first().ok_or(webpki::Error::BadDer)?;
    let parsed = webpki::EndEntityCert::try_from(first)?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// All certificates of a file.
pub(super) fn certificates(from: &Bytes<'_>) -> Result<Vec<CertificateDer<'static>>, Box<Mistake>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&from.bytes).collect();
    let read = read.map_err(|error| not_pem(from.file, &error))?;
    if read.is_empty() {
        let message = "has no certificate in it; expected PEM, with -----BEGIN CERTIFICATE-----";
        return Err(from.file.mistake(message));
    }
    Ok(read)
}

/// The first private key of a file.
pub(super) fn private_key(from: &Bytes<'_>) -> Result<PrivateKeyDer<'static>, Box<Mistake>> {
    let is_encrypted = |bytes: &[u8]| bytes.windows(9).any(|part| part == b"ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&from.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(&from.bytes) => {
            let message =
                "has a key with a passphrase, which nobody could enter; `openssl pkey` takes it off";
            from.file.mistake(message)
        }
        pem::Error::NoItemsFound => {
            let message = "has no private key in it; expected PEM, with -----BEGIN PRIVATE KEY-----";
            from.file.mistake(message)
        }
        error => not_pem(from.file, &error),
    })
}

fn not_pem(file: &NamedFile, error: &pem::Error) -> Box<Mistake> {
    file.mistake(format!("expected PEM: {error:?}"))
}

/// The authorities of a file.
pub(super) fn roots(from: &Bytes<'_>) -> Result<RootCertStore, Box<Mistake>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(from)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            from.file
                .mistake(format!("a certificate in it cannot be used: {error}"))
        })?;
    }
    Ok(roots)
}

fn client_verifier(
    clients: &ClientCertificates,
    files: &[Bytes<'_>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Box<Mistake>> {
    let of = |file: &NamedFile| files.iter().find(|read| std::ptr::eq(read.file, file));
    let Some(ca) = of(&clients.ca) else {
        return Err(clients.ca.mistake("bug: it was not read"));
    };
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone());
    if let Some(crl) = clients.crl.as_ref().and_then(of) {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&crl.bytes).collect();
        let lists = lists.map_err(|error| not_pem(crl.file, &error))?;
        if lists.is_empty() {
            let message = "has no list in it; expected PEM, with -----BEGIN X509 CRL-----";
            return Err(crl.file.mistake(message));
        }
        // An authority of which there is no list revokes nothing; a list that is too old says so in vain.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if !clients.is_required {
        builder = builder.allow_unauthenticated();
    }
    let at_fault = clients.crl.as_ref().unwrap_or(&clients.ca);
    builder
        .build()
        .map_err(|error| at_fault.mistake(format!("cannot be used: {error}")))
}
