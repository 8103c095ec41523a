//! Demands, as the store's journal of held setpoints keeps them.

use crate::model::Demand;
use serde_json::{Value, json};

/// A demand as JSON.
#[must_use]
pub fn demand_json(demand: &Demand) -> Value {
    match demand {
        Demand::Release => json!({"kind": "release"}),
        Demand::BatteryPower { watts, grid } => json!({"kind": "battery_power", "watts": watts, "grid": grid}),
        Demand::Reserve { pct } => json!({"kind": "reserve", "pct": pct}),
        Demand::PowerLimit { watts } => json!({"kind": "power_limit", "watts": watts}),
        Demand::ChargerCurrent { amps, phases } => json!({"kind": "charger_current", "amps": amps, "phases": phases}),
        Demand::ChargerLimit { amps } => json!({"kind": "charger_limit", "amps": amps}),
        Demand::ChargerOff => json!({"kind": "charger_off"}),
    }
}

/// Back from [`demand_json`]; `None` when it is not such.
#[must_use]
pub fn demand_from_json(value: &Value) -> Option<Demand> {
    let num = |key: &str| value.get(key).and_then(Value::as_f64);
    Some(match value.get("kind")?.as_str()? {
        "release" => Demand::Release,
        "battery_power" => Demand::BatteryPower { watts: num("watts")?, grid: value.get("grid")?.as_bool()? },
        "reserve" => Demand::Reserve { pct: num("pct")? },
        "power_limit" => Demand::PowerLimit { watts: num("watts")? },
        "charger_current" => Demand::ChargerCurrent { amps: num("amps")?, phases: phases(value.get("phases"))? },
        "charger_limit" => Demand::ChargerLimit { amps: num("amps")? },
        "charger_off" => Demand::ChargerOff,
        _ => return None,
    })
}

/// Absent in what earlier versions wrote.
fn phases(value: Option<&Value>) -> Option<Option<u8>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_u64().and_then(|n| u8::try_from(n).ok()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for demand in [
            Demand::Release,
            Demand::BatteryPower { watts: -2500.5, grid: true },
            Demand::Reserve { pct: 20.0 },
            Demand::PowerLimit { watts: 0.0 },
            Demand::ChargerCurrent { amps: 6.0, phases: None },
            Demand::ChargerCurrent { amps: 6.0, phases: Some(1) },
            Demand::ChargerLimit { amps: 6.0 },
            Demand::ChargerOff,
        ] {
            assert_eq!(demand_from_json(&demand_json(&demand)), Some(demand));
        }
        assert_eq!(demand_from_json(&json!({"kind": "launch"})), None);
        let early = json!({"kind": "charger_current", "amps": 8.0});
        assert_eq!(demand_from_json(&early), Some(Demand::ChargerCurrent { amps: 8.0, phases: None }));
    }
}
