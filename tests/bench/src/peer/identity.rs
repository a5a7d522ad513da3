//! The certificate that all balancers show: of one key on the curve P-256, signed by itself.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

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
        let status = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=lb.test"])
            .args(["-addext", "subjectAltName=DNS:lb.test"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-keyout", &key, "-out", &cert])
            .stderr(Stdio::null())
            .status()
            .context("openssl does not start")?;
        ensure!(status.success(), "openssl: {status}");
        fs::write(&both, fs::read_to_string(&cert)? + &fs::read_to_string(&key)?)
            .with_context(|| both.clone())?;
        Ok(Self { cert, key, both })
    }
}
