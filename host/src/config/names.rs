//! Names that must be unique, and names that refer to others.
//!
//! Owns the checks between parts of a file and the suggestions for words that are nearly right. It must not know which
//! parts there are; `file.rs` does.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use super::{mistakes::excerpt, reader::Value};

/// How alike a known word must be to be suggested: a third of the letters may differ.
const LETTERS_PER_TYPO: usize = 3;
/// Longer words are no typos. Comparing takes time and memory of the product of both lengths.
const WORD_BYTES_MAX: usize = 64;
/// Most known words that a message lists.
const WORDS_LISTED_MAX: usize = 20;

/// Refuses what was there before, naming its line.
pub(super) struct Unique<K> {
    what: &'static str,
    lines: HashMap<K, usize>,
}

impl<K: Eq + Hash> Unique<K> {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            lines: HashMap::new(),
        }
    }

    /// Whether nothing had the key before; otherwise that is noted.
    pub(super) fn claim(&mut self, key: K, value: &Value<'_>) -> bool {
        if let Some(line) = self.lines.get(&key) {
            value.wrong(format!("the same {} is on line {line}", self.what));
            return false;
        }
        self.lines.insert(key, value.line());
        true
    }
}

/// The names that references may use, and those that were.
pub(super) struct Names<'a> {
    what: &'static str,
    known: BTreeMap<&'a str, Option<&'a Value<'a>>>,
    used: RefCell<BTreeSet<&'a str>>,
    /// Whether some reference named nothing. It may have meant one that now looks unused.
    dangling: RefCell<bool>,
}

impl<'a> Names<'a> {
    pub(super) fn new(
        what: &'static str,
        builtins: &'a [&'a str],
        defined: &'a [(&'a str, Value<'a>)],
    ) -> Self {
        let builtins = builtins.iter().map(|name| (*name, None));
        let known = builtins
            .chain(defined.iter().map(|(name, value)| (*name, Some(value))))
            .collect();
        Self {
            what,
            known,
            used: RefCell::default(),
            dangling: RefCell::new(false),
        }
    }

    /// The name that a value refers to.
    pub(super) fn refer(&self, value: Option<&Value<'_>>) -> Option<String> {
        let name = value.and_then(Value::text);
        let Some((known, _)) = name.and_then(|name| self.known.get_key_value(name)) else {
            self.mark_doubtful();
            if let (Some(name), Some(value)) = (name, value) {
                let names = || self.known.keys().copied();
                let near = did_you_mean(name, names(), names());
                value.wrong(format!("no {} has this name; {near}", self.what));
            }
            return None;
        };
        self.used.borrow_mut().insert(known);
        Some((*known).to_owned())
    }

    /// Counts a name as used without a reference in the file.
    pub(super) fn mark_used(&self, name: &'a str) {
        self.used.borrow_mut().insert(name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Says that a reference could not be read.
    pub(super) fn mark_doubtful(&self) {
        *self.dangling.borrow_mut() = true;
    }

    /// The only name, if there is one only.
    pub(super) fn single(&self) -> Option<&'a str> {
        let mut names = self.known.keys().copied();
        names.next().filter(|_| names.next().is_none())
    }

    /// Notes what nothing refers to, unless a reference is broken: then that is the mistake.
    pub(super) fn note_unused(&self, message: &str) {
        if *self.dangling.borrow() {
            return;
        }
        let used = self.used.borrow();
        for value in self
            .known
            .iter()
            .filter(|(name, _)| !used.contains(*name))
            .filter_map(|(_, value)| *value)
        {
            value.wrong(message);
        }
    }
}

/// The nearest of the candidates, or all that there are.
pub(super) fn did_you_mean<'k>(
    word: &str,
    candidates: impl Iterator<Item = &'k str>,
    all: impl Iterator<Item = &'k str>,
) -> String {
    let allowed = (word.chars().count() / LETTERS_PER_TYPO).max(1);
    let distance = |known: &'k str| (strsim::damerau_levenshtein(word, known), known);
    let short = |known: &&str| word.len().max(known.len()) <= WORD_BYTES_MAX;
    let near = candidates.filter(short).map(distance).min();
    match near {
        Some((differing, known)) if differing <= allowed => format!("did you mean \"{known}\"?"),
        _ => {
            let mut words: Vec<_> = all.take(WORDS_LISTED_MAX + 1).map(excerpt).collect();
            if words.len() > WORDS_LISTED_MAX {
                words[WORDS_LISTED_MAX] = "…".to_owned();
            }
            if words.is_empty() {
                "there is none".to_owned()
            } else {
                format!("known: {}", words.join(", "))
            }
        }
    }
}
