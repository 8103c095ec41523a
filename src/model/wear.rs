//! What writing costs a device, and what its installer set in it.

use super::Timestamp;
use super::device::words;

words! {
    /// Where a device keeps what is written to a register or key.
    WriteClass {
        /// In memory: writing costs nothing.
        Volatile = "volatile",
        /// In flash: each write is one of some 100,000 that it can take, and the value persists.
        Flash = "flash",
        /// Nobody says: counts as flash.
        Unknown = "unknown",
    }
}

impl WriteClass {
    /// Does each write cost a part of the device's life: flash, and what nobody knows.
    #[must_use]
    pub const fn wears(self) -> bool {
        !matches!(self, Self::Volatile)
    }
}

/// What one register or key of a device went through.
#[derive(Debug, Clone, PartialEq)]
pub struct Wear {
    /// `unit 1 holding 40345`, or path and key.
    pub register: String,
    /// Where the device keeps it.
    pub class: WriteClass,
    /// Writes that the device took, since derd first wrote it.
    pub writes: u64,
    /// Of these today (UTC).
    pub today: u32,
    /// Writes a day that it is granted; `None` where writing costs nothing.
    pub budget_per_day: Option<u32>,
    /// Years until 100,000 writes at the rate of the last 30 days; `None` where it does not wear or was not written.
    pub years_left: Option<f64>,
}

/// A value that is not what the installer set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Where: `unit 1 holding 40345`, or path and key.
    pub register: String,
    /// What it is called.
    pub name: String,
    /// What the installer set.
    pub stored: String,
    /// What is there now.
    pub now: String,
}

/// What is known of a device's baseline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BaselineReport {
    /// What the installer set, as the profile's own JSON; `None`: not recorded yet.
    pub recorded: Option<String>,
    /// What differs from it, as of the last look.
    pub drift: Vec<Drift>,
    /// When it was last compared, while derd held nothing.
    pub checked_at: Option<Timestamp>,
}
