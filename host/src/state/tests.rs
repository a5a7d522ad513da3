//! Tampering with every file, and two owners of one directory.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;

/// A directory of the test's own, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trimtab-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn sealed(&self) -> Sealed {
        State::open(&self.0).unwrap().sealed("things").unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("things").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const ROOM: usize = 1 << 20;

#[test]
fn what_was_written_is_read_also_by_the_next_process() {
    let place = Place::new("round");
    place.sealed().write("a", b"payload", Durability::Power).unwrap();
    assert_eq!(place.sealed().read("a", ROOM).unwrap().unwrap(), b"payload");
    assert!(place.sealed().read("b", ROOM).unwrap().is_none());
}

#[test]
fn everything_made_is_private() {
    let place = Place::new("modes");
    place
        .sealed()
        .write("a", b"payload", Durability::Process)
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.0), 0o700);
    assert_eq!(mode(&place.0.join("key")), 0o600);
    assert_eq!(mode(&place.0.join("things")), 0o700);
    assert_eq!(mode(&place.file("a")), 0o600);
}

#[test]
fn a_flipped_bit_anywhere_breaks_the_seal() {
    let place = Place::new("flip");
    let sealed = place.sealed();
    sealed.write("a", b"payload", Durability::Process).unwrap();
    let good = fs::read(place.file("a")).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(place.file("a"), bad).unwrap();
        assert!(matches!(sealed.read("a", ROOM), Err(Distrust::Seal)), "bit {bit}");
    }
    fs::write(place.file("a"), good).unwrap();
    assert!(sealed.read("a", ROOM).unwrap().is_some());
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    let place = Place::new("short");
    let sealed = place.sealed();
    sealed.write("a", b"payload", Durability::Process).unwrap();
    let good = fs::read(place.file("a")).unwrap();
    for length in 0..good.len() {
        fs::write(place.file("a"), &good[..length]).unwrap();
        assert!(sealed.read("a", ROOM).is_err(), "{length}");
    }
}

#[test]
fn a_good_file_under_another_name_is_a_bad_file() {
    let place = Place::new("renamed");
    let sealed = place.sealed();
    sealed.write("a", b"payload", Durability::Process).unwrap();
    fs::copy(place.file("a"), place.file("b")).unwrap();
    assert!(matches!(sealed.read("b", ROOM), Err(Distrust::Seal)));
    // Nor does it pass in another directory of the same key.
    let other = State::open(&place.0).unwrap().sealed("others").unwrap();
    fs::copy(place.file("a"), place.0.join("others/a")).unwrap();
    assert!(matches!(other.read("a", ROOM), Err(Distrust::Seal)));
}

#[test]
fn a_seal_of_another_key_does_not_fit() {
    let (place, other) = (Place::new("key-one"), Place::new("key-two"));
    place
        .sealed()
        .write("a", b"payload", Durability::Process)
        .unwrap();
    let sealed = other.sealed();
    fs::copy(place.file("a"), other.file("a")).unwrap();
    assert!(matches!(sealed.read("a", ROOM), Err(Distrust::Seal)));
}

#[test]
fn files_that_others_may_read_are_refused() {
    let place = Place::new("readable");
    let sealed = place.sealed();
    sealed.write("a", b"payload", Durability::Process).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        set_mode(&place.file("a"), mode);
        assert!(matches!(sealed.read("a", ROOM), Err(Distrust::Mode(found)) if found == mode));
    }
}

#[test]
fn a_key_that_others_may_read_is_replaced_and_its_seals_are_void() {
    let place = Place::new("key-seen");
    place
        .sealed()
        .write("a", b"payload", Durability::Process)
        .unwrap();
    let before = fs::read(place.0.join("key")).unwrap();
    set_mode(&place.0.join("key"), 0o644);
    let sealed = place.sealed();
    assert_ne!(fs::read(place.0.join("key")).unwrap(), before);
    assert!(matches!(sealed.read("a", ROOM), Err(Distrust::Seal)));
}

#[test]
fn a_key_of_another_length_is_replaced() {
    let place = Place::new("key-short");
    drop(place.sealed());
    fs::write(place.0.join("key"), b"short").unwrap();
    drop(place.sealed());
    assert_eq!(fs::read(place.0.join("key")).unwrap().len(), 64);
}

#[test]
fn links_are_not_followed() {
    let place = Place::new("links");
    let sealed = place.sealed();
    sealed.write("a", b"payload", Durability::Process).unwrap();
    fs::rename(place.file("a"), place.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.0.join("elsewhere"), place.file("a")).unwrap();
    assert!(matches!(sealed.read("a", ROOM), Err(Distrust::NotAFile)));
}

#[test]
fn a_directory_that_others_may_write_into_is_refused() {
    let place = Place::new("open");
    drop(place.sealed());
    set_mode(&place.0, 0o777);
    let refused = State::open(&place.0).unwrap_err().to_string();
    assert!(refused.contains("others may write"), "{refused}");
    set_mode(&place.0, 0o755);
    assert!(State::open(&place.0).is_ok(), "listing does no harm");
}

#[test]
fn a_file_larger_than_it_may_be_is_not_read() {
    let place = Place::new("large");
    let sealed = place.sealed();
    sealed.write("a", &[0; 1000], Durability::Process).unwrap();
    assert!(matches!(sealed.read("a", 999), Err(Distrust::Size(_))));
}
