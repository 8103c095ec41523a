//! Who wins on each device, and what is left of it after the limits. Pure: (view, intents, limits, now) -> decisions.

use super::clamp::{limit_discharge, limit_import, limit_inverters, limit_soc};
use super::limits::{Bounds, Ceiling, EXPORT, IMPORT, Share, charger_max, charger_min};
use super::pace::{Ramp, Switch, keep_off, keep_on, limit_ramp};
use super::phases::Phases;
use super::trace::{AMPS, MIN_CURRENT, Step, WATTS, Why, clip, limit_of};
use super::view::{Unit, View};
use crate::model::{
    Action, Applied, Demand, DeviceKind, Intent, IntentKey, LeaseEnd, Mono, Order, Params, Rank, Setpoint, SiteSpec,
    Timestamp,
};
use std::time::Duration;

/// A protective hold is a lease too: control renews it at half its time.
pub(crate) const GUARD_LEASE: Duration = Duration::from_secs(600);

/// A baseline that is held where a fallback would stay otherwise. Renewed at half its time.
pub(crate) const BASELINE_LEASE: Duration = Duration::from_secs(24 * 3600);
/// No lease is longer, also of a plan without an end: renewed at half its time.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The time control has to end a lease before the device task does.
const END_GRACE: Duration = Duration::from_secs(2);

/// What an arbitration looks at.
#[derive(Debug)]
pub(crate) struct Question<'v, 'a> {
    pub(crate) view: &'v View<'v>,
    /// Those that hold something (no standing settings), for any device, in any order.
    pub(crate) intents: &'a [Intent],
    pub(crate) site: &'v SiteSpec,
    pub(crate) bounds: Bounds,
    pub(crate) now: Mono,
    pub(crate) wall: Timestamp,
}

/// What arbitrations remember of one device: where hysteresis and slowness live.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Memory {
    /// Who won last time.
    winner: Option<IntentKey>,
    pub(super) is_empty: bool,
    pub(super) is_full: bool,
    pub(super) import: Option<Ceiling>,
    pub(super) export: Option<Ceiling>,
    /// When a protective hold was last needed, while it lasts.
    pub(super) guarded: Option<Mono>,
    /// Of a battery: since when it is to give less than it does.
    pub(super) gives_up: Option<Mono>,
    /// Of a charger: where its car draws.
    pub(super) phases: Phases,
    /// Of a charger: is it on, and since when.
    pub(super) switch: Option<Switch>,
    /// Of a charger: what it takes of what it is granted.
    pub(super) share: Option<Share>,
    /// A power on its way up.
    pub(super) ramp: Option<Ramp>,
}

/// Who holds a device, and with what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Holder {
    pub(crate) key: IntentKey,
    pub(crate) rank: Rank,
    pub(crate) source: String,
    pub(crate) asked: Action,
    pub(crate) end: LeaseEnd,
    pub(crate) demand: Demand,
    pub(crate) on_end: Demand,
    pub(crate) applied: Applied,
}

/// The decision on one device, with what led to it. Texts are made only where it is told: most cycles change nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Decision<'a> {
    /// `None`: nobody wants anything.
    pub(crate) holder: Option<Holder>,
    /// The intent that won; `None` also for a protective hold.
    pub(crate) winner: Option<&'a Intent>,
    /// Who stands back for the winner: by rank, or because it was accepted later. The strongest first.
    pub(crate) losers: Vec<&'a Intent>,
    /// What cannot be done on this device at all, and why.
    pub(crate) impossible: Vec<(&'a Intent, String)>,
    /// The limits that bit, in the order in which they did.
    pub(crate) steps: Vec<Step>,
    /// Who took no part, as the owner paused remote control.
    pub(crate) paused: Vec<&'a Intent>,
}

impl Decision<'_> {
    /// Is it held for a plan that looks at the house: its end moves on for as long as it wants the same.
    pub(super) fn is_open(&self) -> bool {
        self.winner.is_some_and(|w| w.why.is_some() && self.holder.as_ref().is_some_and(|h| h.key == w.key))
    }

    /// The decision as an order. Where `on_end` is a fallback for silence, it must not stay for ever after an ordinary
    /// end: there "nobody wants anything" is the device's baseline, held by control.
    pub(crate) fn order(&self, unit: &Unit, site: &SiteSpec, now: Mono, wall: Timestamp) -> Order {
        let device = unit.spec.id.clone();
        if let Some(h) = &self.holder {
            // The device task keeps the end by itself; where that means the fallback, control's own end comes first.
            let late = if h.on_end == Demand::Release { Duration::ZERO } else { END_GRACE };
            let end = LeaseEnd {
                mono: h.end.mono.plus(late).min(now.plus(LONGEST_LEASE)),
                wall: h.end.wall.min(wall.plus(LONGEST_LEASE)),
            };
            let limited_by = h.applied.limited_by.as_deref();
            let protects = h.rank == Rank::Grid || matches!(limited_by, Some(IMPORT | EXPORT));
            let setpoint = Setpoint::new(device, h.demand, h.key.clone(), h.asked.clone(), end, h.on_end);
            return Order::Hold(setpoint.protecting(protects));
        }
        let has_fallback = match unit.spec.kind {
            DeviceKind::Charger => site.main_fuse_a.is_some(),
            DeviceKind::Inverter => site.export_limit_w.is_some(),
            _ => false,
        };
        if !(unit.is_controlled() && has_fallback) {
            return Order::Free;
        }
        let end = LeaseEnd { mono: now.plus(BASELINE_LEASE), wall: wall.plus(BASELINE_LEASE) };
        let cause = IntentKey::Limit("baseline");
        Order::Hold(Setpoint::new(device, Demand::Release, cause, Action::Auto, end, Demand::Release))
    }
}

/// What a device would do if there were no limits of the site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Want {
    Charge {
        watts: f64,
        grid: bool,
    },
    Discharge {
        watts: f64,
    },
    Hold,
    /// Its own mode.
    Own,
    /// Inverter: AC power.
    Power {
        watts: f64,
    },
    /// Inverter: what leaves the site.
    Export {
        watts: f64,
    },
    Amps {
        amps: f64,
    },
    Off,
}

/// A wish on its way through the limits.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) index: usize,
    pub(super) intent: Option<&'a Intent>,
    pub(super) want: Want,
    /// What the limits took from it so far.
    pub(super) steps: Vec<Step>,
    /// Nobody asked, and a limit needs the device held.
    pub(super) guard: Option<&'static str>,
}

impl Draft<'_> {
    /// The limit to name where there is room for one name: the last that bit; of a protective hold the one behind it.
    fn limited_by(&self) -> Option<&'static str> {
        let mut limits = self.steps.iter().rev().filter(|s| s.is_limit()).map(|s| s.name);
        match self.guard {
            Some(guard) => limits.find(|name| *name == guard),
            None => limits.next(),
        }
    }

    fn rank(&self) -> (Rank, u64) {
        self.intent.map_or((Rank::Default, 0), |i| (i.rank, i.accepted))
    }

    pub(super) fn is_settable_battery(&self) -> bool {
        matches!(self.want, Want::Charge { .. } | Want::Discharge { .. } | Want::Hold)
    }
}

/// Decide on every device, in the order of `view.units`. `memory` has one entry per unit.
pub(crate) fn decide<'a>(q: &Question<'_, 'a>, memory: &mut [Memory]) -> Vec<Decision<'a>> {
    let mut decisions: Vec<Decision<'a>> = q.view.units.iter().map(|_| Decision::default()).collect();
    let mut drafts = Vec::with_capacity(decisions.len());
    for (index, ((unit, decision), mem)) in q.view.units.iter().zip(&mut decisions).zip(memory.iter_mut()).enumerate() {
        if unit.is_controlled() {
            drafts.push(draft(q, index, unit, decision, mem));
        }
    }
    forget_shares(q, &drafts, memory);
    // The stronger first: what it takes is gone for the others. The id makes the order total.
    let id = |d: &Draft<'_>| q.view.units.get(d.index).map(|u| &u.spec.id);
    drafts.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| id(a).cmp(&id(b))));
    keep_on(q, &mut drafts, memory);
    limit_import(q, &mut drafts, memory);
    keep_off(q, &mut drafts, memory);
    let given_up_w = limit_discharge(q, &mut drafts, memory);
    limit_inverters(q, &mut drafts, memory, given_up_w);
    limit_ramp(q, &mut drafts, memory);
    for mut draft in drafts {
        if let (Some(unit), Some(decision)) = (q.view.units.get(draft.index), decisions.get_mut(draft.index)) {
            decision.holder = finish(q, unit, &mut draft);
            decision.winner = draft.intent;
            decision.steps = draft.steps;
        }
    }
    decisions
}

/// The room is shared anew when anybody comes or goes: that is a decision, not noise, and waits for nothing.
fn forget_shares(q: &Question<'_, '_>, drafts: &[Draft<'_>], memory: &mut [Memory]) {
    let winner = |d: &Draft<'_>| d.intent.map(|i| i.key.clone());
    if drafts.iter().all(|d| memory.get(d.index).is_none_or(|m| m.winner == winner(d))) {
        return;
    }
    for draft in drafts {
        let Some(mem) = memory.get_mut(draft.index) else { continue };
        // An inverter takes part in no sharing: its limit stays unless somebody else sets it.
        let is_inverter = q.view.units.get(draft.index).is_some_and(|u| u.spec.kind == DeviceKind::Inverter);
        if !(is_inverter && mem.winner == winner(draft)) {
            mem.export = None;
        }
        (mem.import, mem.winner) = (None, winner(draft));
    }
}

/// The winner on one device and its wish within the limits of the device.
fn draft<'a>(
    q: &Question<'_, 'a>,
    index: usize,
    unit: &Unit,
    decision: &mut Decision<'a>,
    mem: &mut Memory,
) -> Draft<'a> {
    let mut mine: Vec<&'a Intent> = q.intents.iter().filter(|i| i.device == unit.spec.id).collect();
    mine.sort_by(|a, b| (b.rank, b.accepted, &b.key).cmp(&(a.rank, a.accepted, &a.key)));
    let mut draft = Draft { index, intent: None, want: Want::Own, steps: Vec::new(), guard: None };
    for intent in mine {
        if draft.intent.is_some() {
            decision.losers.push(intent);
            continue;
        }
        match cannot(unit, intent).map_or_else(|| want(unit, &intent.action), Err) {
            Ok((want, steps)) => {
                draft = Draft { index, intent: Some(intent), want, steps, guard: None };
            }
            Err(why) => decision.impossible.push((intent, why)),
        }
    }
    if let Some(intent) = draft.intent {
        limit_soc(q, index, unit, &intent.action, &mut draft, mem);
    }
    draft
}

/// Why a plan asks for what its device cannot do; a command was asked that at the door. What the device can do is not
/// known before it answered.
fn cannot(unit: &Unit, intent: &Intent) -> Option<String> {
    let (can, name) = (&unit.caps.actions, intent.action.name());
    let is_known = !can.is_empty() && matches!(intent.key, IntentKey::Plan(_));
    (is_known && intent.action != Action::Auto && !can.contains(&name))
        .then(|| format!("the device cannot {name}; it can: {}", can.join(", ")))
}

/// An action as a wish, within what the device can do and the installer allows.
fn want(unit: &Unit, action: &Action) -> Result<(Want, Vec<Step>), String> {
    let (limits, caps) = (&unit.spec.limits, &unit.caps);
    let mut steps = Vec::new();
    let want = match action {
        Action::Charge { power_w, grid, .. } => {
            let watts = bounded(*power_w, limits.max_charge_w, caps.max_charge_w, "max_charge_w", &mut steps)
                .ok_or("the largest charge power of the device is not known: name power_w")?;
            Want::Charge { watts, grid: *grid }
        }
        Action::Discharge { power_w, .. } => {
            let watts = bounded(*power_w, limits.max_discharge_w, caps.max_discharge_w, "max_discharge_w", &mut steps)
                .ok_or("the largest discharge power of the device is not known: name power_w")?;
            Want::Discharge { watts }
        }
        Action::Idle => Want::Hold,
        Action::Auto | Action::SetReserve { .. } => Want::Own,
        Action::SetMode { mode } => {
            return Err(format!("{}'s profile ({}) cannot set mode {mode}", unit.spec.id, unit.spec.profile));
        }
        Action::SetExportLimit { power_w } => Want::Export { watts: *power_w },
        Action::SetPowerLimit { power_w } => Want::Power { watts: power_limit(unit, *power_w, &mut steps) },
        Action::SetPowerLimitPct { pct } => {
            let rated = caps.rated_w.ok_or("the rated power of the device is not known: name power_w")?;
            Want::Power { watts: power_limit(unit, rated * pct / 100.0, &mut steps) }
        }
        Action::Start => Want::Amps { amps: charger_max(unit) },
        Action::SetMaxCurrent { current_a, .. } => {
            let mut amps = *current_a;
            clip(&mut amps, charger_max(unit), ("max_current_a", AMPS), charger_why(unit), &mut steps);
            Want::Amps { amps }
        }
        Action::Stop => Want::Off,
    };
    Ok((want, steps))
}

/// The asked power within the installer's and the device's own limit; what was not asked for is no clipping.
fn bounded(
    asked: Option<f64>,
    installer: Option<f64>,
    device: Option<f64>,
    name: &'static str,
    steps: &mut Vec<Step>,
) -> Option<f64> {
    let limit = [installer, device].into_iter().flatten().reduce(f64::min);
    match (asked, limit) {
        (Some(watts), Some(limit)) => {
            let mut watts = watts;
            clip(&mut watts, limit, (name, WATTS), whose(installer, device), steps);
            Some(watts)
        }
        (asked, limit) => asked.or(limit),
    }
}

/// Which of the two is the tighter one.
fn whose(installer: Option<f64>, device: Option<f64>) -> Why {
    match (installer, device) {
        (Some(i), Some(d)) if d < i => Why::Device,
        (None, _) => Why::Device,
        _ => Why::Installer,
    }
}

pub(super) fn charger_why(unit: &Unit) -> Why {
    whose(unit.spec.limits.max_current_a, unit.caps.max_current_a)
}

fn power_limit(unit: &Unit, asked: f64, steps: &mut Vec<Step>) -> f64 {
    let mut watts = asked;
    clip(&mut watts, limit_of(unit.spec.limits.max_power_w), ("max_power_w", WATTS), Why::Installer, steps);
    clip(&mut watts, limit_of(unit.caps.baseline_w), ("baseline", WATTS), Why::Baseline, steps);
    watts
}

/// The wish as a demand with its end, its cause, and what comes after.
fn finish(q: &Question<'_, '_>, unit: &Unit, draft: &mut Draft<'_>) -> Option<Holder> {
    if let Want::Amps { amps } = &mut draft.want {
        *amps = pause_below_min(unit, *amps, &mut draft.steps);
    }
    let demand = match draft.want {
        // 0.0 - x: a charge of nothing is 0 W, not -0 W.
        Want::Charge { watts, grid } => Demand::BatteryPower { watts: 0.0 - watts, grid },
        Want::Discharge { watts } => Demand::BatteryPower { watts, grid: false },
        Want::Hold => Demand::BatteryPower { watts: 0.0, grid: false },
        Want::Own => Demand::Release,
        Want::Power { watts } | Want::Export { watts } => Demand::PowerLimit { watts },
        Want::Amps { amps } if amps <= 0.0 => Demand::ChargerOff,
        // Nobody asked for a charge: only a limit. `auto` asks for none either.
        Want::Amps { amps } if draft.intent.is_none_or(|i| i.action == Action::Auto) => Demand::ChargerLimit { amps },
        Want::Amps { amps } => Demand::ChargerCurrent { amps, phases: phases(unit, draft) },
        Want::Off => Demand::ChargerOff,
    };
    let on_end = on_end(q.site, unit, demand);
    let by = draft.limited_by();
    let limited_by = by.map(str::to_owned);
    match (draft.intent, draft.guard) {
        (Some(intent), _) => Some(Holder {
            key: intent.key.clone(),
            rank: intent.rank,
            source: intent.source.clone(),
            asked: intent.action.clone(),
            end: LeaseEnd { mono: intent.deadline, wall: intent.ends_at },
            demand,
            on_end,
            applied: Applied { params: applied(q, unit, &intent.action, demand, by), limited_by },
        }),
        (None, Some(name)) => Some(Holder {
            key: IntentKey::Limit(name),
            rank: Rank::Default,
            source: "site limit".to_owned(),
            asked: match demand {
                Demand::ChargerLimit { amps } => Action::SetMaxCurrent { current_a: amps, phases: None },
                Demand::PowerLimit { watts } => Action::SetPowerLimit { power_w: watts },
                _ => Action::Stop,
            },
            end: LeaseEnd { mono: q.now.plus(GUARD_LEASE), wall: q.wall.plus(GUARD_LEASE) },
            demand,
            on_end,
            applied: Applied { params: Params::new(), limited_by },
        }),
        (None, None) => None,
    }
}

/// The phases that were asked for, where the charger can switch them.
fn phases(unit: &Unit, draft: &Draft<'_>) -> Option<u8> {
    match draft.intent.map(|i| &i.action) {
        Some(Action::SetMaxCurrent { phases, .. }) if unit.caps.phase_switch => *phases,
        _ => None,
    }
}

/// Below its smallest current a charger pauses.
pub(super) fn pause_below_min(unit: &Unit, amps: f64, steps: &mut Vec<Step>) -> f64 {
    let least = charger_min(unit);
    if amps >= least {
        return amps;
    }
    let mut amps = amps;
    clip(&mut amps, 0.0, (MIN_CURRENT, AMPS), Why::Minimum { amps: least }, steps);
    amps
}

/// What a device takes when its lease ends or derd stops: never wider than what protects a fuse or the agreed export.
fn on_end(site: &SiteSpec, unit: &Unit, demand: Demand) -> Demand {
    match (unit.spec.kind, demand) {
        (DeviceKind::Charger, Demand::ChargerOff) if site.main_fuse_a.is_some() => Demand::ChargerOff,
        (DeviceKind::Charger, Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps })
            if site.main_fuse_a.is_some() =>
        {
            match unit.spec.control.charger_fallback() {
                Demand::ChargerLimit { amps: fallback } if fallback >= charger_min(unit) => {
                    Demand::ChargerLimit { amps: fallback.min(amps) }
                }
                _ => Demand::ChargerOff,
            }
        }
        (DeviceKind::Inverter, Demand::PowerLimit { watts }) => {
            site.export_limit_w.map_or(Demand::Release, |export| Demand::PowerLimit { watts: watts.min(export) })
        }
        _ => Demand::Release,
    }
}

/// The parameters that are applied, by the names of the request.
fn applied(q: &Question<'_, '_>, unit: &Unit, asked: &Action, demand: Demand, by: Option<&str>) -> Params {
    let mut params = Params::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            params.insert(name.to_owned(), value);
        }
    };
    let limits = &unit.spec.limits;
    let tighter = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| a.map(|a| b.map_or(a, |b| pick(a, b)));
    match (asked, demand) {
        (Action::Charge { max_soc_pct, .. }, Demand::BatteryPower { watts, .. }) => {
            put("power_w", Some(watts.abs()));
            put("max_soc_pct", tighter(*max_soc_pct, limits.max_soc_pct, f64::min));
        }
        (Action::Discharge { min_soc_pct, .. }, Demand::BatteryPower { watts, .. }) => {
            put("power_w", Some(watts.abs()));
            put("min_soc_pct", tighter(*min_soc_pct, limits.min_soc_pct, f64::max));
        }
        (Action::SetExportLimit { power_w }, _) => {
            put(
                "power_w",
                Some(q.bounds.export_w.filter(|_| by == Some(EXPORT)).map_or(*power_w, |e| e.min(*power_w))),
            );
        }
        (Action::SetPowerLimitPct { .. }, Demand::PowerLimit { watts }) => {
            put("pct", unit.caps.rated_w.filter(|r| *r > 0.0).map(|r| watts / r * 100.0));
        }
        (Action::SetPowerLimit { .. }, Demand::PowerLimit { watts }) => put("power_w", Some(watts)),
        (Action::Start | Action::SetMaxCurrent { .. }, Demand::ChargerCurrent { amps, phases }) => {
            put("current_a", Some(amps));
            put("phases", phases.map(f64::from));
        }
        (Action::Start | Action::SetMaxCurrent { .. }, Demand::ChargerOff) => put("current_a", Some(0.0)),
        _ => {}
    }
    params
}
