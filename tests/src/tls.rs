//! TLS for tests: an authority of their own, what it signs, and clients that believe it.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Client, DEADLINE, within};

mod origin;

pub use origin::{Seen, TlsOrigin, acceptor};

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one, whom nobody believes but those who are told to.
    ///
    /// # Panics
    /// When there is no randomness.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that makes keys would surprise"
    )]
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        // A name of its own: by the same name, whoever is signed would look as if it had signed itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A server's certificate for these names.
    #[must_use]
    pub fn server<const N: usize>(&self, names: [&str; N]) -> Signed {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, 4096)
    }

    /// A client's certificate, with a serial number to revoke it by.
    #[must_use]
    pub fn client(&self, serial: u64) -> Signed {
        self.sign(["client"], ExtendedKeyUsagePurpose::ClientAuth, serial)
    }

    /// A member's of a cluster, who is a server and a client, and has no name but these.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn member<const N: usize>(&self, names: [&str; N]) -> Signed {
        let mut params = CertificateParams::new(names.map(str::to_owned)).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.finish(params)
    }

    /// One that is for this use only.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn sign<const N: usize>(
        &self,
        names: [&str; N],
        usage: ExtendedKeyUsagePurpose,
        serial: u64,
    ) -> Signed {
        let mut params = CertificateParams::new(names.map(str::to_owned)).expect("names");
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from(serial));
        self.finish(params)
    }

    /// A client's that was good once.
    ///
    /// # Panics
    /// As [`Self::sign`].
    #[must_use]
    pub fn expired_client(&self) -> Signed {
        let mut params = CertificateParams::new(["client".to_owned()]).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.finish(params)
    }

    fn finish(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            cert: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list of revoked certificates.
    ///
    /// # Panics
    /// When the authority may not sign one.
    #[must_use]
    pub fn revoke(&self, serial: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    /// A client's side that believes this authority, and speaks these protocols.
    ///
    /// # Panics
    /// When its own certificate cannot be read.
    #[must_use]
    pub fn trusted(&self, protocols: &[&str], shows: Option<&Signed>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(own).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(Signed { cert, key }) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
                )
                .expect("a certificate with its key"),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// Shakes hands as a client that wants to reach `name`.
///
/// # Errors
/// Why the handshake fails.
///
/// # Panics
/// When nobody listens.
pub async fn shake(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let stream = within("connecting", DEADLINE, TcpStream::connect(address)).await;
    shake_over(stream.expect("a connection"), name, config).await
}

/// The same on a connection that is there.
///
/// # Errors
/// Why the handshake fails.
///
/// # Panics
/// When `name` is none.
pub async fn shake_over(
    stream: TcpStream,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    within("a handshake", DEADLINE, shaking).await.map(Client::from)
}
