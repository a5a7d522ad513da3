//! From a core module to a component.
//!
//! Owns what a core module needs to be taken: exports of the contract's names, and whatever its tools left out. Tools that
//! know components leave the types of the world in a custom section; for those that do not (a Go or Zig compiler), the
//! names of the exports say which world it is, and the types are this program's own. Imports of WASI's preview 1 are
//! answered by an adapter that reaches nothing (`wasi/preview1.wat`); whether a policy may have that, admission says.

use std::{collections::BTreeSet, path::Path};

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use super::super::{Refusal, wasi};

/// Tools leave the types of the world in a section of this name, and more behind it.
const TYPES_SECTION: &str = "component-type";
/// What the names of the contract's interfaces begin with.
const CONTRACT: &str = "trimtab:policy/";

/// Core modules and components differ in the layer half of the version field.
pub(super) fn is_core_module(bytes: &[u8]) -> bool {
    bytes.get(..8) == Some(b"\0asm\x01\0\0\0")
}

/// Whether this is a core module that imports WASI's preview 1. What cannot be read imports nothing.
pub(in super::super) fn imports_preview1(wasm: &[u8]) -> bool {
    is_core_module(wasm) && Outline::of(wasm).imports.contains(wasi::PREVIEW1)
}

/// Makes a component of a core module.
pub(super) fn componentize(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    encode(module).map_err(|error| {
        let outline = Outline::of(module);
        let foreign: Vec<&str> = outline.foreign().collect();
        Refusal::NotComponent(if foreign.is_empty() {
            format!("a core module that cannot be made into a component: {error:#}")
        } else {
            format!(
                "a core module that imports from {}, and a policy can use nothing but {CONTRACT}*. Build it for a target \
                 without a host of its own: wasm32-unknown-unknown or wasm32-wasi, not emscripten or wasm-bindgen",
                foreign.join(", ")
            )
        })
    })
}

fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let outline = Outline::of(module);
    let mut module = module.to_vec();
    if let Some((world, version)) = outline.world() {
        let (resolve, world) = contract(world, version)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
    if outline.imports.contains(wasi::PREVIEW1) {
        encoder = encoder.adapter(wasi::PREVIEW1, &wasi::preview1_adapter()?)?;
    }
    encoder.encode()
}

/// What is looked at of a module before it is taken apart.
#[derive(Default)]
struct Outline<'a> {
    /// Modules that it imports from.
    imports: BTreeSet<&'a str>,
    exports: BTreeSet<&'a str>,
    has_types: bool,
}

impl<'a> Outline<'a> {
    fn of(wasm: &'a [u8]) -> Self {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
            match payload {
                Payload::ImportSection(imports) => {
                    let imports = imports.into_imports().map_while(Result::ok);
                    outline.imports.extend(imports.map(|import| import.module));
                }
                Payload::ExportSection(exports) => {
                    let exports = exports.into_iter().map_while(Result::ok);
                    outline.exports.extend(exports.map(|export| export.name));
                }
                Payload::CustomSection(section) => {
                    outline.has_types |= section.name().starts_with(TYPES_SECTION);
                }
                _ => {}
            }
        }
        outline
    }

    /// Modules that it imports from and that no host of policies has. Those in brackets are built-in functions.
    fn foreign(&self) -> impl Iterator<Item = &'a str> {
        let is_known =
            |name: &str| name.starts_with(CONTRACT) || name.starts_with('[') || name == wasi::PREVIEW1;
        self.imports.iter().copied().filter(move |name| !is_known(name))
    }

    /// The world that it is made for by its exports, if nothing else says it, and of which version.
    fn world(&self) -> Option<(World, &'a str)> {
        let version = |interface: &str| {
            let prefix = format!("trimtab:policy/{interface}@");
            let mut of_interface = self.exports.iter().filter_map(|name| name.strip_prefix(&*prefix));
            let (version, _) = of_interface.next()?.split_once('#')?;
            let last = version.strip_prefix("0.1.")?;
            last.bytes()
                .all(|digit| digit.is_ascii_digit())
                .then_some(version)
        };
        let picker = version("picker").filter(|_| !self.has_types)?;
        let world = World {
            observes: version("observer").is_some(),
            keeps_state: version("stateful").is_some(),
        };
        Some((world, picker))
    }
}

/// What a module is made for: every import that there is, and these exports beside the picker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct World {
    observes: bool,
    keeps_state: bool,
}

impl World {
    fn text(self, version: &str) -> String {
        let items = [
            (true, "include", "cluster-policy"),
            (self.observes, "export", "observer"),
            (self.keeps_state, "export", "stateful"),
        ];
        let items = items.iter().filter(|(is_there, ..)| *is_there);
        let items: String = items
            .map(|(_, what, name)| format!("{what} trimtab:policy/{name}@{version}; "))
            .collect();
        format!("package trimtab:module; world module {{ {items}}}")
    }
}

/// The types of a world of the contract, under the names of this version of it. Versions only add, so what a module of an earlier
/// one may use is among them.
fn contract(world: World, version: &str) -> anyhow::Result<(Resolve, wit_parser::WorldId)> {
    macro_rules! files {
        ($($name:literal),*) => {
            [$(($name, include_str!(concat!("../../../../wit/", $name)))),*]
        };
    }
    let of_version = |line: &str| match line.trim_start() {
        line if line.starts_with("package trimtab:policy@") => format!("package trimtab:policy@{version};\n"),
        // Later than the package's own version it would be a mistake.
        line if line.starts_with("@since") => "\n".to_owned(),
        line => format!("{line}\n"),
    };
    let mut sources = SourceMap::new();
    for (name, text) in files!(
        "diagnostics.wit",
        "nodes.wit",
        "picker.wit",
        "policy.wit",
        "pool.wit",
        "request.wit"
    ) {
        sources.push(Path::new(name), text.lines().map(of_version).collect::<String>());
    }
    let group = sources.parse().map_err(|(_, error)| error)?;
    let mut resolve = Resolve::default();
    resolve.push_group(group)?;
    let package = resolve.push_str("module.wit", &world.text(version))?;
    let world = resolve.select_world(&[package], None)?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use trimtab_tests::guest::{Guest, State};

    use super::*;

    #[test]
    fn a_module_without_types_is_given_those_of_the_version_that_it_names() {
        let componentized = |version: &str, function: &str| {
            let text = std::fs::read_to_string("../tests/contract/everything/bare.wat").unwrap();
            let import = format!(
                "(module (import \"trimtab:policy/nodes@{version}\" \"{function}\" (func (param i32) (result i32)))"
            );
            let text = text.replacen("(module", &import, 1).replace("VERSION", version);
            componentize(&wat::parse_str(text).unwrap())
        };
        for version in ["0.1.0", "0.1.1", "0.1.99"] {
            let component = componentized(version, "others-active").unwrap();
            let decoded = wit_component::decode(&component).unwrap();
            let names = |name: &str| {
                decoded
                    .resolve()
                    .package_names
                    .keys()
                    .any(|known| known.to_string() == name)
            };
            assert!(names(&format!("trimtab:policy@{version}")), "{version}");
        }
        assert!(componentized("0.1.1", "others-mood").is_err());
        assert!(
            componentized("0.2.0", "others-active").is_err(),
            "of another track"
        );
    }

    #[test]
    fn exports_say_which_world_a_module_without_types_is_made_for() {
        let plain = Guest::default();
        let stateful = Guest {
            state: Some(State::of("s/1", 8)),
            ..Guest::default()
        };
        for (guest, expected) in [
            (&plain, ["picker"].as_slice()),
            (&stateful, &["picker", "stateful"]),
        ] {
            let component = componentize(&guest.bare()).unwrap();
            let decoded = wit_component::decode(&component).unwrap();
            let world = &decoded.resolve().worlds[decoded
                .resolve()
                .select_world(&[decoded.package()], None)
                .unwrap()];
            let exports = world
                .exports
                .keys()
                .map(|key| decoded.resolve().name_world_key(key));
            let expected = expected.iter().map(|name| format!("trimtab:policy/{name}@0.1.1"));
            assert_eq!(
                exports.collect::<BTreeSet<_>>(),
                expected.collect::<BTreeSet<_>>()
            );
        }
    }

    #[test]
    fn a_module_of_something_else_is_given_no_world() {
        let module = wat::parse_str("(module (func (export \"pick\")))").unwrap();
        assert_eq!(Outline::of(&module).world(), None);
        let typed = Guest::default().core();
        assert_eq!(Outline::of(&typed).world(), None, "it has one");
    }
}
