//! What a change of `wit/` may do to policies that were built before it.
//!
//! Within a track of compatible versions (0.1.x) every world goes on to take the policies of its earlier releases:
//! `wit-component` judges that on the types, as a component that is linked would be. It finds nothing wrong when the host
//! calls less than before, so exports are counted here.

use std::fs;
use std::path::Path;

use wit_component::semver_check;
use wit_parser::{Resolve, WorldId, WorldItem};

use crate::releases;

/// A contract as text: all files as one, without the package's line.
pub(crate) struct Contract {
    version: String,
    text: String,
}

impl Contract {
    /// That of `wit/`.
    pub(crate) fn current() -> Self {
        Self::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))
    }

    /// The same as if it were this version of it.
    pub(crate) fn at(&self, version: &str) -> (Resolve, Vec<(String, WorldId)>) {
        let mut resolve = Resolve::default();
        let worlds = self.worlds(&mut resolve, version).expect("a contract");
        (resolve, worlds)
    }

    fn load(folder: &Path) -> Self {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wit"))
            .collect();
        files.sort();
        let mut contract = Self {
            version: String::new(),
            text: String::new(),
        };
        for file in files {
            for line in fs::read_to_string(&file).expect("a text").lines() {
                match line.strip_prefix("package trimtab:policy@") {
                    Some(version) => contract.version = version.trim_end_matches(';').to_owned(),
                    None => contract.text += &format!("{line}\n"),
                }
            }
        }
        assert!(!contract.version.is_empty(), "no version in {}", folder.display());
        contract
    }

    /// Versions of one track promise to serve the same policies: 0.1 of 0.1.7, 2 of 2.3.4.
    fn track(&self) -> &str {
        let is_zero = self.version.starts_with("0.");
        let mut dots = self.version.match_indices('.').map(|(at, _)| at);
        let end = dots.nth(usize::from(is_zero)).expect("three numbers");
        &self.version[..end]
    }

    fn worlds(&self, resolve: &mut Resolve, version: &str) -> Result<Vec<(String, WorldId)>, String> {
        let text = format!("package trimtab:policy@{version};\n{}", self.text);
        let package = resolve
            .push_str("wit", &text)
            .map_err(|error| format!("{error:#}"))?;
        let worlds = &resolve.packages[package].worlds;
        Ok(worlds.iter().map(|(name, id)| (name.clone(), *id)).collect())
    }
}

/// Whether policies of the old contract can be served by the new one, unless its version says that they need not be.
fn check(old: &Contract, new: &Contract) -> Result<(), String> {
    if old.track() != new.track() {
        return Ok(());
    }
    let mut resolve = Resolve::default();
    let before = old.worlds(&mut resolve, &old.version)?;
    // Two packages of one name and version would be one. The version itself is not looked at.
    let after = new.worlds(&mut resolve, &format!("{}.99999", new.track()))?;
    for (name, old_world) in before {
        let found = after.iter().find(|(other, _)| *other == name);
        let (_, new_world) = found.ok_or_else(|| format!("the world `{name}` is gone"))?;
        let lost = lost_exports(&resolve, old_world, *new_world);
        if !lost.is_empty() {
            return Err(format!(
                "the world `{name}` has no export {} any more",
                lost.join(", ")
            ));
        }
        semver_check(resolve.clone(), old_world, *new_world)
            .map_err(|error| format!("the world `{name}`: {error:#}"))?;
    }
    Ok(())
}

/// What the host called in the old world and does not in the new one.
fn lost_exports(resolve: &Resolve, old: WorldId, new: WorldId) -> Vec<String> {
    let after = exports(resolve, new);
    let before = exports(resolve, old).into_iter();
    before.filter(|name| !after.contains(name)).collect()
}

fn exports(resolve: &Resolve, world: WorldId) -> Vec<String> {
    let items = resolve.worlds[world].exports.values();
    let interfaces = items.filter_map(|item| match item {
        WorldItem::Interface { id, .. } => Some(&resolve.interfaces[*id]),
        _ => None,
    });
    let names = interfaces.flat_map(|interface| {
        let own = interface.name.as_deref().unwrap_or_default();
        interface
            .functions
            .keys()
            .map(move |function| format!("`{own}.{function}`"))
    });
    names.collect()
}

#[test]
fn the_contract_serves_what_was_built_for_its_releases() {
    let current = Contract::current();
    for release in releases() {
        let old = Contract::load(&release.join("wit"));
        assert_eq!(
            release.file_name().expect("a name").to_string_lossy(),
            old.version
        );
        if let Err(mistake) = check(&old, &current) {
            panic!(
                "wit/ breaks policies of {}: {mistake}\nkeep it compatible, or begin a new track beside the old one",
                old.version
            );
        }
    }
}

/// The contract with one change; what is looked for is there once.
fn changed(from: &str, to: &str) -> Contract {
    let mut contract = Contract::current();
    assert_eq!(contract.text.matches(from).count(), 1, "{from}");
    contract.text = contract.text.replace(from, to);
    contract
}

#[test]
fn what_breaks_a_policy_is_refused() {
    let since = "@since(version = 0.1.0)\n";
    let changes = [
        (
            "  header: func(name: string) -> option<string>;",
            "  field: func(name: string) -> option<string>;",
        ),
        ("  method: func() -> string;\n", "  method: func() -> list<u8>;\n"),
        ("  active: func(i: u32) -> u32;", "  active: func(i: u64) -> u32;"),
        (
            "  active: func(i: u32) -> u32;",
            "  active: func(index: u32) -> u32;",
        ),
        (
            "  active: func(i: u32) -> u32;",
            "  active: func(i: u32, j: u32) -> u32;",
        ),
        ("  usable: func(i: u32) -> bool;", "  usable: func(i: u32);"),
        ("    ramps: list<u8>,", "    ramp: list<u8>,"),
        ("    ramps: list<u8>,", "    ramps: list<u16>,"),
        ("    ramps: list<u8>,", "    ramps: list<u8>, more: list<u8>,"),
        (
            "  update: func(snapshot: snapshot);",
            "  update: func(snapshot: snapshot) -> bool;",
        ),
        (
            "  update: func(snapshot: snapshot);",
            "  update: func(snapshot: snapshot);\n  idle: func();",
        ),
        ("  schema: func() -> string;", "  layout: func() -> string;"),
        ("  import diagnostics;\n", "  import words;\n"),
        ("  export picker;\n", "  export picker;\n  export words;\n"),
        ("world observing-policy {\n", "world watching-policy {\n"),
        (
            "  export observer;\n}\n\n/// A policy whose",
            "  export words;\n}\n\n/// A policy whose",
        ),
        (
            "  include policy;\n  @since(version = 0.1.0)\n  export stateful;\n}\n\n",
            "  include policy;\n}\n\n",
        ),
    ];
    let old = Contract::current();
    let words = format!("{since}interface words {{\n  {since}  say: func();\n}}\n");
    let accepted = changes.iter().filter(|(from, to)| {
        let mut new = changed(from, to);
        new.text += &words;
        check(&old, &new).is_ok()
    });
    let accepted: Vec<_> = accepted.collect();
    assert!(accepted.is_empty(), "{accepted:#?}");
}

#[test]
fn what_only_adds_is_accepted() {
    let changes = [
        (
            "  usable: func(i: u32) -> bool;",
            "  usable: func(i: u32) -> bool;\n  queued: func(i: u32) -> u32;",
        ),
        (
            "  import diagnostics;\n",
            "  import diagnostics;\n  import words;\n",
        ),
        ("/// Everything at once.", "/// Another sentence."),
        ("interface words {", "interface other-words {"),
    ];
    let old = Contract::current();
    for (from, to) in changes {
        let mut new = Contract::current();
        new.text += "interface words {\n  say: func();\n}\nworld speaking-policy {\n  include policy;\n  export words;\n}\n";
        if from.contains("words") {
            new.text = new.text.replace("export words", "export other-words");
        }
        assert_eq!(new.text.matches(from).count(), 1, "{from}");
        new.text = new.text.replace(from, to);
        check(&old, &new).unwrap_or_else(|mistake| panic!("{to}: {mistake}"));
    }
}

#[test]
fn another_track_may_break_everything() {
    let mut new = changed("  active: func(i: u32) -> u32;", "  active: func(i: u64) -> u32;");
    for (version, is_fine) in [
        ("0.1.1", false),
        ("0.1.0", false),
        ("0.2.0", true),
        ("1.0.0", true),
    ] {
        new.version = version.into();
        assert_eq!(check(&Contract::current(), &new).is_ok(), is_fine, "{version}");
    }
}
