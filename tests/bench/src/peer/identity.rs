//! The certificate that all balancers show: of one key on the curve P-256, signed by itself.

use std::{fs, path::PathBuf};

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
        let made = rcgen::generate_simple_self_signed(["lb.test".to_owned()])?;
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let put = |name: &str, text: &str| {
            let path: PathBuf = tools.folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            anyhow::Ok(path.display().to_string())
        };
        Ok(Self {
            cert: put("lb.crt", &cert)?,
            key: put("lb.key", &key)?,
            both: put("lb.pem", &format!("{cert}{key}"))?,
        })
    }
}
