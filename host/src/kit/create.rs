//! `policy new`: a folder that builds.
//!
//! Owns where files go and that none is overwritten.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    KitError,
    templates::{Language, WIT},
};
use crate::config::{BUILTIN_POLICIES, author::check_policy_name};

/// Makes a folder `name` below `parent`, and gives its path.
///
/// # Errors
/// When the name cannot be one, the folder is there already, or it cannot be written.
pub fn create(language: &Language, name: &str, parent: &Path) -> Result<PathBuf, KitError> {
    check_policy_name(name).map_err(|expected| KitError(format!("name = \"{name}\": {expected}")))?;
    if BUILTIN_POLICIES.contains(&name) {
        return Err(KitError(format!(
            "name = \"{name}\": a built-in policy has this name; choose another"
        )));
    }
    let folder = parent.join(name);
    if folder.exists() {
        return Err(KitError(format!(
            "{} exists already; choose another name or --dir",
            folder.display()
        )));
    }
    let snake = name.replace('-', "_");
    let wit = WIT
        .iter()
        .map(|(path, text)| (format!("{}/{path}", language.wit), *text));
    let files = language
        .files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), *text));
    for (path, text) in files.chain(wit) {
        let fill = |text: &str| text.replace("{{name}}", name).replace("{{name_snake}}", &snake);
        write(&folder.join(fill(&path)), &fill(text))?;
    }
    Ok(folder)
}

fn write(path: &Path, text: &str) -> Result<(), KitError> {
    let failed = |error: std::io::Error| KitError(format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
