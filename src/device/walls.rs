//! The last wall before the wire: what a device must never be told, whoever asks. Command and control check the same
//! before, and clamp; here nothing is clamped, only refused.

use crate::model::{Demand, DeviceKind, DeviceSpec, FailSafe};

/// Rounding of a clamp must not make a refusal, W and A.
const SLACK: f64 = 0.5;

/// Why this device must not take `demand`; `None`: it may. `failsafe` is known once the device was found.
pub(super) fn refusal(spec: &DeviceSpec, demand: &Demand, failsafe: Option<FailSafe>) -> Option<String> {
    if !spec.control.enabled {
        return Some("control is not enabled: set [device.control] enabled = true".into());
    }
    let fits = match demand {
        Demand::Release => true,
        Demand::BatteryPower { .. } | Demand::Reserve { .. } => spec.kind == DeviceKind::Battery,
        Demand::PowerLimit { .. } => spec.kind == DeviceKind::Inverter,
        Demand::ChargerCurrent { .. } | Demand::ChargerLimit { .. } | Demand::ChargerOff => {
            spec.kind == DeviceKind::Charger
        }
    };
    if !fits {
        return Some(format!("a {} cannot be told that", spec.kind));
    }
    let numbers = [
        match demand {
            Demand::BatteryPower { watts, .. } | Demand::PowerLimit { watts } => *watts,
            _ => 0.0,
        },
        match demand {
            Demand::Reserve { pct } => *pct,
            Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps } => *amps,
            _ => 0.0,
        },
    ];
    if numbers.iter().any(|n| !n.is_finite()) {
        return Some("the demand is not a number".into());
    }
    let beyond = |what: &str, asked: f64, limit: Option<f64>, key: &str, unit: &str| {
        let limit = limit?;
        (asked > limit + SLACK).then(|| format!("{what} {asked} {unit} is beyond the installer's {key} = {limit}"))
    };
    let limits = &spec.limits;
    match demand {
        Demand::BatteryPower { watts, .. } => {
            if failsafe == Some(FailSafe::None) && !spec.control.accept_no_failsafe {
                return Some(
                    "the device has no fail-safe timer: set [device.control] accept_no_failsafe = true to control it \
                     all the same"
                        .into(),
                );
            }
            beyond("charging with", -watts, limits.max_charge_w, "max_charge_w", "W")
                .or_else(|| beyond("discharging with", *watts, limits.max_discharge_w, "max_discharge_w", "W"))
        }
        Demand::PowerLimit { watts } => {
            if *watts < 0.0 {
                return Some("a power limit below 0 W".into());
            }
            beyond("a limit of", *watts, limits.max_power_w, "max_power_w", "W")
        }
        Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps } => {
            beyond("a current of", *amps, limits.max_current_a, "max_current_a", "A")
        }
        Demand::Reserve { pct } => (!(0.0..=100.0).contains(pct)).then(|| format!("a reserve of {pct} %")),
        Demand::Release | Demand::ChargerOff => None,
    }
}
