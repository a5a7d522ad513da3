use super::*;

fn written(text: &str) -> (tempdir::Directory, std::path::PathBuf) {
    let directory = tempdir::Directory::new();
    let path = directory.0.join("file.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// A directory that goes away with the test.
mod tempdir {
    pub(super) struct Directory(pub(super) std::path::PathBuf);

    impl Directory {
        pub(super) fn new() -> Self {
            let path = std::env::temp_dir().join(format!("trimtab-author-{}", fastrand::u64(..)));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The mistakes without the file's name.
fn mistakes<T: std::fmt::Debug>(path: &Path, result: Result<T, Mistakes>) -> String {
    let text = result.expect_err("a mistake").to_string();
    text.replace(&path.display().to_string(), "")
}

#[test]
fn a_manifest_is_read_and_what_it_leaves_out_has_a_default() {
    let (directory, path) = written(
        "name = \"mine\"\ncomponent = \"out/mine.wasm\"\nsettings = { a = [1, 2] }\n\
         [[build]]\nrun = [\"make\"]\nneeds = \"make\"\n[claims]\nsticky = \"cookie:sid\"\nfair = \"equal\"",
    );
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(manifest.component, directory.0.join("./out/mine.wasm"));
    assert_eq!(
        (manifest.language.as_str(), manifest.settings_json.as_str()),
        ("other", r#"{"a":[1,2]}"#)
    );
    assert_eq!(manifest.build[0].run, ["make"]);
    let claims = Claims {
        sticky: Some(HashOn::Cookie("sid".into())),
        fair: Some(Fair::Equal),
        ..Claims::default()
    };
    assert_eq!(manifest.claims, claims);
    assert_eq!(
        (manifest.memory_bytes, manifest.deadline),
        (32 << 20, Duration::from_millis(1))
    );
}

#[test]
fn mistakes_in_a_manifest_name_line_key_and_value() {
    let (_directory, path) = written(
        "name = \"My Policy\"\n[[build]]\nrun = []\nneed = \"x\"\n[claims]\nsticky = 3\nfair = \"no\"\n\
         slow_start = true\nmoves_percent = 101",
    );
    let text = mistakes(&path, Manifest::load(&path));
    for expected in [
        ":1: name = \"My Policy\": expected at most 64 lower-case letters",
        ":3: build[0].run = []: expected a program and its arguments",
        ":4: build[0].need = \"x\": unknown key; did you mean",
        ":6: claims.sticky = 3: expected true, or what the key is",
        ":7: claims.fair = \"no\": expected \"weights\" or \"equal\"",
        ":8: claims.slow_start = true: only with fair = \"weights\"",
        ":9: claims.moves_percent = 101: expected a whole number from 0 to 100",
        ": component: required, and missing here",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn cases_take_what_they_do_not_say_from_the_file() {
    let (_directory, path) = written(
        "backends = [{ address = \"a:1\" }, { address = \"b:1\", state = \"down\", active = 3 }]\nrequest = { path = \"/x\" }\n\
         [[case]]\nname = \"one\"\ntried = [\"b:1\"]\nexpect = [\"b:1\", \"a:1\"]\n\
         [[case]]\nname = \"two\"\nrequest = { key = \"k\", random = 0xffff_ffff_ffff_ffff }\n\
         expect_sequence = [\"none\", { reject = 503 }]",
    );
    let cases = load_cases(&path).unwrap();
    assert_eq!(cases[0].backends, cases[1].backends);
    assert_eq!(cases[0].backends[1].state, BackendState::Down);
    assert_eq!(
        (&cases[0].tried, &cases[0].expect),
        (&vec![1], &vec![Expected::AnyOf(vec![1, 0])])
    );
    assert_eq!(
        (cases[0].request.path.as_str(), cases[1].request.path.as_str()),
        ("/x", "/")
    );
    assert_eq!(
        (cases[1].line, cases[1].request.random),
        (7, u64::MAX),
        "{cases:?}"
    );
    assert_eq!(cases[1].expect, [Expected::NoOpinion, Expected::Reject(503)]);
}

#[test]
fn mistakes_in_cases_name_line_key_and_value() {
    let (_directory, path) = written(
        "[[case]]\nname = \"x\"\nbackends = [{ address = \"a:1\", state = \"up\" }, { address = \"a:1\" }]\n\
         expect = \"c:1\"\n[[case]]\nname = \"x\"\nexpect = { reject = 200 }\n[[case]]\nname = \"y\"\n\
         backends = [{ address = \"a:1\", activ = 1 }]\nrequest = { client = \"here\", path = \"x\" }",
    );
    let text = mistakes(&path, load_cases(&path));
    for expected in [
        ":3: case[0].backends[1].address = \"a:1\": the same address is on line 3",
        ":4: case[0].expect = \"c:1\": expected the address of a backend of the case: a:1",
        ":6: case[1].name = \"x\": the same name is on line 2",
        ": case[1].backends: required, here or before the first [[case]]",
        ":7: case[1].expect.reject = 200: expected a whole number from 400 to 599",
        ":10: case[2].backends[0].activ = 1: unknown key; did you mean",
        ":11: case[2].request.client = \"here\": expected an IP address without a port",
        ":11: case[2].request.path = \"x\": expected a path that begins with a slash",
        "case[2]: expected `expect`, or `expect_sequence`",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}
