//! The trust boundary from outside: what is admitted, what is refused and why, and what the task does with it.

mod admit;
mod disk;
mod kills;
mod owner;
mod task;
mod track;

use crate::model::*;
use std::time::Duration;

pub(super) const NOW: &str = "2026-11-20T12:00:00.000Z";

pub(super) fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn spec(id: &str, kind: DeviceKind, enabled: bool) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind,
        role: None,
        coupling: Coupling::Ac,
        profile: "sunspec".to_owned(),
        link: "tcp://127.0.0.1:502".to_owned(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings { enabled, ..ControlSettings::default() },
    }
}

pub(super) fn devices() -> Vec<DeviceSpec> {
    vec![
        spec("battery", DeviceKind::Battery, true),
        spec("charger", DeviceKind::Charger, true),
        spec("pv", DeviceKind::Inverter, false),
        spec("grid", DeviceKind::Meter, false),
    ]
}

pub(super) fn site() -> SiteSpec {
    SiteSpec {
        name: "home".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        phases: 3,
        main_fuse_a: None,
        export_limit_w: None,
    }
}

pub(super) fn status(actions: &[&'static str], failsafe: FailSafe) -> DeviceStatus {
    DeviceStatus {
        state: DeviceState::Online,
        capabilities: Capabilities { actions: actions.to_vec(), failsafe, ..Capabilities::default() },
        ..DeviceStatus::default()
    }
}

pub(super) fn mqtt() -> Origin {
    Origin { uplink: "mqtt".parse().unwrap(), ranks: vec![Rank::Command] }
}

pub(super) fn local() -> Origin {
    Origin { uplink: UplinkName::local(), ranks: vec![Rank::Owner] }
}
