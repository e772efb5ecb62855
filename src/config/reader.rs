//! Reads the tables of a TOML text with line numbers, and does not stop at the first mistake.
//!
//! A table is passed to a body that gets every key it knows. Keys that the body did not get are then reported as
//! unknown. Findings made here never repeat a string from the file, because it can be a password. The only exception is
//! the value of a key that takes one of a few words.

use super::finding::ConfigFinding;
use highwater_core::consensus::ChainId;
use std::{ops::Range, path::PathBuf};
use toml::de::{DeTable, DeValue};

/// How similar two words must be (Jaro-Winkler, 0 to 1) for one to be suggested instead of the other.
const SIMILAR: f64 = 0.75;

/// The findings so far in one text.
pub(crate) struct ConfigFindings<'t> {
    text: &'t str,
    errors: Vec<ConfigFinding>,
    warnings: Vec<ConfigFinding>,
}

impl<'t> ConfigFindings<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, errors: Vec::new(), warnings: Vec::new() }
    }

    /// Adds a mistake that makes the configuration unusable.
    pub(crate) fn error(&mut self, line: usize, text: impl Into<String>) {
        self.errors.push(ConfigFinding { line, text: text.into() });
    }

    /// Adds a remark about a setting that may not work as the operator expects.
    pub(crate) fn warning(&mut self, line: usize, text: impl Into<String>) {
        self.warnings.push(ConfigFinding { line, text: text.into() });
    }

    /// The warnings, or the errors if there are any, in the order of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<ConfigFinding>, Vec<ConfigFinding>> {
        self.errors.sort_by_key(|finding| finding.line);
        self.warnings.sort_by_key(|finding| finding.line);
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }

    /// How many mistakes were found so far.
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// The line, counted from 1, on which `span` begins.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// A value and its line.
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// A table whose keys are being read.
pub(crate) struct Table<'t> {
    /// Its name in findings, as in `[[chain]]`.
    name: &'static str,
    line: usize,
    entries: &'t DeTable<'t>,
    known: Vec<&'static str>,
    unknown_keys: UnknownKeys,
}

/// How to treat a key that nobody read.
#[derive(Clone, Copy)]
enum UnknownKeys {
    /// As an error, as in tmkms.
    Error,
    /// Report nothing: the table's keys are not known yet.
    Ignore,
    /// As a warning: tmkms ignores it too.
    Warning,
}

impl<'t> Table<'t> {
    /// Lets `body` read the keys of `entries`, then reports the keys it did not read.
    pub(crate) fn read<T>(
        name: &'static str,
        line: usize,
        entries: &'t DeTable<'t>,
        findings: &mut ConfigFindings<'_>,
        body: impl FnOnce(&mut Self, &mut ConfigFindings<'_>) -> T,
    ) -> T {
        let mut table = Self { name, line, entries, known: Vec::new(), unknown_keys: UnknownKeys::Error };
        let result = body(&mut table, findings);
        table.report_unknown_keys(findings);
        result
    }

    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The value of an optional key.
    pub(crate) fn get(&mut self, key: &'static str, findings: &ConfigFindings<'_>) -> Option<Value<'t>> {
        self.known.push(key);
        let (spanned_key, value) = self.entries.get_key_value(key)?;
        Some(Value { key, place: self.name, line: findings.line(&spanned_key.span()), value: value.get_ref() })
    }

    /// Whether `key` is missing, but another key, which `names` do not list, looks like a misspelling of it.
    pub(crate) fn misspells(&self, key: &str, names: &[&str]) -> bool {
        let unknown = self.entries.keys().filter(|found| !names.contains(&&**found.get_ref()));
        !self.entries.contains_key(key)
            && unknown.into_iter().any(|found| nearest(found.get_ref(), names.iter().copied()) == Some(key))
    }

    /// The value of `key`. Reports an error if it is missing. `meaning` says in a few words what to write.
    pub(crate) fn require(
        &mut self,
        key: &'static str,
        meaning: &str,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Value<'t>> {
        let value = self.get(key, findings);
        if value.is_none() {
            findings.error(self.line, format!("{} needs `{key}`: {meaning}", self.name));
        }
        value
    }

    /// The value of a key with two names, the usual one first.
    pub(crate) fn get_either(
        &mut self,
        names: [&'static str; 2],
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Value<'t>> {
        let [first, second] = names.map(|name| self.get(name, findings));
        if let (Some(_), Some(second)) = (&first, &second) {
            let text = format!("`{}` and `{}` in {} mean the same: remove one", names[0], names[1], self.name);
            findings.error(second.line, text);
        }
        first.or(second)
    }

    /// The only one of these keys. Reports an error if none or several are present. [`Value::key`] returns which it is.
    pub(crate) fn exactly_one<const N: usize>(
        &mut self,
        names: [&'static str; N],
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Value<'t>> {
        let mut found = names.map(|name| self.get(name, findings)).into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(value), None) => Some(value),
            _ => {
                findings.error(self.line, format!("{} needs either `{}`", self.name, names.join("` or `")));
                None
            }
        }
    }

    pub(crate) fn ignore_unknown_keys(&mut self) {
        self.unknown_keys = UnknownKeys::Ignore;
    }

    /// Gives warnings instead of errors for unknown keys of this table.
    pub(crate) fn tolerate_unknown_keys(&mut self) {
        self.unknown_keys = UnknownKeys::Warning;
    }

    fn report_unknown_keys(&self, findings: &mut ConfigFindings<'_>) {
        for key in self.entries.keys().filter(|key| !self.known.contains(&&**key.get_ref())) {
            let name = key.get_ref().escape_debug();
            let hint = match nearest(key.get_ref(), self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None if self.known.is_empty() => "it has no keys".into(),
                None => format!("its keys are `{}`", self.known.join("`, `")),
            };
            let line = findings.line(&key.span());
            match self.unknown_keys {
                UnknownKeys::Error => findings.error(line, format!("unknown key `{name}` in {}: {hint}", self.name)),
                UnknownKeys::Ignore => (),
                UnknownKeys::Warning => {
                    findings.warning(line, format!("unknown key `{name}` in {} has no effect: {hint}", self.name));
                }
            }
        }
    }
}

/// A value and its key.
#[derive(Clone, Copy)]
pub(crate) struct Value<'t> {
    key: &'static str,
    /// The name of the key's table in findings.
    place: &'static str,
    pub(crate) line: usize,
    value: &'t DeValue<'t>,
}

impl<'t> Value<'t> {
    pub(crate) fn key(self) -> &'static str {
        self.key
    }

    /// Reports a wrong value; `what` completes the sentence "`key` in table: ...".
    pub(crate) fn reject(self, what: impl std::fmt::Display, findings: &mut ConfigFindings<'_>) {
        findings.error(self.line, format!("`{}` in {}: {what}", self.key, self.place));
    }

    /// Like [`Self::reject`], but only a warning: the value is used.
    pub(crate) fn caution(self, what: impl std::fmt::Display, findings: &mut ConfigFindings<'_>) {
        findings.warning(self.line, format!("`{}` in {}: {what}", self.key, self.place));
    }

    fn wrong_type<T>(self, expected: &str, findings: &mut ConfigFindings<'_>) -> Option<T> {
        self.reject(format_args!("expected {expected}, found {}", with_article(self.value)), findings);
        None
    }

    pub(crate) fn bool(self, findings: &mut ConfigFindings<'_>) -> Option<bool> {
        self.value.as_bool().or_else(|| self.wrong_type("a boolean", findings))
    }

    /// Whether this is an array without entries.
    pub(crate) fn is_empty_array(self) -> bool {
        self.value.as_array().is_some_and(|array| array.is_empty())
    }

    /// Whether this is an array of tables.
    pub(crate) fn is_array_of_tables(self) -> bool {
        self.value.as_array().is_some_and(|array| array.iter().all(|entry| entry.get_ref().is_table()))
    }

    /// Whether this is an integer literal.
    pub(crate) fn is_integer(self) -> bool {
        self.value.is_integer()
    }

    pub(crate) fn string(self, findings: &mut ConfigFindings<'_>) -> Option<&'t str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string", findings),
        }
    }

    /// A path. It need not exist, but it must not be empty.
    pub(crate) fn path(self, findings: &mut ConfigFindings<'_>) -> Option<PathBuf> {
        let text = self.string(findings)?;
        if text.is_empty() || text.contains('\0') {
            self.reject("a path cannot be empty or contain a NUL character", findings);
            return None;
        }
        Some(text.into())
    }

    /// A path that means the same in every working directory.
    pub(crate) fn absolute_path(self, findings: &mut ConfigFindings<'_>) -> Option<PathBuf> {
        let path = self.path(findings)?;
        if !path.is_absolute() {
            self.reject("the path must be absolute: begin it with /", findings);
            return None;
        }
        Some(path)
    }

    /// Whether this is a string.
    pub(crate) fn is_string(self) -> bool {
        self.value.is_str()
    }

    /// An integer from 0 to 65535.
    pub(crate) fn u16(self, findings: &mut ConfigFindings<'_>) -> Option<u16> {
        self.integer(u16::MAX.into(), findings).and_then(|number| u16::try_from(number).ok())
    }

    /// An integer from 0 to the maximum of TOML, which is that of an `i64`.
    pub(crate) fn u64(self, findings: &mut ConfigFindings<'_>) -> Option<u64> {
        self.integer(i64::MAX.unsigned_abs(), findings)
    }

    fn integer(self, highest: u64, findings: &mut ConfigFindings<'_>) -> Option<u64> {
        let Some(literal) = self.value.as_integer() else {
            return self.wrong_type("an integer", findings);
        };
        let number = u64::from_str_radix(literal.as_str(), literal.radix()).ok().filter(|n| *n <= highest);
        if number.is_none() {
            self.reject(format_args!("expected an integer from 0 to {highest}, found {literal}"), findings);
        }
        number
    }

    /// One of a few words, each with its meaning.
    pub(crate) fn one_of<T: Copy>(self, words: &[(&'static str, T)], findings: &mut ConfigFindings<'_>) -> Option<T> {
        let text = self.string(findings)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.reject(format_args!("expected {}, found {text:?}", known.join(" or ")), findings);
        }
        found
    }

    /// The entries of an array.
    pub(crate) fn array(self, findings: &mut ConfigFindings<'_>) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            return self.wrong_type("an array", findings);
        };
        let mut entries = Vec::with_capacity(array.len());
        for entry in array.iter() {
            entries.push(Self { line: findings.line(&entry.span()), value: entry.get_ref(), ..self });
        }
        Some(entries)
    }

    /// A table, read by `body`. Findings call it `name`.
    pub(crate) fn table<T>(
        self,
        name: &'static str,
        findings: &mut ConfigFindings<'_>,
        body: impl FnOnce(&mut Table<'t>, &mut ConfigFindings<'_>) -> T,
    ) -> Option<T> {
        match self.value {
            DeValue::Table(entries) => Some(Table::read(name, self.line, entries, findings, body)),
            _ => self.wrong_type("a table", findings),
        }
    }

    /// An array of tables, each read by `body`. Findings call each of them `name`.
    pub(crate) fn tables<T>(
        self,
        name: &'static str,
        findings: &mut ConfigFindings<'_>,
        mut body: impl FnMut(&mut Table<'t>, &mut ConfigFindings<'_>) -> Option<T>,
    ) -> Vec<T> {
        if self.value.is_table() && name.starts_with("[[") {
            self.reject(
                format_args!(
                    "it is a table, and there can be several of it: write its name in two pairs of brackets: {name}"
                ),
                findings,
            );
            return Vec::new();
        }
        let entries = self.array(findings).unwrap_or_default();
        entries.into_iter().filter_map(|entry| entry.table(name, findings, &mut body).flatten()).collect()
    }
}

fn with_article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// The candidate most similar to `word`, if one is similar enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &'a str| (strsim::jaro_winkler(word, candidate), candidate);
    let best = candidates.map(score).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, candidate)| candidate)
}

pub(crate) fn chain_id(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Located<ChainId>> {
    match ChainId::new(value.string(findings)?) {
        Ok(id) => Some(Located { value: id, line: value.line }),
        Err(error) => {
            value.reject(error, findings);
            None
        }
    }
}
