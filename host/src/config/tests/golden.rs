//! The messages, word for word. `UPDATE_GOLDEN=1 cargo test config` writes them anew; read the difference then.

use std::path::Path;

use super::super::Config;

#[test]
fn messages_are_those_in_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/config");
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of golden files") {
        let path = entry.expect("can be listed").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a golden file");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mistakes = Config::parse(&text, &name, Path::new("/etc/trimtab")).expect_err(&name);
        let told = format!("{mistakes}\n");
        let expected = path.with_extension("expected");
        if is_update {
            std::fs::write(&expected, &told).expect("can be written");
        }
        let expected = std::fs::read_to_string(&expected).expect("the expected messages");
        assert!(
            told == expected,
            "{name}\n--- expected\n{expected}--- told\n{told}"
        );
        compared += 1;
    }
    assert!(compared >= 3);
}
