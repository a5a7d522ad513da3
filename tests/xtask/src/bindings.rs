//! The C bindings of the contract, which authors get ready-made: `sdk/c/lib/`.
//!
//! Authors in C then need a compiler and nothing else. The object file with the world's types is left out: the host knows
//! them, and text can be read. Invariant: the files are what `wit-bindgen-c`, at the version of
//! `Cargo.lock`, makes of `wit/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wit_bindgen_core::{Files, wit_parser::Resolve};

/// Where the bindings are, below the project's root.
const FOLDER: &str = "sdk/c/lib";
/// All that a policy may import, and what it must export. Its name is in those of the generated types.
const WORLD: &str = "package trimtab:c; world policy { include trimtab:policy/cluster-policy@VERSION; }";

/// Writes the bindings anew.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (name, bytes) in generate(root)? {
        let path = root.join(FOLDER).join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Changes nothing: compares what is there with what would be written.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (name, bytes) in generate(root)? {
        let path = root.join(FOLDER).join(&name);
        let there = fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(
            there == bytes,
            "{FOLDER}/{name} is not what wit/ makes; run `cargo xtask bindings` and commit the result"
        );
    }
    println!("{FOLDER} is what wit/ makes");
    Ok(())
}

fn generate(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit"))?;
    let version = resolve.packages[package].name.version.as_ref();
    let version = version.context("wit/: the package has no version")?.to_string();
    let ours = resolve.push_str("c.wit", &WORLD.replace("VERSION", &version))?;
    let world = resolve.select_world(&[ours], None)?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)?;
    let mut generated = BTreeMap::new();
    for (name, bytes) in files.iter().filter(|(name, _)| !name.ends_with(".o")) {
        generated.insert(
            name.to_owned(),
            unlinked(std::str::from_utf8(bytes)?)?.into_bytes(),
        );
    }
    Ok(generated)
}

/// The C file refers to a symbol of the object file, so that the linker does not forget it.
fn unlinked(text: &str) -> Result<String> {
    const REMINDER: &str = "// Ensure that the *_component_type.o object is linked in";
    let Some((code, reminder)) = text.split_once(REMINDER) else {
        return Ok(text.to_owned());
    };
    ensure!(reminder.lines().count() < 12, "there is code after `{REMINDER}`");
    Ok(code.trim_end().to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::check;

    #[test]
    fn the_committed_bindings_are_what_the_contract_makes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        check(&root).unwrap();
    }
}
