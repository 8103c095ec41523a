//! Taking typed values out of a table, keeping count of every fault.

use super::layers::Source;
use super::units::parse_duration;
use crate::uplink::Secret;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which file or layer.
    pub source: String,
    /// Which key, with its path; empty for a whole file.
    pub key: String,
    /// What stands there; empty when nothing does.
    pub value: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Fault {
    pub(super) fn new(source: &Source, key: &str, value: &str, reason: &str) -> Self {
        Self { source: source.to_string(), key: key.to_owned(), value: value.to_owned(), reason: reason.to_owned() }
    }

    pub(super) fn file(source: &Source, reason: &str) -> Self {
        Self::new(source, "", "", reason)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match (self.key.as_str(), self.value.as_str()) {
            ("", _) => {}
            (key, "") => write!(f, "{key}: ")?,
            (key, value) => write!(f, "{key} = {value}: ")?,
        }
        f.write_str(&self.reason)
    }
}

/// A table being read. What is never asked for is an unknown key.
pub(super) struct Reader<'a> {
    table: Table,
    path: String,
    source: &'a dyn Fn(&str) -> Source,
    asked: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: Table, path: &str, source: &'a dyn Fn(&str) -> Source) -> Self {
        Self { table, path: path.to_owned(), source, asked: Vec::new(), faults: Vec::new() }
    }

    /// Keys that are known here although nobody needs their values.
    pub(super) fn asked_all(&mut self, keys: &[&str]) {
        for key in keys {
            // The value is not wanted.
            drop(self.take(key));
        }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.push(key.to_owned());
        self.table.remove(key)
    }

    pub(super) fn fault(&mut self, key: &str, value: &str, reason: &str) {
        let full = self.full(key);
        let value = if is_secret(key, value) { "(hidden)" } else { value };
        self.faults.push(Fault::new(&(self.source)(&full), &full, value, reason));
    }

    pub(super) fn missing(&mut self, key: &str, reason: &str) {
        self.fault(key, "", &format!("is missing: {reason}"));
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.fault(key, &other.to_string(), "must be a text in quotes");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.fault(key, &other.to_string(), "must be true or false");
                None
            }
        }
    }

    pub(super) fn number(&mut self, key: &str, low: f64, high: f64) -> Option<f64> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Float(f) => Some(*f),
            Value::Integer(i) => i32::try_from(*i).ok().map(f64::from),
            _ => None,
        };
        match number {
            Some(n) if (low..=high).contains(&n) => Some(n),
            _ => {
                self.fault(key, &value.to_string(), &format!("must be a number from {low} to {high}"));
                None
            }
        }
    }

    pub(super) fn whole(&mut self, key: &str, low: u32, high: u32) -> Option<u32> {
        let value = self.take(key)?;
        match value.as_integer().and_then(|i| u32::try_from(i).ok()) {
            Some(n) if (low..=high).contains(&n) => Some(n),
            _ => {
                self.fault(key, &value.to_string(), &format!("must be a whole number from {low} to {high}"));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, low: Duration, high: Duration) -> Option<Duration> {
        let text = self.text(key)?;
        match parse_duration(&text) {
            Ok(d) if (low..=high).contains(&d) => Some(d),
            Ok(_) => {
                self.fault(key, &text, &format!("must lie between {low:?} and {high:?}"));
                None
            }
            Err(reason) => {
                self.fault(key, &text, &reason);
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T>(&mut self, key: &str, from: impl Fn(&str) -> Option<T>, words: &[&str]) -> Option<T> {
        let text = self.text(key)?;
        let found = from(&text);
        if found.is_none() {
            let near = nearest(&text, words.iter().copied()).map_or(String::new(), |n| format!(", did you mean `{n}`"));
            self.fault(key, &text, &format!("must be one of {}{near}", words.join(", ")));
        }
        found
    }

    /// A text that parses.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(e) => {
                self.fault(key, &text, &e.to_string());
                None
            }
        }
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A file that must be readable: `credentials:NAME` is a systemd credential.
    pub(super) fn readable(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let path = match text.strip_prefix("credentials:") {
            None => PathBuf::from(&text),
            Some(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => Path::new(&folder).join(name),
                None => {
                    let reason = "systemd gave no credentials: add LoadCredential= to the unit";
                    self.fault(key, &text, reason);
                    return None;
                }
            },
        };
        if let Err(e) = std::fs::File::open(&path) {
            self.fault(key, &text, &format!("cannot be read: {e}"));
            return None;
        }
        Some(path)
    }

    /// The secret in a file, without the line's end.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let path = self.readable(key)?;
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(e) => {
                self.fault(key, &path.display().to_string(), &format!("cannot be read: {e}"));
                None
            }
        }
    }

    pub(super) fn table(&mut self, key: &str) -> Reader<'a> {
        let full = self.full(key);
        match self.take(key) {
            None => Reader::new(Table::new(), &full, self.source),
            Some(Value::Table(table)) => Reader::new(table, &full, self.source),
            Some(other) => {
                self.fault(key, &other.to_string(), &format!("must be a section [{full}]"));
                Reader::new(Table::new(), &full, self.source)
            }
        }
    }

    /// All keys were asked for: what is left is unknown.
    pub(super) fn done(mut self) -> Vec<Fault> {
        let left: Vec<(String, Value)> = std::mem::take(&mut self.table).into_iter().collect();
        for (key, value) in left {
            let near = nearest(&key, self.asked.iter().map(String::as_str))
                .map_or_else(String::new, |n| format!(", did you mean `{n}`"));
            let shown = if value.is_table() { String::new() } else { value.to_string() };
            self.fault(&key, &shown, &format!("unknown key{near}"));
        }
        self.faults
    }
}

/// Would showing the value of a key give a secret away: faults are printed, logged and pasted into forums.
fn is_secret(key: &str, value: &str) -> bool {
    let has_login = value
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')));
    let names_a_file = key.ends_with("_file");
    let words = ["pass", "secret", "token", "key", "pin", "credential"];
    has_login || !value.is_empty() && !names_a_file && words.iter().any(|word| key.to_ascii_lowercase().contains(word))
}

/// The nearest of some names, when it is near enough to be meant.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|n| (strsim::damerau_levenshtein(word, n), n))
        .filter(|(distance, n)| *distance <= (n.len() / 3).max(2))
        .min()
        .map(|(_, n)| n)
}
