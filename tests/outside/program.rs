//! Programs of others: how they are installed and run. Owns no judgement of what they say.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use trimtab_tests::{DEADLINE, LONG, within};

/// This folder.
pub(crate) fn here() -> PathBuf {
    // Whichever package the test belongs to.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/outside")
}

/// Where what is not a package of the system is installed.
pub(crate) fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| here().join("../../target"))
        .join("tools")
}

/// Installs what a suite needs, unless it is there (`install.sh`).
pub(crate) async fn install(name: &str) {
    let mut script = Command::new("bash");
    script.arg(here().join("install.sh")).arg(name);
    let output = within("installing", LONG, script.output()).await.unwrap();
    assert!(
        output.status.success(),
        "{name} is not installed: {}",
        told(&output)
    );
}

/// Everything that a program has said.
pub(crate) fn told(output: &Output) -> String {
    let of = |bytes| String::from_utf8_lossy(bytes);
    format!("{}{}", of(&output.stdout), of(&output.stderr))
}

/// Runs a program to its end.
pub(crate) async fn run(command: &mut Command) -> Output {
    command.kill_on_drop(true);
    let what = format!("{:?}", command.as_std());
    within(&what, LONG, command.output()).await.unwrap()
}

/// A server that says its port in the first line of its output. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _child: Child,
}

impl Server {
    pub(crate) async fn start(command: &mut Command) -> Self {
        command.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        within("a port", DEADLINE, output.read_line(&mut line))
            .await
            .unwrap();
        let port: u16 = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("no port: {line:?}"));
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _child: child,
        }
    }
}
