//! The certificate that all balancers show: of one key on the curve P-256, signed by itself.

use std::fs;

use anyhow::{Context, Result};

use super::Tools;

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
    /// Both in one file, for HAProxy.
    pub(crate) both: String,
}

impl Identity {
    /// A new one in the folder of what is measured.
    pub(crate) fn new(tools: &Tools) -> Result<Self> {
        let path = |name: &str| tools.folder.join(name).display().to_string();
        let (cert, key, both) = (path("lb.crt"), path("lb.key"), path("lb.pem"));
        // A key on P-256, as rcgen has it by default.
        let made = rcgen::generate_simple_self_signed(["lb.test".to_owned()])?;
        let (shown, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (path, text) in [
            (&cert, &shown),
            (&key, &secret),
            (&both, &format!("{shown}{secret}")),
        ] {
            fs::write(path, text).with_context(|| path.clone())?;
        }
        Ok(Self { cert, key, both })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_for_haproxy_has_the_certificate_and_its_key_on_p256() {
        let folder = std::env::temp_dir().join(format!("trimtab-bench-identity-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let tools = Tools {
            folder: folder.clone(),
            trimtab: folder.clone(),
            root: folder.clone(),
        };
        let identity = Identity::new(&tools).unwrap();
        let read = |path: &String| fs::read_to_string(path).unwrap();
        let (cert, key, both) = (read(&identity.cert), read(&identity.key), read(&identity.both));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(both, cert.clone() + &key);
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"), "{cert}");
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        assert!(key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256));
    }
}
