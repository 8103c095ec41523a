//! Devices: what kind, what they can do, what the installer allows.

use super::{Demand, DeviceId};
use std::time::Duration;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in JSON and configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Back from [`Self::as_str`].
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

/// Nominal voltage of a phase, V: what fuses and car currents are reckoned with.
pub const NOMINAL_V: f64 = 230.0;

words! {
    /// What kind of thing a device is.
    DeviceKind {
        /// A PV or hybrid inverter.
        Inverter = "inverter",
        /// A battery.
        Battery = "battery",
        /// An EV charger.
        Charger = "charger",
        /// A meter.
        Meter = "meter",
        /// A vehicle known by a cloud only.
        Vehicle = "vehicle",
        /// A heat pump, air conditioner or thermostat known by a cloud only.
        Hvac = "hvac",
    }
}

words! {
    /// A device's part in the site.
    Role {
        /// The meter at the grid connection point.
        Grid = "grid",
    }
}

words! {
    /// How a battery is wired.
    Coupling {
        /// Its own AC inverter: its power counts in the site's sum.
        Ac = "ac",
        /// Behind a hybrid inverter: already inside that inverter's AC power.
        Dc = "dc",
    }
}

words! {
    /// Is the device reachable.
    #[derive(Default)]
    DeviceState {
        /// It answered the last poll.
        Online = "online",
        /// It never answered yet, or is being found again.
        #[default]
        Connecting = "connecting",
        /// It stopped answering.
        Offline = "offline",
        /// It answers but is not what was commissioned: read-only until somebody looks.
        Quarantined = "quarantined",
    }
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceInfo {
    /// Manufacturer, if told.
    pub maker: Option<String>,
    /// Model, if told.
    pub model: Option<String>,
    /// Serial number, if told: the identity that survives a new address.
    pub serial: Option<String>,
    /// Firmware version, if told.
    pub firmware: Option<String>,
}

/// What a device can be told, by its profile and what discovery found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Capabilities {
    /// Names of actions (`charge`, `set_max_current`, ...) that can be executed.
    pub actions: Vec<&'static str>,
    /// Rated charge power, W, where known.
    pub max_charge_w: Option<f64>,
    /// Rated discharge power, W, where known.
    pub max_discharge_w: Option<f64>,
    /// Rated AC power of an inverter, W, where known.
    pub rated_w: Option<f64>,
    /// Smallest settable current of a charger, A.
    pub min_current_a: Option<f64>,
    /// Largest settable current of a charger, A.
    pub max_current_a: Option<f64>,
    /// Can the charger be told to use one phase or three.
    pub phase_switch: bool,
    /// An inverter's power limit that its installer set, W: never exceeded, whoever asks.
    pub baseline_w: Option<f64>,
    /// What the device does when nobody refreshes its setpoint.
    pub failsafe: FailSafe,
}

/// What a device does by itself when derd falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailSafe {
    /// It has a timer of its own that drops the setpoint; derd re-asserts at a third of it.
    Timer(Duration),
    /// Its setpoint persists: derd releases on stop, and at start what the last run held.
    #[default]
    None,
}

/// The installer's limits of one device: magnitudes; no remote message can widen them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DeviceLimits {
    /// Largest charge power, W.
    pub max_charge_w: Option<f64>,
    /// Largest discharge power, W.
    pub max_discharge_w: Option<f64>,
    /// Lowest state of charge a discharge may reach, %.
    pub min_soc_pct: Option<f64>,
    /// Highest state of charge a charge may reach, %.
    pub max_soc_pct: Option<f64>,
    /// Largest AC power of an inverter, W.
    pub max_power_w: Option<f64>,
    /// Largest current of a charger, A.
    pub max_current_a: Option<f64>,
    /// How fast the power of a battery may move away from zero, and the limit of an inverter may rise, W/s. What protects or
    /// stops is not slowed down.
    pub ramp_w_per_s: Option<f64>,
    /// A charger that was started stays on for so long, unless a limit, or a command's own stop, ends it.
    pub min_on: Option<Duration>,
    /// A charger that a limit or a plan stopped stays off for so long.
    pub min_off: Option<Duration>,
}

/// What the installer allows derd to do with one device.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ControlSettings {
    /// Read-only unless somebody said otherwise.
    pub enabled: bool,
    /// Control although the device has no working fail-safe timer.
    pub accept_no_failsafe: bool,
    /// The current that a charger takes when a fuse needs protecting and derd stops, A.
    pub fallback_current_a: Option<f64>,
    /// Writes a day to a register that the device keeps in flash, or may; `None`: 18, which is 100,000 in 15 years.
    pub flash_writes_per_day: Option<u32>,
}

/// One device as configured: what the rooms above `model` share.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSpec {
    /// Its id.
    pub id: DeviceId,
    /// Its kind.
    pub kind: DeviceKind,
    /// Its part in the site, if any.
    pub role: Option<Role>,
    /// AC or DC coupled (batteries).
    pub coupling: Coupling,
    /// Name of its profile.
    pub profile: String,
    /// Its link as written in the configuration.
    pub link: String,
    /// Modbus unit id.
    pub unit: u8,
    /// Time between polls.
    pub poll: Duration,
    /// Is its power and energy direction turned round by how it is wired.
    pub invert: bool,
    /// The installer's limits.
    pub limits: DeviceLimits,
    /// What derd may do with it.
    pub control: ControlSettings,
}

impl DeviceSpec {
    /// A value is fresh for three polls, and for at least 5 s: after that it is null everywhere.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        (self.poll * 3).max(Duration::from_secs(5))
    }
}

/// The site's own facts and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteSpec {
    /// Its name.
    pub name: String,
    /// IANA time zone of its plans.
    pub timezone: String,
    /// 1 or 3.
    pub phases: u8,
    /// Main fuse per phase, A.
    pub main_fuse_a: Option<f64>,
    /// Agreed export limit, W.
    pub export_limit_w: Option<f64>,
}

impl ControlSettings {
    /// The tighter demand a charger falls back to, where a fuse is being protected.
    #[must_use]
    pub fn charger_fallback(&self) -> Demand {
        Demand::ChargerLimit { amps: self.fallback_current_a.unwrap_or(6.0) }
    }
}
