//! What each part says of itself; `observe` puts them together.

use super::device::words;
use super::{
    BaselineReport, Capabilities, Decided, DeviceId, DeviceInfo, DeviceState, PlanId, Rank, RemoteControl, Sample,
    Timestamp, UplinkName, Wear,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device task's own word, kept in a watch cell.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStatus {
    /// Is it reachable.
    pub state: DeviceState,
    /// The last sample, however old.
    pub last: Option<Arc<Sample>>,
    /// What it says of itself.
    pub info: DeviceInfo,
    /// What it can be told.
    pub capabilities: Capabilities,
    /// The present trouble, for people.
    pub error: Option<String>,
    /// Polls that failed since start.
    pub failed_polls: u64,
    /// Polls that came too late and were left out since start.
    pub slipped_polls: u64,
    /// Values that were refused as impossible since start.
    pub rejected_values: u64,
    /// What writing has cost it so far, by register.
    pub wear: Arc<[Wear]>,
    /// What its installer set.
    pub baseline: Arc<BaselineReport>,
}

impl Default for DeviceStatus {
    fn default() -> Self {
        Self {
            state: DeviceState::Connecting,
            last: None,
            info: DeviceInfo::default(),
            capabilities: Capabilities::default(),
            error: None,
            failed_polls: 0,
            slipped_polls: 0,
            rejected_values: 0,
            wear: Arc::default(),
            baseline: Arc::default(),
        }
    }
}

/// Who holds a device.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlledBy {
    /// The sender's label.
    pub source: String,
    /// Its rank.
    pub rank: Rank,
    /// The action, by name.
    pub action: &'static str,
    /// The schedule or plan that asks; `None`: a command, an event or a limit.
    pub plan: Option<PlanId>,
    /// When it ends; `None`: not by itself (an endless schedule, a plan that looks at the house).
    pub ends_at: Option<Timestamp>,
}

/// A piece of time in which a plan means to do something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedSlot {
    /// From.
    pub start: Timestamp,
    /// Until, exclusive.
    pub end: Timestamp,
    /// The action, by name.
    pub action: &'static str,
    /// The price then, per kWh; `None`: not known.
    pub price: Option<f64>,
}

/// How a plan that looks at the house stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanState {
    /// The action it wants now, by name; `None`: nothing.
    pub action: Option<&'static str>,
    /// Why, in words.
    pub why: Option<Arc<str>>,
    /// When it next wants something else, as far as known now.
    pub next_change: Option<Timestamp>,
    /// What it means to do, in order of time.
    pub planned: Arc<[PlannedSlot]>,
}

/// Control's own word.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ControlStatus {
    /// Who holds which device; absent: nobody.
    pub holders: BTreeMap<DeviceId, ControlledBy>,
    /// The plans that look at the house, and how each stands.
    pub plans: BTreeMap<PlanId, Arc<PlanState>>,
    /// The decision on each device, with what led to it.
    pub decided: BTreeMap<DeviceId, Arc<Decided>>,
    /// Load of the site, W; `None` when any part is null or stale.
    pub load_w: Option<f64>,
    /// Grid power, W, + = import; `None` when null or stale.
    pub grid_w: Option<f64>,
    /// Has the owner paused remote control.
    pub remote: RemoteControl,
    /// Finished cycles since start: what the watchdog lives on.
    pub cycles: u64,
}

words! {
    /// How an uplink stands.
    UplinkMode {
        /// Live values go out as they come.
        Live = "live",
        /// Live values go out, and the backlog behind them.
        CatchUp = "catch_up",
        /// No connection.
        Offline = "offline",
    }
}

/// An uplink's own word.
#[derive(Debug, Clone, PartialEq)]
pub struct UplinkStatus {
    /// Its name.
    pub name: UplinkName,
    /// `mqtt` or a cloud's name.
    pub kind: &'static str,
    /// How it stands.
    pub mode: UplinkMode,
    /// Samples not yet acknowledged.
    pub backlog_rows: u64,
    /// Time of the oldest of them.
    pub oldest_unsent: Option<Timestamp>,
    /// When the other side last acknowledged something.
    pub last_ok_at: Option<Timestamp>,
    /// The present trouble, for people.
    pub error: Option<String>,
}

/// The store's own word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStatus {
    /// Size on disk.
    pub bytes: u64,
    /// Samples kept.
    pub rows: u64,
    /// Time of the oldest.
    pub oldest: Option<Timestamp>,
    /// Bytes written to disk since local midnight UTC.
    pub written_bytes_today: u64,
    /// Samples lost since start, counted.
    pub dropped: u64,
    /// Decisions that did not come into the journal, or were lost from it, since start.
    pub dropped_decisions: u64,
    /// The present trouble, for people.
    pub error: Option<String>,
    /// Finished turns of the store's loop since start.
    pub turns: u64,
}

words! {
    /// The gateway's health in one word.
    Health {
        /// All well.
        Ok = "ok",
        /// Something is missing, the job goes on.
        Degraded = "degraded",
        /// The job does not get done.
        Failed = "failed",
    }
}
