//! Charge schedules as documents.
//!
//! Only chargers are on the LAN. Charging is allowed (`start`) while `shouldCharge` says so, else the charger pauses
//! (`stop`); whether a car is there and wants energy is its own affair.

use super::wire;
use crate::model::{DeviceKind, Timestamp};
use crate::plan::is_zone;
use crate::uplink::mapping::{
    Fate, MINUTES_PER_DAY, Mapped, Target, Times, entries, hour_minute, overlap_warning, plan_id, shown,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Native names of Enode's days, 0 = Monday.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;

/// Where things are: the time zone of a schedule is that of its location.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `timezoneName` of each location by its id.
    pub zones: BTreeMap<String, String>,
    /// The location of the target itself.
    pub device: Option<String>,
    /// The time zone of this gateway's site: only to warn with.
    pub site_zone: Option<String>,
}

/// Read an answer: `{"data": [..]}`, a list, or one schedule. `target_id` is Enode's id of the target; `None`: the answer must
/// be about one charger only.
///
/// # Errors
/// The answer is none of these, or it is about several chargers.
pub fn schedules(
    answer: &Value,
    target_id: Option<&str>,
    target: &Target,
    places: &Places,
) -> Result<Vec<Mapped>, String> {
    let mut all = Vec::new();
    for entry in entries(answer, &["data"])? {
        let id = entry.get("id").and_then(Value::as_str).unwrap_or("nameless").to_owned();
        all.push((id, wire::Schedule::deserialize(entry).map_err(|why| why.to_string())));
    }
    let target_of = |read: &Result<wire::Schedule, String>| read.as_ref().ok().and_then(|s| s.target_id.clone());
    if let Some(wanted) = target_id {
        all.retain(|(_, read)| target_of(read).is_none_or(|id| id == wanted));
    } else {
        let chargers =
            all.iter().filter(|(_, r)| r.as_ref().is_ok_and(|s| s.target_type.as_deref() == Some("charger")));
        let mut ids: Vec<_> = chargers.filter_map(|(_, read)| target_of(read)).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > 1 {
            return Err(format!("the schedules are for several chargers: say which ({})", ids.join(", ")));
        }
    }
    let mut is_taken = false;
    let mut mapped = Vec::with_capacity(all.len());
    for (id, read) in all {
        let mut one = Mapped { plan: plan_id(&["enode", &id]), fate: Fate::Reject(Vec::new()), warnings: Vec::new() };
        one.fate = match read {
            Ok(schedule) => fate(&schedule, target, places, &one.plan, &mut one.warnings),
            Err(why) => Fate::Reject(vec![why]),
        };
        // One that cannot be understood keeps its place: what was taken from it before is still in force.
        let is_in_force = !matches!(one.fate, Fate::Drop(_));
        if is_in_force && is_taken {
            one.warnings
                .push("there are several schedules for one charger: the first that is enabled counts".to_owned());
            one.fate = Fate::Drop("another schedule of this charger comes first".to_owned());
        }
        is_taken |= is_in_force;
        mapped.push(one);
    }
    Ok(mapped)
}

fn fate(schedule: &wire::Schedule, target: &Target, places: &Places, plan: &str, warnings: &mut Vec<String>) -> Fate {
    match schedule.target_type.as_deref() {
        Some("charger") if target.kind == DeviceKind::Charger => {}
        Some("charger") => {
            return Fate::Drop(format!("it is for a charger, and {} is a {}", target.device, target.kind));
        }
        Some("vehicle") if schedule.location_id.is_none() => {
            return Fate::Drop("it is for a vehicle and names no location: never active".to_owned());
        }
        Some(kind @ ("vehicle" | "hvac")) => {
            return Fate::Drop(format!("it is for a {kind}, which is no device on the LAN"));
        }
        kind => {
            return Fate::Drop(format!("it is for a {}, which derd does not know", kind.unwrap_or("nameless kind")));
        }
    }
    if schedule.is_enabled == Some(false) {
        return Fate::Drop("it is disabled".to_owned());
    }
    let mut faults = Vec::new();
    if schedule.id.is_none() {
        faults.push("id is missing".to_owned());
    }
    let zone = zone(schedule, target, places, warnings);
    if !is_zone(&zone) {
        faults.push(format!("the time zone `{zone}` is unknown"));
    }
    let rules = rules(schedule, warnings, &mut faults);
    if !faults.is_empty() {
        return Fate::Reject(faults);
    }
    let default = schedule.default_should_charge.map(|should| json!({"action": action(should)}));
    if default.is_none() {
        warnings.push("defaultShouldCharge is missing: nothing is wanted where no rule holds".to_owned());
        if rules.iter().all(|rule| rule["action"] == "none") {
            return Fate::Drop("it wants nothing at any time".to_owned());
        }
    }
    Fate::Take(json!({
        "id": plan, "device": target.device.as_str(), "kind": "weekly", "timezone": zone, "default": default, "rules": rules,
    }))
}

const fn action(should_charge: bool) -> &'static str {
    if should_charge { "start" } else { "stop" }
}

fn zone(schedule: &wire::Schedule, target: &Target, places: &Places, warnings: &mut Vec<String>) -> String {
    let named = |id: &Option<String>| id.as_ref().and_then(|id| places.zones.get(id)).cloned();
    let zone = match &schedule.location_id {
        Some(_) => named(&schedule.location_id),
        None => named(&places.device),
    };
    let Some(zone) = zone.or_else(|| target.zone.clone()) else {
        warnings.push("nobody says in which time zone it is: UTC is taken".to_owned());
        return "UTC".to_owned();
    };
    let is_utc = |zone: &str| matches!(zone, "UTC" | "Etc/UTC");
    if is_utc(&zone)
        && let Some(site) = places.site_zone.as_ref().filter(|site| !is_utc(site))
    {
        warnings.push(format!("its location is in UTC, but the site in {site}: was its time zone never set"));
    }
    zone
}

fn rules(schedule: &wire::Schedule, warnings: &mut Vec<String>, faults: &mut Vec<String>) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut times = Vec::new();
    if schedule.rules.is_none() {
        faults.push("rules is missing".to_owned());
    }
    for (n, rule) in schedule.rules.iter().flatten().enumerate() {
        let Some(when) = when(rule, n, faults) else { continue };
        // Never: no day of the week, or over before it begins.
        if when.days == 0 || when.from.zip(when.to).is_some_and(|(from, to)| to <= from) {
            continue;
        }
        let action = rule.should_charge.map_or_else(
            || {
                warnings.push(format!("rules[{n}] does nothing: it has no shouldCharge"));
                "none"
            },
            action,
        );
        times.push((when, action));
        let days: Vec<_> = (0..7).filter(|d| when.days & (1 << d) != 0).map(|d| DAYS[d]).collect();
        let mut shown_rule =
            json!({"days": days, "start": shown(when.start), "end": shown(when.end), "action": action});
        for (key, time) in [("from", when.from), ("to", when.to)] {
            if let Some(time) = time {
                shown_rule[key] = json!(time.to_string());
            }
        }
        rules.push(shown_rule);
    }
    warnings.extend(overlap_warning(&times));
    rules
}

/// When a rule holds; `None` with a fault when that cannot be understood.
fn when(rule: &wire::Rule, n: usize, faults: &mut Vec<String>) -> Option<Times> {
    let before = faults.len();
    let mut days = 0;
    for day in rule.weekdays.iter().flatten() {
        match day.as_u64().filter(|day| *day < 7) {
            Some(day) => days |= 1 << day,
            None => faults.push(format!("rules[{n}].weekdays has {day}: it takes 0 (Monday) to 6 (Sunday)")),
        }
    }
    if rule.weekdays.is_none() {
        days = EVERY_DAY;
    }
    let mut clock = |key: &str, text: &Option<String>, most: usize| {
        let minute = text.as_deref().and_then(hour_minute).filter(|minute| *minute <= most);
        if minute.is_none() {
            let text = text.as_deref().unwrap_or("missing");
            faults.push(format!("rules[{n}].hourMinute.{key} is {text}: it is HH:mm"));
        }
        minute.unwrap_or(0)
    };
    let (start, end) = match &rule.hour_minute {
        Some(times) => (clock("from", &times.from, MINUTES_PER_DAY - 1), clock("to", &times.to, MINUTES_PER_DAY)),
        None => (0, MINUTES_PER_DAY),
    };
    let mut time = |key: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        text.parse::<Timestamp>().map_err(|why| faults.push(format!("rules[{n}].{key}: {why}"))).ok()
    };
    let from = time("fromTimestamp", &rule.from_timestamp);
    let to = time("toTimestamp", &rule.to_timestamp);
    (faults.len() == before).then_some(Times { days, start, end, from, to })
}
