//! The tools of other languages have one version each, in `sdk/versions.toml`, wherever they are named.

use crate::{
    none,
    tree::{File, files, read},
};

/// Name and version of each tool, of all sections but cargo's, which is held to `Cargo.lock`.
fn versions(section: &str) -> Vec<(String, String)> {
    let text = read("sdk/versions.toml").expect("sdk/versions.toml");
    let (_, rest) = text
        .split_once(&format!("[{section}]\n"))
        .unwrap_or_else(|| panic!("sdk/versions.toml has a section [{section}]"));
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let pinned = lines.filter_map(|line| {
        let (name, rest) = line.split_once(" = \"")?;
        let (version, _) = rest.split_once('"')?;
        Some((name.to_owned(), version.to_owned()))
    });
    let pinned: Vec<_> = pinned.collect();
    assert!(!pinned.is_empty(), "nothing in [{section}]");
    pinned
}

fn authors_files() -> Vec<File> {
    let kinds = ["toml", "json", "md", "txt"];
    let files = files(&["sdk", "examples", "host/docs"], &kinds).into_iter();
    files.filter(|file| file.name != "sdk/versions.toml").collect()
}

/// What follows each mention of `mention`, up to the end of a version, with its place.
fn mentioned(file: &File, mention: &str) -> Vec<(String, String)> {
    let lines = file.text.lines().enumerate();
    let found = lines.flat_map(|(number, line)| {
        let place = format!("{}:{}", file.name, number + 1);
        let versions = line.split(mention).skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
            rest[..end.unwrap_or(rest.len())].trim_end_matches('.').to_owned()
        });
        versions
            .map(move |version| (place.clone(), version))
            .collect::<Vec<_>>()
    });
    found.collect()
}

#[test]
fn tools_of_python_and_node_have_one_version_everywhere() {
    let files = authors_files();
    let mut offenders = Vec::new();
    for (section, mention) in [("pip", "=="), ("npm", "\": \"")] {
        for (name, version) in versions(section) {
            let mention = format!("{name}{mention}");
            let found: Vec<_> = files.iter().flat_map(|file| mentioned(file, &mention)).collect();
            if found.is_empty() {
                offenders.push(format!("sdk/versions.toml: {name}: nothing uses it"));
            }
            let other = found.into_iter().filter(|(_, there)| *there != version);
            offenders.extend(other.map(|(place, there)| format!("{place}: {name} {there}, not {version}")));
        }
    }
    none(offenders, "the versions of tools are those of sdk/versions.toml");
}

#[test]
fn every_python_package_is_pinned() {
    let files = authors_files();
    let offenders = files.iter().flat_map(|file| {
        let installs = mentioned(file, "pip install ");
        let loose = installs
            .into_iter()
            .filter(|(_, package)| !package.starts_with('-'))
            .filter(|(_, package)| !file.text.contains(&format!("{package}==")));
        loose
            .map(|(place, package)| format!("{place}: {package}"))
            .collect::<Vec<_>>()
    });
    none(offenders.collect(), "say the version, NAME==VERSION");
}

#[test]
fn generators_have_the_version_of_the_lock_file() {
    let lock = read("Cargo.lock").expect("Cargo.lock");
    let offenders = versions("cargo").into_iter().filter_map(|(name, version)| {
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"");
        (!lock.contains(&entry)).then(|| format!("sdk/versions.toml: {name} {version}"))
    });
    none(offenders.collect(), "as in Cargo.lock");
}
