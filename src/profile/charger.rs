//! Chargers that are set by one GET with keys in its query and read back by the same keys.

use super::program::Target;
use super::spec::{ChargerControl, Setting};
use super::{Check, HttpMethod, Program, Request};
use crate::model::{Demand, Drift, WriteClass};
use serde_json::{Map, Value};

/// The settings that any program changes, as they are now.
pub(super) fn take_baseline(control: &ChargerControl, document: &Value) -> Result<String, String> {
    let mut keys = Map::new();
    for (key, _) in control.current.iter().chain(&control.limit).chain(&control.off).chain(&control.release) {
        // A charger that cannot switch phases does not tell the key for it.
        let is_phases = control.phases.iter().any(|(name, ..)| name == key);
        match told(document, key) {
            Some(value) => drop(keys.insert(key.clone(), value.clone())),
            None if is_phases => {}
            None => return Err(format!("the charger does not tell `{key}`")),
        }
    }
    // What derd never writes need not be there: older firmware may not tell it.
    for key in &control.watch {
        keys.extend(document.get(key).filter(|v| !v.is_null()).map(|value| (key.clone(), value.clone())));
    }
    Ok(Value::Object(keys).to_string())
}

fn told<'a>(document: &'a Value, key: &str) -> Option<&'a Value> {
    document.get(key).filter(|v| v.is_number() || v.is_string() || v.is_boolean())
}

/// Can this charger be told its phases: it knows the keys for that.
pub(super) fn can_switch(control: &ChargerControl, document: &Value) -> bool {
    !control.phases.is_empty() && control.phases.iter().all(|(key, ..)| told(document, key).is_some())
}

/// What is not as recorded; a key that is not told now says nothing.
pub(super) fn drift(place: &str, recorded: &Map<String, Value>, document: &Value) -> Vec<Drift> {
    let differs = recorded.iter().filter_map(|(key, stored)| {
        let now = document.get(key).filter(|now| !now.is_null() && !super::program::same(stored, now))?;
        let register = format!("{place} {key}");
        Some(Drift { register, name: key.clone(), stored: stored.to_string(), now: now.to_string() })
    });
    differs.collect()
}

/// The one request that brings the demand, and its proof.
pub(super) fn program(
    control: &ChargerControl,
    read: Request,
    demand: &Demand,
    max_current_a: f64,
    baseline: Option<&Map<String, Value>>,
) -> Result<Program, String> {
    let (row, amps) = match *demand {
        Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps } if !amps.is_finite() => {
            return Err("a current without a number".to_owned());
        }
        // below its minimum a charger cannot charge: it pauses
        Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps } if amps + 1e-9 < control.min_current_a => {
            (&control.off, 0.0)
        }
        Demand::ChargerCurrent { amps, .. } => (&control.current, amps),
        Demand::ChargerLimit { amps } => (&control.limit, amps),
        Demand::ChargerOff => (&control.off, 0.0),
        Demand::Release if baseline.is_none() => (&control.unrecorded, 0.0),
        Demand::Release => (&control.release, 0.0),
        _ => return Err("a charger takes a current or a pause only".to_owned()),
    };
    let amps = (amps.min(max_current_a) / control.step_a + 1e-9).floor() * control.step_a;
    // of a limit only the limit is proven: whether it charges is the charger's and its owner's to change
    let is_limit = matches!(demand, Demand::ChargerLimit { .. }) && amps > 0.0;
    let mut keys: Vec<(String, Value)> = Vec::with_capacity(row.len());
    let mut proven = Vec::with_capacity(row.len());
    for (key, setting) in row {
        let value = match setting {
            Setting::Fixed(value) => value.clone(),
            Setting::Demand => plain_number(amps),
            // without a record the charger keeps what it has
            Setting::Baseline => match baseline.and_then(|b| b.get(key)) {
                Some(value) => value.clone(),
                None => continue,
            },
        };
        if !is_limit || *setting == Setting::Demand {
            proven.push((key.clone(), value.clone()));
        }
        keys.push((key.clone(), value));
    }
    if let (Demand::ChargerCurrent { phases, .. }, true) = (*demand, amps > 0.0) {
        for (key, one, three) in &control.phases {
            // Without a wish back to what the installer set: an earlier setpoint may have switched.
            let value = match phases {
                Some(1) => one,
                Some(_) => three,
                None => match baseline.and_then(|b| b.get(key)) {
                    Some(value) => value,
                    None => continue,
                },
            };
            proven.push((key.clone(), value.clone()));
            keys.push((key.clone(), value.clone()));
        }
    }
    if keys.is_empty() {
        return Err("what the installer set was never recorded: the charger stays as it is".to_owned());
    }
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(keys.iter().map(|(k, v)| (k, v.to_string())))
        .finish();
    let set =
        Request::Http { method: HttpMethod::Get, path: format!("{}?{query}", control.set), body: None, writes: true };
    let targets = keys.iter().map(|(key, _)| Target {
        write: 0,
        register: format!("{} {key}", control.set),
        class: control.classes.get(key).copied().unwrap_or(WriteClass::Unknown),
        refreshes: false,
        triggers: false,
    });
    let targets = targets.collect();
    let checks = vec![Check::keys(read, proven)];
    Ok(Program { writes: vec![set], targets, checks, ..Program::new(control.settle) })
}

/// 10 rather than 10.0: chargers parse integers.
fn plain_number(n: f64) -> Value {
    if n.fract().abs() < 1e-9 { super::words::to_u16(n).map_or(Value::from(n), Value::from) } else { Value::from(n) }
}
