//! Telemetry.

use super::points_json;
use crate::model::Sample;
use serde_json::{Map, Value, json};

/// `{"ts","boot","seq","clock","points":{..},"null_reason":{..}}`; `null_reason` only where a point is null.
#[must_use]
pub fn sample_json(sample: &Sample) -> Value {
    let mut object = Map::new();
    object.insert("ts".into(), json!(sample.ts.to_string()));
    object.insert("boot".into(), json!(sample.boot.as_str()));
    object.insert("seq".into(), json!(sample.seq));
    object.insert("clock".into(), json!(sample.clock.as_str()));
    object.insert("points".into(), points_json(sample.points.iter()));
    let reasons: Map<String, Value> =
        sample.points.iter().filter_map(|(p, f)| Some((p.to_string(), json!(f.as_ref().err()?.as_str())))).collect();
    if !reasons.is_empty() {
        object.insert("null_reason".into(), Value::Object(reasons));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootId, ClockState, Mono, NullReason, Point, Timestamp};

    #[test]
    fn a_null_point_carries_its_reason() {
        let sample = Sample {
            device: "pv".parse().unwrap(),
            ts: Timestamp::from_ms(1_800_000_000_123),
            mono: Mono::from_ms(0),
            boot: BootId::new("ab12").unwrap(),
            seq: 7,
            clock: ClockState::Synced,
            points: vec![
                (Point::PowerW, Ok(crate::model::Value::Num(1234.0))),
                (Point::TemperatureC, Err(NullReason::NotImplemented)),
            ],
        };
        assert_eq!(
            sample_json(&sample).to_string(),
            r#"{"ts":"2027-01-15T08:00:00.123Z","boot":"ab12","seq":7,"clock":"synced","points":{"power_w":1234.0,"temperature_c":null},"null_reason":{"temperature_c":"not_implemented"}}"#
        );
    }
}
