//! Actions and their parameters.

use crate::model::{Action, BatteryMode, DeviceKind, Params};
use serde_json::{Map, Value};

/// What may be told to which kind of device, with its parameters.
const ACTIONS: &[(&str, &[DeviceKind], &[&str])] = &[
    ("charge", &[DeviceKind::Battery], &["power_w", "min_soc_pct", "max_soc_pct", "grid"]),
    ("discharge", &[DeviceKind::Battery], &["power_w", "min_soc_pct", "max_soc_pct", "grid"]),
    ("idle", &[DeviceKind::Battery], &[]),
    ("auto", &[DeviceKind::Battery, DeviceKind::Inverter, DeviceKind::Charger], &[]),
    ("set_reserve", &[DeviceKind::Battery], &["soc_pct"]),
    ("set_mode", &[DeviceKind::Battery], &["mode"]),
    ("set_export_limit", &[DeviceKind::Inverter], &["power_w"]),
    ("set_power_limit", &[DeviceKind::Inverter], &["power_w", "pct"]),
    ("start", &[DeviceKind::Charger], &[]),
    ("stop", &[DeviceKind::Charger], &[]),
    ("set_max_current", &[DeviceKind::Charger], &["current_a", "phases"]),
];

/// Larger than any home: what a magnitude in W may be at most.
const MAX_W: f64 = 1_000_000.0;

/// The typed action for a kind of device.
///
/// # Errors
/// A sentence that names the action or parameter, what is wrong, and what would be right.
pub fn parse_action(kind: DeviceKind, name: &str, params: &Map<String, Value>) -> Result<Action, String> {
    let Some((_, kinds, known)) = ACTIONS.iter().find(|(n, _, _)| *n == name) else {
        return Err(format!("unknown action `{name}`; a {kind} takes: {}", names_for(kind)));
    };
    if !kinds.contains(&kind) {
        let a = if kind == DeviceKind::Inverter { "an" } else { "a" };
        return Err(format!("action `{name}` is not for {a} {kind}, which takes: {}", names_for(kind)));
    }
    for key in params.keys() {
        if !known.contains(&key.as_str()) {
            let takes = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
            return Err(format!("params.{key} is unknown: `{name}` takes {takes}"));
        }
    }
    let num = |key: &str, max: f64| number(params, key, max);
    let need =
        |key: &str, max: f64| num(key, max)?.ok_or_else(|| format!("params.{key} is missing: `{name}` needs it"));
    Ok(match name {
        "charge" => Action::Charge {
            power_w: positive(num("power_w", MAX_W)?)?,
            min_soc_pct: num("min_soc_pct", 100.0)?,
            max_soc_pct: num("max_soc_pct", 100.0)?,
            grid: flag(params, "grid")?.unwrap_or(true),
        },
        "discharge" => {
            flag(params, "grid")?;
            Action::Discharge {
                power_w: positive(num("power_w", MAX_W)?)?,
                min_soc_pct: num("min_soc_pct", 100.0)?,
                max_soc_pct: num("max_soc_pct", 100.0)?,
            }
        }
        "idle" => Action::Idle,
        "auto" => Action::Auto,
        "set_reserve" => Action::SetReserve { soc_pct: need("soc_pct", 100.0)? },
        "set_mode" => Action::SetMode { mode: mode(params)? },
        "set_export_limit" => Action::SetExportLimit { power_w: need("power_w", MAX_W)? },
        "set_power_limit" => match (num("power_w", MAX_W)?, num("pct", 100.0)?) {
            (Some(power_w), None) => Action::SetPowerLimit { power_w },
            (None, Some(pct)) => Action::SetPowerLimitPct { pct },
            _ => return Err("`set_power_limit` needs either params.power_w or params.pct".to_owned()),
        },
        "start" => Action::Start,
        "stop" => Action::Stop,
        _ => Action::SetMaxCurrent { current_a: need("current_a", 1000.0)?, phases: phases(params)? },
    })
}

/// The parameters of an action by their names, as shown in results.
#[must_use]
pub fn action_params(action: &Action) -> Params {
    let mut params = Params::new();
    let mut put = |key: &str, value: Option<f64>| {
        if let Some(value) = value {
            params.insert(key.to_owned(), value);
        }
    };
    match action {
        Action::Charge { power_w, min_soc_pct, max_soc_pct, .. }
        | Action::Discharge { power_w, min_soc_pct, max_soc_pct } => {
            put("power_w", *power_w);
            put("min_soc_pct", *min_soc_pct);
            put("max_soc_pct", *max_soc_pct);
        }
        Action::SetReserve { soc_pct } => put("soc_pct", Some(*soc_pct)),
        Action::SetExportLimit { power_w } | Action::SetPowerLimit { power_w } => put("power_w", Some(*power_w)),
        Action::SetPowerLimitPct { pct } => put("pct", Some(*pct)),
        Action::SetMaxCurrent { current_a, phases } => {
            put("current_a", Some(*current_a));
            put("phases", phases.map(f64::from));
        }
        // A mode is a word: results show numbers only.
        Action::Idle | Action::Auto | Action::SetMode { .. } | Action::Start | Action::Stop => {}
    }
    params
}

fn names_for(kind: DeviceKind) -> String {
    let names: Vec<_> = ACTIONS.iter().filter(|(_, kinds, _)| kinds.contains(&kind)).map(|(n, _, _)| *n).collect();
    if names.is_empty() { "no action".to_owned() } else { format!("{}, release", names.join(", ")) }
}

fn number(params: &Map<String, Value>, key: &str, max: f64) -> Result<Option<f64>, String> {
    match params.get(key) {
        None => Ok(None),
        Some(Value::Number(n)) => match n.as_f64() {
            Some(v) if (0.0..=max).contains(&v) => Ok(Some(v)),
            _ => Err(format!("params.{key} is {n}: it must lie between 0 and {max}")),
        },
        Some(other) => Err(format!("params.{key} is {other}: it must be a number")),
    }
}

fn mode(params: &Map<String, Value>) -> Result<BatteryMode, String> {
    let takes = "self_reliance, time_of_use, import_focus or export_focus";
    match params.get("mode") {
        None => Err(format!("params.mode is missing: `set_mode` needs it: {takes}")),
        Some(word) => word
            .as_str()
            .and_then(BatteryMode::from_word)
            .ok_or_else(|| format!("params.mode is {word}: it must be {takes}")),
    }
}

fn positive(power: Option<f64>) -> Result<Option<f64>, String> {
    match power {
        Some(p) if p <= 0.0 => Err("params.power_w is 0: use `idle` to hold a battery at 0 W".to_owned()),
        other => Ok(other),
    }
}

fn phases(params: &Map<String, Value>) -> Result<Option<u8>, String> {
    match params.get("phases") {
        None => Ok(None),
        Some(Value::Number(n)) if n.as_f64() == Some(1.0) => Ok(Some(1)),
        Some(Value::Number(n)) if n.as_f64() == Some(3.0) => Ok(Some(3)),
        Some(other) => Err(format!("params.phases is {other}: it must be 1 or 3")),
    }
}

fn flag(params: &Map<String, Value>, key: &str) -> Result<Option<bool>, String> {
    match params.get(key) {
        None => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(other) => Err(format!("params.{key} is {other}: it must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(kind: DeviceKind, name: &str, params: &Value) -> Result<Action, String> {
        parse_action(kind, name, params.as_object().unwrap())
    }

    #[test]
    fn good_ones() {
        use DeviceKind::{Battery, Charger, Inverter};
        assert_eq!(
            parse(Battery, "charge", &json!({"power_w": 3000})),
            Ok(Action::Charge { power_w: Some(3000.0), min_soc_pct: None, max_soc_pct: None, grid: true })
        );
        assert_eq!(parse(Inverter, "set_power_limit", &json!({"pct": 50})), Ok(Action::SetPowerLimitPct { pct: 50.0 }));
        assert_eq!(parse(Charger, "stop", &json!({})), Ok(Action::Stop));
        for (word, mode) in [
            ("self_reliance", BatteryMode::SelfReliance),
            ("time_of_use", BatteryMode::TimeOfUse),
            ("import_focus", BatteryMode::ImportFocus),
            ("export_focus", BatteryMode::ExportFocus),
        ] {
            assert_eq!(parse(Battery, "set_mode", &json!({ "mode": word })), Ok(Action::SetMode { mode }));
        }
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        use DeviceKind::{Battery, Charger, Meter};
        for (kind, name, params, says) in [
            (Battery, "chrge", json!({}), "unknown action `chrge`"),
            (Charger, "charge", json!({}), "not for a charger"),
            (Meter, "idle", json!({}), "no action"),
            (Battery, "charge", json!({"power": 1}), "params.power is unknown"),
            (Battery, "charge", json!({"power_w": "1"}), "must be a number"),
            (Battery, "charge", json!({"power_w": -1}), "between 0 and"),
            (Battery, "charge", json!({"power_w": 0}), "use `idle`"),
            (Battery, "set_reserve", json!({}), "params.soc_pct is missing"),
            (Battery, "set_reserve", json!({"soc_pct": 101}), "between 0 and 100"),
            (Battery, "charge", json!({"grid": 1}), "true or false"),
            (Battery, "set_mode", json!({}), "params.mode is missing"),
            (Battery, "set_mode", json!({"mode": "party"}), "params.mode is \"party\": it must be self_reliance, "),
            (Battery, "set_mode", json!({"mode": 1}), "it must be self_reliance"),
            (Charger, "set_mode", json!({"mode": "time_of_use"}), "not for a charger"),
            (Charger, "set_max_current", json!({"current_a": 6, "phases": 2}), "must be 1 or 3"),
        ] {
            let why = parse(kind, name, &params).unwrap_err();
            assert!(why.contains(says), "{name} {params}: {why}");
        }
    }
}
