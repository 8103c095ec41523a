//! What the owner has said about everybody else's control.

use super::{DeviceId, LeaseEnd, Timestamp, UplinkName};

/// All remote control stands still: commands, events, plans and schedules from outside wait. Limits, the grid operator's
/// rank and the owner's own commands and plans do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Its end on both clocks; `None`: until the owner resumes.
    pub until: Option<LeaseEnd>,
}

/// Whether remote control is paused, for people and clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteControl {
    /// It is paused.
    pub paused: bool,
    /// When the pause ends by itself; `None`: when the owner resumes (or it is not paused).
    pub until: Option<Timestamp>,
}

impl RemoteControl {
    /// The word used in JSON: `active` or `paused`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        if self.paused { "paused" } else { "active" }
    }

    /// Why a command waits: the same words in its first result and in control's reports.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.until {
            Some(until) => format!("the owner paused remote control until {until}"),
            None => "the owner paused remote control".to_owned(),
        }
    }
}

impl From<Pause> for RemoteControl {
    fn from(pause: Pause) -> Self {
        Self { paused: true, until: pause.until.map(|end| end.wall) }
    }
}

/// The owner took a device out of the event that ran: until that event's own end its source gets no other event there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptOut {
    /// The channel that the event came by.
    pub uplink: UplinkName,
    /// The device.
    pub device: DeviceId,
    /// When the event would have ended.
    pub until: Timestamp,
}

/// What is kept of the owner's word over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerWord {
    /// Remote control is paused, or not.
    pub remote: RemoteControl,
    /// Opt-outs of events that would still run.
    pub opted_out: Vec<OptOut>,
}
