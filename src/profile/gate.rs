//! The last step of every decode: direction, plausibility, counters that never fall.

use crate::model::{DeviceKind, Field, NullReason, Point, Value};

/// No home has more: what readings are held against when the rated power is not known, W.
const MAX_POWER_W: f64 = 1_000_000.0;
/// A counter that steps up by more at once must say so three times, Wh.
const MAX_STEP_WH: f64 = 1_000_000.0;
/// Reads at a new level that are taken as close together, Wh.
const NEAR_WH: f64 = 100_000.0;
/// Reads that confirm a new level.
const CONFIRM: u8 = 3;

#[derive(Debug, Clone, Copy)]
struct Counter {
    last: f64,
    /// A new level that is not believed yet, and how often it was seen.
    candidate: Option<(f64, u8)>,
}

/// Holds what a device said before against what it says now.
#[derive(Debug, Default)]
pub(super) struct Gate {
    nameplate_w: Option<f64>,
    rejected: u64,
    counters: Vec<(Point, Counter)>,
}

impl Gate {
    pub(super) fn set_nameplate(&mut self, watts: Option<f64>) {
        self.nameplate_w = watts.filter(|w| w.is_finite() && *w > 0.0);
    }

    pub(super) const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Turns round what `invert` says, nulls the impossible.
    pub(super) fn pass(
        &mut self,
        mut points: Vec<(Point, Field)>,
        kind: DeviceKind,
        invert: bool,
    ) -> Vec<(Point, Field)> {
        if invert {
            turn_round(&mut points);
        }
        let awake = !points.iter().any(|(p, f)| {
            *p == Point::State
                && matches!(f, Ok(Value::Text(t)) if matches!(t.as_ref(), "asleep" | "off" | "standby" | "starting"))
        });
        for (point, field) in &mut points {
            let Ok(Value::Num(n)) = *field else {
                self.rejected += u64::from(*field == Err(NullReason::OutOfRange));
                continue;
            };
            let checked = if point.is_counter() {
                // an inverter that wakes up counts from 0 before it knows better
                let known = awake || kind != DeviceKind::Inverter;
                self.counter(point, n, known)
            } else {
                self.plausible(point, n)
            };
            if checked == Err(NullReason::OutOfRange) {
                self.rejected += 1;
            }
            *field = checked.map(Value::Num);
        }
        points
    }

    fn plausible(&self, point: &Point, n: f64) -> Result<f64, NullReason> {
        let limit = self.nameplate_w.unwrap_or(MAX_POWER_W);
        let good = match point {
            Point::PowerW | Point::PowerL1W | Point::PowerL2W | Point::PowerL3W => {
                n.abs() <= self.nameplate_w.map_or(MAX_POWER_W, |w| 1.5 * w)
            }
            // the generator may be larger than the inverter
            Point::DcPowerW => n.abs() <= 3.0 * limit,
            Point::SocPct | Point::SohPct | Point::ReserveSocPct => (0.0..=100.0).contains(&n),
            // rounding of floats
            Point::PowerFactor => {
                return if n.abs() <= 1.01 { Ok(n.clamp(-1.0, 1.0)) } else { Err(NullReason::OutOfRange) };
            }
            _ => true,
        };
        if n.is_finite() && good { Ok(n) } else { Err(NullReason::OutOfRange) }
    }

    fn counter(&mut self, point: &Point, n: f64, known: bool) -> Result<f64, NullReason> {
        if !n.is_finite() || n < 0.0 {
            return Err(NullReason::OutOfRange);
        }
        let Some((_, counter)) = self.counters.iter_mut().find(|(p, _)| p == point) else {
            if n > 0.0 {
                self.counters.push((point.clone(), Counter { last: n, candidate: None }));
            } else if !known {
                return Err(NullReason::NotReady);
            }
            return Ok(n);
        };
        if n >= counter.last && n - counter.last <= MAX_STEP_WH {
            *counter = Counter { last: n, candidate: None };
            return Ok(n);
        }
        if n <= 0.0 {
            return Err(NullReason::NotReady);
        }
        let seen = match counter.candidate {
            Some((level, seen)) if n >= level && n - level <= NEAR_WH => seen.saturating_add(1),
            _ => 1,
        };
        if seen >= CONFIRM {
            *counter = Counter { last: n, candidate: None };
            return Ok(n);
        }
        counter.candidate = Some((n, seen));
        Err(NullReason::NotReady)
    }
}

fn turn_round(points: &mut [(Point, Field)]) {
    const PHASES: [(Point, Point); 3] = [
        (Point::PowerL1W, Point::CurrentL1A),
        (Point::PowerL2W, Point::CurrentL2A),
        (Point::PowerL3W, Point::CurrentL3A),
    ];
    for (point, field) in points.iter_mut() {
        match point {
            Point::EnergyImportWh => *point = Point::EnergyExportWh,
            Point::EnergyExportWh => *point = Point::EnergyImportWh,
            Point::EnergyChargedWh => *point = Point::EnergyDischargedWh,
            Point::EnergyDischargedWh => *point = Point::EnergyChargedWh,
            Point::PowerW
            | Point::PowerL1W
            | Point::PowerL2W
            | Point::PowerL3W
            | Point::ReactivePowerVar
            | Point::PowerFactor
            | Point::CurrentL1A
            | Point::CurrentL2A
            | Point::CurrentL3A
            | Point::DcCurrentA
            | Point::DcPowerW => {
                if let Ok(Value::Num(n)) = field {
                    // not -0.0
                    *n = 0.0 - *n;
                }
            }
            _ => {}
        }
    }
    // Many meters give currents without sign. Signed like the phase's power they say the same for both.
    for (power, current) in PHASES {
        let sign =
            points.iter().find_map(|(p, f)| (*p == power).then(|| f.as_ref().ok().and_then(Value::num)).flatten());
        let Some(sign) = sign.filter(|s| *s != 0.0) else { continue };
        for (_, field) in points.iter_mut().filter(|(p, _)| *p == current) {
            if let Ok(Value::Num(n)) = field {
                *n = n.abs().copysign(sign);
            }
        }
    }
}
