//! Mistakes in a configuration, as the operator reads them.
//!
//! Owns the form of a message: where, which key, what was written, what was expected. It must not know any key or TOML.
//! Invariant: a [`Mistakes`] holds at least one mistake, in the order of the file, each with a message.
//! Read next: `reader.rs`, which makes them.

use std::fmt;

/// Most mistakes that are listed for one file: enough for every honest file, and a bound on memory for a file that is
/// not a configuration at all.
const MISTAKES_MAX: usize = 500;

/// Most characters of a value that a message repeats: an address or a name fits, a terminal's line is not filled.
const EXCERPT_CHARS_MAX: usize = 48;

/// Text of the file as a message may repeat it: one line, nothing that moves the cursor of a terminal, not long.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    // Bounded before it is worked on: a value may be the whole of a large file.
    for c in text.chars().take(4 * EXCERPT_CHARS_MAX) {
        match c {
            c if c.is_whitespace() || c.is_control() => {
                if !shown.ends_with(' ') {
                    shown.push(' ');
                }
            }
            c => shown.push(c),
        }
    }
    match shown.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => {
            shown.truncate(end);
            shown.push('…');
        }
        None if text.len() > shown.len() && text.chars().nth(4 * EXCERPT_CHARS_MAX).is_some() => {
            shown.push('…')
        }
        None => {}
    }
    shown
}

/// One mistake. Its `Display` is one line: `trimtab.toml:12: pool.shop.retry.attempts = "two": expected …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the caller named it.
    pub file: String,
    /// Counted from 1; `None` when the mistake is about the whole file.
    pub line: Option<usize>,
    /// In characters, counted from 1; `None` together with `line`.
    pub column: Option<usize>,
    /// The key with its path, as in `listener[0].route[1].pool`; empty when the file is not TOML.
    pub key: String,
    /// What was written, shortened and on one line; empty when nothing was, or a whole table.
    pub value: String,
    /// What was expected instead.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        // A key says where to look better than a column does; without one the column is all there is.
        match (self.key.is_empty(), self.column) {
            (true, Some(column)) => write!(f, ":{column}")?,
            (true, None) => {}
            (false, _) => write!(f, ": {}", self.key)?,
        }
        if !self.value.is_empty() && !self.key.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every mistake of a file. Its `Display` is one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// A single mistake about a whole file.
    pub(super) fn about_file(file: &str, message: String) -> Self {
        Self(vec![Mistake {
            file: file.to_owned(),
            line: None,
            column: None,
            key: String::new(),
            value: String::new(),
            message,
        }])
    }

    /// Puts what was collected into the order of the file; `None` when that is nothing.
    pub(crate) fn collect(mut found: Vec<Mistake>) -> Option<Self> {
        // What concerns the whole file comes last: the lines above it are often its cause.
        found.sort_by_key(|mistake| {
            (
                mistake.line.unwrap_or(usize::MAX),
                mistake.column.unwrap_or(usize::MAX),
            )
        });
        let is_cut = found.len() > MISTAKES_MAX;
        found.truncate(MISTAKES_MAX);
        let file = found.first()?.file.clone();
        if is_cut {
            found.extend(Self::about_file(&file, "more mistakes are not listed".to_owned()).0);
        }
        Some(Self(found))
    }

    /// In the order of the file; never empty.
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
