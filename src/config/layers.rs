//! Which files there are and how they lie over each other.

use super::reader::Fault;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The commented default configuration, which is the lowest layer.
pub const DEFAULTS: &str = include_str!("../../config/derd.toml");
/// Where the installer's file is.
pub const DEFAULT_PATH: &str = "/etc/derd/derd.toml";

/// The lists of tables that add up over files.
const LISTS: [&str; 3] = ["device", "link", "uplink"];

/// Where a value came from, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A text made in the process, such as the demo's.
    Text(&'static str),
    /// A variable of the environment.
    Variable(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(name) => f.write_str(name),
            Self::Variable(name) => write!(f, "environment {name}"),
        }
    }
}

/// The layers as read, none checked.
#[derive(Debug, Default)]
pub struct Layers {
    files: Vec<(Source, Table)>,
    env: HashMap<String, String>,
    /// Files that could not be read or are no TOML.
    pub(super) faults: Vec<Fault>,
}

impl Layers {
    /// The built-in defaults, `path`, the `conf.d` folder beside it, and the environment.
    #[must_use]
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Self {
        let mut layers = Self::defaults();
        layers.env = env.filter(|(k, _)| k.starts_with("DERD__")).collect();
        layers.add_file(path);
        let folder = path.parent().unwrap_or(Path::new("/")).join("conf.d");
        match std::fs::read_dir(&folder) {
            Ok(entries) => {
                let mut files: Vec<_> = entries
                    .filter_map(|entry| entry.ok().map(|e| e.path()))
                    .filter(|p| p.extension().is_some_and(|e| e == "toml"))
                    .collect();
                files.sort();
                files.iter().for_each(|file| layers.add_file(file));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => layers.faults.push(Fault::file(&Source::File(folder), &format!("cannot be read: {e}"))),
        }
        layers
    }

    /// The built-in defaults and one text.
    #[must_use]
    pub fn from_text(name: &'static str, text: &str) -> Self {
        let mut layers = Self::defaults();
        layers.add_text(Source::Text(name), text);
        layers
    }

    fn defaults() -> Self {
        let mut layers = Self::default();
        layers.add_text(Source::Text("built-in defaults"), DEFAULTS);
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_text(source, &text),
            Err(e) => self.faults.push(Fault::file(&source, &format!("cannot be read: {e}"))),
        }
    }

    fn add_text(&mut self, source: Source, text: &str) {
        match text.parse::<Table>() {
            Ok(table) => self.files.push((source, table)),
            Err(e) => {
                let line = e.span().map_or(0, |s| text[..s.start.min(text.len())].lines().count().max(1));
                self.faults.push(Fault::file(&source, &format!("line {line}: not TOML: {}", e.message())));
            }
        }
    }

    /// One table in which later layers have won, and the lists with their sources.
    pub(super) fn merged(&mut self) -> (Table, Vec<(String, Source, Table)>) {
        let mut builder = config::Config::builder();
        let mut lists = Vec::new();
        for (source, table) in &self.files {
            let mut table = table.clone();
            for list in LISTS {
                match table.remove(list) {
                    None => {}
                    Some(Value::Array(entries)) if entries.iter().all(Value::is_table) => {
                        for entry in entries {
                            if let Value::Table(entry) = entry {
                                lists.push((list.to_owned(), source.clone(), entry));
                            }
                        }
                    }
                    Some(other) => self.faults.push(Fault::new(
                        source,
                        list,
                        &other.to_string(),
                        &format!("must be written as [[{list}]] sections"),
                    )),
                }
            }
            builder = builder.add_source(config::File::from_str(&table.to_string(), config::FileFormat::Toml));
        }
        builder = builder.add_source(
            config::Environment::with_prefix("DERD")
                .prefix_separator("__")
                .separator("__")
                .try_parsing(true)
                .source(Some(self.env.clone())),
        );
        let table = match builder.build().and_then(config::Config::try_deserialize::<Table>) {
            Ok(table) => table,
            Err(e) => {
                self.faults.push(Fault::file(&Source::Text("environment and files"), &e.to_string()));
                Table::new()
            }
        };
        (table, lists)
    }

    /// Which layer said a key (`site.name`), the last that did.
    pub(super) fn source_of(&self, key: &str) -> Source {
        let wanted = format!("DERD__{}", key.replace('.', "__"));
        if let Some(name) = self.env.keys().find(|k| k.eq_ignore_ascii_case(&wanted)) {
            return Source::Variable(name.clone());
        }
        self.files
            .iter()
            .rev()
            .find(|(_, table)| {
                let mut parts = key.split('.');
                let first = parts.next().and_then(|p| table.get(p));
                parts.fold(first, |at, part| at.and_then(|v| v.get(part))).is_some()
            })
            .map_or(Source::Text("built-in defaults"), |(source, _)| source.clone())
    }
}
