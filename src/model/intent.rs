//! What somebody wants a device to do.

use super::device::words;
use super::{CommandId, DeviceId, Mono, PlanId, Timestamp, UplinkName};
use std::fmt;
use std::sync::Arc;

words! {
    /// Who wins on a device: the later in this list, the higher.
    Rank {
        /// What the device does when nobody asks.
        Default = "default",
        /// Schedules of tags.
        Tag = "tag",
        /// Weekly schedules of a device.
        Schedule = "schedule",
        /// Slot plans.
        Plan = "plan",
        /// Flex and program events.
        Event = "event",
        /// Commands of a cloud or over MQTT.
        Command = "command",
        /// The owner, locally.
        Owner = "owner",
        /// The grid operator.
        Grid = "grid",
    }
}

words! {
    /// A battery's own operating mode.
    BatteryMode {
        /// Own consumption first.
        SelfReliance = "self_reliance",
        /// By tariff periods.
        TimeOfUse = "time_of_use",
        /// Buy when it pays.
        ImportFocus = "import_focus",
        /// Sell when it pays.
        ExportFocus = "export_focus",
    }
}

/// What to do, checked and typed. Powers are magnitudes in W; `None` means the device's maximum.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Battery: charge with this power.
    Charge {
        /// W, more than 0.
        power_w: Option<f64>,
        /// Stop below this state of charge (of use to `Discharge`), %.
        min_soc_pct: Option<f64>,
        /// Stop at this state of charge, %.
        max_soc_pct: Option<f64>,
        /// May it come from the grid.
        grid: bool,
    },
    /// Battery: discharge with this power.
    Discharge {
        /// W, more than 0.
        power_w: Option<f64>,
        /// Stop at this state of charge, %.
        min_soc_pct: Option<f64>,
        /// As in `Charge`, %.
        max_soc_pct: Option<f64>,
    },
    /// Battery: hold at 0 W.
    Idle,
    /// Back to the device's own mode, the baseline.
    Auto,
    /// Battery: standing reserve, %.
    SetReserve {
        /// 0 to 100.
        soc_pct: f64,
    },
    /// Battery: its own operating mode.
    SetMode {
        /// Which.
        mode: BatteryMode,
    },
    /// Inverter: at most this much into the grid, W.
    SetExportLimit {
        /// W, 0 or more.
        power_w: f64,
    },
    /// Inverter: at most this AC power, W.
    SetPowerLimit {
        /// W, 0 or more.
        power_w: f64,
    },
    /// Inverter: at most this part of its rated AC power.
    SetPowerLimitPct {
        /// 0 to 100.
        pct: f64,
    },
    /// Charger: charge, with the largest current allowed.
    Start,
    /// Charger: pause.
    Stop,
    /// Charger: charge with at most this current.
    SetMaxCurrent {
        /// A; below the charger's minimum it pauses.
        current_a: f64,
        /// On one phase or on three, where the charger can switch; `None`: as the installer set it.
        phases: Option<u8>,
    },
}

impl Rank {
    /// May it have to wait while the owner pauses remote control: what comes from outside, and is not of the grid operator.
    #[must_use]
    pub const fn waits_in_a_pause(self) -> bool {
        match self {
            Self::Command | Self::Event | Self::Plan | Self::Schedule | Self::Tag => true,
            Self::Grid | Self::Owner | Self::Default => false,
        }
    }
}

impl Action {
    /// Is it a standing setting: it stays until changed, is done when it is verified, and has no lease.
    #[must_use]
    pub const fn is_standing(&self) -> bool {
        matches!(self, Self::SetReserve { .. } | Self::SetMode { .. })
    }

    /// The action's name in commands and plans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Charge { .. } => "charge",
            Self::Discharge { .. } => "discharge",
            Self::Idle => "idle",
            Self::Auto => "auto",
            Self::SetReserve { .. } => "set_reserve",
            Self::SetMode { .. } => "set_mode",
            Self::SetExportLimit { .. } => "set_export_limit",
            Self::SetPowerLimit { .. } | Self::SetPowerLimitPct { .. } => "set_power_limit",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::SetMaxCurrent { .. } => "set_max_current",
        }
    }
}

/// Where an intent came from: unique among all intents of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentKey {
    /// A command of an uplink (or of `local`).
    Command {
        /// The channel it came by.
        uplink: UplinkName,
        /// For which device; `None` for the site.
        device: Option<DeviceId>,
        /// The sender's id.
        id: CommandId,
    },
    /// A plan document.
    Plan(PlanId),
    /// A limit of the site that needs the device held although nobody asked.
    Limit(&'static str),
}

impl fmt::Display for IntentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { uplink, id, .. } => write!(f, "command {id} by {uplink}"),
            Self::Plan(id) => write!(f, "plan {id}"),
            Self::Limit(name) => write!(f, "limit {name}"),
        }
    }
}

/// What somebody wants a device to do, with source, rank, start and end.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Which.
    pub key: IntentKey,
    /// For which device.
    pub device: DeviceId,
    /// What.
    pub action: Action,
    /// How strong.
    pub rank: Rank,
    /// The sender's label, for people.
    pub source: String,
    /// Order of acceptance: of two with one rank the later wins.
    pub accepted: u64,
    /// When it began, wall time.
    pub since: Timestamp,
    /// When it ends, wall time: shown to people and kept over a restart.
    pub ends_at: Timestamp,
    /// When it ends on the monotonic clock: what counts while the process lives.
    pub deadline: Mono,
    /// Why it wants that, in words, where it is a plan that looks at the house.
    pub why: Option<Arc<str>>,
}

words! {
    /// Which side of the grid connection a limit is on.
    GridSide {
        /// Power bought.
        Import = "import",
        /// Power sold.
        Export = "export",
    }
}

/// A limit of the whole site that somebody set from outside. It can only tighten what the installer set.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteLimit {
    /// Which command.
    pub key: IntentKey,
    /// Which side.
    pub side: GridSide,
    /// W, 0 or more, a magnitude.
    pub power_w: f64,
    /// When it ends, wall time.
    pub ends_at: Timestamp,
    /// When it ends on the monotonic clock.
    pub deadline: Mono,
}

/// The channel that a command came by, and what it may claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The uplink's name, or `local`.
    pub uplink: UplinkName,
    /// The ranks this channel may claim; the first is what it gets when it claims none. Never empty.
    pub ranks: Vec<Rank>,
}
