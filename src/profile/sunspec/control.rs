//! Control through model 124 (storage) and model 123 (immediate controls).
//!
//! A battery's setpoint must not outlive the gateway: 124's revert timer runs where there is one. A limit of 123
//! may protect a fuse or an export agreement: its revert timer is set to 0, so that the limit stays when derd is
//! gone, and only derd's own release ends it.

use super::Located;
use super::baseline::Baseline;
use super::model::{Int, Model, power_of_ten};
use crate::model::{Demand, WriteClass};
use crate::profile::program::Target;
use crate::profile::spec::{PointClass, WRITTEN};
use crate::profile::words::{to_i16, to_u16};
use crate::profile::{Check, Program, Request, WriteFunction};
use std::time::Duration;

// Model 124: offsets from the ID register.
pub(super) const STOR_CTL_MOD: u16 = 5;
pub(super) const MIN_RSV_PCT: u16 = 7;
pub(super) const OUT_RATE: u16 = 12;
pub(super) const IN_RATE: u16 = 13;
pub(super) const RATE_REVERT: u16 = 15;
pub(super) const GRID_CHARGE: u16 = 17;
const MIN_RSV_SF: usize = 21;
const RATE_SF: usize = 25;
/// Both bits of `StorCtl_Mod`: charge and discharge rates hold.
pub(super) const BOTH: u16 = 3;
// Model 123.
pub(super) const LIMIT_PCT: u16 = 5;
pub(super) const LIMIT_REVERT: u16 = 7;
pub(super) const LIMIT_ENABLE: u16 = 9;
const LIMIT_SF: usize = 23;

/// The longest that a battery keeps a setpoint after derd fell silent.
const TIMER: Duration = Duration::from_secs(60);
const TIMER_MIN_S: u64 = 10;
const SETTLE: Duration = Duration::from_secs(1);

/// How the device can be controlled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Control {
    /// Not at all.
    #[default]
    None,
    /// Active power limit in percent, model 123.
    Limit { model: Located, base_w: f64, scale: i32, revert: bool },
    /// Charge and discharge rates in percent, model 124.
    Storage { model: Located, discharge_w: Option<f64>, now: Storage },
}

/// What model 124 says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    /// Watts of 100 % charge rate.
    charge_w: f64,
    pub(super) rate_scale: i32,
    reserve_scale: Option<i32>,
    revert: bool,
    /// `ChaGriSet`, when implemented.
    grid: Option<u16>,
}

impl Storage {
    fn read(m: Model<'_>) -> Option<Self> {
        let charge_w = m.scaled(Int::U16, 2, 18).ok().filter(|w| *w > 0.0)?;
        let reserve = m.int(Int::U16, usize::from(MIN_RSV_PCT)).ok().and_then(|_| m.scale(MIN_RSV_SF));
        Some(Self {
            charge_w,
            rate_scale: m.scale(RATE_SF)?,
            reserve_scale: reserve,
            revert: m.enumeration(usize::from(RATE_REVERT)).is_some(),
            grid: m.enumeration(usize::from(GRID_CHARGE)),
        })
    }
}

/// Where and how to write.
pub(super) struct Wire<'a> {
    pub(super) unit: u8,
    pub(super) function: WriteFunction,
    /// The control model as last read.
    pub(super) now: &'a [u16],
    /// Where the device keeps what is written, in the order of [`WRITTEN`].
    pub(super) classes: &'a [PointClass; WRITTEN.len()],
}

impl Wire<'_> {
    /// Write `words` from `offset` of `model` on; `runs`: the model's timer runs while this holds.
    fn write(&self, program: &mut Program, model: Located, offset: u16, words: &[u16], runs: bool) {
        let (unit, function, first) = (self.unit, self.function, model.at + offset);
        for (n, (address, word)) in (first..).zip(words).enumerate() {
            match function {
                WriteFunction::Multiple if n == 0 => {
                    program.writes.push(Request::Write { unit, address, words: words.to_vec(), function });
                }
                WriteFunction::Multiple => {}
                WriteFunction::Single => {
                    program.writes.push(Request::Write { unit, address, words: vec![*word], function });
                }
            }
            let at = address - model.at;
            program.targets.push(Target {
                write: program.writes.len() - 1,
                register: format!("unit {unit} holding {address}"),
                class: self.class(model.id, at, runs),
                triggers: (model.id, at) == (123, LIMIT_ENABLE),
                refreshes: matches!((model.id, at), (124, OUT_RATE | IN_RATE | RATE_REVERT)),
            });
        }
    }

    fn class(&self, model: u16, offset: u16, runs: bool) -> WriteClass {
        let place = WRITTEN.iter().position(|(id, at, _)| (*id, *at) == (model, offset));
        place.and_then(|n| self.classes.get(n)).map_or(WriteClass::Unknown, |class| class.on(runs))
    }
}

/// Does a setpoint's timer drop it: implemented, and what it drops is kept in memory. A setpoint in flash must not be
/// refreshed, so its timer must not run.
pub(super) fn is_timed(has_timer: bool, classes: &[PointClass; WRITTEN.len()]) -> bool {
    let rates = WRITTEN
        .iter()
        .zip(classes)
        .filter(|((model, at, _), _)| *model == 124 && matches!(*at, OUT_RATE | IN_RATE | RATE_REVERT));
    has_timer && rates.into_iter().all(|(_, class)| class.on(true) == WriteClass::Volatile)
}

impl Control {
    /// Through 123, where its scale factor and what 100 % means are known.
    pub(super) fn limit(found: Option<(Located, Model<'_>)>, base_w: Option<f64>) -> Self {
        let Some(((model, m), base_w)) = found.zip(base_w).filter(|((l, _), _)| l.len >= 24) else { return Self::None };
        let Some(scale) = m.scale(LIMIT_SF) else { return Self::None };
        Self::Limit { model, base_w, scale, revert: m.enumeration(usize::from(LIMIT_REVERT)).is_some() }
    }

    /// Through 124, where the charge base and the scale factor of the rates are known.
    pub(super) fn storage(
        found: Option<(Located, Model<'_>)>,
        charge_w: Option<f64>,
        discharge_w: Option<f64>,
    ) -> Self {
        let Some((model, m)) = found.filter(|(l, _)| l.len >= 24 && charge_w.is_some()) else { return Self::None };
        Storage::read(m).map_or(Self::None, |now| Self::Storage { model, discharge_w, now })
    }

    pub(super) fn actions(&self) -> Vec<&'static str> {
        match self {
            Self::None => Vec::new(),
            Self::Limit { .. } => vec!["set_power_limit", "set_export_limit", "auto"],
            Self::Storage { now, .. } => {
                let mut actions = vec!["charge", "discharge", "idle", "auto"];
                actions.extend(now.reserve_scale.map(|_| "set_reserve"));
                actions
            }
        }
    }

    pub(super) fn failsafe(&self, classes: &[PointClass; WRITTEN.len()]) -> Option<Duration> {
        match self {
            Self::Storage { now, .. } if is_timed(now.revert, classes) => Some(TIMER),
            _ => None,
        }
    }

    /// The installer's own power limit, W, where it is one.
    pub(super) fn baseline_w(&self, baseline: &Baseline) -> Option<f64> {
        match (self, baseline) {
            (Self::Limit { base_w, scale, .. }, Baseline::Limit { pct, effective: true, .. }) => {
                Some(power_of_ten(f64::from(*pct), *scale) / 100.0 * base_w)
            }
            _ => None,
        }
    }

    pub(super) const fn model(&self) -> Option<Located> {
        match self {
            Self::None => None,
            Self::Limit { model, .. } | Self::Storage { model, .. } => Some(*model),
        }
    }

    pub(super) fn program(
        &self,
        demand: &Demand,
        lease: Duration,
        baseline: Option<&Baseline>,
        wire: &Wire<'_>,
    ) -> Result<Program, String> {
        match *self {
            Self::None => Err("this device offers no control that its profile knows".to_owned()),
            Self::Limit { model, base_w, scale, revert } => {
                let (pct, enable, revert) = match (demand, baseline) {
                    (Demand::PowerLimit { watts }, _) => {
                        let pct = limit_pct(*watts, base_w, scale)?;
                        let own = match baseline {
                            Some(Baseline::Limit { pct, effective: true, .. }) => *pct,
                            _ => u16::MAX,
                        };
                        (pct.min(own), 1, revert.then_some(0))
                    }
                    (Demand::Release, Some(Baseline::Limit { pct, enabled, revert, .. })) => {
                        (*pct, u16::from(*enabled), *revert)
                    }
                    (Demand::Release, _) => {
                        return Err("what the installer set was never recorded: the present limit stays".to_owned());
                    }
                    _ => return Err("an inverter takes a power limit only".to_owned()),
                };
                let mut program = Program::new(SETTLE);
                wire.write(&mut program, model, LIMIT_PCT, &[pct], false);
                if let Some(seconds) = revert {
                    wire.write(&mut program, model, LIMIT_REVERT, &[seconds], false);
                    // A limit that lapses by itself protects nothing.
                    program.checks.push(Check::own_timer(wire.unit, model.at + LIMIT_REVERT, seconds));
                }
                // many devices take a new percentage only when this is written again
                wire.write(&mut program, model, LIMIT_ENABLE, &[enable], false);
                let check = |offset, word| Check::words(wire.unit, model.at + offset, vec![word], false);
                program.checks.extend([check(LIMIT_PCT, pct), check(LIMIT_ENABLE, enable)]);
                Ok(program)
            }
            Self::Storage { model, discharge_w, now } => {
                // the base and the scale may have changed since discovery
                let now = Storage::read(Model::new(wire.now)).unwrap_or(now);
                storage_program(model, now, discharge_w, demand, lease, baseline, wire)
            }
        }
    }
}

/// 100 % in steps of the register.
pub(super) fn full(scale: i32) -> f64 {
    power_of_ten(100.0, -scale)
}

/// Percent of `base_w`, down to the register's step.
fn limit_pct(watts: f64, base_w: f64, scale: i32) -> Result<u16, String> {
    if !watts.is_finite() || watts < 0.0 {
        return Err(format!("{watts} W is not a power limit"));
    }
    let steps = (watts / base_w * full(scale) + 1e-6).floor().min(full(scale)).min(65534.0);
    to_u16(steps).ok_or_else(|| format!("{watts} W does not fit the register"))
}

/// Percent of `base_w`, towards zero, at most 100 %.
fn rate(watts: f64, base_w: f64, scale: i32) -> Result<u16, String> {
    let all = full(scale);
    let steps = (watts / base_w * all + 1e-6_f64.copysign(watts)).trunc().clamp(-all, all);
    to_i16(steps.clamp(-32767.0, 32767.0)).ok_or_else(|| format!("{watts} W does not fit the register"))
}

fn storage_program(
    model: Located,
    now: Storage,
    discharge_w: Option<f64>,
    demand: &Demand,
    lease: Duration,
    baseline: Option<&Baseline>,
    wire: &Wire<'_>,
) -> Result<Program, String> {
    let at = |offset: u16| model.at + offset;
    let mut program = Program::new(SETTLE);
    let runs = is_timed(now.revert, wire.classes);
    let checked = |offset, words: Vec<u16>, signed| Check::words(wire.unit, model.at + offset, words, signed);
    match *demand {
        Demand::BatteryPower { watts, grid } => {
            if !watts.is_finite() {
                return Err("a power without a number".to_owned());
            }
            // of 100 % discharge the standard speaks as the largest discharge rate; where the device does not
            // tell it, the charge base stands for both
            let out_rate = rate(watts, discharge_w.unwrap_or(now.charge_w), now.rate_scale)?;
            let in_rate = rate(-watts, now.charge_w, now.rate_scale)?;
            if runs {
                let whole = lease.as_secs() + u64::from(lease.subsec_nanos() > 0);
                let seconds = whole.clamp(TIMER_MIN_S, TIMER.as_secs());
                let word = u16::try_from(seconds).unwrap_or(60);
                wire.write(&mut program, model, RATE_REVERT, &[word], runs);
                program.fallback = program.writes.len();
                program.checks.push(Check::timer(wire.unit, at(RATE_REVERT), word));
                program.refresh = Some(Duration::from_secs(seconds) / 3);
            } else if now.revert {
                // what is never written again must not be dropped in the middle of its lease
                wire.write(&mut program, model, RATE_REVERT, &[0], runs);
                program.checks.push(Check::own_timer(wire.unit, at(RATE_REVERT), 0));
            }
            // equal and opposite rates leave the device one power only; a minus forces the other direction
            wire.write(&mut program, model, OUT_RATE, &[out_rate, in_rate], runs);
            program.checks.push(checked(OUT_RATE, vec![out_rate, in_rate], true));
            let wanted = u16::from(grid);
            if watts < 0.0 && now.grid.is_some_and(|set| set != wanted) {
                wire.write(&mut program, model, GRID_CHARGE, &[wanted], runs);
                program.checks.push(checked(GRID_CHARGE, vec![wanted], false));
            }
            wire.write(&mut program, model, STOR_CTL_MOD, &[BOTH], runs);
            program.checks.push(checked(STOR_CTL_MOD, vec![BOTH], false));
        }
        Demand::Release => {
            let all = to_i16(full(now.rate_scale)).unwrap_or(0x7FFF);
            // without a record: the device's own mode
            let (mode, rates, revert, grid) = match baseline {
                Some(Baseline::Storage { mode, out_rate, in_rate, revert, grid, .. }) => {
                    (*mode, [*out_rate, *in_rate], *revert, *grid)
                }
                _ => (0, [all, all], now.revert.then_some(0), None),
            };
            // rates before the mode: the mode never frees a forced rate for a moment
            wire.write(&mut program, model, OUT_RATE, &rates, runs);
            wire.write(&mut program, model, STOR_CTL_MOD, &[mode], runs);
            if let Some(seconds) = revert {
                wire.write(&mut program, model, RATE_REVERT, &[seconds], runs);
            }
            // what the last poll saw may be older than what derd wrote: the wire is asked before the write
            if let Some(own) = grid.filter(|_| now.grid.is_some()) {
                wire.write(&mut program, model, GRID_CHARGE, &[own], runs);
                program.checks.push(checked(GRID_CHARGE, vec![own], false));
            }
            program.checks.push(checked(OUT_RATE, rates.to_vec(), true));
            program.checks.push(checked(STOR_CTL_MOD, vec![mode], false));
            program.checks.extend(revert.map(|s| Check::own_timer(wire.unit, at(RATE_REVERT), s)));
        }
        Demand::Reserve { pct } => {
            let scale = now.reserve_scale.ok_or("this battery has no reserve that can be set")?;
            if !(0.0..=100.0).contains(&pct) {
                return Err(format!("{pct} % is not a reserve"));
            }
            // up to the step: at least what was asked for is kept
            let word = to_u16((power_of_ten(pct, -scale) - 1e-6).ceil().max(0.0)).ok_or("the reserve does not fit")?;
            wire.write(&mut program, model, MIN_RSV_PCT, &[word], false);
            program.checks.push(checked(MIN_RSV_PCT, vec![word], false));
        }
        _ => return Err("a battery takes a power or a reserve only".to_owned()),
    }
    Ok(program)
}
