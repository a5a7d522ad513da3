//! `[listener.tls]`: certificates, and what clients have to show. `[pool.NAME.tls]`: the same the other way round.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use super::{
    super::{
        addresses,
        reader::Keys,
        reader::{Table, Value},
        tls::{Certificate, ClientCertificates, NamedFile, Place, PoolTls, Tls, TlsVersion},
        units::{ms, s},
    },
    CERTIFICATE, TLS, file_path,
};

pub(in super::super) const POOL_TLS: Keys = &["verify", "ca", "server_name", "cert", "key", "min_version"];

const HANDSHAKE_TIMEOUT: RangeInclusive<Duration> = ms(100)..=s(60);
/// Each handshake looks for one by name, and each is in memory.
const CERTIFICATES_MAX: usize = 10_000;

pub(super) fn tls(value: &Value<'_>, directory: &Path) -> Option<Tls> {
    let table = value.table(TLS)?;
    Some(Tls {
        certificates: certificates(&table, directory),
        min_version: version(&table),
        strict_sni: table.flag("strict_sni", false),
        handshake_timeout: table.duration("handshake_timeout", HANDSHAKE_TIMEOUT, s(10)),
        clients: clients(&table, directory),
        ticket_key: table
            .take("ticket_key")
            .and_then(|value| named(&value, directory)),
    })
}

fn version(table: &Table<'_>) -> TlsVersion {
    let versions = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
    table.choice("min_version", &versions, TlsVersion::V12)
}

fn certificates(table: &Table<'_>, directory: &Path) -> Vec<Certificate> {
    let Some(value) = table.require("certificates") else {
        return Vec::new();
    };
    let items = value
        .items("a list, like [{ cert = \"shop.pem\", key = \"shop.key\" }]")
        .unwrap_or_default();
    if value.kind().is_array() && !(1..=CERTIFICATES_MAX).contains(&items.len()) {
        value.wrong(format!("expected 1 to {CERTIFICATES_MAX} certificates"));
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| certificate(&item.table(CERTIFICATE)?, directory))
        .collect()
}

/// A key may be in the certificate's file.
fn certificate(table: &Table<'_>, directory: &Path) -> Option<Certificate> {
    let cert = named(&table.require("cert")?, directory);
    let key = match table.take("key") {
        Some(value) => named(&value, directory),
        None => cert.clone(),
    };
    Some(Certificate {
        cert: cert?,
        key: key?,
    })
}

/// As an empty table would be.
pub(super) fn default_tls(place: Place) -> PoolTls {
    PoolTls {
        verify: true,
        ca: None,
        server_name: None,
        certificate: None,
        min_version: TlsVersion::V12,
        place,
    }
}

pub(super) fn place(value: &Value<'_>) -> Place {
    Place::new(value.mistake(String::new()))
}

pub(super) fn pool_tls(value: &Value<'_>, directory: &Path) -> Option<PoolTls> {
    let table = value.table(POOL_TLS)?;
    let verify = table.flag("verify", true);
    let ca = table.take("ca");
    if let Some(ca) = ca.as_ref().filter(|_| !verify) {
        ca.wrong("has no effect with verify = false");
    }
    let certificate = match (table.take("cert"), table.take("key")) {
        (None, None) => None,
        (None, Some(key)) => {
            key.wrong("has no effect without cert");
            None
        }
        (Some(_), _) => certificate(&table, directory),
    };
    Some(PoolTls {
        verify,
        ca: ca.and_then(|value| named(&value, directory)),
        server_name: table
            .take("server_name")
            .and_then(|value| value.parsed(addresses::server_name)),
        certificate,
        min_version: version(&table),
        place: place(value),
    })
}

fn clients(table: &Table<'_>, directory: &Path) -> Option<ClientCertificates> {
    let choices = [("required", true), ("optional", false)];
    let is_required = table.choice("client_auth", &choices, true);
    let crl = table
        .take("client_crl")
        .and_then(|value| named(&value, directory));
    let Some(ca) = table.take("client_ca") else {
        for key in ["client_auth", "client_crl"] {
            if let Some(value) = table.take(key) {
                value.wrong("has no effect without client_ca");
            }
        }
        return None;
    };
    Some(ClientCertificates {
        ca: named(&ca, directory)?,
        is_required,
        crl,
    })
}

pub(super) fn named(value: &Value<'_>, directory: &Path) -> Option<NamedFile> {
    let path = file_path(value.text()?, value, directory)?;
    Some(NamedFile::new(path, value.mistake(String::new())))
}
