//! The project's files.

use std::path::{Path, PathBuf};

/// A text file.
pub(crate) struct File {
    /// Path below the project's root.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the project")
        .to_owned()
}

/// A file's text, if it is there.
pub(crate) fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(root().join(name)).ok()
}

/// All files with these extensions below these folders, build output and hidden folders aside.
pub(crate) fn files(folders: &[&str], extensions: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                // Vendored and built things are not ours; `.ci` and `.cargo` are.
                if !["target", ".git", "node_modules", "vendor"].contains(&&*name) {
                    waiting.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|own| extensions.iter().any(|known| own == *known))
            {
                let name = path.strip_prefix(root()).expect("below the root");
                found.push(File {
                    name: name.to_string_lossy().replace('\\', "/"),
                    text: std::fs::read_to_string(&path).expect("a text file"),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no files in {folders:?}");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Lines before the tests, without the header and empty ones.
pub(crate) fn product_lines(text: &str) -> usize {
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.trim().is_empty() && !line.starts_with("//!"))
        .count()
}
