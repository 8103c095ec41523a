//! Things that people should know.

use super::device::words;
use super::{DeviceId, Timestamp};

words! {
    /// How bad.
    Severity {
        /// Good to know.
        Info = "info",
        /// Somebody should look.
        Warning = "warning",
        /// Somebody must act.
        Critical = "critical",
    }
}

words! {
    /// Is it still so.
    EventState {
        /// It began (or just happened).
        Raised = "raised",
        /// It is over.
        Cleared = "cleared",
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub ts: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// Which device, if one.
    pub device: Option<DeviceId>,
    /// A stable word for machines: `device_offline`, `store_damaged`, ...
    pub code: String,
    /// A sentence for people.
    pub text: String,
    /// Did it begin or end.
    pub state: EventState,
}
