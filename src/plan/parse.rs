//! From JSON to a checked document, with every fault at once.

mod smart;
mod tariff;

use super::nearest::hint;
use super::weekly::{EVERY_DAY, MINUTES_PER_DAY, Rule, Weekly};
use super::{MAX_BODY, MAX_RULES, MAX_SLOTS, PlanDoc, Timeline, slots};
use crate::model::{Action, DeviceId, DeviceKind, PlanId, Rank, Timestamp};
use crate::wire;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// Reasons listed at most: a document of thousands of faulty slots must not make an answer of megabytes.
const MAX_REASONS: usize = 50;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Labels that senders may add for themselves; they are not kept.
const LABELS: [&str; 4] = ["source", "name", "description", "version"];
const WEEKLY_KEYS: [&str; 9] = ["id", "device", "kind", "rank", "timezone", "starts_at", "ends_at", "default", "rules"];
const SLOTS_KEYS: [&str; 5] = ["id", "device", "kind", "rank", "slots"];
const RULE_KEYS: [&str; 7] = ["days", "start", "end", "from", "to", "action", "params"];
/// The ranks that a document may ask for.
const RANKS: [&str; 3] = ["tag", "schedule", "plan"];
/// The action of a rule that wants nothing.
const NONE: &str = "none";
const KINDS: [&str; 5] = ["weekly", "slots", "solar", "price", "tariff"];

/// Collects what is wrong.
struct Faults {
    reasons: Vec<String>,
    more: usize,
}

impl Faults {
    fn add(&mut self, reason: impl Into<String>) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason.into());
        } else {
            self.more += 1;
        }
    }

    /// Keep the good, note the bad.
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(reason)).ok()
    }

    fn into_reasons(mut self) -> Vec<String> {
        if self.more > 0 {
            self.reasons.push(format!("and {} more", self.more));
        }
        self.reasons
    }

    const fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}

pub(super) fn parse(
    outer_id: Option<&PlanId>,
    body: &[u8],
    kind_of: &dyn Fn(&DeviceId) -> Option<DeviceKind>,
    site_zone: &str,
) -> Result<PlanDoc, Vec<String>> {
    if body.len() > MAX_BODY {
        return Err(vec![format!("the document has {} bytes: at most {MAX_BODY} are taken", body.len())]);
    }
    let value: Value = serde_json::from_slice(body).map_err(|e| vec![format!("the document is not JSON: {e}")])?;
    let Value::Object(map) = value else {
        return Err(vec!["the document is not a JSON object".to_owned()]);
    };
    let mut faults = Faults { reasons: Vec::new(), more: 0 };
    if map.get("kind").and_then(Value::as_str) == Some("tariff") {
        return tariff::document(outer_id, &map, site_zone, faults);
    }
    let id = faults.take(plan_id(outer_id, &map)).flatten();
    let device = faults.take(device(&map, kind_of));
    let timeline = match map.get("kind") {
        Some(Value::String(kind)) if kind == "weekly" => {
            known_keys(&map, "", &WEEKLY_KEYS, &LABELS, &mut faults);
            weekly(&map, device.as_ref().map(|(_, kind)| *kind), site_zone, &mut faults)
        }
        Some(Value::String(kind)) if kind == "slots" => {
            known_keys(&map, "", &SLOTS_KEYS, &LABELS, &mut faults);
            slots(&map, device.as_ref().map(|(_, kind)| *kind), &mut faults)
        }
        Some(Value::String(kind)) if kind == "solar" => {
            smart::solar(&map, device.as_ref().map(|(_, kind)| *kind), &mut faults)
        }
        Some(Value::String(kind)) if kind == "price" => {
            smart::price(&map, device.as_ref().map(|(_, kind)| *kind), site_zone, &mut faults)
        }
        Some(Value::String(kind)) => {
            faults.add(format!("kind `{kind}` is unknown: it is {}{}", KINDS.join(", "), hint(kind, KINDS)));
            None
        }
        Some(other) => {
            faults.add(format!("kind is {}: it must be one of {}", brief(other), KINDS.join(", ")));
            None
        }
        None => {
            faults.add(format!("kind is missing: it is one of {}", KINDS.join(", ")));
            None
        }
    };
    match (id, device, timeline) {
        (Some(id), Some((device, _)), Some((timeline, content))) if faults.is_empty() => {
            let mut json = Map::new();
            json.insert("id".to_owned(), json!(id.as_str()));
            json.insert("device".to_owned(), json!(device.as_str()));
            json.extend(content);
            let mut doc = PlanDoc { id, device: Some(device), timeline, lowered: None, json: Value::Null };
            doc.lowered = lowered(&map, doc.kind(), doc.rank()).map_err(|reason| vec![reason])?;
            if let Some(rank) = doc.lowered {
                json.insert("rank".to_owned(), json!(rank.to_string()));
            }
            doc.json = Value::Object(json);
            Ok(doc)
        }
        _ => Err(faults.into_reasons()),
    }
}

/// The rank that the document asks for, where it is lower than its kind's own.
fn lowered(map: &Map<String, Value>, kind: &str, own: Rank) -> Result<Option<Rank>, String> {
    let Some(word) = opt_text(map, "", "rank")? else { return Ok(None) };
    let rank = Rank::from_word(word).filter(|_| RANKS.contains(&word)).ok_or_else(|| {
        format!("rank `{}` is unknown: it is one of {}{}", cut(word), RANKS.join(", "), hint(word, RANKS))
    })?;
    if rank > own {
        return Err(format!("rank is `{word}`: a {kind} document ranks {own}, and may only ask for less"));
    }
    Ok(Some(rank).filter(|rank| *rank < own))
}

fn plan_id(outer: Option<&PlanId>, map: &Map<String, Value>) -> Result<Option<PlanId>, String> {
    let inner = match map.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse::<PlanId>().map_err(|e| format!("id: {e}"))?),
        Some(other) => return Err(format!("id is {}: it must be a text", brief(other))),
    };
    match (outer, inner) {
        (Some(outer), Some(inner)) if *outer != inner => {
            Err(format!("id is `{inner}`, but the document was sent as `{outer}`: they must agree"))
        }
        (Some(outer), _) => Ok(Some(outer.clone())),
        (None, Some(inner)) => Ok(Some(inner)),
        (None, None) => Err("id is missing".to_owned()),
    }
}

fn device(
    map: &Map<String, Value>,
    kind_of: &dyn Fn(&DeviceId) -> Option<DeviceKind>,
) -> Result<(DeviceId, DeviceKind), String> {
    let text = need_text(map, "", "device")?;
    let id = text.parse::<DeviceId>().map_err(|e| format!("device: {e}"))?;
    let kind = kind_of(&id).ok_or_else(|| format!("device `{id}` is not configured on this gateway"))?;
    Ok((id, kind))
}

type Checked = (Timeline, Map<String, Value>);

fn weekly(map: &Map<String, Value>, kind: Option<DeviceKind>, site_zone: &str, faults: &mut Faults) -> Option<Checked> {
    let zone_name = faults.take(opt_text(map, "", "timezone"));
    let zone = zone_name.and_then(|name| match name {
        Some(name) => faults.take(zone(name).map_err(|why| format!("timezone {why}"))),
        None => faults.take(zone(site_zone).map_err(|why| format!("the site's own timezone {why}"))),
    });
    let starts_at = faults.take(opt_time(map, "", "starts_at"));
    let ends_at = faults.take(opt_time(map, "", "ends_at"));
    if let (Some(Some(start)), Some(Some(end))) = (starts_at, ends_at)
        && end <= start
    {
        faults.add(format!("ends_at {end} is not after starts_at {start}"));
    }
    let default = match map.get("default") {
        None | Some(Value::Null) => None,
        Some(Value::Object(default)) => {
            known_keys(default, "default.", &["action", "params"], &[], faults);
            faults.take(action(default, "default.", kind)).flatten().map(|action| (action, default))
        }
        Some(other) => {
            faults.add(format!("default is {}: it must be an object with an action", brief(other)));
            None
        }
    };
    let items = faults.take(array(map, "rules", MAX_RULES))?;
    if items.is_empty() && default.is_none() {
        faults.add("rules is empty and there is no default: the document wants nothing");
    }
    let mut rules = Vec::with_capacity(items.len());
    let mut shown = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        let at = format!("rules[{n}].");
        let Value::Object(item) = item else {
            faults.add(format!("rules[{n}] is {}: it must be an object", brief(item)));
            continue;
        };
        if let Some((rule, json)) = rule(item, &at, kind, faults) {
            shown.push(Value::Object(json));
            rules.push(rule);
        }
    }
    if !rules.is_empty() && default.is_none() && rules.iter().all(|rule| rule.action.is_none()) {
        faults.add("every rule's action is none and there is no default: the document wants nothing");
    }
    if !faults.is_empty() {
        return None;
    }
    let (zone, starts_at, ends_at) = (zone?, starts_at?, ends_at?);
    let mut content = Map::new();
    content.insert("kind".into(), json!("weekly"));
    content.insert("timezone".into(), json!(zone.iana_name().unwrap_or("UTC")));
    content.insert("starts_at".into(), json!(starts_at.map(|t| t.to_string())));
    content.insert("ends_at".into(), json!(ends_at.map(|t| t.to_string())));
    content.insert("default".into(), default.as_ref().map_or(Value::Null, |(a, d)| Value::Object(shown_action(a, d))));
    content.insert("rules".into(), Value::Array(shown));
    let weekly = Weekly::new(zone, starts_at, ends_at, default.map(|(action, _)| action), &rules);
    faults.take(weekly).map(|weekly| (Timeline::Weekly(weekly), content))
}

/// A rule of a `weekly` document, and how it is shown.
fn rule(
    item: &Map<String, Value>,
    at: &str,
    kind: Option<DeviceKind>,
    faults: &mut Faults,
) -> Option<(Rule, Map<String, Value>)> {
    known_keys(item, at, &RULE_KEYS, &[], faults);
    let days = days(item, at, faults);
    let (start, end) = match (item.get("start"), item.get("end")) {
        (None | Some(Value::Null), None | Some(Value::Null)) => (Some(0), Some(MINUTES_PER_DAY)),
        _ => (faults.take(minute(item, at, "start", false)), faults.take(minute(item, at, "end", true))),
    };
    let from = faults.take(opt_time(item, at, "from"));
    let to = faults.take(opt_time(item, at, "to"));
    if let (Some(Some(from)), Some(Some(to))) = (from, to)
        && to <= from
    {
        faults.add(format!("{at}to {to} is not after its from {from}"));
    }
    let is_none = item.get("action").and_then(Value::as_str) == Some(NONE);
    let action = if is_none { Some(None) } else { faults.take(action(item, at, kind)).flatten().map(Some) };
    let (days, start, end, from, to, action) = (days?, start?, end?, from?, to?, action?);
    let mut shown = Map::new();
    shown.insert(
        "days".into(),
        DAYS.iter().enumerate().filter(|(d, _)| days & (1 << d) != 0).map(|(_, w)| *w).collect(),
    );
    shown.insert("start".into(), json!(clock(start)));
    shown.insert("end".into(), json!(clock(end)));
    for (key, time) in [("from", from), ("to", to)] {
        if let Some(time) = time {
            shown.insert(key.into(), json!(time.to_string()));
        }
    }
    match &action {
        Some(action) => shown.extend(shown_action(action, item)),
        None => drop(shown.insert("action".into(), json!(NONE))),
    }
    Some((Rule { days, start, end, from, to, action }, shown))
}

fn slots(map: &Map<String, Value>, kind: Option<DeviceKind>, faults: &mut Faults) -> Option<Checked> {
    let items = faults.take(array(map, "slots", MAX_SLOTS))?;
    if items.is_empty() {
        faults.add("slots is empty: the document wants nothing");
    }
    let mut slots = Vec::with_capacity(items.len());
    let mut shown = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        let at = format!("slots[{n}].");
        let Value::Object(item) = item else {
            faults.add(format!("slots[{n}] is {}: it must be an object", brief(item)));
            continue;
        };
        known_keys(item, &at, &["start", "end", "action", "params"], &[], faults);
        let start = faults.take(need_time(item, &at, "start"));
        let end = faults.take(need_time(item, &at, "end"));
        let action = faults.take(action(item, &at, kind)).flatten();
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            faults.add(format!("{at}end {end} is not after its start {start}"));
        }
        if let (Some(start), Some(end), Some(action)) = (start, end, action) {
            let mut slot = Map::new();
            slot.insert("start".into(), json!(start.to_string()));
            slot.insert("end".into(), json!(end.to_string()));
            slot.extend(shown_action(&action, item));
            shown.push(Value::Object(slot));
            slots.push((start, end, action));
        }
    }
    if !faults.is_empty() {
        return None;
    }
    let mut content = Map::new();
    content.insert("kind".into(), json!("slots"));
    content.insert("slots".into(), Value::Array(shown));
    Some((Timeline::Slots(slots::Slots::new(&slots)), content))
}

pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    // Only names of the database: no fixed offsets, no rules spelt out.
    match TimeZone::get(name) {
        Ok(zone) if zone.iana_name().is_some() && !zone.is_unknown() => Ok(zone),
        _ => {
            let known: Vec<String> = jiff::tz::db().available().map(|n| n.as_str().to_owned()).collect();
            let near = hint(name, known.iter().map(String::as_str));
            Err(format!("`{}` is unknown: it takes a name such as Europe/Berlin{near}", cut(name)))
        }
    }
}

/// The action of a rule, slot or default. `Ok(None)`: it could not be checked, as the device is not known.
fn action(item: &Map<String, Value>, at: &str, kind: Option<DeviceKind>) -> Result<Option<Action>, String> {
    let name = need_text(item, at, "action")?;
    let none = Map::new();
    let params = match item.get("params") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(params)) => params,
        Some(other) => return Err(format!("{at}params is {}: it must be an object", brief(other))),
    };
    let Some(kind) = kind else { return Ok(None) };
    match wire::parse_action(kind, name, params) {
        // It would be a rule without effect: no profile can do it yet.
        Ok(Action::SetMode { .. }) => Err(format!("{at}action: `set_mode` is not for plans")),
        parsed => parsed.map(Some).map_err(|why| format!("{at}action: {why}")),
    }
}

fn shown_action(action: &Action, item: &Map<String, Value>) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("action".into(), json!(action.name()));
    let params = item.get("params").filter(|p| p.is_object()).cloned();
    shown.insert("params".into(), params.unwrap_or_else(|| Value::Object(Map::new())));
    shown
}

fn days(item: &Map<String, Value>, at: &str, faults: &mut Faults) -> Option<u8> {
    let list = match item.get("days") {
        None | Some(Value::Null) => return Some(EVERY_DAY),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) => {
            faults.add(format!("{at}days is empty"));
            return None;
        }
        Some(other) => {
            faults.add(format!("{at}days is {}: it must be a list of {}", brief(other), DAYS.join(", ")));
            return None;
        }
    };
    let mut days = 0;
    let mut good = true;
    for (n, day) in list.iter().enumerate() {
        match day.as_str().and_then(|word| DAYS.iter().position(|d| *d == word)) {
            Some(day) => days |= 1 << day,
            None => {
                good = false;
                let near = day.as_str().map_or_else(String::new, |word| hint(word, DAYS));
                faults.add(format!("{at}days[{n}] is {}: it must be one of {}{near}", brief(day), DAYS.join(", ")));
            }
        }
    }
    good.then_some(days)
}

/// Minutes of the day of `HH:MM`; `24:00` only where a day may end.
fn minute(item: &Map<String, Value>, at: &str, key: &str, may_be_24: bool) -> Result<usize, String> {
    let text = need_text(item, at, key)?;
    let digits = |range| text.get(range).filter(|t: &&str| t.bytes().all(|b| b.is_ascii_digit()));
    let parsed = match (digits(0..2), text.get(2..3), digits(3..5), text.len()) {
        (Some(h), Some(":"), Some(m), 5) => h.parse::<usize>().ok().zip(m.parse::<usize>().ok()),
        _ => None,
    };
    match parsed {
        Some((h, m)) if h < 24 && m < 60 => Ok(h * 60 + m),
        Some((24, 0)) if may_be_24 => Ok(24 * 60),
        _ => {
            let last = if may_be_24 { "24:00" } else { "23:59" };
            Err(format!("{at}{key} is `{}`: it must be HH:MM from 00:00 to {last}", cut(text)))
        }
    }
}

fn clock(minute: usize) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn array<'a>(map: &'a Map<String, Value>, key: &str, most: usize) -> Result<&'a [Value], String> {
    match map.get(key) {
        Some(Value::Array(items)) if items.len() <= most => Ok(items),
        Some(Value::Array(items)) => Err(format!("{key} has {} entries: at most {most} are taken", items.len())),
        Some(other) => Err(format!("{key} is {}: it must be a list", brief(other))),
        None => Err(format!("{key} is missing: it is a list")),
    }
}

fn opt_text<'a>(map: &'a Map<String, Value>, at: &str, key: &str) -> Result<Option<&'a str>, String> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{at}{key} is {}: it must be a text", brief(other))),
    }
}

fn need_text<'a>(map: &'a Map<String, Value>, at: &str, key: &str) -> Result<&'a str, String> {
    opt_text(map, at, key)?.ok_or_else(|| format!("{at}{key} is missing"))
}

fn opt_time(map: &Map<String, Value>, at: &str, key: &str) -> Result<Option<Timestamp>, String> {
    opt_text(map, at, key)?.map(|t| t.parse().map_err(|e| format!("{at}{key}: {e}"))).transpose()
}

fn need_time(map: &Map<String, Value>, at: &str, key: &str) -> Result<Timestamp, String> {
    opt_time(map, at, key)?.ok_or_else(|| format!("{at}{key} is missing"))
}

fn known_keys(map: &Map<String, Value>, at: &str, known: &[&str], labels: &[&str], faults: &mut Faults) {
    for key in map.keys().filter(|key| !known.contains(&key.as_str()) && !labels.contains(&key.as_str())) {
        faults.add(format!("{at}{} is unknown{}", cut(key), hint(key, known.iter().copied())));
    }
}

/// A value as a reason may show it.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("`{}`", cut(text)),
        other => other.to_string(),
    }
}

/// At most 64 characters of the sender's own text.
fn cut(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}
