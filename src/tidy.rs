//! Conventions that are executed, not remembered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms by floor; a room may import rooms of lower floors, and none of its own floor.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["wire", "runtime"],
    &["plan", "profile", "sim"],
    &["link", "store"],
    &["device", "control", "command"],
    &["observe"],
    &["uplink", "web"],
    &["config"],
    &["app"],
    &["cli"],
    &["week"], // tests only: a closed loop through the real parts
];

/// Neighbours on one floor that know each other's handle all the same, with the reason.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("command", "control"), // hands its intents over
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    found
}

fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    (inside.components().count() > 1).then(|| first.to_owned())
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().contains("test"))
        || path.components().any(|c| c.as_os_str() == "tests")
}

/// The part of a file before its test module.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn imports_go_downwards_only() {
    let floor: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(i, rooms)| rooms.iter().map(move |r| (*r, i))).collect();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let here =
            *floor.get(room.as_str()).unwrap_or_else(|| panic!("room `{room}` stands in no floor of src/tidy.rs"));
        if is_test(&path) {
            continue;
        }
        for line in code(&text).lines().filter(|l| !l.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let other: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(there) = floor.get(other.as_str()) else { continue };
                let allowed = other == room || *there < here || NEIGHBOURS.contains(&(room.as_str(), other.as_str()));
                if !allowed {
                    faults.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "imports that go up or sideways:\n{}", faults.join("\n"));
}

#[test]
fn the_simulators_know_nothing_of_how_they_are_read() {
    for (path, text) in sources() {
        if room_of(&path).as_deref() == Some("sim") {
            for room in ["profile", "device", "link", "wire"] {
                assert!(!text.contains(&format!("crate::{room}")), "{} imports {room}", path.display());
            }
        }
    }
}

#[test]
fn what_has_one_owner_is_imported_there_alone() {
    for (crate_name, owner) in [
        ("backoff", "runtime"),
        ("rusqlite", "store"),
        ("tokio_modbus", "link"),
        ("rumqttc", "uplink"),
        ("rtime_clock", "runtime"),
        ("axum", "web"),
        ("config::", "config"),
    ] {
        for (path, text) in sources() {
            let room = room_of(&path);
            let simulator = room.as_deref() == Some("sim") && matches!(crate_name, "tokio_modbus" | "axum");
            if room.as_deref() == Some(owner) || simulator || is_test(&path) || room.is_none() {
                continue;
            }
            let needle =
                if crate_name.ends_with("::") { format!("use {crate_name}") } else { format!("{crate_name}::") };
            assert!(!code(&text).contains(&needle), "{} uses {crate_name}, which belongs to {owner}", path.display());
        }
    }
}

#[test]
fn no_test_sleeps() {
    for (path, text) in sources() {
        let tests = if is_test(&path) { text.as_str() } else { &text[code(&text).len()..] };
        for word in ["thread::sleep", "time::sleep("] {
            let found = tests.contains(word) && path.file_name().is_none_or(|n| n != "tidy.rs");
            assert!(!found, "{} sleeps in a test: wait for a condition, or pause time", path.display());
        }
    }
}

#[test]
fn no_file_is_a_god() {
    for (path, text) in sources() {
        let lines = code(&text).lines().filter(|l| !l.trim().is_empty()).count();
        assert!(is_test(&path) || lines <= 600, "{} has {lines} lines of code: split it", path.display());
    }
}
