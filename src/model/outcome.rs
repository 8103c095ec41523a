//! What became of a setpoint and of a command.

use super::device::words;
use super::{CommandId, Demand, DeviceId, IntentKey, Timestamp, UplinkName};
use std::collections::BTreeMap;

/// What was sent to the wire and what was read back from it: never from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When it was read.
    pub at: Timestamp,
    /// `modbus` or `http`.
    pub via: String,
    /// Where: `unit 1 holding 40345`, or a path.
    pub address: String,
    /// What was written, as text.
    pub wrote: String,
    /// What was read back, as text.
    pub read: String,
}

/// How far a device got with its setpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// The writes were acknowledged.
    Written,
    /// The registers were read back and hold what was written.
    Verified,
    /// The device refused, or the read-back differs: the reason.
    Failed(String),
    /// It was verified, and later the device holds something else: the reason.
    Reverted(String),
}

/// A device's report on the setpoint it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which device.
    pub device: DeviceId,
    /// The intent behind the setpoint; `None` for a release that nobody asked for.
    pub cause: Option<IntentKey>,
    /// What was demanded.
    pub demand: Demand,
    /// When.
    pub at: Timestamp,
    /// How far it got.
    pub stage: Stage,
    /// The proof.
    pub evidence: Vec<Evidence>,
}

words! {
    /// Where a command stands. `Ended` and those after it are final: each command reaches exactly one of them.
    CommandState {
        /// Admitted and durable.
        Accepted = "accepted",
        /// The device acknowledged the writes.
        Written = "written",
        /// Read back from the wire.
        Verified = "verified",
        /// The physical effect is seen.
        Held = "held",
        /// A higher rank holds the device; it resumes if its end has not passed.
        Suspended = "suspended",
        /// It ran to its end, or was released.
        Ended = "ended",
        /// It was not admitted.
        Rejected = "rejected",
        /// It came too late.
        Expired = "expired",
        /// A later command of the same rank took its place.
        Superseded = "superseded",
        /// The device refused it.
        Failed = "failed",
        /// Something else changed the device.
        Reverted = "reverted",
    }
}

impl CommandState {
    /// Is nothing to come after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::Written | Self::Verified | Self::Held | Self::Suspended)
    }
}

/// Parameters by their JSON names, as shown in results.
pub type Params = BTreeMap<String, f64>;

/// What was applied of what was asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// By the names of the request.
    pub params: Params,
    /// The limit that clipped it, if any.
    pub limited_by: Option<String>,
}

/// How an intent fares, from control to whoever tracks it.
#[derive(Debug, Clone, PartialEq)]
pub struct IntentUpdate {
    /// Which intent.
    pub key: IntentKey,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub progress: Progress,
}

/// What happened to an intent.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It won (again), and this is what is applied: sent when first won and whenever `Applied` changes.
    Active(Applied),
    /// The device's report.
    Device {
        /// How far it got.
        stage: Stage,
        /// The proof.
        evidence: Vec<Evidence>,
    },
    /// The physical effect is seen.
    Effect,
    /// A higher rank holds the device: which.
    Suspended(String),
    /// A later one of the same rank took its place: which.
    Superseded(String),
    /// Its time is over, or it was released.
    Ended {
        /// Energy delivered in its time, Wh, a magnitude; `None` when unknown.
        delivered_wh: Option<f64>,
    },
    /// It was ended before its time.
    Cut {
        /// Why, for people.
        why: String,
        /// As in `Ended`.
        delivered_wh: Option<f64>,
    },
    /// What it has delivered so far in this run of derd: told every some seconds, and before it is over in any other way
    /// than the two above. Nothing that its sender needs to hear at once.
    Delivered {
        /// Wh, a magnitude.
        wh: f64,
    },
}

/// Where an answer goes, beside the ordinary result topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyTo {
    /// MQTT 5 response topic.
    pub topic: Option<String>,
    /// MQTT 5 correlation data.
    pub correlation: Option<Vec<u8>>,
}

/// A command's result as the world sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandResult {
    /// The channel it came by, and goes back by.
    pub uplink: UplinkName,
    /// Which device; `None` for the site.
    pub device: Option<DeviceId>,
    /// The sender's id; `None` when it sent none that could be read.
    pub id: Option<CommandId>,
    /// Where it stands.
    pub state: CommandState,
    /// When that began.
    pub ts: Timestamp,
    /// Why, for people.
    pub reason: Option<String>,
    /// The parameters that were asked for.
    pub requested: Params,
    /// The parameters that are applied.
    pub applied: Params,
    /// The limit that clipped them.
    pub limited_by: Option<String>,
    /// The proof.
    pub evidence: Vec<Evidence>,
    /// When it first acted.
    pub started_at: Option<Timestamp>,
    /// When it ended (final results).
    pub ended_at: Option<Timestamp>,
    /// Energy delivered, Wh, a magnitude (final results).
    pub delivered_wh: Option<f64>,
    /// Extra address of the answer.
    pub reply_to: ReplyTo,
}

impl CommandResult {
    /// A result that says nothing yet but where the command stands.
    #[must_use]
    pub fn new(
        uplink: UplinkName,
        device: Option<DeviceId>,
        id: Option<CommandId>,
        state: CommandState,
        ts: Timestamp,
    ) -> Self {
        Self {
            uplink,
            device,
            id,
            state,
            ts,
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
}
