//! The newest samples frozen into one picture of the site. Pure.

use crate::model::{Capabilities, Coupling, DeviceKind, DeviceSpec, Mono, Point, Role, Sample};
use std::sync::Arc;
use std::time::Duration;

/// Nominal voltage of a phase, V: what fuses and car currents are reckoned with.
pub(crate) const NOMINAL_V: f64 = 230.0;

/// A grid meter protects the fuse: its word counts for 5 s, or one poll and 2 s where it is polled more slowly.
const GRID_MAX_AGE: Duration = Duration::from_secs(5);

/// A device and what it can do.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) spec: Arc<DeviceSpec>,
    pub(crate) caps: Arc<Capabilities>,
}

impl Unit {
    pub(crate) fn is_grid(&self) -> bool {
        self.spec.role == Some(Role::Grid)
    }

    /// May derd tell it anything.
    pub(crate) fn is_controlled(&self) -> bool {
        self.spec.control.enabled
    }

    pub(crate) fn max_age(&self) -> Duration {
        if self.is_grid() { GRID_MAX_AGE.max(self.spec.poll + Duration::from_secs(2)) } else { self.spec.max_age() }
    }
}

/// How far the last sample of a device may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    Stale,
    Never,
}

/// What is known of one device at this instant: every number is fresh, or absent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) fresh: Freshness,
    pub(crate) power_w: Option<f64>,
    pub(crate) soc_pct: Option<f64>,
    /// Per phase, A; signed like the power where that is known.
    pub(crate) phase_a: [Option<f64>; 3],
    /// Is a car at the charger; `None`: it does not say.
    pub(crate) is_plugged: Option<bool>,
    /// Energy since the car came, Wh.
    pub(crate) session_wh: Option<f64>,
    /// Energy in the charger's life, Wh.
    pub(crate) delivered_wh: Option<f64>,
}

impl Seen {
    pub(crate) const NEVER: Self = Self {
        fresh: Freshness::Never,
        power_w: None,
        soc_pct: None,
        phase_a: [None; 3],
        is_plugged: None,
        session_wh: None,
        delivered_wh: None,
    };

    /// It says that no car is there.
    pub(crate) fn is_unplugged(&self) -> bool {
        self.is_plugged == Some(false)
    }

    fn of(unit: &Unit, sample: Option<&Sample>, now: Mono) -> Self {
        let Some(sample) = sample else { return Self::NEVER };
        if now.since(sample.mono) > unit.max_age() {
            return Self { fresh: Freshness::Stale, ..Self::NEVER };
        }
        Self {
            fresh: Freshness::Fresh,
            power_w: sample.num(&Point::PowerW),
            soc_pct: sample.num(&Point::SocPct),
            phase_a: [
                phase(sample, &Point::PowerL1W, &Point::VoltageL1V, &Point::CurrentL1A),
                phase(sample, &Point::PowerL2W, &Point::VoltageL2V, &Point::CurrentL2A),
                phase(sample, &Point::PowerL3W, &Point::VoltageL3V, &Point::CurrentL3A),
            ],
            is_plugged: is_plugged(sample),
            session_wh: sample.num(&Point::SessionEnergyWh),
            delivered_wh: sample.num(&Point::EnergyDeliveredWh),
        }
    }
}

/// Is a car at the charger, by its own word; `None`: it says nothing of it.
pub(crate) fn is_plugged(sample: &Sample) -> Option<bool> {
    match sample.text(&Point::State) {
        Some("unplugged") => Some(false),
        Some("plugged" | "charging" | "stopped") => Some(true),
        _ => None,
    }
}

/// The signed current of a phase. Many meters give currents without a sign: then the power's sign counts. The fuse feels
/// reactive current too, so of both magnitudes the larger one.
fn phase(sample: &Sample, watts: &Point, volts: &Point, amps: &Point) -> Option<f64> {
    let volts = sample.num(volts).filter(|v| *v > 50.0).unwrap_or(NOMINAL_V);
    match (sample.num(watts), sample.num(amps)) {
        (Some(w), Some(a)) => Some((w / volts).abs().max(a.abs()).copysign(w)),
        (Some(w), None) => Some(w / volts),
        (None, a) => a,
    }
}

/// The site at one instant. Nothing changes it during a cycle.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub(crate) units: &'a [Unit],
    /// In the order of `units`.
    pub(crate) seen: Vec<Seen>,
    /// Grid power, W, + = import.
    pub(crate) grid_w: Option<f64>,
    /// Grid current per phase, A, + = import; `None` unless all phases of the site are known.
    pub(crate) grid_a: Option<[f64; 3]>,
    /// Load, W; `None` when any part is null or stale.
    pub(crate) load_w: Option<f64>,
}

impl<'a> View<'a> {
    /// `samples` in the order of `units`; `phases` of the site.
    pub(crate) fn new(units: &'a [Unit], samples: &[Option<Arc<Sample>>], phases: u8, now: Mono) -> Self {
        let seen: Vec<_> = units
            .iter()
            .enumerate()
            .map(|(i, unit)| Seen::of(unit, samples.get(i).and_then(Option::as_deref), now))
            .collect();
        let grid = units.iter().position(Unit::is_grid).and_then(|i| seen.get(i));
        let grid_w = grid.and_then(|g| g.power_w);
        let grid_a = grid.and_then(|g| match (phases, g.phase_a) {
            (1, [Some(l1), ..]) => Some([l1, 0.0, 0.0]),
            (_, [Some(l1), Some(l2), Some(l3)]) => Some([l1, l2, l3]),
            _ => None,
        });
        let load_w = grid_w.and_then(|g| load(units, &seen, g));
        Self { units, seen, grid_w, grid_a, load_w }
    }
}

/// `load = grid + inverters + batteries - chargers`; a DC battery is already inside its inverter's AC power.
fn load(units: &[Unit], seen: &[Seen], grid_w: f64) -> Option<f64> {
    units.iter().zip(seen).try_fold(grid_w, |sum, (unit, seen)| {
        Some(match unit.spec.kind {
            DeviceKind::Inverter => sum + seen.power_w?,
            DeviceKind::Battery if unit.spec.coupling == Coupling::Ac => sum + seen.power_w?,
            DeviceKind::Charger => sum - seen.power_w?,
            _ => sum,
        })
    })
}
