//! The vocabulary: ids, quantities, signs, readings, intents, setpoints, outcomes.
//!
//! This room imports no other room, does no I/O, reads no clock and derives no serde: the JSON shapes live in
//! [`crate::wire`], the rows in [`crate::store`].
//!
//! # Signs, everywhere, once
//!
//! inverter **+ = producing**; battery **+ = discharging**; charger **+ = into the vehicle**; grid meter
//! **+ = import**; load **+ = consuming**, so that `load = grid + inverters + batteries - chargers` is a plain sum.
//! Limits and the `power_w` of a command are magnitudes: the action gives the direction.

#![cfg_attr(not(test), deny(clippy::as_conversions))]

mod decision;
mod device;
mod event;
mod id;
mod intent;
mod outcome;
mod owner;
mod point;
mod sample;
mod setpoint;
mod status;
mod time;
mod wear;

pub use decision::{Decided, DecidedHolder, LeaseState, Standing, TraceStep};
pub use device::{
    Capabilities, ControlSettings, Coupling, DeviceInfo, DeviceKind, DeviceLimits, DeviceSpec, DeviceState, FailSafe,
    NOMINAL_V, Role, SiteSpec,
};
pub use event::{Event, EventState, Severity};
pub use id::{CommandId, DeviceId, GatewayId, IdError, PlanId, UplinkName};
pub use intent::{Action, BatteryMode, GridSide, Intent, IntentKey, Origin, Rank, SiteLimit};
pub use outcome::{
    Applied, CommandResult, CommandState, Evidence, IntentUpdate, Outcome, Params, Progress, ReplyTo, Stage,
};
pub use owner::{OptOut, OwnerWord, Pause, RemoteControl};
pub use point::{Field, NullReason, Point, Value};
pub use sample::{BootId, RowNo, Sample, Stored};
pub use setpoint::{Demand, Held, LeaseEnd, Order, Setpoint};
pub use status::{
    ControlStatus, ControlledBy, DeviceStatus, Health, PlanState, PlannedSlot, StoreStatus, UplinkMode, UplinkStatus,
};
pub use time::{ClockState, Mono, Timestamp};
pub use wear::{BaselineReport, Drift, Wear, WriteClass};
