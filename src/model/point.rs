//! The closed list of points, and what a point can hold.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// One normalised quantity, named `quantity_unit`. This list is the only place where it is extended;
        /// a profile may add vendor extras under `x_...`.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$doc])* $variant,)+
            /// A vendor extra, `x_...`, as named by its profile.
            Extra(Arc<str>),
        }

        impl Point {
            /// All points but the vendor extras, in the order of their documentation.
            pub const ALL: &'static [Point] = &[$(Point::$variant,)+];

            /// The point's name in JSON and configuration.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $name,)+ Self::Extra(name) => name }
            }
        }

        impl FromStr for Point {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    extra if extra.len() > 2 && extra.len() <= 64 && extra.starts_with("x_")
                        && extra.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) =>
                        Ok(Self::Extra(extra.into())),
                    other => Err(format!("`{other}` is not a point (vendor extras begin with x_)")),
                }
            }
        }
    };
}

points! {
    /// Active power, W; sign by device kind, see the room's documentation.
    PowerW = "power_w",
    /// Active power of phase L1, W.
    PowerL1W = "power_l1_w",
    /// Active power of phase L2, W.
    PowerL2W = "power_l2_w",
    /// Active power of phase L3, W.
    PowerL3W = "power_l3_w",
    /// Reactive power, var.
    ReactivePowerVar = "reactive_power_var",
    /// Apparent power, VA.
    ApparentPowerVa = "apparent_power_va",
    /// Power factor, -1 to 1.
    PowerFactor = "power_factor",
    /// Voltage L1 to neutral, V.
    VoltageL1V = "voltage_l1_v",
    /// Voltage L2 to neutral, V.
    VoltageL2V = "voltage_l2_v",
    /// Voltage L3 to neutral, V.
    VoltageL3V = "voltage_l3_v",
    /// Current L1, A; signed like power where the device gives it.
    CurrentL1A = "current_l1_a",
    /// Current L2, A.
    CurrentL2A = "current_l2_a",
    /// Current L3, A.
    CurrentL3A = "current_l3_a",
    /// Frequency, Hz.
    FrequencyHz = "frequency_hz",
    /// DC power, W.
    DcPowerW = "dc_power_w",
    /// DC voltage, V.
    DcVoltageV = "dc_voltage_v",
    /// DC current, A.
    DcCurrentA = "dc_current_a",
    /// Energy bought, Wh (meter); never falls.
    EnergyImportWh = "energy_import_wh",
    /// Energy sold, Wh (meter); never falls.
    EnergyExportWh = "energy_export_wh",
    /// Energy produced, Wh (inverter); never falls.
    EnergyProducedWh = "energy_produced_wh",
    /// Energy into the battery, Wh; never falls.
    EnergyChargedWh = "energy_charged_wh",
    /// Energy out of the battery, Wh; never falls.
    EnergyDischargedWh = "energy_discharged_wh",
    /// Energy into vehicles over the charger's life, Wh; never falls.
    EnergyDeliveredWh = "energy_delivered_wh",
    /// Energy of the running charging session, Wh.
    SessionEnergyWh = "session_energy_wh",
    /// State of charge, 0 to 100 %.
    SocPct = "soc_pct",
    /// State of health, 0 to 100 %.
    SohPct = "soh_pct",
    /// Usable capacity, Wh.
    CapacityWh = "capacity_wh",
    /// Reserve state of charge, %.
    ReserveSocPct = "reserve_soc_pct",
    /// The present charge limit, W, a magnitude.
    ChargeLimitW = "charge_limit_w",
    /// The present discharge limit, W, a magnitude.
    DischargeLimitW = "discharge_limit_w",
    /// The present export limit, W, a magnitude.
    ExportLimitW = "export_limit_w",
    /// The present current limit of a charger, A.
    MaxCurrentA = "max_current_a",
    /// Temperature, degrees Celsius.
    TemperatureC = "temperature_c",
    /// State as a text of the device kind's closed list.
    State = "state",
    /// The device's own fault code.
    FaultCode = "fault_code",
    /// Is the vehicle plugged in.
    Plugged = "plugged",
    /// The vehicle's charge limit, %.
    ChargeLimitPct = "charge_limit_pct",
    /// Range, km.
    RangeKm = "range_km",
    /// Heating target, degrees Celsius.
    HeatTargetC = "heat_target_c",
    /// Cooling target, degrees Celsius.
    CoolTargetC = "cool_target_c",
    /// Mode as a text.
    Mode = "mode",
}

impl Point {
    /// Is this a counter that never falls.
    #[must_use]
    pub const fn is_counter(&self) -> bool {
        matches!(
            self,
            Self::EnergyImportWh
                | Self::EnergyExportWh
                | Self::EnergyProducedWh
                | Self::EnergyChargedWh
                | Self::EnergyDischargedWh
                | Self::EnergyDeliveredWh
        )
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A finite number in the point's unit.
    Num(f64),
    /// A text, such as a state.
    Text(Arc<str>),
    /// A yes or no, such as `plugged`.
    Flag(bool),
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub const fn num(&self) -> Option<f64> {
        match self {
            Self::Num(n) => Some(*n),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            _ => None,
        }
    }
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NullReason {
    /// The device marks the point as not implemented.
    NotImplemented,
    /// The device is asleep and gives no value.
    Asleep,
    /// The value lies outside what the device can physically do; it is counted and not published.
    OutOfRange,
    /// A counter that is 0 at wake-up, or a value that is not ready yet.
    NotReady,
    /// The device refused the read, or its answer lacks the field.
    Unavailable,
    /// The last value is too old.
    Stale,
}

impl NullReason {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotImplemented => "not_implemented",
            Self::Asleep => "asleep",
            Self::OutOfRange => "out_of_range",
            Self::NotReady => "not_ready",
            Self::Unavailable => "unavailable",
            Self::Stale => "stale",
        }
    }

    /// Back from [`NullReason::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::NotImplemented, Self::Asleep, Self::OutOfRange, Self::NotReady, Self::Unavailable, Self::Stale]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

/// A value, or null with its reason: never a bare number that hides where it came from.
pub type Field = Result<Value, NullReason>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for p in Point::ALL {
            assert_eq!(p.as_str().parse::<Point>().as_ref(), Ok(p));
        }
        assert_eq!("x_vendor".parse::<Point>(), Ok(Point::Extra("x_vendor".into())));
        assert!("power".parse::<Point>().is_err());
        assert!("x_".parse::<Point>().is_err());
    }
}
