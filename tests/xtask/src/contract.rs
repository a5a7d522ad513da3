//! The contract's own chores: its reference page, and the fixtures that a release of it leaves behind for ever.
//!
//! Owns how `tests/contract/VERSION/` comes into being. What the fixtures have to answer, and which changes of the contract
//! are compatible, is judged by `tests/contract/`.
//!
//! Invariant: a folder that exists is never touched.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

use crate::build::{componentise, modules};
use crate::reference;

/// The crate that uses all of the contract.
pub(crate) const EVERYTHING: &str = "everything";
/// Where the page is that is made of `wit/`.
const PAGE: &str = "host/docs/policy-reference.md";

/// The contract as it is now.
pub(crate) fn load(root: &Path) -> Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit"))?;
    Ok((resolve, package))
}

/// Writes the reference page. A test below compares it.
pub(crate) fn write_reference(root: &Path) -> Result<()> {
    let (resolve, package) = load(root)?;
    fs::write(root.join(PAGE), reference::page(&resolve, package)?).context(PAGE)?;
    println!("{PAGE} is written");
    Ok(())
}

/// Keeps the contract of this version, and two components that use it, under `tests/contract/VERSION/`.
pub(crate) fn freeze(root: &Path) -> Result<()> {
    let (resolve, package) = load(root)?;
    let version = &resolve.packages[package].name.version;
    let version = version
        .as_ref()
        .context("wit/: the package has no version")?
        .to_string();
    let folder = root.join("tests/contract").join(&version);
    ensure!(
        !folder.exists(),
        "{} exists: a release is frozen once. Give the package in wit/ its next version first",
        folder.display()
    );
    let source = root.join("tests/contract").join(EVERYTHING);
    let bare = bare(&source, &version, &resolve, package)?;
    let built = modules(root, &root.join("target/policies"), &[EVERYTHING.to_owned()])?;
    let everything = componentise(&fs::read(&built[EVERYTHING])?)?;
    fs::create_dir_all(folder.join("wit"))?;
    for entry in fs::read_dir(root.join("wit"))? {
        let from = entry?.path();
        if from.extension().is_some_and(|extension| extension == "wit") {
            fs::copy(
                &from,
                folder
                    .join("wit")
                    .join(from.file_name().context("a file has a name")?),
            )?;
        }
    }
    fs::write(folder.join("everything.wasm"), everything)?;
    fs::write(folder.join("bare.wasm"), bare)?;
    for answers in ["everything.json", "bare.json"] {
        fs::copy(source.join(answers), folder.join(answers)).context(answers)?;
    }
    println!("{} is frozen: commit it, and never change it", folder.display());
    Ok(())
}

/// The core module of `bare.wat` with its world embedded.
fn bare(source: &Path, version: &str, resolve: &Resolve, package: PackageId) -> Result<Vec<u8>> {
    let text = fs::read_to_string(source.join("bare.wat")).context("bare.wat")?;
    let mut module = wat::parse_str(text.replace("VERSION", version))?;
    let world = resolve.select_world(&[package], Some("policy"))?;
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::{PAGE, load};
    use crate::{reference, root};

    #[test]
    fn the_reference_page_is_what_the_contract_says() {
        let root = root().unwrap();
        let (resolve, package) = load(&root).unwrap();
        let written = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
        assert!(
            written == reference::page(&resolve, package).unwrap(),
            "{PAGE} is out of date: run `cargo xtask reference` and commit the result"
        );
    }
}
