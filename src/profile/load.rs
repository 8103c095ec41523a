//! A profile file to a [`Profile`]: fully typed, every fault at once.

use super::WriteFunction;
use super::keys::{Faults, Keys, hint};
use super::sections::{KINDS, http, modbus};
use super::spec::{Pace, PointClass, Profile, Protocol, SunSpecOptions, WRITTEN};
use crate::model::WriteClass;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    SunSpec,
    Modbus,
    Http,
}

/// The profile in `text`.
pub(super) fn profile(name: &str, text: &str) -> Result<Profile, Vec<(String, String)>> {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(e) => {
            return Err(vec![(String::new(), format!("is not TOML: {}", e.to_string().trim().replace('\n', " ")))]);
        }
    };
    let faults = Faults::default();
    let profile = read(name, Keys::root(&table, &faults));
    match (profile, faults.into_inner()) {
        (Some(profile), faults) if faults.is_empty() => Ok(profile),
        (None, faults) if faults.is_empty() => Err(vec![(String::new(), "is not a profile".to_owned())]),
        (_, faults) => Err(faults),
    }
}

fn read(name: &str, mut keys: Keys<'_>) -> Option<Profile> {
    let good = |part: &str| {
        let lower = part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        lower && !part.is_empty() && part.len() <= 64
    };
    if !name.split('/').all(good) {
        keys.fault("", format!("`{name}` is not a profile name: folder and file of a-z, 0-9, - and _"));
    }
    let title = keys.text("title");
    let title = keys.need("title", title);
    let words = [("sunspec", Speech::SunSpec), ("modbus", Speech::Modbus), ("http", Speech::Http)];
    let speech = keys.choice("protocol", &words);
    let speech = keys.need("protocol", speech);
    let (sources, requirements, caveats) = (keys.texts("sources"), keys.texts("requirements"), keys.texts("caveats"));
    if sources.is_empty() {
        keys.fault("sources", "is missing: where do these facts come from");
    }
    let pace = keys.table("pace").map_or_else(Pace::default, pace);
    let (kinds, protocol) = match speech? {
        Speech::SunSpec => {
            let words = keys.texts("kinds");
            let mut kinds = Vec::new();
            for word in &words {
                match KINDS.iter().find(|(w, _)| w == word) {
                    Some((_, kind)) => kinds.push(*kind),
                    None => {
                        keys.fault("kinds", format!("`{word}` is not a kind{}", hint(word, KINDS.iter().map(|k| k.0))))
                    }
                }
            }
            if words.is_empty() {
                keys.fault("kinds", "is missing");
            }
            (kinds, Some(Protocol::SunSpec(keys.table("sunspec").map_or(SUNSPEC, sunspec))))
        }
        Speech::Modbus => modbus(&mut keys),
        Speech::Http => http(&mut keys),
    };
    keys.finish();
    Some(Profile {
        name: name.to_owned(),
        title: title?,
        kinds,
        pace,
        requirements,
        caveats,
        sources,
        protocol: protocol?,
    })
}

fn pace(mut keys: Keys<'_>) -> Pace {
    let default = Pace::default();
    let pace = Pace {
        min_gap: keys.duration("min_gap").unwrap_or(default.min_gap),
        timeout: keys.duration("timeout").unwrap_or(default.timeout),
        connect_delay: keys.duration("connect_delay").unwrap_or(default.connect_delay),
    };
    if pace.timeout.is_zero() {
        keys.fault("timeout", "must be longer than 0");
    }
    keys.finish();
    pace
}

const SUNSPEC: SunSpecOptions = SunSpecOptions {
    function: WriteFunction::Multiple,
    read_only: false,
    classes: [PointClass::Always(WriteClass::Unknown); WRITTEN.len()],
};

fn sunspec(mut keys: Keys<'_>) -> SunSpecOptions {
    let words = [("single", WriteFunction::Single), ("multiple", WriteFunction::Multiple)];
    let mut options = SunSpecOptions {
        function: keys.choice("function", &words).unwrap_or(SUNSPEC.function),
        read_only: keys.flag("read_only").unwrap_or(SUNSPEC.read_only),
        ..SUNSPEC
    };
    for (name, value) in keys.entries("writes").unwrap_or_default() {
        let class = match value.as_str() {
            Some("timed") => Some(PointClass::Timed),
            Some(word) => WriteClass::from_word(word).map(PointClass::Always),
            None => None,
        };
        let place = WRITTEN.iter().position(|(_, _, known)| *known == name);
        match (place.and_then(|n| options.classes.get_mut(n)), class) {
            (Some(slot), Some(class)) => *slot = class,
            (None, _) => {
                let near = hint(name, WRITTEN.iter().map(|w| w.2));
                keys.fault("writes", format!("`{name}` is not a point that derd writes{near}"));
            }
            (_, None) => keys.fault("writes", format!("{name}: {value} is not volatile, flash, unknown or timed")),
        }
    }
    keys.finish();
    options
}
