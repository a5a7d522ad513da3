//! `trimtab policy` against `trimtab run`, as an operator uses them.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
};

use trimtab::policy::digest;
use trimtab_tests::{Directory, Origin, Setup, guest::Guest};

use crate::PROGRAM;

/// A balancer in a process of its own, killed when dropped.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) admin: String,
    /// Where its first listener is.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts, and reads from the log where its admin listener is.
    pub(crate) fn start(directory: &Directory) -> Self {
        Self::start_with(directory, Command::new(PROGRAM))
    }

    /// By a command that runs the program with the arguments that it gets.
    pub(crate) fn start_with(directory: &Directory, mut command: Command) -> Self {
        let mut process = command
            .arg("run")
            .arg(directory.path().join("trimtab.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = String::new();
        let found = log.find_map(|line| {
            let line = line.unwrap();
            told = format!("{told}{line}\n");
            let word = |key: &str| Some(line.split_once(key)?.1.split(['"', ' ']).next()?.to_owned());
            Some((word("\"admin\":\"")?, word("\"listeners\":\"main=")?))
        });
        // The rest is read too, or the balancer would wait one day.
        std::thread::spawn(move || log.for_each(drop));
        let (admin, address) = found.unwrap_or_else(|| panic!("a line that says where: {told}"));
        Self {
            process,
            admin,
            address: address.parse().unwrap(),
        }
    }

    fn policy(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .arg("policy")
            .args(arguments)
            .args(["--admin", &self.admin]);
        command.output().unwrap()
    }

    /// What it prints when all is well.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.policy(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it is not.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.policy(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn guest(text: &str) -> Vec<u8> {
    let guest = Guest {
        text: text.into(),
        ..Guest::default()
    };
    guest.build()
}

pub(crate) async fn stage() -> (Directory, Origin) {
    let directory = Directory::new();
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address())
        .top("state = { directory = \"state\" }\ncompile = { size = \"1MiB\" }\nlog = { format = \"json\" }")
        .pool("policy = \"mine\"")
        .rest("[policy.mine]\ncomponent = \"file.wasm\"");
    let text = setup.text().replace(
        "admin = { listen = \"off\" }",
        "admin = { listen = \"127.0.0.1:0\" }",
    );
    directory.write("trimtab.toml", text);
    directory.write("file.wasm", guest("file"));
    directory.write("new.wasm", guest("new"));
    directory.write("text.wasm", "I am no component");
    directory.write("large.wasm", vec![0; (1 << 20) + 1]);
    (directory, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn push_promote_status_and_rollback() {
    let (directory, _origin) = stage().await;
    let file = |name: &str| directory.path().join(name).display().to_string();
    let running = Running::start(&directory);
    let (old, new) = (digest(&guest("file")), digest(&guest("new")));
    let status = running.told(&["status"]);
    assert!(
        status.contains("main: policy mine\n  * ") && status.contains(&old[..12]),
        "{status}"
    );

    let pushed = running.told(&["push", &file("new.wasm"), "--pool", "main"]);
    assert!(
        pushed.contains(&new[..12]) && pushed.contains("serves nobody yet"),
        "{pushed}"
    );
    let promoted = running.told(&["promote", &new[..12], "--pool", "main"]);
    let expected = format!("pool main: {} serves in place of {}", &new[..12], &old[..12]);
    assert!(promoted.starts_with(&expected), "{promoted}");
    let status = running.told(&["status"]);
    assert!(status.contains("main: policy mine, pinned"), "{status}");
    let back = running.told(&["rollback", "--pool", "main", "--json"]);
    assert!(back.contains(&format!("\"digest\": \"{old}\"")), "{back}");
    let forth = running.told(&["rollback", "--pool", "main", "--to", &new[..12]]);
    assert!(forth.contains(&new[..12]), "{forth}");

    // The next process goes on where a killed one was.
    drop(running);
    let running = Running::start(&directory);
    let status = running.told(&["status", "--json"]);
    assert!(
        status.contains("\"pinned\": true") && status.contains("\"compiled_by\": \"cache\""),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_and_fail() {
    let (directory, _origin) = stage().await;
    let file = |name: &str| directory.path().join(name).display().to_string();
    let running = Running::start(&directory);
    let cases = [
        (
            vec!["push", "text.wasm", "--pool", "main"],
            "not a WebAssembly component",
        ),
        (
            vec!["push", "large.wasm", "--pool", "main"],
            "more than 1048576 bytes",
        ),
        (vec!["push", "absent.wasm", "--pool", "main"], "absent.wasm"),
        (
            vec!["push", "new.wasm", "--pool", "nowhere"],
            "no pool is called \"nowhere\"; there are: main",
        ),
        (
            vec!["promote", "0123456789ab", "--pool", "main"],
            "begins with 0123456789ab",
        ),
        (vec!["promote", "zz", "--pool", "main"], "is no digest"),
        (
            vec!["rollback", "--pool", "main"],
            "no version served pool \"main\" before",
        ),
    ];
    for (mut arguments, reason) in cases {
        let path = file(arguments[1]);
        if arguments[0] == "push" {
            arguments[1] = &path;
        }
        let refused = running.refused(&arguments);
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    let nobody = Command::new(PROGRAM)
        .args(["policy", "status", "--admin", "127.0.0.1:1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        !nobody.status.success() && text.contains("no balancer answers at 127.0.0.1:1"),
        "{text}"
    );
}
