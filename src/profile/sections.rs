//! The sections of a profile file by kind of device: registers and JSON pointers to points, and a charger's control.

use super::Space;
use super::keys::{Keys, hint};
use super::spec::{BlockRules, ChargerControl, Doc, Entry, Identity, Map, Pointer, Protocol, Register, Setting, Told};
use super::words::Kind;
use crate::model::{DeviceKind, Point, WriteClass};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use toml::Value;

/// The kinds of device that can be on a local network.
pub(super) const KINDS: [(&str, DeviceKind); 4] = [
    ("inverter", DeviceKind::Inverter),
    ("battery", DeviceKind::Battery),
    ("charger", DeviceKind::Charger),
    ("meter", DeviceKind::Meter),
];

const SPACES: [(&str, Space); 2] = [("holding", Space::Holding), ("input", Space::Input)];
const ORDERS: [(&str, bool); 2] = [("big", false), ("little", true)];

/// The states that a kind of device may have.
const fn states(kind: DeviceKind) -> &'static [&'static str] {
    match kind {
        DeviceKind::Inverter => &["off", "standby", "starting", "running", "throttled", "fault", "asleep", "unknown"],
        DeviceKind::Battery => &["idle", "charging", "discharging", "fault", "asleep", "unknown"],
        DeviceKind::Charger => &["unplugged", "plugged", "charging", "stopped", "fault", "asleep", "unknown"],
        _ => &["asleep", "unknown"],
    }
}

/// The sections by kind, each read by `section`.
fn sections<T>(
    keys: &mut Keys<'_>,
    mut section: impl FnMut(DeviceKind, Keys<'_>) -> T,
) -> (Vec<DeviceKind>, BTreeMap<DeviceKind, Arc<T>>) {
    let mut found = BTreeMap::new();
    for (word, kind) in KINDS {
        if let Some(table) = keys.table(word) {
            found.insert(kind, Arc::new(section(kind, table)));
        }
    }
    if found.is_empty() {
        keys.fault("", "has no section for a kind of device: [inverter], [battery], [charger] or [meter]");
    }
    (found.keys().copied().collect(), found)
}

/// What one register or pointer is by default, and how it is read from its keys.
trait Source: Sized {
    type Context;
    /// Reads the keys that say where the value lies.
    fn read(keys: &mut Keys<'_>, context: &Self::Context) -> Option<Self>;
}

/// What registers are by default.
struct Registers {
    space: Space,
    little: bool,
    rules: BlockRules,
}

impl Source for Register {
    type Context = Registers;

    fn read(keys: &mut Keys<'_>, context: &Registers) -> Option<Self> {
        let address = keys.whole("address", 0, u16::MAX);
        let address = keys.need("address", address);
        let kind = keys.choice("type", Kind::WORDS);
        let kind = keys.need("type", kind);
        let count = keys.whole("count", 1, 125);
        let space = keys.choice("space", &SPACES).unwrap_or(context.space);
        let little = keys.choice("word_order", &ORDERS).unwrap_or(context.little);
        let na = keys.wholes("na");
        let kind = match (kind?, count) {
            (Kind::Text(_), Some(n)) => Kind::Text(n),
            (Kind::Text(_), None) => {
                keys.fault("count", "is missing: how many registers the string takes");
                return None;
            }
            (_, Some(_)) => {
                keys.fault("count", "is for strings only");
                return None;
            }
            (kind, None) => kind,
        };
        let (address, len) = (address?, kind.len());
        let Some(last) = address.checked_add(len - 1) else {
            keys.fault("address", "goes beyond the last register, 65535");
            return None;
        };
        if len > context.rules.max_read {
            keys.fault("count", format!("is more than max_read, {}", context.rules.max_read));
        }
        if let Some((a, b)) = context.rules.forbidden.iter().find(|(a, b)| *a <= last && *b >= address) {
            keys.fault("address", format!("lies in the forbidden range {a} to {b}"));
        }
        Some(Self { space, address, kind, little, na })
    }
}

impl Source for Pointer {
    type Context = Vec<(String, String)>;

    fn read(keys: &mut Keys<'_>, paths: &Vec<(String, String)>) -> Option<Self> {
        let from = keys.text("from");
        let from = keys.need("from", from);
        let pointer = keys.text("pointer");
        let pointer = keys.need("pointer", pointer);
        let (from, pointer) = (from?, pointer?);
        if !pointer.starts_with('/') {
            keys.fault("pointer", format!("`{pointer}` is not a JSON pointer: it begins with /"));
        }
        let found = paths.iter().position(|(name, _)| *name == from);
        if found.is_none() {
            let hint = hint(&from, paths.iter().map(|(n, _)| n.as_str()));
            keys.fault("from", format!("`{from}` is not one of http.paths{hint}"));
        }
        Some(Self { from: found?, pointer })
    }
}

fn identity<S: Source>(keys: &mut Keys<'_>, context: &S::Context) -> Identity<S> {
    let Some(mut keys) = keys.table("identity") else {
        return Identity { maker: None, model: None, serial: None, firmware: None };
    };
    let mut told = |key: &'static str| match keys.value(key)? {
        Value::Table(_) => {
            let mut table = keys.table(key)?;
            let source = S::read(&mut table, context);
            table.finish();
            source.map(Told::Read)
        }
        _ => keys.text(key).map(Told::Fixed),
    };
    let identity =
        Identity { maker: told("maker"), model: told("model"), serial: told("serial"), firmware: told("firmware") };
    keys.finish();
    identity
}

fn entries<S: Source>(keys: &mut Keys<'_>, kind: DeviceKind, context: &S::Context) -> Vec<Entry<S>> {
    let mut entries: Vec<Entry<S>> = Vec::new();
    let tables = keys.tables("point");
    if tables.is_empty() {
        keys.fault("point", "is missing: a section has at least one point");
    }
    for mut table in tables {
        let entry = entry(&mut table, kind, context);
        if let Some(entry) = entry {
            if entries.iter().any(|e| e.point == entry.point) {
                table.fault("point", format!("{} is there twice", entry.point));
            }
            entries.push(entry);
        }
        table.finish();
    }
    entries
}

fn entry<S: Source>(keys: &mut Keys<'_>, kind: DeviceKind, context: &S::Context) -> Option<Entry<S>> {
    let name = keys.text("point");
    let name = keys.need("point", name);
    let point = name.and_then(|name| match name.parse::<Point>() {
        Ok(point) => Some(point),
        Err(reason) => {
            keys.fault("point", format!("{reason}{}", hint(&name, Point::ALL.iter().map(Point::as_str))));
            None
        }
    });
    let terms: Option<Vec<(S, f64)>> = if keys.has("sum") {
        let term = |mut table: Keys<'_>| {
            let factor = table.number("factor").unwrap_or(1.0);
            let source = S::read(&mut table, context);
            table.finish();
            source.map(|s| (s, factor))
        };
        // every term is read, so that every fault is told
        let terms: Vec<_> = keys.tables("sum").into_iter().map(term).collect();
        terms.into_iter().collect()
    } else {
        S::read(keys, context).map(|s| vec![(s, 1.0)])
    };
    let missing_as_zero = keys.choice("missing", &[("null", false), ("zero", true)]).unwrap_or(false);
    let scale = keys.number("scale").unwrap_or(1.0);
    if scale == 0.0 {
        keys.fault("scale", "is 0: the value would always be 0");
    }
    let offset = keys.number("offset").unwrap_or(0.0);
    let (min, max) = (keys.number("min"), keys.number("max"));
    if let (Some(low), Some(high)) = (min, max)
        && low > high
    {
        keys.fault("min", "is above max");
    }
    let optional = keys.flag("optional").unwrap_or(false);
    let words = keys.entries("states").map(|pairs| {
        let mut map = BTreeMap::new();
        for (raw, word) in pairs {
            let known = states(kind);
            match word.as_str() {
                Some(word) if point != Some(Point::State) || known.contains(&word) => {
                    map.insert(raw.to_owned(), Arc::from(word));
                }
                Some(word) => {
                    let hint = hint(word, known.iter().copied());
                    keys.fault("states", format!("`{word}` is not a state of a {kind}: {}{hint}", known.join(", ")));
                }
                None => keys.fault("states", format!("{word} is not a text")),
            }
        }
        map
    });
    if point == Some(Point::State) && words.is_none() {
        keys.fault("states", "is missing: what each raw value means");
    }
    let when = keys.table("when").and_then(|mut table| {
        let equals = json(&mut table, "equals");
        let source = S::read(&mut table, context);
        table.finish();
        source.zip(equals)
    });
    Some(Entry {
        point: point?,
        terms: terms?,
        missing_as_zero,
        scale,
        offset,
        min,
        max,
        states: words,
        optional,
        when,
    })
}

/// A single TOML value as JSON.
fn json(keys: &mut Keys<'_>, key: &'static str) -> Option<Json> {
    let value = keys.value(key);
    let json = match value? {
        Value::String(s) => Some(Json::from(s.as_str())),
        Value::Integer(n) => Some(Json::from(*n)),
        Value::Float(f) => Some(Json::from(*f)),
        Value::Boolean(b) => Some(Json::from(*b)),
        _ => None,
    };
    if json.is_none() {
        keys.fault(key, "is not a single value");
    }
    json
}

/// The sections of a register map.
pub(super) fn modbus(keys: &mut Keys<'_>) -> (Vec<DeviceKind>, Option<Protocol>) {
    let mut registers = Registers {
        space: Space::Holding,
        little: false,
        rules: BlockRules { max_read: 125, gap: 0, forbidden: Vec::new() },
    };
    if let Some(mut table) = keys.table("modbus") {
        registers.space = table.choice("space", &SPACES).unwrap_or(registers.space);
        registers.little = table.choice("word_order", &ORDERS).unwrap_or(registers.little);
        registers.rules.max_read = table.whole("max_read", 1, 125).unwrap_or(125);
        registers.rules.gap = table.whole("gap", 0, 124).unwrap_or(0);
        registers.rules.forbidden = table.ranges("forbidden");
        table.finish();
    }
    let identity: Identity<Register> = identity(keys, &registers);
    let (kinds, maps) = sections(keys, |kind, mut table| {
        let map = Map {
            identity: identity.clone(),
            entries: entries(&mut table, kind, &registers),
            rules: registers.rules.clone(),
            nameplate_w: table.positive("nameplate_w"),
        };
        table.finish();
        map
    });
    (kinds, Some(Protocol::Map(maps)))
}

/// The sections of a JSON device.
pub(super) fn http(keys: &mut Keys<'_>) -> (Vec<DeviceKind>, Option<Protocol>) {
    let mut paths = Vec::new();
    let mut identify = Vec::new();
    match keys.table("http") {
        None => keys.fault("http", "is missing"),
        Some(mut table) => {
            for (name, path) in table.entries("paths").unwrap_or_default() {
                match path.as_str().filter(|p| p.starts_with('/') && !p.contains(char::is_whitespace)) {
                    Some(path) => paths.push((name.to_owned(), path.to_owned())),
                    None => {
                        table.fault("paths", format!("{name}: {path} is not a path: it begins with / and has no space"))
                    }
                }
            }
            if paths.is_empty() {
                table.fault("paths", "is missing");
            }
            for mut test in table.tables("identify") {
                let equals = json(&mut test, "equals");
                let equals = test.need("equals", equals);
                let pointer = Pointer::read(&mut test, &paths);
                identify.extend(pointer.zip(equals));
                test.finish();
            }
            table.finish();
        }
    }
    let identity: Identity<Pointer> = identity(keys, &paths);
    let (kinds, docs) = sections(keys, |kind, mut table| {
        let doc = Doc {
            paths: paths.iter().map(|(_, path)| path.clone()).collect(),
            identity: identity.clone(),
            identify: identify.clone(),
            entries: entries(&mut table, kind, &paths),
            nameplate_w: table.positive("nameplate_w"),
            charger: if kind == DeviceKind::Charger {
                table.table("control").and_then(|control| charger(control, &paths))
            } else {
                None
            },
        };
        table.finish();
        doc
    });
    (kinds, Some(Protocol::Json(docs)))
}

fn charger(mut keys: Keys<'_>, paths: &Vec<(String, String)>) -> Option<ChargerControl> {
    let set = keys.text("set").filter(|p| p.starts_with('/') && !p.contains(['?', ' ']));
    if set.is_none() {
        keys.fault("set", "must be a path that begins with / and has no query");
    }
    let read = keys.text("read");
    let read = keys.need("read", read).and_then(|name| {
        let found = paths.iter().position(|(n, _)| *n == name);
        if found.is_none() {
            keys.fault("read", format!("`{name}` is not one of http.paths"));
        }
        found
    });
    let settle = keys.duration("settle").unwrap_or(Duration::from_secs(1));
    let mut ampere = |key| {
        let value = keys.positive(key);
        keys.need(key, value)
    };
    let (min, max, step) = (ampere("min_current_a"), ampere("max_current_a"), ampere("step_a"));
    let max_current = keys.table("max_current").and_then(|mut table| {
        let pointer = Pointer::read(&mut table, paths);
        table.finish();
        pointer
    });
    let mut row = |key: &'static str| {
        let pairs = keys.entries(key);
        let pairs =
            if matches!(key, "unrecorded" | "limit") { pairs } else { keys.need(key, pairs) }.unwrap_or_default();
        let setting = |value: &Value| match value {
            Value::String(s) if s == "demand" => Some(Setting::Demand),
            Value::String(s) if s == "baseline" => Some(Setting::Baseline),
            Value::Integer(n) => Some(Setting::Fixed(Json::from(*n))),
            Value::Boolean(b) => Some(Setting::Fixed(Json::from(*b))),
            _ => None,
        };
        let mut row = Vec::new();
        for (name, value) in pairs {
            match setting(value) {
                Some(setting) => row.push((name.to_owned(), setting)),
                None => {
                    keys.fault(key, format!("{name}: {value} is not a number, true, false, \"demand\" or \"baseline\""))
                }
            }
        }
        if row.is_empty() && keys.has(key) {
            keys.fault(key, "sets nothing");
        }
        row
    };
    let (current, off, release) = (row("current"), row("off"), row("release"));
    let unrecorded = row("unrecorded");
    let mut limit = row("limit");
    for (key, row) in [("current", &current), ("limit", &limit)] {
        let is_left_out = key == "limit" && row.is_empty();
        if !is_left_out && !row.iter().any(|(_, s)| *s == Setting::Demand) {
            keys.fault(key, "has no \"demand\": the current would never reach the charger");
        }
    }
    if limit.is_empty() {
        limit.clone_from(&current);
    }
    let phases = phases(&mut keys);
    let mut classes = std::collections::BTreeMap::new();
    for (name, value) in keys.entries("writes").unwrap_or_default() {
        match value.as_str().and_then(WriteClass::from_word) {
            Some(class) => drop(classes.insert(name.to_owned(), class)),
            None => keys.fault("writes", format!("{name}: {value} is not volatile, flash or unknown")),
        }
    }
    let watch = keys.texts("watch");
    keys.finish();
    Some(ChargerControl {
        set: set?,
        read: read?,
        settle,
        min_current_a: min?,
        max_current_a: max?,
        max_current,
        step_a: step?,
        current,
        limit,
        phases,
        off,
        release,
        unrecorded,
        classes,
        watch,
    })
}

/// `phases = { psm = [1, 2] }`: what a key is set to for one phase and for three.
fn phases(keys: &mut Keys<'_>) -> Vec<(String, Json, Json)> {
    let mut found = Vec::new();
    for (name, value) in keys.entries("phases").unwrap_or_default() {
        match value.as_array().map(Vec::as_slice) {
            Some([Value::Integer(one), Value::Integer(three)]) => {
                found.push((name.to_owned(), Json::from(*one), Json::from(*three)));
            }
            _ => keys.fault("phases", format!("{name} must be a list of two numbers: for one phase, for three")),
        }
    }
    found
}
