//! What a pool needs for handshakes with its backends.
//!
//! Owns whom a backend's certificate has to be from and for, and what we show. It must not know what is spoken inside:
//! whoever opens a connection says what it offers.
//!
//! Invariant: a backend is believed without a proof only if the file says `verify = false`.

use std::{cell::OnceCell, io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsConnector;

use super::{
    Bytes, digest, provider,
    server::{ALPN_H2, ALPN_HTTP1, certificates, private_key, roots},
};
use crate::config::{self, Mistake, PoolTls, TlsVersion};

/// Begins TLS with the backends of one pool. Made once, and copied for each worker ([`Connectors`]).
#[derive(Debug)]
pub struct Originator {
    template: ClientConfig,
    server_name: Option<ServerName<'static>>,
    /// Of all that it was made of.
    made_of: [u8; 32],
}

/// What is offered inside of TLS (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Whatever the client speaks, which we do not look at.
    Bytes,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both, and the backend chooses.
    Either,
}

impl Originator {
    /// Reads the files of a pool's table. If they and the settings are those of `known`, that is the answer.
    ///
    /// # Errors
    /// Every file that is not what it should be, and every backend that has no name to check a certificate for.
    pub fn load(
        tls: &PoolTls,
        backends: &[config::Backend],
        known: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Vec<Mistake>> {
        let mut wrong = Vec::new();
        let mut read = |file| Bytes::read(file).map_err(|mistake| wrong.push(*mistake)).ok();
        let files: Vec<_> = tls.files().filter_map(&mut read).collect();
        for backend in backends.iter().filter(|_| tls.server_name.is_none()) {
            if let Err(error) = name_in(&backend.address) {
                wrong.push(
                    *tls.place
                        .mistake(format!("{error}; say whose certificate it has: server_name")),
                );
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let one = |mistake: Box<Mistake>| vec![*mistake];
        let authorities = authorities(tls, &files).map_err(one)?;
        let name = tls.server_name.as_deref().unwrap_or_default();
        let settings = [
            tls.min_version as u8,
            u8::from(tls.verify),
            u8::from(tls.ca.is_some()),
        ];
        let contents = files.iter().map(|file| file.bytes.as_slice());
        let of_roots = authorities.roots.iter().map(|root| root.subject.as_ref());
        let of_keys = authorities
            .roots
            .iter()
            .map(|root| root.subject_public_key_info.as_ref());
        let made_of = digest(
            contents
                .chain([&settings[..], name.as_bytes()])
                .chain(of_roots)
                .chain(of_keys),
        );
        if let Some(known) = known.filter(|known| known.made_of == made_of) {
            return Ok(known.clone());
        }
        Ok(Arc::new(Self {
            template: client_config(tls, &files, authorities).map_err(one)?,
            server_name: tls
                .server_name
                .as_deref()
                .map(parse_name)
                .transpose()
                .map_err(|error| one(tls.place.mistake(error.to_string())))?,
            made_of,
        }))
    }

    /// For one worker, which remembers its own sessions: remembering them together would take a lock.
    #[must_use]
    pub fn connectors(self: &Arc<Self>) -> Connectors {
        Connectors {
            originator: self.clone(),
            made: Default::default(),
        }
    }

    /// Whose certificate a backend at this address (`host:port`) must have.
    ///
    /// # Errors
    /// When the host is neither a name nor an address, which a loaded configuration has none of.
    pub fn name_of(&self, address: &str) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => name_in(address),
        }
    }

    /// Whether this and that are one, or both are none.
    pub fn is_same(this: Option<&Arc<Self>>, that: Option<&Arc<Self>>) -> bool {
        this.map(Arc::as_ptr) == that.map(Arc::as_ptr)
    }

    fn connector(&self, offer: Offer) -> TlsConnector {
        let mut config = self.template.clone();
        config.resumption = Resumption::default();
        let protocols: &[&[u8]] = match offer {
            Offer::Bytes => &[],
            Offer::Http1 => &[ALPN_HTTP1],
            Offer::Http2 => &[ALPN_H2],
            Offer::Either => &[ALPN_H2, ALPN_HTTP1],
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// One worker's part of an [`Originator`].
pub struct Connectors {
    originator: Arc<Originator>,
    /// By what they offer, each made when it is first needed.
    made: [OnceCell<TlsConnector>; 4],
}

impl Connectors {
    /// What they were made from.
    pub fn originator(&self) -> &Arc<Originator> {
        &self.originator
    }

    /// What a connection is opened with.
    pub fn to(&self, offer: Offer) -> &TlsConnector {
        self.made[offer as usize].get_or_init(|| self.originator.connector(offer))
    }
}

fn parse_name(name: &str) -> io::Result<ServerName<'static>> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|_| io::Error::other(format!("no certificate can be for \"{name}\"")))
}

fn name_in(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    parse_name(host.trim_matches(['[', ']']).trim_end_matches('.'))
}

/// Who may have signed a backend's certificate.
fn authorities(tls: &PoolTls, files: &[Bytes<'_>]) -> Result<RootCertStore, Box<Mistake>> {
    if !tls.verify {
        return Ok(RootCertStore::empty());
    }
    // The first file is that of the key `ca`, if there is one.
    if let (Some(_), Some(ca)) = (&tls.ca, files.first()) {
        return roots(ca);
    }
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let message = "the system has no certificate authorities that could be read; name a file of them: ca";
        return Err(tls.place.mistake(message));
    }
    Ok(store)
}

fn client_config(
    tls: &PoolTls,
    files: &[Bytes<'_>],
    authorities: RootCertStore,
) -> Result<ClientConfig, Box<Mistake>> {
    let provider = provider();
    let wrong = |error: &dyn std::fmt::Display| tls.place.mistake(error.to_string());
    let versions: &[_] = match tls.min_version {
        TlsVersion::V12 => &[&TLS12, &TLS13],
        TlsVersion::V13 => &[&TLS13],
    };
    let verifier: Arc<dyn ServerCertVerifier> = if tls.verify {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
        builder.build().map_err(|error| wrong(&error))?
    } else {
        Arc::new(Anybody(provider.clone()))
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| wrong(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(own) = &tls.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let [.., cert, key] = files else {
        return Err(own.cert.mistake("bug: it was not read"));
    };
    let (chain, key) = (certificates(cert)?, private_key(key)?);
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let cert = own.cert.path.display();
                own.key
                    .mistake(format!("is not the key of the certificate in {cert}"))
            }
            error => own.key.mistake(format!("cannot be used: {error}")),
        })
}

/// Believes everybody: `verify = false`. That the peer has the key of the certificate that it shows is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
