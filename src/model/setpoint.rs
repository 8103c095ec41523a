//! Setpoints are leases: each has an end, a cause, and what the device does then.

use super::{Action, DeviceId, IntentKey, Mono, Timestamp};

/// What a device shall do, after ranks and limits: what a profile encodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Demand {
    /// Back to the baseline: what the installer set in the device, the device's own mode.
    Release,
    /// Battery power, W, **+ = discharging**; 0 holds it.
    BatteryPower {
        /// W, signed.
        watts: f64,
        /// When charging: may it come from the grid.
        grid: bool,
    },
    /// Standing reserve of a battery, %.
    Reserve {
        /// 0 to 100.
        pct: f64,
    },
    /// Largest AC power of an inverter, W.
    PowerLimit {
        /// W, 0 or more.
        watts: f64,
    },
    /// Largest current of a charger per phase, A; the charger may charge.
    ChargerCurrent {
        /// A, at least the charger's minimum.
        amps: f64,
        /// On one phase or on three, where the charger can switch; `None`: as the installer set it.
        phases: Option<u8>,
    },
    /// At most this current of a charger per phase, A; whether it charges is left to itself. Protection is a limit, never a
    /// reason to start charging.
    ChargerLimit {
        /// A, at least the charger's minimum.
        amps: f64,
    },
    /// The charger pauses.
    ChargerOff,
}

impl Demand {
    /// Is this a standing setting: it stays until changed and has no lease.
    #[must_use]
    pub const fn is_standing(&self) -> bool {
        matches!(self, Self::Reserve { .. })
    }
}

/// The end of a lease on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnd {
    /// What counts while the process lives.
    pub mono: Mono,
    /// What counts after a restart, and what people see.
    pub wall: Timestamp,
}

/// A demand with an end and a cause. None can be made without both.
#[derive(Debug, Clone, PartialEq)]
pub struct Setpoint {
    device: DeviceId,
    demand: Demand,
    cause: IntentKey,
    asked: Action,
    end: LeaseEnd,
    on_end: Demand,
    protects: bool,
}

impl Setpoint {
    /// A setpoint for `device`. `on_end` is what the device takes when the lease ends, on stop and after a crash:
    /// [`Demand::Release`], or a tighter value where a limit protects a fuse or an export limit.
    #[must_use]
    pub const fn new(
        device: DeviceId,
        demand: Demand,
        cause: IntentKey,
        asked: Action,
        end: LeaseEnd,
        on_end: Demand,
    ) -> Self {
        Self { device, demand, cause, asked, end, on_end, protects: false }
    }
    /// The same, said to stand for the grid operator or a limit of the site: it is written whatever that costs the device.
    #[must_use]
    pub fn protecting(self, protects: bool) -> Self {
        Self { protects, ..self }
    }
    /// Does the grid operator or a limit of the site stand behind it.
    #[must_use]
    pub const fn protects(&self) -> bool {
        self.protects
    }
    /// For which device.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }
    /// What the device shall do.
    #[must_use]
    pub const fn demand(&self) -> Demand {
        self.demand
    }
    /// The intent behind it.
    #[must_use]
    pub const fn cause(&self) -> &IntentKey {
        &self.cause
    }
    /// The action that was asked for, before ranks and limits.
    #[must_use]
    pub const fn asked(&self) -> &Action {
        &self.asked
    }
    /// When it ends.
    #[must_use]
    pub const fn end(&self) -> LeaseEnd {
        self.end
    }
    /// What the device takes then.
    #[must_use]
    pub const fn on_end(&self) -> Demand {
        self.on_end
    }
}

/// What control tells a device task, kept in one cell per device: the newest replaces.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Order {
    /// Control has not decided yet (start-up): leave the device as it is.
    #[default]
    Wait,
    /// Nobody wants anything: what derd holds is released, what it does not hold is left alone.
    Free,
    /// Hold this.
    Hold(Setpoint),
}

/// What a device may still hold from a setpoint of an earlier run: kept on disk until its end was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Which device.
    pub device: DeviceId,
    /// What it was told.
    pub demand: Demand,
    /// What it shall take when nothing renews that.
    pub on_end: Demand,
    /// When that was.
    pub since: Timestamp,
}
