//! The access log's file.
//!
//! Owns its opening, which may neither fail late nor wait. It must not know what is written to it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::{Control, StartError, prepare::Service};
use crate::{config, proxy::AccessLog};

impl Control {
    /// Keeps the log that is open if it is the same.
    pub(super) fn open_access_log(&mut self, service: &mut Service) -> Result<Option<AccessLog>, StartError> {
        if service.config.log.access == self.service.config.log.access && self.service.access_log.is_some() {
            service.access_log = self.service.access_log.clone();
        } else if let Some(output) = output(&service.config.log.access)? {
            let metrics = self.handle.metrics().clone();
            let (log, writer) = AccessLog::start(output, metrics).map_err(StartError::Thread)?;
            service.access_log = Some(log);
            self.access_writer = Some(writer);
        }
        Ok(service.access_log.clone())
    }
}

/// `None` if there is to be no log.
pub(super) fn output(access: &config::AccessLog) -> Result<Option<Box<dyn Write + Send>>, StartError> {
    Ok(match access {
        config::AccessLog::Off => None,
        config::AccessLog::Stdout => Some(Box::new(io::stdout())),
        config::AccessLog::Stderr => Some(Box::new(io::stderr())),
        config::AccessLog::File(path) => {
            let failed = |error| StartError::AccessLog {
                path: path.display().to_string(),
                error,
            };
            Some(Box::new(open(path).map_err(failed)?))
        }
    })
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe for writing alone waits until somebody reads it.
    let is_pipe = path
        .metadata()
        .is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new()
        .create(!is_pipe)
        .read(is_pipe)
        .append(true)
        .open(path)
}
