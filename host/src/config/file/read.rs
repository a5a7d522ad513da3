//! A file's bytes, as text.
//!
//! Owns how much of a file is read, what is said of one that is none of text, and the addition of what a fleet shares.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    super::{
        Config, Mistakes,
        reader::{Keys, Origin, Reader, Table},
        syntax, units,
    },
    ROOT,
};

/// Ten thousand backends with labels take less than 2 MiB; what is larger is some other file.
pub(in crate::config) const FILE_BYTES_MAX: usize = 16 << 20;
/// TOML's parser recurses over nested tables, 80 levels of up to 80 dotted keys each. Measured: 6,400 levels overflow
/// 2 MiB; this leaves a factor of thirty. Only what is used of it is ever touched.
const STACK_BYTES: usize = 64 << 20;
/// What a fleet may share; all else is of one node.
const SHARED: Keys = &["listener", "tenant", "pool", "policy"];

/// Tables that a fleet adds to the file of each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What messages call it.
    pub name: String,
    /// TOML that begins with the header of a table.
    pub text: String,
}

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
    let (origin, text) = read_text(path)?;
    let directory = directory_of(path);
    parse_with(
        &translate(text),
        origin.as_str(),
        |root| read(root, &directory),
        keys,
    )
}

fn read_text(path: &Path) -> Result<(String, String), Mistakes> {
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
    Ok((origin, text))
}

/// Fails only for an empty path without a current directory; then relative ones stay what they are.
fn directory_of(path: &Path) -> PathBuf {
    let directory = path.parent().unwrap_or(Path::new(""));
    std::path::absolute(directory.join(".")).unwrap_or_else(|_| directory.to_owned())
}

/// Reads the file at `path` with what a fleet adds to it.
pub(in crate::config) fn load_shared(path: &Path, shared: &Shared) -> Result<Config, Mistakes> {
    let (origin, text) = read_text(path)?;
    parse_shared(&text, &origin, &directory_of(path), shared)
}

/// Reads `text` with what a fleet adds to it. Both are one file to the reader, so that each may name what the other has; messages
/// tell where a line came from.
pub(in crate::config) fn parse_shared(
    text: &str,
    origin: &str,
    directory: &Path,
    shared: &Shared,
) -> Result<Config, Mistakes> {
    let begins = |root: &Table<'_>| {
        let mut lines = shared.text.lines().map(str::trim_start);
        // Without a header, it would belong to the last table of the file.
        if !lines
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .unwrap_or("[")
            .starts_with('[')
        {
            root.wrong("expected the header of a table first, like [pool.shop]");
        }
        Some(())
    };
    parse_with(&shared.text, shared.name.as_str(), begins, SHARED)?;
    let newline = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let joined = format!("{text}{newline}{}", shared.text);
    let origin = Origin {
        file: origin.to_owned(),
        then: Some((text.lines().count(), shared.name.clone())),
    };
    parse_with(&joined, origin, |root| super::config(root, directory), ROOT)
}

/// Reads any text of ours; see [`load_with`].
pub(in crate::config) fn parse_with<T: Send>(
    text: &str,
    origin: impl Into<Origin>,
    read: impl FnOnce(&Table<'_>) -> Option<T> + Send,
    keys: Keys,
) -> Result<T, Mistakes> {
    let origin = &origin.into();
    if text.len() > FILE_BYTES_MAX {
        let most = units::show_size(FILE_BYTES_MAX as u64);
        return Err(Mistakes::about_file(
            &origin.file,
            format!("expected a file of at most {most}"),
        ));
    }
    let own_stack = std::thread::Builder::new()
        .name("config".to_owned())
        .stack_size(STACK_BYTES);
    std::thread::scope(|scope| {
        let reading = own_stack
            .spawn_scoped(scope, || parse_here_with(text, origin, read, keys))
            .map_err(|error| {
                Mistakes::about_file(&origin.file, format!("cannot be read: no thread: {error}"))
            })?;
        // A reload must not end a balancer that works, whatever the file does to the parser.
        let panicked =
            || Mistakes::about_file(&origin.file, "reading it panicked, a bug in trimtab".to_owned());
        reading.join().unwrap_or_else(|_| Err(panicked()))
    })
}

pub(in crate::config) fn parse_here_with<T>(
    text: &str,
    origin: &Origin,
    read: impl FnOnce(&Table<'_>) -> Option<T>,
    keys: Keys,
) -> Result<T, Mistakes> {
    let reader = Reader::new(text, origin);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What the parser made of a broken file is a guess, and mistakes in a guess are noise.
        syntax::note(&reader, errors);
        return Err(collect(reader, &origin.file));
    }
    let made = read(&reader.root(root.get_ref(), keys));
    match made {
        Some(made) if reader.has_none() => Ok(made),
        _ => Err(collect(reader, &origin.file)),
    }
}

fn collect(reader: Reader<'_>, origin: &str) -> Mistakes {
    // The fallback would be a bug of the reader (see its invariant); it must still not pass as success.
    Mistakes::collect(reader.into_mistakes()).unwrap_or_else(|| {
        Mistakes::about_file(origin, "cannot be used, and trimtab cannot say why".to_owned())
    })
}
