//! Reading a TOML tree without stopping at the first mistake.
//!
//! Owns how values are taken out of tables, how their types are checked, and where each mistake is noted. It knows the
//! form of a value ("a whole number from 1 to 10") and must not know a key or what it means; that is `file.rs`.
//!
//! Invariant: whoever gets `None` or a default because of what the file says finds a mistake noted. So a caller goes on
//! reading with whatever it got, and the result counts only if nothing was noted.
//! Read next: `file.rs`.

use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    mistakes::{Mistake, excerpt},
    names::did_you_mean,
    units,
};

/// The keys of a table, in the order of the reference.
pub(super) type Keys = &'static [&'static str];

/// Noting stops here: more are never shown, and a large file of nonsense must not fill the memory with them.
const NOTED_MAX: usize = 5000;
/// What a text is called in messages.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) file: String,
    /// After so many lines, another text was added.
    pub(super) then: Option<(usize, String)>,
}

impl From<&str> for Origin {
    fn from(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            then: None,
        }
    }
}

impl Origin {
    /// Where a line of the whole is.
    fn of(&self, line: usize) -> (&str, usize) {
        match &self.then {
            Some((before, name)) if line > *before => (name, line - before),
            _ => (&self.file, line),
        }
    }
}

/// The file, and what is wrong with it so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    origin: &'a Origin,
    line_starts: Vec<usize>,
    /// Behind a cell, so that tables can be read while their parents still are.
    mistakes: RefCell<Vec<Mistake>>,
    /// Stands in for a table that is not there.
    empty: DeTable<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, origin: &'a Origin) -> Self {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            text,
            origin,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            mistakes: RefCell::default(),
            empty: DeTable::new(),
        }
    }

    pub(super) fn has_none(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    /// The root table of a file that is TOML.
    pub(super) fn root(&'a self, entries: &'a DeTable<'a>, keys: Keys) -> Table<'a> {
        Table::open(self, entries, None, String::new(), keys)
    }

    pub(super) fn note(&self, mistake: Mistake) {
        if !self.is_full() {
            self.mistakes.borrow_mut().push(mistake);
        }
    }

    fn is_full(&self) -> bool {
        self.mistakes.borrow().len() >= NOTED_MAX
    }

    pub(super) fn mistake(&self, span: Option<&Range<usize>>, key: &str, message: String) -> Mistake {
        let place = span.map(|span| self.place(span.start));
        let told = place.map(|(line, _)| self.origin.of(line));
        Mistake {
            file: told.map_or(&*self.origin.file, |(file, _)| file).to_owned(),
            line: told.map(|(_, line)| line),
            column: place.map(|(_, column)| column),
            key: key.to_owned(),
            value: String::new(),
            message,
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Line and column, counted from 1.
    fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    pub(super) fn text_of(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or("")
    }
}

/// A table being read.
pub(super) struct Table<'a> {
    reader: &'a Reader<'a>,
    entries: &'a DeTable<'a>,
    /// Of the header or the braces; `None` for the root, and then a mistake is about the whole file.
    span: Option<Range<usize>>,
    path: String,
    keys: Keys,
}

impl<'a> Table<'a> {
    /// All that the file says.
    pub(super) fn whole_text(&self) -> &'a str {
        self.reader.text
    }

    fn open(
        reader: &'a Reader<'a>,
        entries: &'a DeTable<'a>,
        span: Option<Range<usize>>,
        path: String,
        keys: Keys,
    ) -> Self {
        let table = Self {
            reader,
            entries,
            span,
            path,
            keys,
        };
        table.note_unknown_keys();
        table
    }

    fn note_unknown_keys(&self) {
        for (key, value) in self.entries.iter() {
            if self.keys.contains(&key.get_ref().as_ref()) || self.reader.is_full() {
                continue;
            }
            let free = self
                .keys
                .iter()
                .copied()
                .filter(|known| !self.entries.contains_key(*known));
            let message = format!(
                "unknown key; {}",
                did_you_mean(key.get_ref(), free, self.keys.iter().copied())
            );
            let path = join(&self.path, key.get_ref());
            let mut mistake = self.reader.mistake(Some(&key.span()), &path, message);
            mistake.value = shown(self.reader, value);
            self.reader.note(mistake);
        }
    }

    /// The key's value, if it is there.
    pub(super) fn take(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(
            self.keys.contains(&key),
            "{key} is read but not in the list of keys of {}",
            self.path
        );
        let value = self.entries.get(key)?;
        Some(Value {
            reader: self.reader,
            value,
            path: join(&self.path, key),
        })
    }

    /// The key's value; its absence is a mistake.
    pub(super) fn require(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.take(key);
        if value.is_none() {
            let message = "required, and missing here".to_owned();
            self.reader.note(
                self.reader
                    .mistake(self.span.as_ref(), &join(&self.path, key), message),
            );
        }
        value
    }

    /// A table in this one; where it is missing, one without keys, so that every default applies.
    pub(super) fn table(&self, key: &'static str, keys: Keys) -> Table<'a> {
        let found = self.take(key).and_then(|value| value.table(keys));
        found.unwrap_or_else(|| {
            Self::open(
                self.reader,
                &self.reader.empty,
                self.span.clone(),
                join(&self.path, key),
                keys,
            )
        })
    }

    /// Notes a mistake about this table.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.reader.note(
            self.reader
                .mistake(self.span.as_ref(), &self.path, message.into()),
        );
    }

    /// A mistake about a key that may be missing here.
    pub(super) fn wrong_key(&self, key: &'static str, message: impl Into<String>) {
        match self.take(key) {
            Some(value) => value.wrong(message),
            None => {
                let path = join(&self.path, key);
                self.reader
                    .note(self.reader.mistake(self.span.as_ref(), &path, message.into()));
            }
        }
    }

    pub(super) fn whole(&self, key: &'static str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.take(key)
            .and_then(|value| value.whole(range))
            .unwrap_or(default)
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.take(key)
            .and_then(|value| value.duration(range))
            .unwrap_or(default)
    }

    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<usize>, default: usize) -> usize {
        self.take(key)
            .and_then(|value| value.size(range))
            .unwrap_or(default)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.take(key).and_then(|value| value.flag()).unwrap_or(default)
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)], default: T) -> T {
        self.take(key)
            .and_then(|value| value.choice(choices))
            .unwrap_or(default)
    }
}

/// A value being read, with the path that names it.
pub(super) struct Value<'a> {
    reader: &'a Reader<'a>,
    value: &'a Spanned<DeValue<'a>>,
    path: String,
}

impl<'a> Value<'a> {
    pub(super) fn kind(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn line(&self) -> usize {
        self.reader.line(self.value.span().start)
    }

    /// A mistake about this value, not yet noted.
    pub(super) fn mistake(&self, message: impl Into<String>) -> Mistake {
        let mut mistake = self
            .reader
            .mistake(Some(&self.value.span()), &self.path, message.into());
        mistake.value = shown(self.reader, self.value);
        mistake
    }

    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.reader.note(self.mistake(message));
    }

    /// A mistake about a key of this table, which may be missing there.
    pub(super) fn wrong_at(&self, key: &str, message: impl Into<String>) {
        let found = self.kind().get(key).map(|value| Value {
            reader: self.reader,
            value,
            path: join(&self.path, key),
        });
        match found {
            Some(value) => value.wrong(message),
            None => self.reader.note(self.reader.mistake(
                Some(&self.value.span()),
                &join(&self.path, key),
                message.into(),
            )),
        }
    }

    /// The text of a key of this table, without a word about it: whoever reads the table complains.
    pub(super) fn text_at(&self, key: &str) -> Option<&'a str> {
        self.kind().get(key)?.get_ref().as_str()
    }

    /// Notes `expected …`; the `None` is for the caller to return.
    pub(super) fn expected<T>(&self, what: impl AsRef<str>) -> Option<T> {
        self.wrong(format!("expected {}", what.as_ref()));
        None
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self.kind() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.expected("a string in quotes"),
        }
    }

    /// Text that `check` turns into a value or refuses with a reason.
    pub(super) fn parsed<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        check(self.text()?).map_err(|message| self.wrong(message)).ok()
    }

    pub(super) fn whole(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match self.kind() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        number.or_else(|| {
            self.expected(format!(
                "a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.kind().as_str().and_then(units::parse_duration);
        duration.filter(|duration| range.contains(duration)).or_else(|| {
            let [low, high] = [range.start(), range.end()].map(|end| units::show_duration(*end));
            self.expected(format!(
                "a duration from \"{low}\" to \"{high}\" (a whole number with ms, s, m or h)"
            ))
        })
    }

    pub(super) fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let size = self
            .kind()
            .as_str()
            .and_then(units::parse_size)
            .and_then(|size| usize::try_from(size).ok());
        size.filter(|size| range.contains(size)).or_else(|| {
            let [low, high] = [range.start(), range.end()].map(|end| units::show_size(*end as u64));
            self.expected(format!(
                "a size from \"{low}\" to \"{high}\" (a whole number with B, KiB, MiB or GiB)"
            ))
        })
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.kind().as_bool().or_else(|| self.expected("true or false"))
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let chosen = self
            .kind()
            .as_str()
            .and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, value)) = chosen {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        match names.as_slice() {
            [only] => self.expected(only),
            [first, second] => self.expected(format!("{first} or {second}")),
            _ => self.expected(format!("one of {}", names.join(", "))),
        }
    }

    pub(super) fn table(&self, keys: Keys) -> Option<Table<'a>> {
        match self.kind() {
            DeValue::Table(entries) => {
                let span = Some(self.value.span());
                Some(Table::open(self.reader, entries, span, self.path.clone(), keys))
            }
            _ => self.expected("a table"),
        }
    }

    /// The entries of a table whose keys are the operator's own.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let DeValue::Table(entries) = self.kind() else {
            return self.expected("a table");
        };
        let entry = |(key, value): (&'a Spanned<_>, _)| {
            let key: &str = std::borrow::Cow::as_ref(key.get_ref());
            (
                key,
                Value {
                    reader: self.reader,
                    value,
                    path: join(&self.path, key),
                },
            )
        };
        Some(entries.iter().map(entry).collect())
    }

    /// The items of an array. `what` says what it should have been.
    pub(super) fn items(&self, what: &str) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(items) = self.kind() else {
            return self.expected(what);
        };
        let item = |(at, value)| Value {
            reader: self.reader,
            value,
            path: format!("{}[{at}]", self.path),
        };
        Some(items.iter().enumerate().map(item).collect())
    }
}

/// A path with one more key, quoted as TOML would.
fn join(path: &str, key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let key = excerpt(key);
    let key = if !key.is_empty() && key.bytes().all(is_bare) {
        key
    } else {
        format!("\"{key}\"")
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// A value as it was written, shortened. Empty for a table with a header of its own, whose path says it already.
fn shown(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> String {
    let text = reader.text_of(&value.span());
    let is_own_text = match value.get_ref() {
        DeValue::Table(_) => text.starts_with('{'),
        DeValue::Array(_) => !text.starts_with("[["),
        _ => true,
    };
    if is_own_text { excerpt(text) } else { String::new() }
}
