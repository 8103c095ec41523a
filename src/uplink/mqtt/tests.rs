//! What the tests of this room share.

use super::*;
use crate::model::{
    BootId, ClockState, CommandResult, CommandState, ControlSettings, Coupling, DeviceKind, DeviceLimits, Event,
    EventState, Mono, Params, Point, ReplyTo, RowNo, Sample, Severity, Stored, Value,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A sample of a device at a time in ms; its number is its row.
pub(super) fn stored(row: u64, device: &str, ms: u64) -> Stored {
    Stored {
        row: RowNo(row),
        sample: Arc::new(Sample {
            device: device.parse().unwrap(),
            ts: Timestamp::from_ms(ms.try_into().unwrap()),
            mono: Mono::from_ms(ms),
            boot: BootId::new("ab").unwrap(),
            seq: row,
            clock: ClockState::Synced,
            points: vec![(Point::PowerW, Ok(Value::Num(1234.0)))],
        }),
    }
}

pub(super) fn result(uplink: &str, device: Option<&str>) -> CommandResult {
    CommandResult {
        uplink: uplink.parse().unwrap(),
        device: device.map(|d| d.parse().unwrap()),
        id: Some("c-1".parse().unwrap()),
        state: CommandState::Accepted,
        ts: Timestamp::from_ms(0),
        reason: None,
        requested: Params::new(),
        applied: Params::new(),
        limited_by: None,
        evidence: Vec::new(),
        started_at: None,
        ended_at: None,
        delivered_wh: None,
        reply_to: ReplyTo::default(),
    }
}

pub(super) fn event() -> Event {
    Event {
        ts: Timestamp::from_ms(0),
        severity: Severity::Info,
        device: None,
        code: "test".into(),
        text: "a test".into(),
        state: EventState::Raised,
    }
}

pub(super) fn commands(room: usize) -> (CommandHandle, mpsc::Receiver<RawCommand>, mpsc::Receiver<RawPlan>) {
    let (commands, inbox) = mpsc::channel(room);
    let (plans, plan_inbox) = mpsc::channel(room);
    (CommandHandle { commands, plans }, inbox, plan_inbox)
}

pub(super) fn spec(id: &str) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind: DeviceKind::Battery,
        role: None,
        coupling: Coupling::Ac,
        profile: "sunspec".into(),
        link: "tcp://127.0.0.1:502".into(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits::default(),
        control: ControlSettings::default(),
    }
}
