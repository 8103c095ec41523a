//! Device and tag schedules as documents.
//!
//! A schedule's mode holds from its start to its end: its rules, and its default where no rule holds. A device schedule
//! ranks `schedule`, a tag schedule `tag`; of two that are in force at the same time the one created later wins, which is
//! written into the document of the older one, so that it does not matter in which order they come.

use super::mode::{Mode, mode};
use super::wire;
use crate::model::{DeviceKind, Timestamp};
use crate::plan::is_zone;
use crate::uplink::mapping::{
    Fate, MINUTES_PER_DAY, Mapped, Target, Times, entries, hour_minute, overlap_warning, plan_id, shown,
};
use serde_json::{Map, Value, json};

/// Native names of Texture's days, 0 = Sunday.
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Read an answer: `{"deviceSchedules": [..]}`, `{"tagSchedules": [..]}`, a list, or one schedule. All are taken to be
/// bound to the target: by their device's id, or by a tag that the device has.
///
/// # Errors
/// The answer is none of these.
pub fn schedules(answer: &Value, target: &Target) -> Result<Vec<Mapped>, String> {
    let mut read: Vec<Read> =
        entries(answer, &["deviceSchedules", "tagSchedules"])?.into_iter().map(|entry| read(entry, target)).collect();
    read.sort_by_key(|r| r.created);
    let later: Vec<Option<Covers>> = read.iter().map(Read::covers).collect();
    for (n, older) in read.iter_mut().enumerate() {
        for newer in later.iter().skip(n + 1).flatten() {
            older.give_way(newer);
        }
    }
    Ok(read.into_iter().map(|r| r.mapped).collect())
}

/// One schedule, before the others are looked at.
struct Read {
    created: Timestamp,
    is_tag: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    mapped: Mapped,
}

/// The time that a schedule covers.
#[derive(Debug, Clone, Copy)]
struct Covers {
    is_tag: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Read {
    fn covers(&self) -> Option<Covers> {
        let is_taken = matches!(self.mapped.fate, Fate::Take(_));
        is_taken.then_some(Covers { is_tag: self.is_tag, from: self.from, to: self.to })
    }

    /// Leave the time of a schedule that was created later to that.
    fn give_way(&mut self, newer: &Covers) {
        let starts_before = |a: Option<Timestamp>, b: Option<Timestamp>| a.zip(b).is_some_and(|(a, b)| a <= b);
        if newer.is_tag != self.is_tag || starts_before(self.to, newer.from) || starts_before(newer.to, self.from) {
            return;
        }
        let Fate::Take(document) = &mut self.mapped.fate else { return };
        let from_start = newer.from.is_none_or(|n| self.from.is_some_and(|s| n <= s));
        let to_end = newer.to.is_none_or(|n| self.to.is_some_and(|s| s <= n));
        if from_start && to_end {
            self.mapped.fate = Fate::Drop("a schedule that was created later covers its whole time".to_owned());
            return;
        }
        let mut rule = json!({"action": "none"});
        for (key, time) in [("from", newer.from), ("to", newer.to)] {
            if let Some(time) = time {
                rule[key] = json!(time.to_string());
            }
        }
        if let Some(Value::Array(rules)) = document.get_mut("rules") {
            rules.insert(0, rule);
        }
        self.mapped.warnings.push("a schedule that was created later takes part of its time".to_owned());
    }
}

fn read(entry: &Value, target: &Target) -> Read {
    let id = entry.get("id").and_then(Value::as_str).unwrap_or("nameless");
    let is_tag = entry.get("tag").is_some_and(|tag| !tag.is_null());
    // A tag's schedule serves many devices.
    let plan = if is_tag { plan_id(&["texture", id, target.device.as_str()]) } else { plan_id(&["texture", id]) };
    let mut read = Read {
        created: Timestamp::default(),
        is_tag,
        from: None,
        to: None,
        mapped: Mapped { plan, fate: Fate::Reject(Vec::new()), warnings: Vec::new() },
    };
    match wire::Schedule::deserialize_from(entry) {
        Ok(schedule) => {
            read.created = schedule.created_at.as_deref().and_then(|t| t.parse().ok()).unwrap_or_default();
            read.mapped.fate = read.fate(&schedule, target);
        }
        Err(why) => read.mapped.fate = Fate::Reject(vec![why]),
    }
    read
}

impl Read {
    fn fate(&mut self, schedule: &wire::Schedule, target: &Target) -> Fate {
        if let Some(why) = is_for_another(schedule, target) {
            return Fate::Drop(why);
        }
        let mut faults = Vec::new();
        if schedule.id.is_none() {
            faults.push("id is missing".to_owned());
        }
        let zone = schedule.timezone.as_ref().or(schedule.device_timezone.as_ref()).or(target.zone.as_ref());
        if let Some(zone) = zone.filter(|zone| !is_zone(zone)) {
            faults.push(format!("the time zone `{zone}` is unknown"));
        }
        let mut time = |key: &str, text: &Option<String>| {
            let text = text.as_deref()?;
            text.parse::<Timestamp>().map_err(|why| faults.push(format!("{key}: {why}"))).ok()
        };
        self.from = time("startsAt", &schedule.starts_at);
        self.to = time("endsAt", &schedule.ends_at);
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to <= from
        {
            faults.push(format!("endsAt {to} is not after startsAt {from}"));
        }
        let rules = self.rules(schedule, target, &mut faults);
        let default = match mode(schedule.default_device_operating_mode.as_ref(), target) {
            Ok(mode) => Some(self.noting("the default", mode)),
            Err(why) => {
                self.mapped.warnings.push(format!("the default wants nothing: {why}"));
                None
            }
        };
        if !faults.is_empty() {
            return Fate::Reject(faults);
        }
        if default.is_none() && rules.iter().all(|rule| rule["action"] == "none") {
            return Fate::Drop("none of its modes can be carried out here".to_owned());
        }
        let mut document = json!({
            "id": self.mapped.plan,
            "device": target.device.as_str(),
            "kind": "weekly",
            "starts_at": self.from.map(|t| t.to_string()),
            "ends_at": self.to.map(|t| t.to_string()),
            "default": default,
            "rules": rules,
        });
        if let Some(zone) = zone {
            document["timezone"] = json!(zone);
        }
        if self.is_tag {
            document["rank"] = json!("tag");
        }
        Fate::Take(document)
    }

    fn rules(&mut self, schedule: &wire::Schedule, target: &Target, faults: &mut Vec<String>) -> Vec<Value> {
        let mut rules = Vec::new();
        let mut times = Vec::new();
        if schedule.rules.is_none() {
            faults.push("rules is missing".to_owned());
        }
        for (n, rule) in schedule.rules.iter().flatten().enumerate() {
            let Some(when) = when(rule, n, faults) else { continue };
            if when.days == 0 {
                continue;
            }
            let action = match mode(rule.device_operating_mode.as_ref(), target) {
                Ok(mode) => self.noting(&format!("rules[{n}]"), mode),
                Err(why) => {
                    self.mapped.warnings.push(format!("rules[{n}] does nothing: {why}"));
                    json!({"action": "none"})
                }
            };
            times.push((when, action.clone()));
            let days: Vec<_> = (0..7).filter(|d| when.days & (1 << d) != 0).map(|d| DAYS[d]).collect();
            let mut shown_rule = json!({"days": days, "start": shown(when.start), "end": shown(when.end)});
            merge(&mut shown_rule, action);
            rules.push(shown_rule);
        }
        self.mapped.warnings.extend(overlap_warning(&times));
        rules
    }

    fn noting(&mut self, at: &str, mode: Mode) -> Value {
        if let Some(warning) = mode.warning {
            self.mapped.warnings.push(format!("{at}: {warning}"));
        }
        json!({"action": mode.action, "params": mode.params})
    }
}

/// When a rule holds; `None` with a fault when that cannot be understood.
fn when(rule: &wire::Rule, n: usize, faults: &mut Vec<String>) -> Option<Times> {
    let before = faults.len();
    let mut days = 0;
    match &rule.days_of_week {
        None => faults.push(format!("rules[{n}].daysOfWeek is missing")),
        Some(list) => {
            for day in list {
                match day.as_u64().filter(|day| *day < 7) {
                    Some(day) => days |= 1 << day,
                    None => {
                        faults.push(format!("rules[{n}].daysOfWeek has {day}: it takes 0 (Sunday) to 6 (Saturday)"))
                    }
                }
            }
        }
    }
    let mut clock = |key: &str, text: &Option<String>, most: usize| {
        let minute = text.as_deref().and_then(hour_minute).filter(|minute| *minute <= most);
        if minute.is_none() {
            let text = text.as_deref().unwrap_or("missing");
            faults.push(format!("rules[{n}].{key} is {text}: it is HH:mm"));
        }
        minute.unwrap_or(0)
    };
    let start = clock("startTime", &rule.start_time, MINUTES_PER_DAY - 1);
    let end = clock("endTime", &rule.end_time, MINUTES_PER_DAY);
    (faults.len() == before).then_some(Times { days, start, end, from: None, to: None })
}

/// Is a tag's schedule for another kind of device than the target.
fn is_for_another(schedule: &wire::Schedule, target: &Target) -> Option<String> {
    schedule.tag.as_ref()?;
    match schedule.device_type.as_deref() {
        Some("battery") if target.kind == DeviceKind::Battery => None,
        Some(kind @ ("vehicle" | "thermostat")) => Some(format!("it is for a {kind}, which is no device on the LAN")),
        Some(kind) => Some(format!("it is for a {kind}, and {} is a {}", target.device, target.kind)),
        None => Some("it does not say for which kind of device it is".to_owned()),
    }
}

fn merge(rule: &mut Value, action: Value) {
    if let (Value::Object(rule), Value::Object(action)) = (rule, action) {
        let filled = |value: &Value| value != &Value::Object(Map::new());
        rule.extend(action.into_iter().filter(|(_, value)| filled(value)));
    }
}
