//! All profiles: those built in, and those of the site's folders.

use super::{Profile, load};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The built-in profile files: name and content.
const BUILT_IN: &[(&str, &str)] = &[
    ("sunspec", include_str!("../../config/profiles/sunspec.toml")),
    ("eastron/sdm630", include_str!("../../config/profiles/eastron/sdm630.toml")),
    ("go-e/charger", include_str!("../../config/profiles/go-e/charger.toml")),
    ("homewizard/p1", include_str!("../../config/profiles/homewizard/p1.toml")),
    ("shelly/3em", include_str!("../../config/profiles/shelly/3em.toml")),
    ("shelly/pro-3em", include_str!("../../config/profiles/shelly/pro-3em.toml")),
    ("victron/gx", include_str!("../../config/profiles/victron/gx.toml")),
];

/// The largest profile file that is read, bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// What is wrong in a profile file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFault {
    /// The file.
    pub file: String,
    /// The key within it, dotted; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for ProfileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.file, self.reason)
        } else {
            write!(f, "{}: {}: {}", self.file, self.key, self.reason)
        }
    }
}

/// All profiles by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    profiles: BTreeMap<String, Arc<Profile>>,
    /// Their files' texts, for people.
    sources: BTreeMap<String, String>,
}

impl Catalogue {
    /// The built-in profiles, then the files of `dirs` (`<vendor>/<model>.toml` or `<name>.toml`); the later of
    /// two with one name wins. A folder that is absent counts as empty.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(dirs: &[PathBuf]) -> Result<Self, Vec<ProfileFault>> {
        let mut catalogue = Self::default();
        let mut faults = Vec::new();
        for (name, text) in BUILT_IN {
            catalogue.add(name, &format!("built-in {name}.toml"), text, &mut faults);
        }
        for dir in dirs {
            catalogue.add_dir(dir, "", &mut faults);
        }
        if faults.is_empty() { Ok(catalogue) } else { Err(faults) }
    }

    /// The profile of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Profile>> {
        self.profiles.get(name).map(Arc::clone)
    }

    /// The text of the file that a profile comes from.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.profiles.keys().map(String::as_str).collect()
    }

    fn add(&mut self, name: &str, file: &str, text: &str, faults: &mut Vec<ProfileFault>) {
        match load::profile(name, text) {
            Ok(profile) => {
                self.profiles.insert(name.to_owned(), Arc::new(profile));
                self.sources.insert(name.to_owned(), text.to_owned());
            }
            Err(found) => {
                faults.extend(found.into_iter().map(|(key, reason)| ProfileFault {
                    file: file.to_owned(),
                    key,
                    reason,
                }));
            }
        }
    }

    fn add_dir(&mut self, dir: &Path, vendor: &str, faults: &mut Vec<ProfileFault>) {
        let fault =
            |path: &Path, reason: String| ProfileFault { file: path.display().to_string(), key: String::new(), reason };
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return faults.push(fault(dir, format!("cannot be listed: {e}"))),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        paths.sort();
        for path in paths {
            let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else { continue };
            if path.is_dir() && vendor.is_empty() {
                self.add_dir(&path, stem, faults);
            } else if path.extension().is_some_and(|e| e == "toml") {
                let name = if vendor.is_empty() { stem.to_owned() } else { format!("{vendor}/{stem}") };
                match read(&path) {
                    Ok(text) => self.add(&name, &path.display().to_string(), &text, faults),
                    Err(reason) => faults.push(fault(&path, reason)),
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if size > MAX_BYTES {
        return Err(format!("has {size} bytes, more than the {MAX_BYTES} that a profile may have"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))
}
