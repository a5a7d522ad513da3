//! Files that are not TOML, in plain words.
//!
//! Owns which of the parser's complaints are worth showing. It must not look at keys: a file that comes here has none.

use super::reader::Reader;

/// Notes a broken file's mistakes: one for each line, up to the first that leaves the parser without its place.
///
/// After an array or table that is not closed, what follows is read as part of it and each further complaint is about
/// that guess. A wrong value or a duplicate key on a line of its own leaves the rest as it was.
pub(super) fn note(reader: &Reader<'_>, errors: Vec<toml::de::Error>) {
    let mut lost_at = None;
    let mut lines_noted = std::collections::BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let written = reader.text_of(&span);
        let mistake = reader.mistake(Some(&span), "", plain(error.message(), written));
        let is_after_loss = lost_at.is_some_and(|lost_at| span.start > lost_at);
        if is_after_loss || !lines_noted.insert(mistake.line) {
            continue;
        }
        if is_loss(error.message()) {
            lost_at = Some(span.start);
        }
        reader.note(mistake);
    }
}

fn is_loss(message: &str) -> bool {
    [
        "unclosed",
        "array",
        "table",
        "invalid basic string",
        "invalid multi-line",
    ]
    .iter()
    .any(|part| message.contains(part))
}

fn plain(message: &str, written: &str) -> String {
    let written = super::mistakes::excerpt(written);
    match message.split_once(", expected ") {
        _ if message == "duplicate key" => format!("the key {written} is given twice"),
        Some(("string values must be quoted", _)) if written.is_empty() => "expected a value".to_owned(),
        Some(("string values must be quoted", _)) => format!("{written} needs quotes: \"{written}\""),
        Some(("invalid boolean", _)) => format!("{written} is neither true nor false, and text needs quotes"),
        Some((problem, "nothing")) => problem.to_owned(),
        _ => message.to_owned(),
    }
}
