//! Results of commands.

use crate::model::{CommandResult, CommandState, DeviceId, Evidence, Params, ReplyTo, Timestamp, UplinkName};
use serde_json::{Map, Value, json};

/// The result as the world sees it. The reply address and the channel are not part of it. A final one always has
/// `started_at` (null: it never acted), `ended_at` and `delivered_wh` (0 when it never acted; null when the action moves no
/// energy, as `idle`, or when the device gave no power). All three are null when it was not admitted.
#[must_use]
pub fn result_json(result: &CommandResult) -> Value {
    let time = |t: Option<Timestamp>| t.map(|t| t.to_string());
    let mut object = json!({
        "id": result.id.as_ref().map(crate::model::CommandId::as_str),
        "device": result.device.as_ref().map(DeviceId::as_str),
        "state": result.state.as_str(),
        "ts": result.ts.to_string(),
        "reason": result.reason,
        "requested": result.requested,
        "applied": result.applied,
        "limited_by": result.limited_by,
        "evidence": result.evidence.iter().map(evidence_json).collect::<Vec<_>>(),
    });
    if let Value::Object(map) = &mut object {
        let is_final = result.state.is_final();
        if is_final || result.started_at.is_some() {
            map.insert("started_at".into(), json!(time(result.started_at)));
        }
        if is_final {
            map.insert("ended_at".into(), json!(time(result.ended_at)));
            map.insert("delivered_wh".into(), json!(result.delivered_wh.map(tenths)));
        }
    }
    object
}

/// Rounded to 0.1 Wh: more would only look exact.
fn tenths(wh: f64) -> f64 {
    (wh * 10.0).round() / 10.0
}

/// Back from [`result_json`], with the channel that it belongs to.
///
/// # Errors
/// The key that is missing or not what it should be.
pub fn result_from_json(uplink: UplinkName, reply_to: ReplyTo, value: &Value) -> Result<CommandResult, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let time = |key: &str| text(key).map(str::parse::<Timestamp>).transpose();
    let params = |key: &str| -> Params {
        value
            .get(key)
            .and_then(Value::as_object)
            .map(|m: &Map<String, Value>| m.iter().filter_map(|(k, v)| Some((k.clone(), v.as_f64()?))).collect())
            .unwrap_or_default()
    };
    Ok(CommandResult {
        uplink,
        device: text("device").map(|t| t.parse().map_err(|e| format!("device: {e}"))).transpose()?,
        id: text("id").map(|t| t.parse().map_err(|e| format!("id: {e}"))).transpose()?,
        state: text("state").and_then(CommandState::from_word).ok_or("state")?,
        ts: time("ts")?.ok_or("ts")?,
        reason: text("reason").map(str::to_owned),
        requested: params("requested"),
        applied: params("applied"),
        limited_by: text("limited_by").map(str::to_owned),
        evidence: value
            .get("evidence")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(evidence_from_json).collect())
            .unwrap_or_default(),
        started_at: time("started_at")?,
        ended_at: time("ended_at")?,
        delivered_wh: value.get("delivered_wh").and_then(Value::as_f64),
        reply_to,
    })
}

fn evidence_json(evidence: &Evidence) -> Value {
    json!({
        "at": evidence.at.to_string(),
        "via": evidence.via,
        "address": evidence.address,
        "wrote": evidence.wrote,
        "read": evidence.read,
    })
}

fn evidence_from_json(value: &Value) -> Option<Evidence> {
    let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    Some(Evidence {
        at: text("at")?.parse().ok()?,
        via: text("via")?,
        address: text("address")?,
        wrote: text("wrote")?,
        read: text("read")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_result_always_says_what_a_backend_settles_on() {
        use CommandState::{Accepted, Ended, Failed, Held, Rejected, Reverted, Superseded};
        let at = Timestamp::from_ms(1_800_000_000_000);
        let text = json!(at.to_string());
        let blank = |state| CommandResult::new(UplinkName::local(), None, None, state, at);
        for state in [Ended, Failed, Reverted, Superseded] {
            let acted = CommandResult { started_at: Some(at), ended_at: Some(at), ..blank(state) };
            assert!(result_json(&acted).get("delivered_wh").is_some_and(Value::is_null), "{state}: unknown");
            let some = result_json(&CommandResult { delivered_wh: Some(740.049), ..acted });
            assert_eq!((&some["started_at"], &some["ended_at"]), (&text, &text), "{state}");
            assert_eq!(some["delivered_wh"], 740.0, "{state}");
        }
        let refused = result_json(&blank(Rejected));
        for key in ["started_at", "ended_at", "delivered_wh"] {
            assert!(refused.get(key).is_some_and(Value::is_null), "{key}");
        }
        for state in [Accepted, Held] {
            let open = result_json(&CommandResult { delivered_wh: Some(1.0), ..blank(state) });
            assert!(open.get("delivered_wh").is_none() && open.get("ended_at").is_none(), "{state}: not yet");
        }
    }

    #[test]
    fn round_trip() {
        let at = Timestamp::from_ms(1_800_000_000_000);
        let result = CommandResult {
            uplink: UplinkName::local(),
            device: Some("battery".parse().unwrap()),
            id: Some("c-1".parse().unwrap()),
            state: CommandState::Ended,
            ts: at,
            reason: Some("its time is over".into()),
            requested: Params::from([("power_w".to_owned(), 5000.0)]),
            applied: Params::from([("power_w".to_owned(), 2000.0)]),
            limited_by: Some("import_limit".into()),
            evidence: vec![Evidence {
                at,
                via: "modbus".into(),
                address: "unit 1 holding 40345".into(),
                wrote: "-2000".into(),
                read: "-2000".into(),
            }],
            started_at: Some(at),
            ended_at: Some(at),
            delivered_wh: Some(12.5),
            reply_to: ReplyTo::default(),
        };
        assert_eq!(result_from_json(UplinkName::local(), ReplyTo::default(), &result_json(&result)), Ok(result));
    }
}
