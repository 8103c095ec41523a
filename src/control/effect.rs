//! Is the physical effect of a command seen, and how much energy did it move. Pure.

use crate::model::{Action, Demand, Mono, NOMINAL_V, Point, Sample};
use std::time::Duration;

/// So many samples in a row must show the effect: one may have been read while the power was still moving.
const SAMPLES: u8 = 2;
/// Between samples further apart than this the power is not known.
const LONGEST_GAP: Duration = Duration::from_secs(30);

/// Watches for the effect of what was verified on the wire.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EffectWatch {
    /// What, and since when.
    verified: Option<(Demand, Mono)>,
    hits: u8,
    is_seen: bool,
}

impl EffectWatch {
    /// The device holds this demand: read back from the wire. The same again changes nothing.
    pub(crate) fn verified(&mut self, demand: Demand, now: Mono) {
        if self.verified.map(|(d, _)| d) != Some(demand) {
            *self = Self { verified: Some((demand, now)), hits: 0, is_seen: false };
        }
    }

    /// True once: with the sample that makes it certain.
    pub(crate) fn sample(&mut self, sample: &Sample) -> bool {
        let Some((demand, since)) = self.verified.filter(|_| !self.is_seen) else { return false };
        if sample.mono <= since {
            return false;
        }
        self.hits = if shows(demand, sample) { self.hits + 1 } else { 0 };
        self.is_seen = self.hits >= SAMPLES;
        self.is_seen
    }
}

/// Does this sample show the effect of the demand.
pub(crate) fn shows(demand: Demand, sample: &Sample) -> bool {
    let Some(power) = sample.num(&Point::PowerW) else { return false };
    match demand {
        Demand::BatteryPower { watts, .. } if watts.abs() < 1.0 => power.abs() < 100.0,
        Demand::BatteryPower { watts, .. } => {
            power.signum() == watts.signum() && (power - watts).abs() <= (watts.abs() * 0.1).max(100.0)
        }
        Demand::PowerLimit { watts } => power <= watts * 1.02 + 50.0,
        Demand::ChargerOff => power < 50.0,
        Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps } => {
            let currents = [&Point::CurrentL1A, &Point::CurrentL2A, &Point::CurrentL3A].map(|p| sample.num(p));
            // Without currents: three phases at most carry the power.
            let largest = currents.into_iter().flatten().reduce(f64::max).unwrap_or(power / (3.0 * NOMINAL_V));
            (power > 50.0 || matches!(demand, Demand::ChargerLimit { .. })) && largest <= amps + 0.5
        }
        // Nothing physical follows at once: what is verified is all there is to see.
        Demand::Release | Demand::Reserve { .. } => false,
    }
}

/// Energy in the direction that was asked for, while the command held the device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Energy {
    wh: Option<f64>,
    last: Option<(Mono, f64)>,
}

impl Energy {
    /// The command took the device: `power` is what it did at this moment, as far as known.
    pub(crate) fn begin(&mut self, action: &Action, now: Mono, power: Option<f64>) {
        self.last = power.and_then(|p| along(action, p)).map(|p| (now, p));
    }

    /// The device did this much at that time.
    pub(crate) fn sample(&mut self, action: &Action, at: Mono, power: Option<f64>) {
        let next = power.and_then(|p| along(action, p)).map(|p| (at, p));
        if let (Some((t0, p0)), Some((t1, p1))) = (self.last, next) {
            self.add(t1.since(t0), f64::midpoint(p0, p1));
        }
        if next.is_some() {
            self.last = next;
        }
    }

    /// The command lost the device, or its time is over: the last power counts up to now.
    pub(crate) fn pause(&mut self, now: Mono) {
        if let Some((t0, p0)) = self.last.take() {
            self.add(now.since(t0), p0);
        }
    }

    /// So far, Wh; `None`: unknown.
    pub(crate) const fn wh(&self) -> Option<f64> {
        self.wh
    }

    fn add(&mut self, time: Duration, watts: f64) {
        if time <= LONGEST_GAP {
            *self.wh.get_or_insert(0.0) += watts * time.as_secs_f64() / 3600.0;
        }
    }
}

/// The part of the device's power in the asked direction, W; `None` where the action has none.
fn along(action: &Action, power: f64) -> Option<f64> {
    match action {
        Action::Charge { .. } => Some((-power).max(0.0)),
        Action::Discharge { .. }
        | Action::Start
        | Action::SetMaxCurrent { .. }
        | Action::SetExportLimit { .. }
        | Action::SetPowerLimit { .. }
        | Action::SetPowerLimitPct { .. } => Some(power.max(0.0)),
        Action::Idle | Action::Auto | Action::Stop | Action::SetReserve { .. } | Action::SetMode { .. } => None,
    }
}
