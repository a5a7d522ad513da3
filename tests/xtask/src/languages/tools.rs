//! The tools of the languages, installed by their own package managers at the versions of `sdk/versions.toml`.
//!
//! Owns a Python environment below `target/languages/`; Node's tools are installed into the folder that uses them. It must
//! not install what a system has to bring: Python and Node.js, and says which package they are in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::chores::run;

/// Tools that are installed.
pub(crate) struct Tools {
    environment: PathBuf,
}

#[derive(Deserialize)]
struct Versions {
    pip: BTreeMap<String, String>,
}

impl Tools {
    /// Makes the Python environment, unless it is there with these versions.
    pub(crate) fn install(root: &Path) -> Result<Self> {
        let versions = fs::read_to_string(root.join("sdk/versions.toml")).context("sdk/versions.toml")?;
        let versions: Versions = toml::from_str(&versions).context("sdk/versions.toml")?;
        let pins = versions.pip.iter();
        let pins: Vec<String> = pins.map(|(name, version)| format!("{name}=={version}")).collect();
        let environment = root.join("target/languages/python");
        let installed = environment.join("installed.txt");
        if fs::read_to_string(&installed).is_ok_and(|there| there == pins.join("\n")) {
            return Ok(Self { environment });
        }
        fs::create_dir_all(&environment)?;
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&environment);
        run(make).context("needs Python 3.10 or later: apt-get install python3-venv")?;
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(&pins);
        run(pip)?;
        fs::write(&installed, pins.join("\n"))?;
        Ok(Self { environment })
    }

    /// A step of a build, as somebody would type it who has the tools.
    pub(crate) fn command(&self, step: &[String], folder: &Path) -> Result<Command> {
        let (program, arguments) = step.split_first().context("a step runs something")?;
        // The environment's own python3, which is looked for along this program's path and not the child's.
        let own = self.environment.join("bin").join(program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command
            .args(arguments)
            .current_dir(folder)
            .env("PATH", self.path()?)
            .env("VIRTUAL_ENV", &self.environment);
        Ok(command)
    }

    /// Installs what a folder's `package.json` names. No scripts of packages run.
    pub(crate) fn npm_install(&self, folder: &Path) -> Command {
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--no-package-lock",
        ])
        .args(["--loglevel", "error"])
        .current_dir(folder);
        npm
    }

    fn path(&self) -> Result<OsString> {
        let before = env::var_os("PATH").context("PATH is not set")?;
        let own = self.environment.join("bin");
        ensure!(own.exists(), "{} is missing", own.display());
        Ok(env::join_paths(
            std::iter::once(own).chain(env::split_paths(&before)),
        )?)
    }
}
