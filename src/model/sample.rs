//! Readings of one device at one instant.

use super::{ClockState, DeviceId, Field, Mono, Point, Timestamp, Value};
use std::fmt;
use std::sync::Arc;

/// One start of the process: new for every start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootId(Arc<str>);

impl BootId {
    /// From its text, as stored: 1 to 32 hexadecimal digits.
    ///
    /// # Errors
    /// The text, when it is not such.
    pub fn new(text: &str) -> Result<Self, String> {
        if (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.into()))
        } else {
            Err(text.to_owned())
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All points that one poll of one device gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose.
    pub device: DeviceId,
    /// Wall time of the read, as good as `clock` says.
    pub ts: Timestamp,
    /// Monotonic time of the read: what ages are counted from.
    pub mono: Mono,
    /// The start of the process that read it.
    pub boot: BootId,
    /// Number of this sample of this device in this boot, from 0 without gaps.
    pub seq: u64,
    /// How good the clock was.
    pub clock: ClockState,
    /// The points, each once.
    pub points: Vec<(Point, Field)>,
}

impl Sample {
    /// The field of a point; `None` when the device does not have it.
    #[must_use]
    pub fn field(&self, point: &Point) -> Option<&Field> {
        self.points.iter().find(|(p, _)| p == point).map(|(_, f)| f)
    }

    /// The number at a point, when there is one.
    #[must_use]
    pub fn num(&self, point: &Point) -> Option<f64> {
        self.field(point)?.as_ref().ok()?.num()
    }

    /// The text at a point, when there is one.
    #[must_use]
    pub fn text(&self, point: &Point) -> Option<&str> {
        self.field(point)?.as_ref().ok().and_then(Value::text)
    }
}

/// The gateway's own running number of a sample over all devices and boots: what uplink cursors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RowNo(pub u64);

/// A sample with its row number.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its place in the order of all samples.
    pub row: RowNo,
    /// The sample.
    pub sample: Arc<Sample>,
}
