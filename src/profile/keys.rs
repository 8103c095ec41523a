//! Walks a TOML table key by key and keeps every fault: unknown keys, wrong types, values outside their range.

use std::cell::RefCell;
use std::time::Duration;
use toml::{Table, Value};

/// Faults of one file: key and reason.
pub(super) type Faults = RefCell<Vec<(String, String)>>;

/// One table of a file. [`Keys::finish`] finds what was never asked for.
pub(super) struct Keys<'a> {
    table: &'a Table,
    path: String,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Keys<'a> {
    pub(super) fn root(table: &'a Table, faults: &'a Faults) -> Self {
        Self { table, path: String::new(), known: Vec::new(), faults }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn fault(&self, key: &str, reason: impl Into<String>) {
        let key = if key.is_empty() { self.path.clone() } else { self.name(key) };
        self.faults.borrow_mut().push((key, reason.into()));
    }

    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    fn typed<T>(&mut self, key: &'static str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            self.fault(key, format!("{value} is not {what}"));
        }
        typed
    }

    /// Says that a key is needed where it is not there.
    pub(super) fn need<T>(&mut self, key: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.value(key).is_none() {
            self.fault(key, "is missing");
        }
        value
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.typed(key, "a text", |v| v.as_str().filter(|s| !s.trim().is_empty()).map(str::to_owned))
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Vec<String> {
        let read = |v: &Value| v.as_array()?.iter().map(|t| t.as_str().map(str::to_owned)).collect();
        self.typed(key, "a list of texts", read).unwrap_or_default()
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        self.typed(key, "a number", number)
    }

    /// A number above 0.
    pub(super) fn positive(&mut self, key: &'static str) -> Option<f64> {
        self.typed(key, "a number above 0", |v| number(v).filter(|n| *n > 0.0))
    }

    /// A whole number from `low` to `high`.
    pub(super) fn whole(&mut self, key: &'static str, low: u16, high: u16) -> Option<u16> {
        let read = |v: &Value| v.as_integer().and_then(|n| u16::try_from(n).ok()).filter(|n| (low..=high).contains(n));
        self.typed(key, &format!("a whole number from {low} to {high}"), read)
    }

    pub(super) fn wholes(&mut self, key: &'static str) -> Vec<u64> {
        let read = |v: &Value| v.as_array()?.iter().map(|n| u64::try_from(n.as_integer()?).ok()).collect();
        self.typed(key, "a list of whole numbers, 0 or more", read).unwrap_or_default()
    }

    /// Pairs of first and last.
    pub(super) fn ranges(&mut self, key: &'static str) -> Vec<(u16, u16)> {
        let pair = |v: &Value| {
            let [a, b] = v.as_array()?.as_slice() else { return None };
            let word = |v: &Value| u16::try_from(v.as_integer()?).ok();
            Some((word(a)?, word(b)?)).filter(|(a, b)| a <= b)
        };
        let read = |v: &Value| v.as_array()?.iter().map(pair).collect();
        self.typed(key, "a list of [first, last] registers", read).unwrap_or_default()
    }

    /// `100ms`, `2s` or `1m`, up to an hour.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.typed(key, "a time such as \"100ms\" or \"2s\"", |v| duration(v.as_str()?))
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, t)| *t);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.fault(
                key,
                format!("`{text}` is not one of {}{}", words.join(", "), hint(&text, words.iter().copied())),
            );
        }
        found
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Keys<'a>> {
        let table = self.typed(key, "a table", Value::as_table)?;
        Some(Keys { table, path: self.name(key), known: Vec::new(), faults: self.faults })
    }

    /// A list of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Keys<'a>> {
        let read = |v: &'a Value| v.as_array()?.iter().map(Value::as_table).collect::<Option<Vec<_>>>();
        let tables = self.typed(key, "a list of tables", read).unwrap_or_default();
        let name = self.name(key);
        let keys = |(n, table)| Keys { table, path: format!("{name}[{n}]"), known: Vec::new(), faults: self.faults };
        tables.into_iter().enumerate().map(keys).collect()
    }

    /// A table whose keys are not known beforehand.
    pub(super) fn entries(&mut self, key: &'static str) -> Option<Vec<(&'a str, &'a Value)>> {
        let table = self.typed(key, "a table", Value::as_table)?;
        Some(table.iter().map(|(k, v)| (k.as_str(), v)).collect())
    }

    /// Unknown keys are faults.
    pub(super) fn finish(self) {
        for key in self.table.keys().filter(|k| !self.known.contains(&k.as_str())) {
            self.fault(key, format!("is not known{}", hint(key, self.known.iter().copied())));
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    let n = match value {
        Value::Float(f) => *f,
        // TOML integers of profiles are small
        Value::Integer(n) => f64::from(i32::try_from(*n).ok()?),
        _ => return None,
    };
    n.is_finite().then_some(n)
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let n: u64 = digits.parse().ok()?;
    let ms = match unit {
        "ms" => n,
        "s" => n.checked_mul(1000)?,
        "m" => n.checked_mul(60_000)?,
        _ => return None,
    };
    (ms <= 3_600_000).then_some(Duration::from_millis(ms))
}

/// The nearest of the known names, as the end of a sentence; empty when none is near.
pub(super) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|k| (distance(name, k), k)).min().filter(|(d, k)| *d <= 2.max(k.len() / 4));
    near.map_or_else(String::new, |(_, k)| format!("; did you mean `{k}`?"))
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
