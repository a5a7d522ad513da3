//! Compiled code on disk: used when this program wrote it, and compiled again whenever anything is not as it left it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use trimtab::{policy::Maker, server::Source};
use trimtab_tests::{Balancer, Directory, Origin, Setup, get, guest::Guest};

use crate::child;

struct Stage {
    directory: Directory,
    origin: Origin,
    state: String,
}

impl Stage {
    async fn new() -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", Guest::default().build());
        Self {
            directory,
            origin: Origin::start("a").await,
            state: "directory = \"state\"".into(),
        }
    }

    async fn start(&self) -> Balancer {
        let setup = Setup::to(self.origin.address())
            .top(&format!("state = {{ {} }}", self.state))
            .pool("policy = \"mine\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
        let source = Source::Text {
            text: setup.text(),
            directory: self.directory.path().to_owned(),
        };
        let balancer = Balancer::run(source, child()).await;
        balancer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a balancer, asks it once and stops it; says where its code came from.
    async fn run(&self) -> Maker {
        let balancer = self.start().await;
        assert_eq!(get(balancer.address, "/").await.status, 200);
        let deployment = balancer.view().deployment;
        assert_eq!(deployment.total(|stats| &stats.decisions), 1);
        assert_eq!(deployment.faults(), 0);
        let maker = deployment.candidate.code.maker;
        balancer.stop().await;
        maker
    }

    fn state(&self, path: &str) -> PathBuf {
        self.directory.path().join("state").join(path)
    }

    /// The one file of compiled code.
    fn code(&self) -> PathBuf {
        let mut files = fs::read_dir(self.state("code"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let file = files.next().unwrap();
        assert!(files.next().is_none());
        file
    }

    /// Runs once, does something to the files, and expects that the next run compiles and the one after it need not.
    async fn expect_distrust(&self, tamper: impl FnOnce(&Self)) {
        self.run().await;
        tamper(self);
        assert_eq!(self.run().await, Maker::Compiler, "it is not believed");
        assert_eq!(self.run().await, Maker::Cache, "and made anew");
    }
}

fn set_mode(path: &PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_second_start_compiles_nothing() {
    let stage = Stage::new().await;
    assert_eq!(stage.run().await, Maker::Compiler);
    assert_eq!(stage.run().await, Maker::Cache);
}

/// How much of a file this process has in memory, in KiB; `None` if it does not map it.
fn resident_kib(path: &Path) -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.to_str().unwrap();
    let mut parts = maps.split("VmFlags:").filter(|part| part.contains(path));
    let first = parts.next()?;
    let sizes = std::iter::once(first).chain(parts).map(|part| {
        let line = part.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    });
    Some(sizes.sum())
}

#[tokio::test]
async fn kept_code_is_in_memory_only_once_it_is_used() {
    let stage = Stage::new().await;
    for maker in [Maker::Compiler, Maker::Cache] {
        let balancer = stage.start().await;
        let code = stage.code();
        assert_eq!(resident_kib(&code), Some(0), "{maker:?}: nobody asked yet");
        assert_eq!(get(balancer.address, "/").await.status, 200);
        let deployment = balancer.view().deployment;
        assert_eq!(deployment.total(|stats| &stats.decisions), 1);
        assert_eq!(deployment.candidate.code.maker, maker);
        assert!(resident_kib(&code) > Some(0), "{maker:?}: it decided");
        balancer.stop().await;
    }
}

#[tokio::test]
async fn without_a_directory_nothing_is_kept() {
    let mut stage = Stage::new().await;
    stage.state = "versions = 2".into();
    assert_eq!(stage.run().await, Maker::Compiler);
    assert_eq!(stage.run().await, Maker::Compiler);
    assert!(!stage.state("").exists());
}

#[tokio::test]
async fn code_with_a_flipped_bit_is_compiled_again() {
    let stage = Stage::new().await;
    stage
        .expect_distrust(|stage| {
            let mut bytes = fs::read(stage.code()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(stage.code(), bytes).unwrap();
        })
        .await;
}

#[tokio::test]
async fn code_that_is_cut_short_is_compiled_again() {
    let stage = Stage::new().await;
    stage
        .expect_distrust(|stage| {
            let bytes = fs::read(stage.code()).unwrap();
            fs::write(stage.code(), &bytes[..bytes.len() / 2]).unwrap();
        })
        .await;
}

#[tokio::test]
async fn code_that_others_may_write_is_compiled_again() {
    let stage = Stage::new().await;
    stage
        .expect_distrust(|stage| set_mode(&stage.code(), 0o666))
        .await;
}

#[tokio::test]
async fn code_of_another_component_under_this_ones_name_is_compiled_again() {
    let (stage, other) = (Stage::new().await, Stage::new().await);
    let guest = Guest {
        text: "other".into(),
        ..Guest::default()
    };
    other.directory.write("policy.wasm", guest.build());
    stage.run().await;
    // The same key, so that the seal is good and only the name is not.
    fs::create_dir(other.state("")).unwrap();
    set_mode(&other.state(""), 0o700);
    fs::copy(stage.state("key"), other.state("key")).unwrap();
    other.run().await;
    stage
        .expect_distrust(|stage| {
            fs::copy(other.code(), stage.code()).unwrap();
        })
        .await;
}

#[tokio::test]
async fn with_another_key_everything_is_compiled_again() {
    let stage = Stage::new().await;
    stage
        .expect_distrust(|stage| fs::write(stage.state("key"), [7; 64]).unwrap())
        .await;
}

#[tokio::test]
async fn a_key_that_the_world_may_read_is_replaced() {
    let stage = Stage::new().await;
    stage
        .expect_distrust(|stage| set_mode(&stage.state("key"), 0o644))
        .await;
    let mode = fs::metadata(stage.state("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_directory_that_others_may_write_into_is_refused_at_the_start() {
    let stage = Stage::new().await;
    stage.run().await;
    set_mode(&stage.state(""), 0o777);
    let setup = Setup::to(stage.origin.address()).top("state = { directory = \"state\" }");
    let source = Source::Text {
        text: setup.text(),
        directory: stage.directory.path().to_owned(),
    };
    let error = Balancer::run(source, child()).await.err().unwrap().to_string();
    assert!(
        error.contains("state.directory") && error.contains("others may write"),
        "{error}"
    );
}

#[tokio::test]
async fn the_oldest_code_makes_room() {
    let mut stage = Stage::new().await;
    stage.state = "directory = \"state\", size = \"1MiB\"".into();
    let code = || {
        fs::read_dir(stage.state("code"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    for number in 0..40 {
        // As much code as fits is that of some 15 guests.
        let guest = Guest {
            text: number.to_string(),
            ..Guest::default()
        };
        stage.directory.write("policy.wasm", guest.build());
        assert_eq!(stage.run().await, Maker::Compiler);
        let bytes: u64 = code().map(|path| path.metadata().unwrap().len()).sum();
        assert!(bytes <= 1 << 20, "{bytes}");
        assert_eq!(stage.run().await, Maker::Cache, "the youngest stays");
    }
    assert!((1..40).contains(&code().count()), "{}", code().count());
}
