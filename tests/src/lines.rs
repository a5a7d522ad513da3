//! What the balancer logs, as its lines.

use std::{
    io::{self, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The log of this process. Tests in one process share it, so a test looks for its own words.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Lines {
    /// Begins to keep what is logged, all levels, in the form for people without colours.
    #[must_use]
    pub fn keep() -> Self {
        static BEGUN: OnceLock<()> = OnceLock::new();
        BEGUN.get_or_init(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_ansi(false)
                .with_writer(|| Lines)
                .finish();
            // Fails only where a test has a log of its own, and then there is nothing to find here.
            let _ = tracing::subscriber::set_global_default(subscriber);
        });
        Self
    }

    /// The lines so far that contain these words.
    #[must_use]
    pub fn with(self, words: &str) -> Vec<String> {
        let written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&written);
        let found = text.split('\n').filter(|line| line.contains(words));
        found.map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
