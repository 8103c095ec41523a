//! Operation modes as documents: what a device does where no overlay plan says anything.

use crate::model::DeviceKind;
use crate::uplink::mapping::{Fate, Mapped, Target, plan_id};
use serde_json::{Value, json};

/// Read an operation mode. It has one document per device: `gridshare-mode-<device>`.
///
/// `Simple` is the simplest plan for the kind of device, instead of local schedules: rank `schedule`. `Schedule` and `Smart`
/// run what the gateway holds (schedules; a local optimiser), and the simplest plan where it holds nothing: rank `tag`.
#[must_use]
pub fn mode(answer: &Value, target: &Target) -> Mapped {
    let plan = plan_id(&["gridshare", "mode", target.device.as_str()]);
    let mut warnings = Vec::new();
    let fate = fate(answer, target, &plan, &mut warnings);
    Mapped { plan, fate, warnings }
}

fn fate(answer: &Value, target: &Target, plan: &str, warnings: &mut Vec<String>) -> Fate {
    let simplest = match target.kind {
        DeviceKind::Battery => "auto",
        DeviceKind::Charger => "start",
        kind => {
            return Fate::Drop(format!(
                "operation modes are for batteries and chargers, and {} is a {kind}",
                target.device
            ));
        }
    };
    let rank = match answer.get("mode").and_then(Value::as_str) {
        Some("Simple") => "schedule",
        Some("Schedule" | "Smart") => "tag",
        // What was known last stays.
        Some("Unknown") | None => return Fate::Reject(vec!["the mode is unknown: the one before stays".to_owned()]),
        Some(other) => {
            warnings.push(format!("`{other}` is no mode that derd knows"));
            return Fate::Reject(vec![format!("the mode is `{other}`: the one before stays")]);
        }
    };
    Fate::Take(json!({
        "id": plan, "device": target.device.as_str(), "kind": "weekly", "rank": rank,
        "default": {"action": simplest}, "rules": [],
    }))
}
