use std::path::PathBuf;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("trimtab-push-{}", fastrand::u64(..)));
        std::fs::create_dir_all(path.join("target")).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_sources_that_become_others_are_a_save() {
    let folder = Folder::new();
    folder.write("a.rs", "one");
    let before = stamps(&folder.0);
    folder.write("target/out.o", "built");
    folder.write("out.wasm", "built");
    folder.write(".a.rs.swp", "an editor's");
    folder.write("a.rs", "one");
    assert_eq!(stamps(&folder.0), before);
    folder.write("a.rs", "two");
    assert_ne!(stamps(&folder.0), before);
}

#[test]
fn a_component_is_watched_by_itself() {
    let folder = Folder::new();
    folder.write("a.wasm", "one");
    let file = folder.0.join("a.wasm");
    let mut saves = Saves::of(&file).unwrap();
    folder.write("a.wasm", "two");
    saves.next();
    assert_eq!(saves.known, stamps(&file));
    assert!(Saves::of(&folder.0.join("absent.wasm")).is_err());
}
