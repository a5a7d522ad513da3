//! Building a policy: the steps of its `policy.toml`, with the tools of its language.
//!
//! Owns how a step is started, and what is said when it fails. It must not know any language.

use std::{io::ErrorKind, path::Path, process::Command};

use super::{KitError, subject::manifest_in};
use crate::config::author::{MANIFEST, Manifest, Step};

/// Runs the steps of a folder, each announced before it starts; their output goes where this program's goes. Gives the
/// folder's manifest.
///
/// # Errors
/// What is wrong with the manifest, or which step failed and what it may need.
pub fn build(folder: &Path, mut announce: impl FnMut(&Step)) -> Result<Manifest, KitError> {
    let path = manifest_in(folder).ok_or_else(|| {
        KitError(format!(
            "{}: expected a folder with a {MANIFEST}",
            folder.display()
        ))
    })?;
    let manifest = Manifest::load(&path).map_err(|mistakes| KitError(mistakes.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for (number, step) in manifest.build.iter().enumerate() {
        announce(step);
        run(step, folder)
            .map_err(|problem| KitError(format!("{}: build[{number}]: {problem}", path.display())))?;
    }
    if !manifest.component.is_file() {
        return Err(KitError(format!(
            "{}: component = {}: no step of the build made this file",
            path.display(),
            manifest.component.display()
        )));
    }
    Ok(manifest)
}

fn run(step: &Step, folder: &Path) -> Result<(), String> {
    let Some((program, arguments)) = step.run.split_first() else {
        return Err("there is nothing to run".to_owned());
    };
    let help = |what: &str| match &step.needs {
        Some(needs) => format!("\n  {what}: {needs}"),
        None => String::new(),
    };
    // By itself, whether a relative path means this folder would depend on the system.
    let in_folder = folder.join(program);
    let found = if program.contains('/') && in_folder.exists() {
        std::path::absolute(&in_folder).unwrap_or(in_folder)
    } else {
        program.into()
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let status = Command::new(found).args(arguments).current_dir(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "`{}` failed ({status}){}",
            show_step(step),
            help("if that is because something is missing")
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(format!("`{program}` is not installed{}", help("install it by")))
        }
        Err(error) => Err(format!("`{program}` does not start: {error}{}", help("it needs"))),
    }
}

/// The words of a step as somebody would type them.
pub fn show_step(step: &Step) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    let words = step.run.iter().map(|word| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
