//! Reading tables key by key: every key that is asked for is known, every other one is a problem.

use super::problem::{Problem, place};
use std::cell::RefCell;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How different a misspelt key may be from the one that is suggested (Jaro-Winkler).
const SIMILARITY_MIN: f64 = 0.75;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) offset: usize,
}

/// The problems found so far in one text.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    text: &'t str,
    list: RefCell<Vec<Problem>>,
}

impl<'t> Problems<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, list: RefCell::default() }
    }

    pub(super) fn add(&self, offset: usize, what: impl Into<String>, remedy: impl Into<String>) {
        let (line, column) = place(self.text, offset);
        let problem = Problem { line, column, what: what.into(), remedy: remedy.into() };
        self.list.borrow_mut().push(problem);
    }

    /// Every problem in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort();
        list
    }
}

/// One table that is being read.
#[derive(Debug)]
pub(super) struct Section<'p, 'i> {
    /// The keys that lead here; empty for the file itself.
    path: Vec<&'static str>,
    /// Whether it is one of several: `[[target]]`.
    repeated: bool,
    offset: usize,
    table: &'p DeTable<'i>,
    problems: &'p Problems<'i>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'p, 'i> Section<'p, 'i> {
    pub(super) fn whole(table: &'p DeTable<'i>, problems: &'p Problems<'i>) -> Self {
        Self::new(Vec::new(), 0, table, problems)
    }

    fn new(
        path: Vec<&'static str>,
        offset: usize,
        table: &'p DeTable<'i>,
        problems: &'p Problems<'i>,
    ) -> Self {
        Self { path, repeated: false, offset, table, problems, asked: RefCell::default() }
    }

    /// The section as the operator writes it: `[member]`, `[[target]]`.
    fn name(&self) -> String {
        match (self.path.join("."), self.repeated) {
            (path, _) if path.is_empty() => "the file".into(),
            (path, false) => format!("[{path}]"),
            (path, true) => format!("[[{path}]]"),
        }
    }

    fn path_to(&self, key: &'static str) -> Vec<&'static str> {
        self.path.iter().copied().chain([key]).collect()
    }

    /// Where the section begins.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    pub(super) const fn problems(&self) -> &'p Problems<'i> {
        self.problems
    }

    fn find(&self, key: &'static str) -> Option<&'p Spanned<DeValue<'i>>> {
        self.asked.borrow_mut().push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The value of `key` if it is there and `parse` understands it.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let found = self.find(key)?;
        match parse(found.get_ref()) {
            Ok(value) => Some(At { value, offset: found.span().start }),
            Err(what) => {
                self.problems.add(found.span().start, format!("{key}: {what}"), "");
                None
            }
        }
    }

    /// Like [`Section::optional`], but a missing key is a problem.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            let what = format!("{} lacks the key {key:?}", self.name());
            self.problems.add(self.offset, what, "");
            return None;
        }
        self.optional(key, parse)
    }

    /// Like [`Section::optional`], with a value for a missing key.
    pub(super) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> At<T> {
        self.optional(key, parse).unwrap_or(At { value: default, offset: self.offset })
    }

    /// Where the value of a key stands, if it is there; asking makes the key a known one.
    pub(super) fn place_of(&self, key: &'static str) -> Option<usize> {
        self.find(key).map(|value| value.span().start)
    }

    /// Whether the key is there, understood or not.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// A table within this one.
    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        let found = self.find(key)?;
        let Some(table) = found.get_ref().as_table() else {
            self.problems.add(found.span().start, format!("{key} must be a table"), "");
            return None;
        };
        Some(Self::new(self.path_to(key), found.span().start, table, self.problems))
    }

    /// A table that must be there.
    pub(super) fn required_table(&self, key: &'static str) -> Option<Self> {
        if !self.has(key) {
            self.asked.borrow_mut().push(key);
            self.problems.add(0, format!("the section [{key}] is missing"), "");
            return None;
        }
        self.table(key)
    }

    /// The tables of an array within this one, at most `most` of them.
    pub(super) fn tables(&self, key: &'static str, most: usize) -> Vec<Self> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let path = self.path_to(key);
        let name = path.join(".");
        let items = found.get_ref().as_array().map(|array| array.iter().collect::<Vec<_>>());
        let sections: Option<Vec<_>> = items.and_then(|items| {
            let section = |item: &'p Spanned<DeValue<'i>>| {
                let table = item.get_ref().as_table()?;
                let offset = item.span().start;
                let one = Self::new(path.clone(), offset, table, self.problems);
                Some(Self { repeated: true, ..one })
            };
            items.into_iter().map(section).collect()
        });
        let offset = found.span().start;
        let Some(sections) = sections else {
            self.problems.add(offset, format!("{name} must be written as [[{name}]]"), "");
            return Vec::new();
        };
        if sections.len() > most {
            let what = format!("{} times [[{name}]]; at most {most} are allowed", sections.len());
            self.problems.add(offset, what, "");
        }
        sections
    }

    /// Ends the reading: every key nobody asked for is a problem.
    pub(super) fn finish(self) {
        let section = self.name();
        let asked = self.asked.into_inner();
        for (key, _) in self.table {
            let name = key.get_ref();
            if asked.iter().any(|known| known == name) {
                continue;
            }
            let what = format!("unknown key {name:?} in {section}");
            self.problems.add(key.span().start, what, nearest(name, &asked));
        }
    }
}

/// "did you mean ...?" for a key that resembles a known one, else the known ones.
fn nearest(name: &str, known: &[&str]) -> String {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) >= SIMILARITY_MIN => format!("did you mean {best:?}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

/// Texts, not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some("") => Err("must not be empty".into()),
        Some(text) => Ok(text.to_owned()),
        None => Err("must be a text in quotes".into()),
    }
}

/// Whatever can be parsed from a text; `form` says how it looks.
pub(super) fn parsed<T: std::str::FromStr>(
    form: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let text = text(value)?;
        text.parse().map_err(|_| format!("{text:?} is not {form}"))
    }
}

/// True or false.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".into())
}

/// Whole numbers from `least` to `most`.
pub(super) fn number<T: TryFrom<u64>>(
    least: u64,
    most: u64,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let form = || format!("must be a whole number from {least} to {most}");
        let integer = value.as_integer().ok_or_else(form)?;
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| form())?;
        if !(least..=most).contains(&number) {
            return Err(form());
        }
        T::try_from(number).map_err(|_| form())
    }
}

/// One of several words, each with its meaning.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let text = value.as_str().unwrap_or_default();
        let meaning = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        meaning.ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("must be {}", words.join(" or "))
        })
    }
}

/// A list whose items `item` understands.
pub(super) fn list<'i, T>(
    item: impl Fn(&DeValue<'i>) -> Result<T, String>,
) -> impl Fn(&DeValue<'i>) -> Result<Vec<T>, String> {
    move |value| {
        let array = value.as_array().ok_or("must be a list in brackets")?;
        array.iter().map(|element| item(element.get_ref())).collect()
    }
}
