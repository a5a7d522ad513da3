//! A file's bytes, as text.
//!
//! Owns how much of a file is read, and what is said of one that is none of text.

use std::{io::Read, path::Path};

use super::{
    super::{
        Mistakes,
        reader::{Keys, Table},
    },
    FILE_BYTES_MAX, parse_with,
};

/// Reads any file of ours at `path`, whose root has these keys; what `read` gives counts if no mistake was noted.
pub(in crate::config) fn load_with<T: Send>(
    path: &Path,
    read: impl FnOnce(&Table<'_>, &Path) -> Option<T> + Send,
    keys: Keys,
) -> Result<T, Mistakes> {
    load_text_with(path, |text| text, read, keys)
}

/// The same of a file that only `translate` makes one of ours. Lines have to stay lines.
pub(in crate::config) fn load_text_with<T: Send>(
    path: &Path,
    translate: impl FnOnce(String) -> String,
    read: impl FnOnce(&Table<'_>, &Path) -> Option<T> + Send,
    keys: Keys,
) -> Result<T, Mistakes> {
    let origin = path.display().to_string();
    let unreadable =
        |error: std::io::Error| Mistakes::about_file(&origin, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more than allowed, so that `parse` sees that it is too many.
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Mistakes::about_file(&origin, format!("expected UTF-8, which ends on line {line}"))
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    // Fails only for an empty path without a current directory; then relative ones stay what they are.
    let directory = std::path::absolute(directory.join(".")).unwrap_or_else(|_| directory.to_owned());
    parse_with(&translate(text), &origin, |root| read(root, &directory), keys)
}
