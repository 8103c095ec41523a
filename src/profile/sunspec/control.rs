//! Control through model 124 (storage) and model 123 (immediate controls).
//!
//! A battery's setpoint must not outlive the gateway: 124's revert timer runs where there is one. A limit of 123
//! may protect a fuse or an export agreement: its revert timer is set to 0, so that the limit stays when derd is
//! gone, and only derd's own release ends it.

use super::Located;
use super::model::{Int, Model, power_of_ten};
use crate::model::Demand;
use crate::profile::words::{to_i16, to_u16};
use crate::profile::{Check, Program, Request, WriteFunction};
use serde_json::{Map, Value, json};
use std::time::Duration;

// Model 124: offsets from the ID register.
const STOR_CTL_MOD: u16 = 5;
const MIN_RSV_PCT: u16 = 7;
const OUT_RATE: u16 = 12;
const IN_RATE: u16 = 13;
const RATE_REVERT: u16 = 15;
const GRID_CHARGE: u16 = 17;
const MIN_RSV_SF: usize = 21;
const RATE_SF: usize = 25;
/// Both bits of `StorCtl_Mod`: charge and discharge rates hold.
const BOTH: u16 = 3;
// Model 123.
const LIMIT_PCT: u16 = 5;
const LIMIT_REVERT: u16 = 7;
const LIMIT_ENABLE: u16 = 9;
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
    rate_scale: i32,
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

/// What the installer set in the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Baseline {
    Limit {
        pct: u16,
        enabled: bool,
        revert: Option<u16>,
        /// False where the device produced far more than the limit says: it is not one.
        effective: bool,
    },
    Storage {
        mode: u16,
        out_rate: u16,
        in_rate: u16,
        revert: Option<u16>,
        grid: Option<u16>,
        reserve: Option<u16>,
    },
}

/// Where and how to write.
pub(super) struct Wire<'a> {
    pub(super) unit: u8,
    pub(super) function: WriteFunction,
    /// The control model as last read.
    pub(super) now: &'a [u16],
    /// Is it not known what the device will hold when this is written: then nothing is left out because it is so already.
    pub(super) blind: bool,
}

impl Wire<'_> {
    fn write(&self, writes: &mut Vec<Request>, address: u16, words: &[u16]) {
        let (unit, function) = (self.unit, self.function);
        match function {
            WriteFunction::Multiple => writes.push(Request::Write { unit, address, words: words.to_vec(), function }),
            WriteFunction::Single => {
                let each = (address..).zip(words);
                writes.extend(each.map(|(address, w)| Request::Write { unit, address, words: vec![*w], function }));
            }
        }
    }
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

    pub(super) const fn failsafe(&self) -> Option<Duration> {
        match self {
            Self::Storage { now: Storage { revert: true, .. }, .. } => Some(TIMER),
            _ => None,
        }
    }

    pub(super) const fn model(&self) -> Option<Located> {
        match self {
            Self::None => None,
            Self::Limit { model, .. } | Self::Storage { model, .. } => Some(*model),
        }
    }

    /// `words`: the control model; `running`: the AC power at that time, W.
    pub(super) fn take_baseline(&self, words: Option<&[u16]>, running: Option<f64>) -> Result<Baseline, String> {
        let model = self.model().ok_or("there is nothing to control")?;
        let m = Model::new(words.unwrap_or_default());
        if m.word(0) != Some(model.id) || m.slice(0, 26).is_none() {
            return Err(format!("model {} could not be read", model.id));
        }
        let at = |offset: u16| m.enumeration(usize::from(offset));
        let signed = |offset: u16| m.word(usize::from(offset)).filter(|w| *w != 0x8000);
        match *self {
            Self::None => Err("there is nothing to control".to_owned()),
            Self::Limit { base_w, scale, .. } => {
                let enabled = at(LIMIT_ENABLE) == Some(1);
                let pct = at(LIMIT_PCT).or(to_u16(full(scale))).unwrap_or(u16::MAX);
                let limit_w = power_of_ten(f64::from(pct), scale) / 100.0 * base_w;
                let effective = enabled && running.is_none_or(|w| w <= 1.05 * limit_w + 0.02 * base_w);
                Ok(Baseline::Limit { pct, enabled, revert: at(LIMIT_REVERT), effective })
            }
            Self::Storage { now, .. } => {
                let all = to_i16(full(now.rate_scale)).unwrap_or(0x7FFF);
                let mode = at(STOR_CTL_MOD).unwrap_or(0);
                let rates = [signed(OUT_RATE).unwrap_or(all), signed(IN_RATE).unwrap_or(all)];
                // A minus forces the other direction, two zeros lock: a controller's setpoint (perhaps derd's own, when
                // its store was lost), never what an installer leaves behind. Going back to it would be for ever.
                let [out, into] = rates.map(|r| i32::from(r.cast_signed()));
                let is_forced = mode & 1 != 0 && into < 0
                    || mode & 2 != 0 && out < 0
                    || mode & BOTH == BOTH && out == 0 && into == 0;
                let (mode, [out_rate, in_rate]) = if is_forced { (0, [all, all]) } else { (mode, rates) };
                Ok(Baseline::Storage {
                    mode,
                    out_rate,
                    in_rate,
                    revert: at(RATE_REVERT),
                    grid: at(GRID_CHARGE),
                    reserve: at(MIN_RSV_PCT),
                })
            }
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
                let mut writes = Vec::new();
                wire.write(&mut writes, model.at + LIMIT_PCT, &[pct]);
                if let Some(seconds) = revert {
                    wire.write(&mut writes, model.at + LIMIT_REVERT, &[seconds]);
                }
                // many devices take a new percentage only when this is written again
                wire.write(&mut writes, model.at + LIMIT_ENABLE, &[enable]);
                let check = |offset, word| Check::words(wire.unit, model.at + offset, vec![word], false);
                let checks = vec![check(LIMIT_PCT, pct), check(LIMIT_ENABLE, enable)];
                Ok(Program { writes, settle: SETTLE, checks, refresh: None })
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
fn full(scale: i32) -> f64 {
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
    let mut program = Program { writes: Vec::new(), settle: SETTLE, checks: Vec::new(), refresh: None };
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
            if now.revert {
                let whole = lease.as_secs() + u64::from(lease.subsec_nanos() > 0);
                let seconds = whole.clamp(TIMER_MIN_S, TIMER.as_secs());
                let word = u16::try_from(seconds).unwrap_or(60);
                wire.write(&mut program.writes, at(RATE_REVERT), &[word]);
                program.checks.push(Check::timer(wire.unit, at(RATE_REVERT), word));
                program.refresh = Some(Duration::from_secs(seconds) / 3);
            }
            // equal and opposite rates leave the device one power only; a minus forces the other direction
            wire.write(&mut program.writes, at(OUT_RATE), &[out_rate, in_rate]);
            program.checks.push(checked(OUT_RATE, vec![out_rate, in_rate], true));
            let wanted = u16::from(grid);
            if watts < 0.0 && now.grid.is_some_and(|set| set != wanted) {
                wire.write(&mut program.writes, at(GRID_CHARGE), &[wanted]);
                program.checks.push(checked(GRID_CHARGE, vec![wanted], false));
            }
            wire.write(&mut program.writes, at(STOR_CTL_MOD), &[BOTH]);
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
            wire.write(&mut program.writes, at(OUT_RATE), &rates);
            wire.write(&mut program.writes, at(STOR_CTL_MOD), &[mode]);
            if let Some(seconds) = revert {
                wire.write(&mut program.writes, at(RATE_REVERT), &[seconds]);
            }
            if let Some(own) = grid.filter(|own| now.grid.is_some_and(|set| wire.blind || set != *own)) {
                wire.write(&mut program.writes, at(GRID_CHARGE), &[own]);
                if wire.blind {
                    program.checks.push(checked(GRID_CHARGE, vec![own], false));
                }
            }
            program.checks.push(checked(OUT_RATE, rates.to_vec(), true));
            program.checks.push(checked(STOR_CTL_MOD, vec![mode], false));
        }
        Demand::Reserve { pct } => {
            let scale = now.reserve_scale.ok_or("this battery has no reserve that can be set")?;
            if !(0.0..=100.0).contains(&pct) {
                return Err(format!("{pct} % is not a reserve"));
            }
            // up to the step: at least what was asked for is kept
            let word = to_u16((power_of_ten(pct, -scale) - 1e-6).ceil().max(0.0)).ok_or("the reserve does not fit")?;
            wire.write(&mut program.writes, at(MIN_RSV_PCT), &[word]);
            program.checks.push(checked(MIN_RSV_PCT, vec![word], false));
        }
        _ => return Err("a battery takes a power or a reserve only".to_owned()),
    }
    Ok(program)
}

impl Baseline {
    pub(super) fn to_json(self) -> String {
        match self {
            Self::Limit { pct, enabled, revert, effective } => json!({
                "model": 123, "wmaxlimpct": pct, "wmaxlim_ena": enabled, "rvrt_tms": revert, "effective": effective,
            }),
            Self::Storage { mode, out_rate, in_rate, revert, grid, reserve } => json!({
                "model": 124, "storctl_mod": mode, "outwrte": out_rate.cast_signed(), "inwrte": in_rate.cast_signed(),
                "rvrt_tms": revert, "chagriset": grid, "minrsvpct": reserve,
            }),
        }
        .to_string()
    }

    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("the recorded baseline is not usable: {what}");
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| fault("not a JSON object"))?;
        let word = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        let need = |key: &str| word(key).ok_or_else(|| fault(key));
        let signed = |key: &str| {
            let n = object.get(key).and_then(Value::as_i64).and_then(|n| i16::try_from(n).ok());
            n.map(i16::cast_unsigned).ok_or_else(|| fault(key))
        };
        let flag = |key: &str| object.get(key).and_then(Value::as_bool).ok_or_else(|| fault(key));
        match word("model") {
            Some(123) => Ok(Self::Limit {
                pct: need("wmaxlimpct")?,
                enabled: flag("wmaxlim_ena")?,
                revert: word("rvrt_tms"),
                effective: flag("effective")?,
            }),
            Some(124) => Ok(Self::Storage {
                mode: need("storctl_mod")?,
                out_rate: signed("outwrte")?,
                in_rate: signed("inwrte")?,
                revert: word("rvrt_tms"),
                grid: word("chagriset"),
                reserve: word("minrsvpct"),
            }),
            _ => Err(fault("model")),
        }
    }
}
