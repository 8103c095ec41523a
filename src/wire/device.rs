//! What a device can be told.

use crate::model::{BaselineReport, Capabilities, FailSafe, Wear};
use serde_json::{Value, json};

/// `{"actions",..,"failsafe_s"}`; `failsafe_s` is null where the device has no timer of its own.
#[must_use]
pub fn capabilities_json(can: &Capabilities) -> Value {
    json!({
        "actions": can.actions,
        "max_charge_w": can.max_charge_w,
        "max_discharge_w": can.max_discharge_w,
        "rated_w": can.rated_w,
        "min_current_a": can.min_current_a,
        "max_current_a": can.max_current_a,
        "phase_switch": can.phase_switch,
        "failsafe_s": match can.failsafe { FailSafe::Timer(after) => Some(after.as_secs()), FailSafe::None => None },
    })
}

/// `[{"register","class","writes","today","budget_per_day","years_left"}]`: what writing has cost a device so far.
#[must_use]
pub fn wear_json(wear: &[Wear]) -> Value {
    let row = |w: &Wear| {
        json!({
            "register": w.register,
            "class": w.class.as_str(),
            "writes": w.writes,
            "today": w.today,
            "budget_per_day": w.budget_per_day,
            "years_left": w.years_left.map(|y| (y * 10.0).round() / 10.0),
        })
    };
    wear.iter().map(row).collect()
}

/// `{"recorded":{..} or null,"drift":[{"register","name","stored","now"}],"checked_at"}`.
#[must_use]
pub fn baseline_json(report: &BaselineReport) -> Value {
    let recorded: Option<Value> = report.recorded.as_ref().and_then(|text| serde_json::from_str(text).ok());
    let drift: Value = report
        .drift
        .iter()
        .map(|d| json!({"register": d.register, "name": d.name, "stored": d.stored, "now": d.now}))
        .collect();
    json!({"recorded": recorded, "drift": drift, "checked_at": report.checked_at.map(|t| t.to_string())})
}
