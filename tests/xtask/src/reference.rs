//! The contract as a page for people: every function with what its documentation in `wit/` says, nothing else.
//!
//! Owns the form only. What is missing from the page is missing from `wit/`, and some of it is refused here: a function
//! that the host calls has to tell its deadline.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use wit_parser::{
    Docs, Function, Interface, InterfaceId, PackageId, Resolve, Type, TypeDef, TypeDefKind, World, WorldItem,
};

/// The whole page.
pub(crate) fn page(resolve: &Resolve, package: PackageId) -> Result<String> {
    let package = &resolve.packages[package];
    let worlds: Vec<&World> = package.worlds.values().map(|id| &resolve.worlds[*id]).collect();
    let exported = interfaces(&worlds, |world| world.exports.values().collect());
    let imported = interfaces(&worlds, |world| world.imports.values().collect());
    let mut page = format!("# The contract: {}\n\n", package.name);
    page += "Written by `cargo xtask reference` from the comments of `wit/`, where the contract itself is: change that, not \
             this page.\nHow to write a policy is told by [the SDK](../../sdk/rust/README.md).\n\n";
    page += &prose(&package.docs);
    page += "\n## Worlds\n\n| world | exports | for |\n|---|---|---|\n";
    for world in &worlds {
        let names: Vec<String> = world
            .exports
            .values()
            .filter_map(|item| name(resolve, item))
            .collect();
        writeln!(
            page,
            "| `{}` | {} | {} |",
            world.name,
            names.join(", "),
            first_sentence(&world.docs)
        )?;
    }
    page += "\n## What the host calls\n\n| function | what for | deadline |\n|---|---|---|\n";
    for id in &exported {
        page += &rows(resolve, *id, |function| {
            deadline(&function.docs).with_context(|| {
                format!(
                    "wit/: `{}` tells no deadline; say it in a sentence with that word",
                    function.name
                )
            })
        })?;
    }
    page += "\n## What a policy may call\n\nWhat a call costs is told where the interface is described.\n\n";
    page += "| function | what for | answers |\n|---|---|---|\n";
    for id in &imported {
        page += &rows(resolve, *id, |function| {
            Ok(function
                .result
                .map_or_else(|| "nothing".into(), |ty| format!("`{}`", spell(resolve, &ty))))
        })?;
    }
    for (ids, role) in [
        (exported, "exported by the policy"),
        (imported, "imported by the policy"),
    ] {
        for id in ids {
            page += &section(resolve, &resolve.interfaces[id], role)?;
        }
    }
    Ok(page)
}

/// The interfaces that these worlds name, each once, in the order in which they are first named.
fn interfaces<'a>(worlds: &[&'a World], items: impl Fn(&'a World) -> Vec<&'a WorldItem>) -> Vec<InterfaceId> {
    let mut found = Vec::new();
    for item in worlds.iter().flat_map(|world| items(world)) {
        if let WorldItem::Interface { id, .. } = item
            && !found.contains(id)
        {
            found.push(*id);
        }
    }
    found
}

fn name(resolve: &Resolve, item: &WorldItem) -> Option<String> {
    let WorldItem::Interface { id, .. } = item else {
        return None;
    };
    let name = resolve.interfaces[*id].name.as_deref()?;
    Some(format!("[`{name}`](#{name})"))
}

/// A row of an overview for each function of an interface; `last` is what the last column says.
fn rows(resolve: &Resolve, id: InterfaceId, last: impl Fn(&Function) -> Result<String>) -> Result<String> {
    let interface = &resolve.interfaces[id];
    let own = interface.name.as_deref().unwrap_or_default();
    let mut rows = String::new();
    for function in interface.functions.values() {
        let summary = first_sentence(&function.docs);
        writeln!(
            rows,
            "| [`{own}.{0}`](#{0}) | {summary} | {1} |",
            function.name,
            last(function)?
        )?;
    }
    Ok(rows)
}

/// All about one interface.
fn section(resolve: &Resolve, interface: &Interface, role: &str) -> Result<String> {
    let name = interface.name.as_deref().context("an interface without a name")?;
    let mut text = format!("\n## {name}\n\n*Interface {role}.* {}", prose(&interface.docs));
    for id in interface.types.values() {
        text += &definition(resolve, &resolve.types[*id])?;
    }
    for function in interface.functions.values() {
        write!(
            text,
            "\n### {}\n\n```wit\n{}\n```\n\n",
            function.name,
            signature(resolve, function)
        )?;
        text += &prose(&function.docs);
    }
    Ok(text)
}

/// A type that has a name. The contract has records only; another kind has to be described here first.
fn definition(resolve: &Resolve, ty: &TypeDef) -> Result<String> {
    let name = ty.name.as_deref().context("a type without a name")?;
    let TypeDefKind::Record(record) = &ty.kind else {
        anyhow::bail!("`{name}` is no record: tests/xtask/src/reference.rs does not know how to describe it");
    };
    let mut text = format!(
        "\n### record {name}\n\n{}\n| field | type | |\n|---|---|---|\n",
        prose(&ty.docs)
    );
    for field in &record.fields {
        let docs = field.docs.contents.as_deref().unwrap_or_default();
        let meaning = docs.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(
            text,
            "| `{}` | `{}` | {meaning} |",
            field.name,
            spell(resolve, &field.ty)
        )?;
    }
    Ok(text)
}

/// A function as `wit/` writes it, over several lines if it is long.
fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameters: Vec<String> = (function.params.iter())
        .map(|parameter| format!("{}: {}", parameter.name, spell(resolve, &parameter.ty)))
        .collect();
    let result = function.result.map(|ty| format!(" -> {}", spell(resolve, &ty)));
    let result = result.unwrap_or_default();
    let line = format!("{}: func({}){result}", function.name, parameters.join(", "));
    if line.len() <= 100 {
        return line;
    }
    format!(
        "{}: func(\n  {},\n){result}",
        function.name,
        parameters.join(",\n  ")
    )
}

/// A type as `wit/` writes it.
fn spell(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else {
        return format!("{ty:?}").to_ascii_lowercase();
    };
    let definition = &resolve.types[*id];
    if let Some(name) = &definition.name {
        return name.clone();
    }
    let optional = |ty: &Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| spell(resolve, &ty));
    match &definition.kind {
        TypeDefKind::List(item) => format!("list<{}>", spell(resolve, item)),
        TypeDefKind::Option(item) => format!("option<{}>", spell(resolve, item)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(|ty| spell(resolve, ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Result(result) => match (&result.ok, &result.err) {
            (ok, None) => format!("result<{}>", optional(ok)),
            (ok, err) => format!("result<{}, {}>", optional(ok), optional(err)),
        },
        other => other.as_str().to_owned(),
    }
}

/// A comment as text: lines that are indented in it are a list or a table, and keep their lines.
fn prose(docs: &Docs) -> String {
    let mut text = String::new();
    let mut is_list = false;
    for line in docs.contents.as_deref().unwrap_or_default().lines() {
        let begins_list = line.starts_with("  ");
        if begins_list && !is_list {
            text += "```text\n";
        } else if is_list && !begins_list {
            text += "```\n";
        }
        is_list = begins_list;
        text += line.strip_prefix("  ").unwrap_or(line);
        text.push('\n');
    }
    if is_list {
        text += "```\n";
    }
    text
}

fn sentences(docs: &Docs) -> Vec<String> {
    let words: Vec<&str> = docs
        .contents
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let text = words.join(" ");
    text.split_inclusive(". ")
        .map(|sentence| sentence.trim().to_owned())
        .collect()
}

fn first_sentence(docs: &Docs) -> String {
    sentences(docs).into_iter().next().unwrap_or_default()
}

/// What a function's comment says of its deadline.
fn deadline(docs: &Docs) -> Option<String> {
    let is_deadline = |sentence: &String| sentence.to_ascii_lowercase().contains("deadline");
    sentences(docs).into_iter().find(is_deadline)
}
