//! Why a device does what it does: `derd explain --json` and `GET /api/v1/devices/{id}/explain`.

use super::action_params;
use crate::model::{Action, Decided, Demand, Timestamp, TraceStep};
use serde_json::{Value, json};

/// A decision as the world sees it.
#[must_use]
pub fn explain_json(decided: &Decided) -> Value {
    json!({
        "device": decided.device.as_str(),
        "at": decided.at.to_string(),
        "clock": decided.clock.as_str(),
        "sentence": decided.sentence,
        "holder": decided.holder.as_ref().map(|h| json!({
            "source": h.source,
            "rank": h.rank.as_str(),
            "key": h.key.to_string(),
            "action": h.asked.name(),
            "requested": requested(&h.asked),
            "applied": h.applied,
            "ends_at": time(h.ends_at),
        })),
        "demand": decided.demand.as_ref().map(told_json),
        "then": decided.then.as_ref().map(told_json),
        "limited_by": decided.limited_by,
        "trace": decided.trace.iter().map(step_json).collect::<Vec<_>>(),
    })
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|t| t.to_string())
}

fn requested(asked: &Action) -> Value {
    let mut params = json!(action_params(asked));
    if let (Action::Charge { grid: false, .. }, Value::Object(map)) = (asked, &mut params) {
        map.insert("grid".into(), json!(false));
    }
    params
}

/// A demand in the words of commands; `limit` is what no command says: at most this, whether it charges or not.
fn told_json(demand: &Demand) -> Value {
    match *demand {
        Demand::Release => json!({"action": "release"}),
        Demand::BatteryPower { watts, grid: false } if watts < 0.0 => {
            json!({"action": "charge", "power_w": watts.abs(), "grid": false})
        }
        Demand::BatteryPower { watts, .. } if watts < 0.0 => json!({"action": "charge", "power_w": watts.abs()}),
        Demand::BatteryPower { watts, .. } if watts > 0.0 => json!({"action": "discharge", "power_w": watts}),
        Demand::BatteryPower { .. } => json!({"action": "idle", "power_w": 0.0}),
        Demand::Reserve { pct } => json!({"action": "set_reserve", "soc_pct": pct}),
        Demand::PowerLimit { watts } => json!({"action": "set_power_limit", "power_w": watts}),
        Demand::ChargerCurrent { amps, phases: None } => json!({"action": "set_max_current", "current_a": amps}),
        Demand::ChargerCurrent { amps, phases } => {
            json!({"action": "set_max_current", "current_a": amps, "phases": phases})
        }
        Demand::ChargerLimit { amps } => json!({"action": "limit", "current_a": amps}),
        Demand::ChargerOff => json!({"action": "stop"}),
    }
}

fn step_json(step: &TraceStep) -> Value {
    match step {
        TraceStep::Input { name, value, why } => json!({"step": "input", "name": name, "value": value, "why": why}),
        TraceStep::Intent { outcome, rank, source, key, asked, ends_at, why } => json!({
            "step": "intent",
            "outcome": outcome.as_str(),
            "rank": rank.as_str(),
            "source": source,
            "key": key.to_string(),
            "action": asked.name(),
            "requested": requested(asked),
            "ends_at": time(*ends_at),
            "why": why,
        }),
        TraceStep::Limit { name, from, to, unit, why } => {
            json!({"step": "limit", "name": name, "from": from, "to": to, "unit": unit, "why": why})
        }
        TraceStep::Lease { state, at, text } => {
            json!({"step": "lease", "state": state.as_str(), "at": at.to_string(), "text": text})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClockState, DecidedHolder, IntentKey, LeaseState, Params, Rank, Standing};

    #[test]
    fn the_shape_that_others_rely_on() {
        let at = Timestamp::from_ms(1_795_176_000_000);
        let key = IntentKey::Command {
            uplink: "acme".parse().unwrap(),
            device: Some("battery".parse().unwrap()),
            id: "c-1".parse().unwrap(),
        };
        let asked = Action::Charge { power_w: Some(5000.0), min_soc_pct: None, max_soc_pct: None, grid: true };
        let decided = Decided {
            device: "battery".parse().unwrap(),
            at,
            clock: ClockState::Synced,
            sentence: "battery charges.".into(),
            holder: Some(DecidedHolder {
                source: "acme".into(),
                rank: Rank::Command,
                key: key.clone(),
                asked: asked.clone(),
                applied: Params::from([("power_w".into(), 2000.0)]),
                ends_at: Some(at),
            }),
            demand: Some(Demand::BatteryPower { watts: -2000.0, grid: true }),
            then: Some(Demand::Release),
            limited_by: Some("import_limit".into()),
            trace: vec![
                TraceStep::Input { name: "grid_w".into(), value: None, why: Some("stale".into()) },
                TraceStep::Intent {
                    outcome: Standing::Wins,
                    rank: Rank::Command,
                    source: "acme".into(),
                    key,
                    asked,
                    ends_at: None,
                    why: None,
                },
                TraceStep::Limit {
                    name: "import_limit",
                    from: Some(5000.0),
                    to: 2000.0,
                    unit: "W",
                    why: "the grid meter is silent".into(),
                },
                TraceStep::Lease { state: LeaseState::Verified, at, text: "read back".into() },
            ],
        };
        let want = json!({
            "device": "battery", "at": "2026-11-20T12:00:00.000Z", "clock": "synced", "sentence": "battery charges.",
            "holder": {"source": "acme", "rank": "command", "key": "command c-1 by acme", "action": "charge",
                "requested": {"power_w": 5000.0}, "applied": {"power_w": 2000.0}, "ends_at": "2026-11-20T12:00:00.000Z"},
            "demand": {"action": "charge", "power_w": 2000.0}, "then": {"action": "release"},
            "limited_by": "import_limit",
            "trace": [
                {"step": "input", "name": "grid_w", "value": null, "why": "stale"},
                {"step": "intent", "outcome": "wins", "rank": "command", "source": "acme", "key": "command c-1 by acme",
                    "action": "charge", "requested": {"power_w": 5000.0}, "ends_at": null, "why": null},
                {"step": "limit", "name": "import_limit", "from": 5000.0, "to": 2000.0, "unit": "W",
                    "why": "the grid meter is silent"},
                {"step": "lease", "state": "verified", "at": "2026-11-20T12:00:00.000Z", "text": "read back"},
            ],
        });
        assert_eq!(explain_json(&decided), want);
    }

    #[test]
    fn demands_in_the_words_of_commands() {
        for (demand, want) in [
            (Demand::Release, json!({"action": "release"})),
            (
                Demand::BatteryPower { watts: -1.0, grid: false },
                json!({"action": "charge", "power_w": 1.0, "grid": false}),
            ),
            (Demand::BatteryPower { watts: 1.0, grid: false }, json!({"action": "discharge", "power_w": 1.0})),
            (Demand::BatteryPower { watts: 0.0, grid: true }, json!({"action": "idle", "power_w": 0.0})),
            (Demand::Reserve { pct: 20.0 }, json!({"action": "set_reserve", "soc_pct": 20.0})),
            (Demand::PowerLimit { watts: 3.0 }, json!({"action": "set_power_limit", "power_w": 3.0})),
            (
                Demand::ChargerCurrent { amps: 16.0, phases: None },
                json!({"action": "set_max_current", "current_a": 16.0}),
            ),
            (Demand::ChargerLimit { amps: 6.0 }, json!({"action": "limit", "current_a": 6.0})),
            (Demand::ChargerOff, json!({"action": "stop"})),
        ] {
            assert_eq!(told_json(&demand), want);
        }
    }
}
