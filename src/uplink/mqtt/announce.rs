//! Who we are: the retained messages about the gateway and its devices.

use super::topics::Topics;
use crate::model::{ClockState, DeviceInfo, DeviceSpec, DeviceStatus, GatewayId, Point, RemoteControl, Timestamp};
use crate::wire::capabilities_json;
use serde_json::{Value, json};

/// Where Home Assistant looks.
pub(super) const DISCOVERY: &str = "homeassistant/";

/// The last will, and what is said before an orderly end.
pub(super) const OFFLINE: &str = r#"{"state":"offline"}"#;

/// What is said on `status` while connected.
pub(super) fn online(version: &str, clock: ClockState, started: Timestamp, remote: RemoteControl) -> String {
    json!({
        "state": "online",
        "version": version,
        "clock": clock.as_str(),
        "started_at": started.to_string(),
        "remote_control": remote.as_str(),
    })
    .to_string()
}

/// What is said on `device/<id>/info`.
pub(super) fn info(spec: &DeviceSpec, status: &DeviceStatus) -> Value {
    let DeviceInfo { maker, model, serial, firmware } = &status.info;
    json!({
        "kind": spec.kind.as_str(),
        "role": spec.role.map(crate::model::Role::as_str),
        "maker": maker,
        "model": model,
        "serial": serial,
        "firmware": firmware,
        "capabilities": capabilities_json(&status.capabilities),
        "limits": {
            "max_charge_w": spec.limits.max_charge_w,
            "max_discharge_w": spec.limits.max_discharge_w,
            "min_soc_pct": spec.limits.min_soc_pct,
            "max_soc_pct": spec.limits.max_soc_pct,
            "max_power_w": spec.limits.max_power_w,
            "max_current_a": spec.limits.max_current_a,
        },
    })
}

/// Device class, unit and state class of the points that Home Assistant shows, as its documentation of MQTT sensors
/// names them.
const fn sensor(point: &Point) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match point {
        Point::PowerW
        | Point::PowerL1W
        | Point::PowerL2W
        | Point::PowerL3W
        | Point::DcPowerW
        | Point::ChargeLimitW
        | Point::DischargeLimitW
        | Point::ExportLimitW => ("power", "W", "measurement"),
        Point::VoltageL1V | Point::VoltageL2V | Point::VoltageL3V => ("voltage", "V", "measurement"),
        Point::CurrentL1A | Point::CurrentL2A | Point::CurrentL3A | Point::MaxCurrentA => {
            ("current", "A", "measurement")
        }
        Point::FrequencyHz => ("frequency", "Hz", "measurement"),
        Point::EnergyImportWh
        | Point::EnergyExportWh
        | Point::EnergyProducedWh
        | Point::EnergyChargedWh
        | Point::EnergyDischargedWh
        | Point::EnergyDeliveredWh
        | Point::SessionEnergyWh => ("energy", "Wh", "total_increasing"),
        Point::SocPct => ("battery", "%", "measurement"),
        Point::TemperatureC => ("temperature", "°C", "measurement"),
        _ => return None,
    })
}

/// The Home Assistant discovery message of one point: topic and payload; `None` when it is not shown there.
pub(super) fn discovery(
    gateway: &GatewayId,
    topics: &Topics,
    spec: &DeviceSpec,
    info: &DeviceInfo,
    point: &Point,
) -> Option<(String, String)> {
    let (class, unit, state_class) = sensor(point)?;
    let unique = format!("{gateway}_{}_{point}", spec.id);
    let payload = json!({
        "name": point.as_str(),
        "unique_id": unique,
        "state_topic": topics.device(&spec.id, "telemetry"),
        "value_template": format!("{{{{ value_json.points.{point} }}}}"),
        "device_class": class,
        "unit_of_measurement": unit,
        "state_class": state_class,
        "availability_topic": topics.status(),
        "availability_template": "{{ value_json.state }}",
        "device": {
            "identifiers": [format!("{gateway}_{}", spec.id)],
            "name": format!("{gateway} {}", spec.id),
            "manufacturer": info.maker,
            "model": info.model,
            "serial_number": info.serial,
            "sw_version": info.firmware,
        },
    });
    Some((format!("{DISCOVERY}sensor/{unique}/config"), payload.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;
    use std::time::Duration;

    #[test]
    fn online_is_the_contracts() {
        let started = Timestamp::from_ms(1_800_000_000_000);
        assert_eq!(
            online("0.1.0", ClockState::Synced, started, RemoteControl::default()),
            r#"{"state":"online","version":"0.1.0","clock":"synced","started_at":"2027-01-15T08:00:00.000Z","remote_control":"active"}"#
        );
        let paused = RemoteControl { paused: true, until: None };
        assert!(online("0.1.0", ClockState::Synced, started, paused).contains(r#""remote_control":"paused""#));
    }

    #[test]
    fn info_has_what_the_contract_lists() {
        let mut status = DeviceStatus::default();
        status.info.serial = Some("S1".into());
        status.capabilities.actions = vec!["charge"];
        status.capabilities.failsafe = crate::model::FailSafe::Timer(Duration::from_secs(60));
        let json = info(&spec("battery"), &status);
        for key in ["kind", "maker", "model", "serial", "firmware", "capabilities", "limits"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!((&json["kind"], &json["serial"], &json["maker"]), (&"battery".into(), &"S1".into(), &Value::Null));
        assert_eq!(json["capabilities"]["failsafe_s"], 60);
    }

    #[test]
    fn discovery_names_the_telemetry() {
        let gateway: GatewayId = "gw".parse().unwrap();
        let topics = Topics::new(&gateway);
        let (topic, payload) =
            discovery(&gateway, &topics, &spec("battery"), &DeviceInfo::default(), &Point::SocPct).unwrap();
        assert_eq!(topic, "homeassistant/sensor/gw_battery_soc_pct/config");
        let json: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(json["state_topic"], "derd/gw/device/battery/telemetry");
        assert_eq!(json["value_template"], "{{ value_json.points.soc_pct }}");
        assert_eq!((&json["device_class"], &json["unit_of_measurement"]), (&"battery".into(), &"%".into()));
        assert!(discovery(&gateway, &topics, &spec("battery"), &DeviceInfo::default(), &Point::State).is_none());
    }
}
