//! A profile after loading: everything typed and checked.

use super::{Driver, Space, WriteFunction};
use crate::model::{DeviceKind, DeviceSpec, Point, WriteClass};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a profile's link must speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Modbus TCP or RTU.
    Modbus,
    /// HTTP.
    Http,
}

/// How gently a device must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Shortest time between an answer and the next request.
    pub min_gap: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Time between connecting and the first request.
    pub connect_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { min_gap: Duration::ZERO, timeout: Duration::from_secs(3), connect_delay: Duration::ZERO }
    }
}

/// How one model of device is read and controlled.
#[derive(Debug)]
pub struct Profile {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) kinds: Vec<DeviceKind>,
    pub(super) pace: Pace,
    pub(super) requirements: Vec<String>,
    pub(super) caveats: Vec<String>,
    pub(super) sources: Vec<String>,
    pub(super) protocol: Protocol,
}

impl Profile {
    /// `vendor/model`, or `sunspec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// For people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }
    /// The kinds of device that it can be used for.
    #[must_use]
    pub fn kinds(&self) -> &[DeviceKind] {
        &self.kinds
    }
    /// What its link must speak.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self.protocol {
            Protocol::SunSpec(_) | Protocol::Map(_) => Transport::Modbus,
            Protocol::Json(_) => Transport::Http,
        }
    }
    /// How gently the device must be asked.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        self.pace
    }
    /// What the installer must have done on the device.
    #[must_use]
    pub fn requirements(&self) -> &[String] {
        &self.requirements
    }
    /// What the installer should know.
    #[must_use]
    pub fn caveats(&self) -> &[String] {
        &self.caveats
    }
    /// Where its facts come from.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// A driver for one device.
    ///
    /// # Errors
    /// A sentence, when the profile does not fit the device's kind.
    pub fn driver(self: &Arc<Self>, spec: &DeviceSpec) -> Result<Driver, String> {
        Driver::new(self, spec)
    }
}

#[derive(Debug)]
pub(super) enum Protocol {
    SunSpec(SunSpecOptions),
    Map(BTreeMap<DeviceKind, Arc<Map>>),
    Json(BTreeMap<DeviceKind, Arc<Doc>>),
}

/// What differs between SunSpec devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SunSpecOptions {
    /// FC16 for every write, or FC06 for devices that refuse FC16.
    pub(super) function: WriteFunction,
    /// Read only, whatever the device offers.
    pub(super) read_only: bool,
    /// Where the device keeps the points of [`WRITTEN`], in their order.
    pub(super) classes: [PointClass; WRITTEN.len()],
}

/// The SunSpec points that derd writes: model, offset from its ID register, name in profiles.
pub(super) const WRITTEN: [(u16, u16, &str); 9] = [
    (123, 5, "123.WMaxLimPct"),
    (123, 7, "123.WMaxLimPct_RvrtTms"),
    (123, 9, "123.WMaxLim_Ena"),
    (124, 5, "124.StorCtl_Mod"),
    (124, 7, "124.MinRsvPct"),
    (124, 12, "124.OutWRte"),
    (124, 13, "124.InWRte"),
    (124, 15, "124.InOutWRte_RvrtTms"),
    (124, 17, "124.ChaGriSet"),
];

/// Where a SunSpec device keeps a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointClass {
    /// As the word says.
    Always(WriteClass),
    /// Volatile where the device implements its revert timer and derd runs it; unknown elsewhere.
    Timed,
}

impl PointClass {
    /// The class on a device that has the timer or has not.
    pub(super) const fn on(self, has_timer: bool) -> WriteClass {
        match self {
            Self::Always(class) => class,
            Self::Timed if has_timer => WriteClass::Volatile,
            Self::Timed => WriteClass::Unknown,
        }
    }
}

/// Identity: fixed by the profile, or read once from the device.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity<S> {
    pub(super) maker: Option<Told<S>>,
    pub(super) model: Option<Told<S>>,
    pub(super) serial: Option<Told<S>>,
    pub(super) firmware: Option<Told<S>>,
}

#[derive(Debug, Clone)]
pub(super) enum Told<S> {
    Fixed(String),
    Read(S),
}

/// A Modbus register map for one kind of device.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) identity: Identity<Register>,
    pub(super) entries: Vec<Entry<Register>>,
    pub(super) rules: BlockRules,
    pub(super) nameplate_w: Option<f64>,
}

/// How registers may be read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockRules {
    /// Registers per read, 1 to 125.
    pub(super) max_read: u16,
    /// Unused registers that may be read along to save a request.
    pub(super) gap: u16,
    /// First and last register of ranges that must never be read.
    pub(super) forbidden: Vec<(u16, u16)>,
}

/// Where a number lies in the registers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Register {
    pub(super) space: Space,
    pub(super) address: u16,
    pub(super) kind: super::words::Kind,
    pub(super) little: bool,
    /// Raw values (as unsigned) that mean "none".
    pub(super) na: Vec<u64>,
}

/// Where a value lies in a JSON answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pointer {
    /// Index into [`Doc::paths`].
    pub(super) from: usize,
    pub(super) pointer: String,
}

/// One point of a map or document.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) point: Point,
    /// Added up, each with its own factor.
    pub(super) terms: Vec<(S, f64)>,
    /// A term that is missing counts as 0 as long as another is there.
    pub(super) missing_as_zero: bool,
    pub(super) scale: f64,
    pub(super) offset: f64,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// Raw value as text -> state.
    pub(super) states: Option<BTreeMap<String, Arc<str>>>,
    /// The device need not have it: missing is "not implemented".
    pub(super) optional: bool,
    /// Only valid while this holds.
    pub(super) when: Option<(S, Json)>,
}

/// The JSON documents of one kind of device.
#[derive(Debug)]
pub(super) struct Doc {
    pub(super) paths: Vec<String>,
    pub(super) identity: Identity<Pointer>,
    /// What must hold for the device to be the right one.
    pub(super) identify: Vec<(Pointer, Json)>,
    pub(super) entries: Vec<Entry<Pointer>>,
    pub(super) nameplate_w: Option<f64>,
    pub(super) charger: Option<ChargerControl>,
}

/// Declared control of a charger: one GET with keys in the query, read back by the same keys.
#[derive(Debug)]
pub(super) struct ChargerControl {
    /// Path of the setting request, without query.
    pub(super) set: String,
    /// Index into [`Doc::paths`]: the answer that shows the keys.
    pub(super) read: usize,
    pub(super) settle: Duration,
    pub(super) min_current_a: f64,
    /// What the charger may give where it does not say, A.
    pub(super) max_current_a: f64,
    /// Where the charger says what it may give, A.
    pub(super) max_current: Option<Pointer>,
    pub(super) step_a: f64,
    pub(super) current: Vec<(String, Setting)>,
    /// As `current`, but whether it charges is left to the charger.
    pub(super) limit: Vec<(String, Setting)>,
    /// Keys that choose the phases: what each is set to for one phase and for three. Without a wish: the baseline.
    pub(super) phases: Vec<(String, Json, Json)>,
    pub(super) off: Vec<(String, Setting)>,
    pub(super) release: Vec<(String, Setting)>,
    /// What a release sets where no baseline was ever recorded; may be empty.
    pub(super) unrecorded: Vec<(String, Setting)>,
    /// Where the charger keeps each key; one that is not named is unknown.
    pub(super) classes: BTreeMap<String, WriteClass>,
    /// Keys of `read` that derd never writes and that belong to the baseline all the same.
    pub(super) watch: Vec<String>,
}

/// What a key is set to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Setting {
    /// A fixed value.
    Fixed(Json),
    /// The demanded amperes.
    Demand,
    /// What the baseline says; left alone where there is none.
    Baseline,
}
