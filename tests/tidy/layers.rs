//! The order of the host's modules.

use crate::tree::{files, read};

/// Every use of a module by one that is declared before it.
pub(crate) fn offenders() -> Vec<String> {
    let lib = read("host/src/lib.rs").expect("the host's map");
    let modules: Vec<&str> = lib
        .lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .collect();
    assert!(modules.len() >= 5, "the map lists modules: {modules:?}");
    let rank = |name: &str| modules.iter().position(|module| *module == name);
    let mut offenders = Vec::new();
    for file in files(&["host/src"], &["rs"]) {
        let own = file.name.trim_start_matches("host/src/").trim_end_matches(".rs");
        let own = own.split('/').next().unwrap_or_default();
        let Some(own_rank) = rank(own) else { continue };
        for (number, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for used in used_modules(code) {
                if rank(used).is_some_and(|used| used > own_rank) {
                    offenders.push(format!("{}:{}: {own} uses {used}", file.name, number + 1));
                }
            }
        }
        for used in grouped(&file.text) {
            if rank(&used).is_some_and(|used| used > own_rank) {
                offenders.push(format!("{}: {own} uses {used}", file.name));
            }
        }
    }
    offenders
}

/// What follows each `crate::` of a line.
fn used_modules(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// The first names in `use crate::{a, b::{c, d}}`: a and b.
fn grouped(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for group in text.split("crate::{").skip(1) {
        let (mut depth, mut path) = (0, String::new());
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(std::mem::take(&mut path)),
                _ if depth == 0 && !letter.is_whitespace() => path.push(letter),
                _ => {}
            }
        }
        names.push(path);
    }
    names
        .iter()
        .map(|path| path.split("::").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "use crate::{config, pool::{View, add},\n    policy::Seat};";
    assert_eq!(grouped(text), ["config", "pool", "policy"]);
    let used: Vec<_> = used_modules("use crate::pool; let x = crate::clock::now_us();").collect();
    assert_eq!(used, ["pool", "clock"]);
}
