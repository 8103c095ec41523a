//! Events.

use crate::model::{DeviceId, Event};
use serde_json::{Value, json};

/// `{"id","ts","severity","device","code","text","state"}`. `id` is the store's running number.
#[must_use]
pub fn event_json(id: u64, event: &Event) -> Value {
    json!({
        "id": id.to_string(),
        "ts": event.ts.to_string(),
        "severity": event.severity.as_str(),
        "device": event.device.as_ref().map(DeviceId::as_str),
        "code": event.code,
        "text": event.text,
        "state": event.state.as_str(),
    })
}
