//! Overlay plans as `slots` documents.
//!
//! Where two commands overlap the later start wins, which is the rule of `slots` documents; in gaps, before the first and
//! after the last the base mode applies, as a document that wants nothing leaves the device to those below it.

use super::wire::Command;
use crate::model::{DeviceKind, NOMINAL_V, Timestamp};
use crate::uplink::mapping::{Fate, Mapped, Target, plan_id};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Names under which a plan of durations may say when it begins.
const STARTS: [&str; 4] = ["start", "startTime", "startDateTime", "startsAt"];
/// Longest command, minutes: nobody plans a year ahead.
const MAX_MINUTES: f64 = 366.0 * 24.0 * 60.0;

/// Read an overlay plan. It has one document per device: `gridshare-plan-<device>`.
#[must_use]
pub fn overlay(answer: &Value, target: &Target) -> Mapped {
    let plan = plan_id(&["gridshare", "plan", target.device.as_str()]);
    let mut warnings = Vec::new();
    let fate = fate(answer, target, &plan, &mut warnings);
    Mapped { plan, fate, warnings }
}

fn fate(answer: &Value, target: &Target, plan: &str, warnings: &mut Vec<String>) -> Fate {
    let Some(Value::Array(commands)) = answer.get("commands") else {
        return Fate::Reject(vec!["commands is missing: it is a list".to_owned()]);
    };
    if commands.is_empty() {
        return Fate::Drop("the plan is empty".to_owned());
    }
    if !matches!(target.kind, DeviceKind::Battery | DeviceKind::Charger) {
        return Fate::Drop(format!(
            "an overlay plan is for a battery or a charger, and {} is a {}",
            target.device, target.kind
        ));
    }
    let has_durations = commands.iter().any(|c| c.get("durationMinutes").is_some_and(|d| !d.is_null()))
        && commands.iter().all(|c| c.get("start").is_none_or(Value::is_null));
    let timed = if has_durations { by_duration(answer, commands, warnings) } else { by_instants(commands, warnings) };
    let mut slots = Vec::new();
    for (n, start, end, command) in timed {
        match wish(&command, target) {
            Ok((mut slot, warning)) => {
                warnings.extend(warning.map(|warning| format!("commands[{n}]: {warning}")));
                slot["start"] = json!(start.to_string());
                slot["end"] = json!(end.to_string());
                slots.push((start, slot));
            }
            Err(why) => warnings.push(format!("commands[{n}] is left out: {why}")),
        }
    }
    if slots.is_empty() {
        return Fate::Drop("none of its commands can be carried out".to_owned());
    }
    slots.sort_by_key(|(start, _)| *start);
    let slots: Vec<_> = slots.into_iter().map(|(_, slot)| slot).collect();
    Fate::Take(json!({"id": plan, "device": target.device.as_str(), "kind": "slots", "slots": slots}))
}

type Timed = (usize, Timestamp, Timestamp, Command);

fn by_instants(commands: &[Value], warnings: &mut Vec<String>) -> Vec<Timed> {
    let mut timed = Vec::new();
    for (n, command) in commands.iter().enumerate() {
        let read = Command::deserialize(command).map_err(|why| why.to_string()).and_then(|command| {
            let time = |key: &str, text: &Option<String>| match text {
                Some(text) => text.parse::<Timestamp>().map_err(|why| format!("{key}: {why}")),
                None => Err(format!("{key} is missing")),
            };
            let (start, end) = (time("start", &command.start)?, time("end", &command.end)?);
            if end <= start {
                return Err(format!("end {end} is not after start {start}"));
            }
            Ok((n, start, end, command))
        });
        match read {
            Ok(one) => timed.push(one),
            Err(why) => warnings.push(format!("commands[{n}] is left out: {why}")),
        }
    }
    timed
}

/// Commands that follow each other without gaps from the plan's own start.
fn by_duration(plan: &Value, commands: &[Value], warnings: &mut Vec<String>) -> Vec<Timed> {
    let start = STARTS.iter().find_map(|key| plan.get(*key)).and_then(Value::as_str);
    let mut start = match start.map(str::parse::<Timestamp>) {
        Some(Ok(start)) => start,
        Some(Err(why)) => {
            warnings.push(format!("the plan's start: {why}"));
            return Vec::new();
        }
        None => {
            warnings.push("the plan's start is missing: its commands have only durations".to_owned());
            return Vec::new();
        }
    };
    let mut timed = Vec::new();
    for (n, command) in commands.iter().enumerate() {
        let read = Command::deserialize(command).map_err(|why| why.to_string()).and_then(|command| {
            match command.duration_minutes.filter(|minutes| *minutes > 0.0 && *minutes <= MAX_MINUTES) {
                Some(minutes) => Ok((Duration::from_secs_f64(minutes * 60.0), command)),
                None => Err("durationMinutes is missing or not a time".to_owned()),
            }
        });
        match read {
            Ok((lasts, command)) => {
                let end = start.plus(lasts);
                timed.push((n, start, end, command));
                start = end;
            }
            Err(why) => {
                // When those after it begin is not known then.
                warnings.push(format!("commands[{n}] and those after it are left out: {why}"));
                break;
            }
        }
    }
    timed
}

type Slot = (Value, Option<String>);

/// What a command wants, and what is not quite as it says.
fn wish(command: &Command, target: &Target) -> Result<Slot, String> {
    let action = command.action.as_deref().ok_or("action is missing")?;
    if !["charge", "discharge", "hold", "follow"].contains(&action) {
        return Err(format!("action `{action}` is unknown: it is charge, discharge, hold or follow"));
    }
    let limit = command.power_limit_w.map(f64::abs);
    Ok(match target.kind {
        DeviceKind::Charger => charger(action, limit, target),
        _ => battery(action, limit, target),
    })
}

fn battery(action: &str, limit: Option<f64>, target: &Target) -> Slot {
    match (action, limit) {
        ("hold", _) | (_, Some(0.0)) => (json!({"action": "idle"}), None),
        // To follow the load is what a battery does by itself.
        ("follow", None) => (json!({"action": "auto"}), None),
        ("follow", Some(limit)) => {
            let warning =
                format!("{} follows the load by itself, and its power cannot be capped to {limit} W", target.device);
            (json!({"action": "auto"}), Some(warning))
        }
        (action, None) => (json!({"action": action}), None),
        (action, Some(limit)) => (json!({"action": action, "params": {"power_w": limit}}), None),
    }
}

fn charger(action: &str, limit: Option<f64>, target: &Target) -> Slot {
    match (action, limit) {
        ("charge", None) => (json!({"action": "start"}), None),
        ("charge", Some(limit)) if limit > 0.0 => {
            let amps = limit / (NOMINAL_V * f64::from(target.phases.clamp(1, 3)));
            (json!({"action": "set_max_current", "params": {"current_a": amps.min(1000.0)}}), None)
        }
        ("follow", limit) if limit != Some(0.0) => {
            (json!({"action": "stop"}), Some("a plan cannot let a charger follow the sun: it pauses".to_owned()))
        }
        _ => (json!({"action": "stop"}), None),
    }
}
