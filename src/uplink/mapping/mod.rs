//! From a cloud's schedules to documents of derd's own: what all clouds have in common.
//!
//! Pure: JSON in, documents and words out. The mappings decide what a schedule means; when it holds is the business of
//! [`crate::plan`], and who wins that of control.

mod clock;
mod overlap;
#[cfg(test)]
mod tests;

pub(crate) use clock::{MINUTES_PER_DAY, hour_minute, shown};
pub(crate) use overlap::{Times, overlap_warning};

use crate::model::{DeviceId, DeviceKind};
use serde_json::Value;

/// The device of this gateway that a cloud's schedule is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Which.
    pub device: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its largest discharge power, W, where known: the cloud may name a percentage of it.
    pub max_discharge_w: Option<f64>,
    /// What it can store, Wh, where known.
    pub capacity_wh: Option<f64>,
    /// Phases that a charger charges on, 1 to 3: a limit in W becomes a current.
    pub phases: u8,
    /// The time zone for schedules of which the cloud does not tell it.
    pub zone: Option<String>,
}

impl Target {
    /// A target of which nothing more is known. Three phases: with fewer a charger takes less than its limit, never more.
    #[must_use]
    pub const fn new(device: DeviceId, kind: DeviceKind) -> Self {
        Self { device, kind, max_discharge_w: None, capacity_wh: None, phases: 3, zone: None }
    }
}

/// What became of one schedule of a cloud.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// The id of its document.
    pub plan: String,
    /// What to do.
    pub fate: Fate,
    /// What is not quite as the cloud says, in words.
    pub warnings: Vec<String>,
}

/// What to do with a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// Put this document in force, in place of what was taken from the schedule before.
    Take(Value),
    /// It has no effect on this device, for this reason: what was taken from it before goes.
    Drop(String),
    /// It cannot be understood, for these reasons: what was taken from it before stays.
    Reject(Vec<String>),
}

/// Longest id of a document.
const MAX_ID: usize = 64;
/// Characters kept of an id that is too long.
const KEPT: usize = 47;

/// The id of a document made of `parts`. Ids of a cloud are opaque: what does not fit the form of derd's own is replaced, and
/// then a sum of the whole keeps two of them apart.
pub(crate) fn plan_id(parts: &[&str]) -> String {
    let wanted = parts.join("-");
    let id: String = wanted
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_') { c } else { '-' })
        .collect();
    if id == wanted && id.len() <= MAX_ID {
        return id;
    }
    // FNV-1a, 64 bit: not against malice, which could name any id anyway.
    let sum = wanted.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{}-{sum:016x}", &id[..id.len().min(KEPT)])
}

/// The entries of an answer: a list, or a list under one of `keys`, or the one object itself.
pub(crate) fn entries<'a>(answer: &'a Value, keys: &[&str]) -> Result<Vec<&'a Value>, String> {
    match answer {
        Value::Array(list) => Ok(list.iter().collect()),
        Value::Object(map) => match keys.iter().find_map(|key| map.get(*key)) {
            Some(Value::Array(list)) => Ok(list.iter().collect()),
            Some(_) => Err(format!("{} is not a list", keys.join(" or "))),
            None => Ok(vec![answer]),
        },
        _ => Err("neither a schedule nor a list of schedules".to_owned()),
    }
}
