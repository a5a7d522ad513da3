//! The folders that `policy new` makes, one for each language.
//!
//! Owns which files they have. The files themselves are in `sdk/LANGUAGE/template/`, with `{{name}}` (`my-policy`) and
//! `{{name_snake}}` (`my_policy`) where the policy's name belongs. A language is one entry of [`LANGUAGES`].

/// A language that policies can be begun in.
#[derive(Debug)]
pub struct Language {
    /// What `--lang` takes.
    pub name: &'static str,
    /// The folder's files: path and text.
    pub(super) files: &'static [File],
    /// Where the contract's `.wit` files go.
    pub(super) wit: &'static str,
}

/// A path in the new folder, and the text with placeholders.
pub(super) type File = (&'static str, &'static str);

/// Files below `sdk/`: where each is there, and where it goes.
macro_rules! files {
    ($($from:literal => $to:literal),* $(,)?) => {
        &[$(($to, include_str!(concat!("../../../sdk/", $from)))),*]
    };
}

/// All languages.
pub const LANGUAGES: &[Language] = &[
    language("rust", RUST),
    language("c", C),
    language("js", JAVASCRIPT),
    language("ts", TYPESCRIPT),
    language("python", PYTHON),
];

const fn language(name: &'static str, files: &'static [File]) -> Language {
    Language {
        name,
        files,
        wit: "wit",
    }
}

/// The SDK is on no registry, so the folder gets a copy. Its bindings look for the contract two folders above its own.
const RUST: &[File] = files![
    "rust/template/policy.toml" => "policy.toml",
    "rust/template/Cargo.toml.in" => "Cargo.toml",
    "rust/template/build.sh" => "build.sh",
    "rust/template/cases.toml" => "cases.toml",
    "rust/template/gitignore" => ".gitignore",
    "rust/template/README.md" => "README.md",
    "rust/template/src/lib.rs" => "src/lib.rs",
    "rust/template/sdk.toml" => "sdk/trimtab-policy/Cargo.toml",
    "rust/README.md" => "sdk/trimtab-policy/README.md",
    "rust/src/algorithm.rs" => "sdk/trimtab-policy/src/algorithm.rs",
    "rust/src/bindings.rs" => "sdk/trimtab-policy/src/bindings.rs",
    "rust/src/hash.rs" => "sdk/trimtab-policy/src/hash.rs",
    "rust/src/host.rs" => "sdk/trimtab-policy/src/host.rs",
    "rust/src/json.rs" => "sdk/trimtab-policy/src/json.rs",
    "rust/src/lib.rs" => "sdk/trimtab-policy/src/lib.rs",
    "rust/src/lottery.rs" => "sdk/trimtab-policy/src/lottery.rs",
    "rust/src/per_backend.rs" => "sdk/trimtab-policy/src/per_backend.rs",
    "rust/src/policy.rs" => "sdk/trimtab-policy/src/policy.rs",
    "rust/src/pool.rs" => "sdk/trimtab-policy/src/pool.rs",
    "rust/src/request.rs" => "sdk/trimtab-policy/src/request.rs",
    "rust/src/runtime.rs" => "sdk/trimtab-policy/src/runtime.rs",
    "rust/src/settings.rs" => "sdk/trimtab-policy/src/settings.rs",
    "rust/src/state.rs" => "sdk/trimtab-policy/src/state.rs",
    "rust/src/testing.rs" => "sdk/trimtab-policy/src/testing.rs",
    "rust/src/testing/drive.rs" => "sdk/trimtab-policy/src/testing/drive.rs",
    "rust/src/testing/fake.rs" => "sdk/trimtab-policy/src/testing/fake.rs",
    "rust/src/testing/pools.rs" => "sdk/trimtab-policy/src/testing/pools.rs",
    "rust/src/turns.rs" => "sdk/trimtab-policy/src/turns.rs",
];

const C: &[File] = files![
    "c/template/policy.toml" => "policy.toml",
    "c/template/pick.c" => "pick.c",
    "c/template/cases.toml" => "cases.toml",
    "c/template/gitignore" => ".gitignore",
    "c/README.md" => "README.md",
    "c/lib/policy.c" => "sdk/policy.c",
    "c/lib/policy.h" => "sdk/policy.h",
    "c/lib/trimtab.c" => "sdk/trimtab.c",
    "c/lib/trimtab.h" => "sdk/trimtab.h",
];

const JAVASCRIPT: &[File] = files![
    "js/template/policy.toml" => "policy.toml",
    "js/template/package.json" => "package.json",
    "js/template/pick.js" => "pick.js",
    "js/template/cases.toml" => "cases.toml",
    "js/template/gitignore" => ".gitignore",
    "js/README.md" => "README.md",
    "js/lib/trimtab.js" => "sdk/trimtab.js",
    "js/lib/trimtab.d.ts" => "sdk/trimtab.d.ts",
];

const TYPESCRIPT: &[File] = files![
    "js/template-ts/policy.toml" => "policy.toml",
    "js/template-ts/package.json" => "package.json",
    "js/template-ts/tsconfig.json" => "tsconfig.json",
    "js/template-ts/pick.ts" => "pick.ts",
    "js/template-ts/cases.toml" => "cases.toml",
    "js/template-ts/gitignore" => ".gitignore",
    "js/README.md" => "README.md",
    "js/lib/trimtab.js" => "sdk/trimtab.js",
    "js/lib/trimtab.d.ts" => "sdk/trimtab.d.ts",
];

const PYTHON: &[File] = files![
    "python/template/policy.toml" => "policy.toml",
    "python/template/requirements.txt" => "requirements.txt",
    "python/template/app.py" => "app.py",
    "python/template/cases.toml" => "cases.toml",
    "python/template/gitignore" => ".gitignore",
    "python/README.md" => "README.md",
    "python/lib/trimtab.py" => "sdk/trimtab.py",
];

/// The contract.
pub(super) const WIT: &[File] = files![
    "../wit/diagnostics.wit" => "diagnostics.wit",
    "../wit/nodes.wit" => "nodes.wit",
    "../wit/picker.wit" => "picker.wit",
    "../wit/policy.wit" => "policy.wit",
    "../wit/pool.wit" => "pool.wit",
    "../wit/request.wit" => "request.wit",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{RUST, WIT};

    fn names(folder: &str, from: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self::names(&format!("{name}/"), &entry.path(), names);
            } else {
                names.push(name);
            }
        }
    }

    #[test]
    fn the_copy_of_the_sdk_and_the_contract_are_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut expected = Vec::new();
        names(
            "sdk/trimtab-policy/src/",
            &root.join("sdk/rust/src"),
            &mut expected,
        );
        // Those of the SDK's own, in files of their own, are no author's.
        for name in expected.iter().filter(|name| !name.ends_with("/tests.rs")) {
            assert!(RUST.iter().any(|(path, _)| path == name), "{name} is not copied");
        }
        let mut expected = Vec::new();
        names("", &root.join("wit"), &mut expected);
        for name in expected {
            assert!(WIT.iter().any(|(path, _)| *path == name), "{name} is not copied");
        }
    }

    #[test]
    fn the_copy_of_the_sdk_wants_the_versions_that_ours_has() {
        let ours = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap();
        let (_, copy) = RUST
            .iter()
            .find(|(path, _)| path.ends_with("trimtab-policy/Cargo.toml"))
            .unwrap();
        for line in copy
            .lines()
            .filter(|line| line.starts_with("serde =") || line.starts_with("wit-bindgen"))
        {
            assert!(ours.contains(line), "{line}");
        }
    }
}
