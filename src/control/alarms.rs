//! What people should know of control, told once when it begins and once when it ends.

use crate::model::{DeviceId, Event, EventState, Mono, Severity, Timestamp};
use std::time::Duration;

/// An alarm is over when its cause was absent for this long: one that flickers is one alarm.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Alarm {
    code: &'static str,
    severity: Severity,
    raised: &'static str,
    cleared: &'static str,
    quiet: Duration,
    /// When its cause was last there, while it lasts.
    on: Option<Mono>,
}

/// All alarms of control.
#[derive(Debug)]
pub(crate) struct Alarms([Alarm; 5]);

/// Which alarm.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    GridMeterStale,
    ImportLimit,
    ExportLimit,
    PlanBlockedClock,
    PriceMissing,
}

impl Default for Alarms {
    fn default() -> Self {
        let alarm = |code, severity, raised, cleared, quiet| Alarm { code, severity, raised, cleared, quiet, on: None };
        Self([
            alarm(
                "grid_meter_stale",
                Severity::Warning,
                "The grid meter gives no power, or the same to the last digit while devices change: limits of the grid connection are kept by the worst case.",
                "The grid meter gives its power again.",
                Duration::ZERO,
            ),
            alarm(
                "import_limit",
                Severity::Info,
                "The import limit (or the main fuse) holds devices back.",
                "The import limit holds no device back any more.",
                QUIET,
            ),
            alarm(
                "export_limit",
                Severity::Info,
                "The export limit holds devices back.",
                "The export limit holds no device back any more.",
                QUIET,
            ),
            alarm(
                "plan_blocked_clock",
                Severity::Warning,
                "Schedules and plans wait until the clock can be trusted.",
                "The clock can be trusted: schedules and plans go on.",
                Duration::ZERO,
            ),
            alarm(
                "price_missing",
                Severity::Warning,
                "A plan has no price for this time: its tariff is not there or has run out. It does what it was told for that.",
                "The plans have prices again.",
                QUIET,
            ),
        ])
    }
}

impl Alarms {
    /// The cause is there, or not. Returns the event when that begins or ends.
    pub(crate) fn set(
        &mut self,
        cause: Cause,
        is_on: bool,
        device: Option<&DeviceId>,
        now: Mono,
        ts: Timestamp,
    ) -> Option<Event> {
        let alarm = self.0.get_mut(cause as usize)?;
        let (text, state) = match (is_on, alarm.on) {
            (true, None) => {
                alarm.on = Some(now);
                (alarm.raised, EventState::Raised)
            }
            (true, Some(_)) => {
                alarm.on = Some(now);
                return None;
            }
            (false, Some(last)) if now.since(last) >= alarm.quiet => {
                alarm.on = None;
                (alarm.cleared, EventState::Cleared)
            }
            (false, _) => return None,
        };
        Some(Event {
            ts,
            severity: if state == EventState::Cleared { Severity::Info } else { alarm.severity },
            device: device.cloned(),
            code: alarm.code.to_owned(),
            text: text.to_owned(),
            state,
        })
    }
}
