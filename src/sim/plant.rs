//! The physics of the single devices: PV plant, battery, charger with its car, meter. Pure.
//!
//! Two times: `dt` is real time, in which electronics react; `day_dt` is the simulated day's, in which energy flows.

use super::surroundings::{approach, split_even};
use std::collections::VecDeque;

/// A value that takes effect some time after it was set.
#[derive(Debug, Clone)]
struct Lag<T> {
    delay_s: f64,
    set: T,
    effective: T,
    queue: VecDeque<(f64, T)>,
}

impl<T: Copy + PartialEq> Lag<T> {
    const fn new(delay_s: f64, value: T) -> Self {
        Self { delay_s, set: value, effective: value, queue: VecDeque::new() }
    }

    fn step(&mut self, now_s: f64, value: T) -> T {
        if value != self.set {
            self.set = value;
            self.queue.push_back((now_s + self.delay_s, value));
        }
        while let Some((due, value)) = self.queue.front().copied() {
            if due > now_s + 1e-9 {
                break;
            }
            self.effective = value;
            self.queue.pop_front();
        }
        self.effective
    }

    fn jump(&mut self, value: T) {
        *self = Self::new(self.delay_s, value);
    }
}

/// A PV plant with its inverter.
#[derive(Debug, Clone)]
pub struct PvPlant {
    /// Rated AC power, W.
    pub rated_w: f64,
    /// The limit that is in force, as a fraction of the rating; `None`: none.
    pub limit: Option<f64>,
    /// When the limit ends by itself, on the world's real time.
    pub limit_until_s: Option<f64>,
    /// Is it connected to the grid.
    pub connected: bool,
    /// What the sun would give now, W.
    pub available_w: f64,
    /// AC power, W, + = producing.
    pub power_w: f64,
    /// Energy produced, Wh.
    pub energy_wh: f64,
    lag: Lag<f64>,
    ramp: f64,
}

impl PvPlant {
    pub(super) const fn new(rated_w: f64, energy_wh: f64) -> Self {
        // an inverter's electronics answer a new limit within a second
        let lag = Lag::new(1.0, 1.0);
        Self {
            rated_w,
            limit: None,
            limit_until_s: None,
            connected: true,
            available_w: 0.0,
            power_w: 0.0,
            energy_wh,
            lag,
            ramp: 1.0,
        }
    }

    pub(super) fn step(&mut self, now_s: f64, dt: f64, day_dt: f64, sun: f64) {
        if self.limit_until_s.is_some_and(|end| now_s + 1e-9 >= end) {
            self.limit = None;
            self.limit_until_s = None;
        }
        let limit = self.lag.step(now_s, self.limit.unwrap_or(1.0));
        self.ramp = approach(self.ramp, limit, 0.5 * dt);
        self.available_w = (self.rated_w * sun.clamp(0.0, 1.0)).round();
        let open = if self.connected { (self.rated_w * self.ramp).round() } else { 0.0 };
        self.power_w = self.available_w.min(open);
        self.energy_wh += self.power_w * day_dt / 3600.0;
    }

    /// Does a limit hold the power below what the sun would give.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.power_w < self.available_w
    }

    /// Power per phase, W.
    #[must_use]
    pub fn phases_w(&self) -> [f64; 3] {
        split_even(self.power_w)
    }
}

/// Bounds on a battery's power, W, + = discharging. Both equal: a forced power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Power may not fall below this: minus the largest charge power, or a forced discharge.
    pub lower_w: f64,
    /// Power may not rise above this: the largest discharge power, or minus a forced charge.
    pub upper_w: f64,
}

/// An AC-coupled battery.
#[derive(Debug, Clone)]
pub struct Battery {
    /// Usable capacity, Wh.
    pub capacity_wh: f64,
    /// Largest power in either direction, W.
    pub rated_w: f64,
    /// Efficiency of one direction.
    pub efficiency: f64,
    /// Energy in it, Wh.
    pub stored_wh: f64,
    /// Its own mode does not discharge below this, %.
    pub reserve_pct: f64,
    /// What a controller holds it to; `None`: its own mode alone.
    pub bounds: Option<Bounds>,
    /// When the bounds end by themselves, on the world's real time.
    pub bounds_until_s: Option<f64>,
    /// May it charge from the grid when told to.
    pub grid_charging: bool,
    /// AC power, W, + = discharging.
    pub power_w: f64,
    /// Energy charged and discharged at its AC side, Wh.
    pub energy_wh: (f64, f64),
    lags: (Lag<Option<Bounds>>, Lag<f64>),
}

impl Battery {
    pub(super) const fn new(soc_pct: f64) -> Self {
        const CAPACITY_WH: f64 = 10_000.0;
        // "real electronics": 2 s from a setpoint or from a change at the meter to the answer
        const LAG_S: f64 = 2.0;
        Self {
            capacity_wh: CAPACITY_WH,
            rated_w: 5000.0,
            efficiency: 0.95,
            stored_wh: CAPACITY_WH * soc_pct / 100.0,
            reserve_pct: 10.0,
            bounds: None,
            bounds_until_s: None,
            grid_charging: true,
            power_w: 0.0,
            energy_wh: (1_834_000.0, 1_655_000.0),
            lags: (Lag::new(LAG_S, None), Lag::new(LAG_S, 0.0)),
        }
    }

    /// State of charge, %.
    #[must_use]
    pub fn soc_pct(&self) -> f64 {
        100.0 * self.stored_wh / self.capacity_wh
    }

    /// As if `net_w` had been the house's need and the battery's answer for a while.
    pub(super) fn settle(&mut self, net_w: f64) {
        self.lags.1.jump(net_w);
        self.power_w = net_w.clamp(-self.rated_w, self.rated_w).round();
    }

    /// `net_w`: what the house needs besides the battery.
    pub(super) fn step(&mut self, now_s: f64, dt: f64, day_dt: f64, net_w: f64) {
        if self.bounds_until_s.is_some_and(|end| now_s + 1e-9 >= end) {
            self.bounds = None;
            self.bounds_until_s = None;
        }
        let bounds = self.lags.0.step(now_s, self.bounds);
        let need = self.lags.1.step(now_s, net_w);

        let hours = (day_dt / 3600.0).max(1e-9);
        let own = need.clamp(-self.rated_w, self.rated_w);
        let mut target = match bounds {
            None => own,
            Some(Bounds { lower_w, upper_w }) if lower_w <= upper_w => own.clamp(lower_w, upper_w),
            // contradicting bounds: the one nearer to doing nothing
            Some(Bounds { lower_w, upper_w }) => 0.0_f64.clamp(upper_w, lower_w),
        };
        if target < 0.0 && !self.grid_charging {
            target = target.max(need.min(0.0));
        }
        // short ramp
        let ramped = approach(self.power_w, target.clamp(-self.rated_w, self.rated_w), self.rated_w * dt);
        // only a forced discharge goes below the reserve
        let forced = bounds.is_some_and(|b| b.lower_w > 0.0);
        let floor_wh = if forced { 0.0 } else { self.capacity_wh * self.reserve_pct.clamp(0.0, 100.0) / 100.0 };
        let most = (self.stored_wh - floor_wh).max(0.0) * self.efficiency / hours;
        let least = -(self.capacity_wh - self.stored_wh).max(0.0) / self.efficiency / hours;
        // towards zero, so that a step never takes more than there is; and never minus zero
        self.power_w = ramped.clamp(least, most).trunc() + 0.0;
        let energy = self.power_w * day_dt / 3600.0;
        if energy > 0.0 {
            self.stored_wh -= energy / self.efficiency;
            self.energy_wh.1 += energy;
        } else {
            self.stored_wh -= energy * self.efficiency;
            self.energy_wh.0 -= energy;
        }
        self.stored_wh = self.stored_wh.clamp(0.0, self.capacity_wh);
    }

    /// Power per phase, W.
    #[must_use]
    pub fn phases_w(&self) -> [f64; 3] {
        split_even(self.power_w)
    }

    /// Power at its DC side, W, + = discharging.
    #[must_use]
    pub fn dc_power_w(&self) -> f64 {
        if self.power_w > 0.0 { self.power_w / self.efficiency } else { self.power_w * self.efficiency }
    }
}

/// The charger's own force setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Charges when a car is there.
    Neutral,
    /// Never charges.
    Off,
    /// Charges.
    On,
}

/// A three-phase charger and the car that comes to it.
#[derive(Debug, Clone)]
pub struct Charger {
    /// Current asked for, A.
    pub amps: f64,
    /// The installation's largest current, A.
    pub max_amps: f64,
    /// Its force setting.
    pub force: Force,
    /// Its phase setting: 0 automatic (three), 1 one, 2 three.
    pub phase_mode: u8,
    /// Phases that the car's own charger uses: 1, 2 or 3.
    pub car_phases: usize,
    /// Is a car plugged in.
    pub plugged: bool,
    /// The car's battery, Wh.
    pub car_capacity_wh: f64,
    /// Energy in the car, Wh.
    pub car_stored_wh: f64,
    /// Current per phase, A.
    pub current_a: [f64; 3],
    /// Power per phase, W, + = into the car.
    pub power_w: [f64; 3],
    /// Energy delivered in the charger's life and in this session, Wh.
    pub energy_wh: (f64, f64),
    lag: Lag<(f64, u8)>,
}

impl Charger {
    pub(super) const fn new() -> Self {
        // a car follows a changed pilot signal within 5 s (IEC 61851)
        const CAR_LAG_S: f64 = 5.0;
        Self {
            amps: 16.0,
            max_amps: 16.0,
            force: Force::Neutral,
            phase_mode: 0,
            car_phases: 3,
            plugged: false,
            car_capacity_wh: 60_000.0,
            car_stored_wh: 24_000.0,
            current_a: [0.0; 3],
            power_w: [0.0; 3],
            energy_wh: (2_417_300.0, 0.0),
            lag: Lag::new(CAR_LAG_S, (0.0, 3)),
        }
    }

    /// Current that the pilot signal offers now, A; 0: none.
    #[must_use]
    pub fn offered_a(&self) -> f64 {
        let allowed = self.plugged && self.force != Force::Off;
        if allowed && self.amps >= 6.0 { self.amps.min(self.max_amps) } else { 0.0 }
    }

    /// Phases in use: 1 or 3.
    #[must_use]
    pub const fn phases(&self) -> u8 {
        if self.phase_mode == 1 { 1 } else { 3 }
    }

    /// Is the car full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.car_stored_wh >= self.car_capacity_wh
    }

    /// Total power, W.
    #[must_use]
    pub fn total_w(&self) -> f64 {
        self.power_w.iter().sum()
    }

    /// Plug a car in, with this state of charge, or pull it out.
    pub fn plug(&mut self, car_soc_pct: Option<f64>) {
        self.plugged = car_soc_pct.is_some();
        if let Some(soc) = car_soc_pct {
            self.car_stored_wh = self.car_capacity_wh * soc.clamp(0.0, 100.0) / 100.0;
            self.energy_wh.1 = 0.0;
        }
        self.lag.jump((0.0, self.phases()));
    }

    /// As if the car had been charging for a while.
    pub(super) fn settle(&mut self) {
        self.lag.jump((self.offered_a(), self.phases()));
    }

    pub(super) fn step(&mut self, now_s: f64, day_dt: f64, volts: &[f64; 3]) {
        const CAR_EFFICIENCY: f64 = 0.92;
        let (amps, phases) = self.lag.step(now_s, (self.offered_a(), self.phases()));
        let flows = self.plugged && !self.is_full();
        for (i, volts) in volts.iter().enumerate() {
            let amps = if flows && (i == 0 || phases == 3) && i < self.car_phases { amps } else { 0.0 };
            self.power_w[i] = (volts * amps).round();
            self.current_a[i] = amps;
        }
        let energy = self.total_w() * day_dt / 3600.0;
        self.energy_wh.0 += energy;
        self.energy_wh.1 += energy;
        if flows {
            self.car_stored_wh = (self.car_stored_wh + energy * CAR_EFFICIENCY).min(self.car_capacity_wh);
        }
    }
}

/// A meter: power per phase and its two counters.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Power per phase, W, + = import or consumption.
    pub power_w: [f64; 3],
    /// Energy imported and exported, Wh, of the sum over the phases.
    pub energy_wh: (f64, f64),
    /// The part of the household load that it sees (sub-meters).
    pub share: f64,
}

impl Meter {
    /// Total power, W.
    #[must_use]
    pub fn total_w(&self) -> f64 {
        self.power_w.iter().sum()
    }

    pub(super) fn step(&mut self, power_w: [f64; 3], day_dt: f64) {
        self.power_w = power_w;
        let energy = self.total_w() * day_dt / 3600.0;
        self.energy_wh.0 += energy.max(0.0);
        self.energy_wh.1 += (-energy).max(0.0);
    }
}
