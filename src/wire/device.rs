//! What a device can be told.

use crate::model::{Capabilities, FailSafe};
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
