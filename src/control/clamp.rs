//! Wishes on their way through the limits: the state of charge, the fuse, the agreed export. Pure.

use super::arbiter::{Draft, Memory, Question, Want, charger_why, pause_below_min};
use super::limits::{
    Ceiling, EXPORT, IMPORT, Import, Pace, Share, charger_max, charger_min, charger_own_max, discharge_room, draws_w,
    inverter_room,
};
use super::trace::{AMPS, WATTS, Why, clip, limit_of, put};
use super::view::{Freshness, Seen, Unit};
use crate::model::{Action, Demand, DeviceKind, Mono, NOMINAL_V};
use std::time::Duration;

/// A protective hold stays so long after it was last needed: each beginning and end costs writes.
const GUARD_LINGER: Duration = Duration::from_secs(60);
/// The same for an inverter: its limit is kept in flash, and the sun comes back.
const INVERTER_LINGER: Duration = Duration::from_secs(1800);
/// What a battery takes back at most counts for so long; one that does not follow is no help.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(10);
/// A limit of the state of charge that was reached gives way only this far from it, %.
const SOC_HYSTERESIS: f64 = 1.0;

/// No discharge at or below the lower bound, no charge at or above the upper one, neither while the state is unknown.
pub(super) fn limit_soc(
    q: &Question<'_, '_>,
    index: usize,
    unit: &Unit,
    action: &Action,
    draft: &mut Draft<'_>,
    mem: &mut Memory,
) {
    let soc = q.view.seen.get(index).and_then(|s| s.soc_pct);
    let limits = &unit.spec.limits;
    let (is_stopped, watts, name, bound) = match (&mut draft.want, action) {
        (Want::Charge { watts, .. }, Action::Charge { max_soc_pct, .. }) => {
            let bound = [limits.max_soc_pct, *max_soc_pct].into_iter().flatten().fold(100.0, f64::min);
            if let Some(soc) = soc {
                mem.is_full = soc >= bound || (mem.is_full && soc > bound - SOC_HYSTERESIS);
            }
            (mem.is_full, watts, "max_soc_pct", bound)
        }
        (Want::Discharge { watts }, Action::Discharge { min_soc_pct, .. }) => {
            let bound = [limits.min_soc_pct, *min_soc_pct].into_iter().flatten().fold(0.0, f64::max);
            if let Some(soc) = soc {
                mem.is_empty = soc <= bound || (mem.is_empty && soc < bound + SOC_HYSTERESIS);
            }
            (mem.is_empty, watts, "min_soc_pct", bound)
        }
        _ => return,
    };
    match soc {
        None => clip(watts, 0.0, ("soc_unknown", WATTS), Why::SocUnknown, &mut draft.steps),
        Some(soc) if is_stopped => clip(watts, 0.0, (name, WATTS), Why::Soc { soc, bound }, &mut draft.steps),
        Some(_) => {}
    }
}

/// How the ceilings of one device move.
fn pace(q: &Question<'_, '_>, index: usize, rise: Duration, deadband: f64) -> Pace {
    let poll = |unit: Option<&Unit>| unit.map_or(Duration::ZERO, |u| u.spec.poll);
    let slower = poll(q.view.units.get(index)).max(poll(q.view.units.iter().find(|u| u.is_grid())));
    let skew = (slower + Duration::from_millis(300)).min(Duration::from_secs(3));
    // A car must not follow each pulse of a hob: its current and its contactor would never come to rest.
    let is_charger = q.view.units.get(index).is_some_and(|u| u.spec.kind == DeviceKind::Charger);
    Pace { skew, rise, deadband, patience: if is_charger { 6 } else { 1 } }
}

/// The fuse and the import limit: batteries that charge and all settable chargers share the room by rank.
pub(super) fn limit_import(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &mut [Memory]) {
    let is_charger = |d: &Draft<'_>| q.view.units.get(d.index).is_some_and(|u| u.spec.kind == DeviceKind::Charger);
    let ours: Vec<usize> = drafts
        .iter()
        // A battery that is to discharge helps the import side; what it gives is seen by the meter.
        .filter(|d| is_charger(d) || matches!(d.want, Want::Charge { .. } | Want::Hold))
        .filter(|d| is_charger(d) || q.view.seen.get(d.index).is_some_and(|s| s.power_w.is_some()))
        .map(|d| d.index)
        .collect();
    for draft in drafts.iter().filter(|d| is_charger(d)) {
        if let (Some(mem), Some(seen)) = (memory.get_mut(draft.index), q.view.seen.get(draft.index)) {
            let action = draft.intent.map(|i| &i.action);
            mem.phases.told(matches!(action, Some(Action::SetMaxCurrent { phases: Some(1), .. })));
            mem.phases.follow(seen, q.view.grid_a, q.now);
        }
    }
    let mut room = Import::new(q.view, &q.bounds, &ours, |i| {
        memory.get(i).and_then(|m| m.phases.single()).filter(|_| is_single(q))
    });
    for draft in drafts.iter_mut() {
        let (Some(unit), Some(mem)) = (q.view.units.get(draft.index), memory.get_mut(draft.index)) else { continue };
        if unit.spec.kind == DeviceKind::Charger {
            limit_charger(q, unit, draft, mem, &mut room);
        } else if let Want::Charge { watts, .. } = &mut draft.want {
            // Its own part in what the meter sees is not known.
            let is_unseen = matches!(room, Import::Room { .. }) && !ours.contains(&draft.index);
            let free_w = match room {
                Import::Free => None,
                Import::Blind => Some(0.0),
                Import::Room { .. } if is_unseen => Some(0.0),
                Import::Room { .. } => room.watts(&q.bounds, draws_w(q.view, draft.index)),
            };
            let is_blind = matches!(room, Import::Blind);
            let pace = pace(q, draft.index, Duration::from_secs(5), 100.0);
            if let Some(limit) = ceiling(&mut mem.import, free_w, is_blind, q.now, pace) {
                let why = if is_unseen { Why::Unseen } else { room.why(q.view, &q.bounds, None) };
                clip(watts, limit, (IMPORT, WATTS), why, &mut draft.steps);
            }
            room.take(*watts, &q.bounds);
        } else {
            mem.import = None;
        }
    }
}

/// Let a ceiling follow the room there is; `None` when there is no limit.
fn ceiling(slot: &mut Option<Ceiling>, room: Option<f64>, at_once: bool, now: Mono, pace: Pace) -> Option<f64> {
    let Some(room) = room else {
        *slot = None;
        return None;
    };
    let ceiling = slot.get_or_insert(Ceiling::new(room));
    if at_once {
        ceiling.drop_to(room);
    } else {
        ceiling.follow(room, now, pace);
    }
    Some(ceiling.value().max(0.0))
}

/// Are there phases to tell apart.
fn is_single(q: &Question<'_, '_>) -> bool {
    q.bounds.phases > 1.0
}

fn limit_charger(q: &Question<'_, '_>, unit: &Unit, draft: &mut Draft<'_>, mem: &mut Memory, room: &mut Import) {
    let seen = q.view.seen.get(draft.index);
    let is_unplugged = seen.is_some_and(Seen::is_unplugged);
    let asked = match draft.want {
        Want::Amps { amps } => amps,
        // The installer's limit is for what it is told; left alone it takes all that it can.
        Want::Own => charger_own_max(unit),
        _ => {
            mem.import = None;
            mem.guarded = None;
            return;
        }
    };
    let can_hold = draft.intent.is_some() || unit.caps.actions.contains(&"set_max_current");
    if matches!(room, Import::Free) || !can_hold || (is_unplugged && draft.want == Want::Own) {
        mem.import = None;
        mem.guarded = None;
        return;
    }
    let is_fresh = seen.is_some_and(|s| s.fresh == Freshness::Fresh);
    let single = mem.phases.single().filter(|_| is_single(q));
    let limit = match (&*room, mem.import) {
        (Import::Blind, _) => {
            let fallback = match unit.spec.control.charger_fallback() {
                Demand::ChargerLimit { amps } => amps,
                _ => 0.0,
            };
            let limit = mem.import.get_or_insert(Ceiling::new(fallback));
            limit.drop_to(fallback);
            limit.value()
        }
        // A charger that does not answer: its part in what the meter sees is not known, and no order reaches it.
        (_, Some(ceiling)) if !is_fresh => {
            if let Some(ceiling) = &mut mem.import {
                ceiling.unseen();
            }
            ceiling.value()
        }
        _ => {
            // Pauses and restarts wear the car's contactor: room for a restart must last longer.
            let is_paused = mem.import.is_some_and(|c| c.value() < charger_min(unit));
            let rise = Duration::from_secs(if is_paused { 30 } else { 10 });
            let free_a = room.amps(&q.bounds, single);
            ceiling(&mut mem.import, free_a, false, q.now, pace(q, draft.index, rise, 1.0)).unwrap_or(f64::INFINITY)
        }
    };
    let mut amps = asked;
    if limit < asked {
        let why = if is_fresh { room.why(q.view, &q.bounds, single) } else { room.why_silent() };
        clip(&mut amps, limit.floor(), (IMPORT, AMPS), why, &mut draft.steps);
        mem.guarded = Some(q.now);
    } else if mem.guarded.is_some_and(|since| q.now.since(since) >= GUARD_LINGER) {
        mem.guarded = None;
    }
    if draft.want != Want::Own || mem.guarded.is_some() {
        clip(&mut amps, charger_max(unit), ("max_current_a", AMPS), charger_why(unit), &mut draft.steps);
    }
    amps = pause_below_min(unit, amps, &mut draft.steps);
    if draft.want != Want::Own || mem.guarded.is_some() {
        if draft.want == Want::Own {
            draft.guard = Some(IMPORT);
        }
        draft.want = if amps > 0.0 { Want::Amps { amps } } else { Want::Off };
    }
    if !is_unplugged {
        let measured = seen.filter(|s| s.fresh == Freshness::Fresh).and_then(|s| {
            let currents = s.phase_a.into_iter().flatten().reduce(f64::max);
            currents.or_else(|| s.power_w.map(|w| w / (q.bounds.phases * NOMINAL_V)))
        });
        let taken = Share::follow(&mut mem.share, amps, measured, q.now);
        room.take_amps(taken, &q.bounds, single);
    }
}

/// The agreed export: batteries give way before the sun does. Returns the discharge that was taken back, W.
pub(super) fn limit_discharge(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &mut [Memory]) -> f64 {
    let ours: Vec<usize> = drafts.iter().filter(|d| d.is_settable_battery()).map(|d| d.index).collect();
    let room = discharge_room(q.view, &q.bounds, &ours);
    let mut taken = 0.0;
    let mut given_up_w = 0.0;
    for draft in drafts.iter_mut() {
        let Some(mem) = memory.get_mut(draft.index) else { continue };
        let Want::Discharge { watts } = &mut draft.want else {
            mem.gives_up = None;
            if draft.is_settable_battery() || draft.want == Want::Own {
                mem.export = mem.export.filter(|_| !is_battery(q, draft.index));
            }
            continue;
        };
        let is_blind = q.view.grid_w.is_none();
        let pace = pace(q, draft.index, Duration::from_secs(5), 100.0);
        let left = room.map(|r| r - taken);
        if let Some(limit) = ceiling(&mut mem.export, left, is_blind, q.now, pace) {
            clip(watts, limit, (EXPORT, WATTS), why_export(q, room.is_some()), &mut draft.steps);
        }
        taken += *watts;
        let measured = q.view.seen.get(draft.index).and_then(|s| s.power_w).unwrap_or(0.0);
        // Its limit falls as soon as the room is certainly less: the sun need not be held back until then.
        let over = measured - left.map_or(*watts, |left| left.max(0.0).min(*watts));
        if over <= 0.0 {
            mem.gives_up = None;
        } else if q.now.since(*mem.gives_up.get_or_insert(q.now)) < GIVES_UP_WITHIN {
            given_up_w += over;
        }
    }
    given_up_w
}

/// What the export limit goes by.
fn why_export(q: &Question<'_, '_>, is_seen: bool) -> Why {
    match (q.view.grid_w.filter(|_| is_seen), q.bounds.export_w) {
        (Some(grid_w), Some(allowed_w)) => Why::Export { grid_w, allowed_w },
        _ if q.view.grid_w.is_some() => Why::Unseen,
        _ => Why::Blind,
    }
}

fn is_battery(q: &Question<'_, '_>, index: usize) -> bool {
    q.view.units.get(index).is_some_and(|u| u.spec.kind == DeviceKind::Battery)
}

/// The agreed export again: the inverters take what is left of it, shared by their size.
pub(super) fn limit_inverters(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &mut [Memory], given_up_w: f64) {
    let is_settable = |d: &Draft<'_>| {
        q.view.units.get(d.index).is_some_and(|u| {
            u.spec.kind == DeviceKind::Inverter && (d.intent.is_some() || u.caps.actions.contains(&"set_power_limit"))
        })
    };
    let ours: Vec<usize> = drafts.iter().filter(|d| is_settable(d)).map(|d| d.index).collect();
    let size = |i: usize| q.view.units.get(i).and_then(|u| u.caps.rated_w).unwrap_or(10_000.0).max(1.0);
    let all: f64 = ours.iter().map(|i| size(*i)).sum();
    for draft in drafts.iter_mut().filter(|d| is_settable(d)) {
        let (Some(unit), Some(mem)) = (q.view.units.get(draft.index), memory.get_mut(draft.index)) else { continue };
        let share = size(draft.index) / all;
        let (asked, mut limit) = match (draft.want, q.bounds.export_w) {
            (Want::Export { watts }, site) => (Some(watts), site.map_or(watts, |s| s.min(watts))),
            (_, Some(site)) => (None, site),
            (_, None) => {
                (mem.export, mem.guarded) = (None, None);
                continue;
            }
        };
        let measured = q.view.seen.get(draft.index).and_then(|s| s.power_w);
        let room = inverter_room(q.view, limit, &ours, given_up_w).map(|r| r * share);
        limit *= share;
        let rated = unit.caps.rated_w;
        let margin = rated.map_or(500.0, |r| (r * 0.1).max(500.0));
        let is_needed = match (room, measured) {
            (Some(room), Some(measured)) => measured > room - margin,
            // Without a meter the worst case is no load at all.
            _ => rated.is_none_or(|r| r > limit),
        };
        if is_needed {
            mem.guarded = Some(q.now);
        } else if mem.guarded.is_some_and(|since| q.now.since(since) >= INVERTER_LINGER) {
            mem.guarded = None;
        }
        if draft.want == Want::Own && mem.guarded.is_none() {
            mem.export = None;
            continue;
        }
        let part = |of: f64, least: f64| rated.map_or(least, |r| (r * of).max(least));
        let pace = pace(q, draft.index, Duration::from_secs(30), part(0.03, 200.0));
        let worth = room.map(|room| worth_a_write(room, measured, mem.export, part(0.02, 100.0), part(0.05, 300.0)));
        let Some(cap) = ceiling(&mut mem.export, worth.or(Some(limit)), room.is_none(), q.now, pace) else { continue };
        let mut watts = match draft.want {
            Want::Power { watts } => watts,
            _ => f64::INFINITY,
        };
        let why = why_export(q, room.is_some());
        match (asked, q.bounds.export_w) {
            // What was asked for is a limit of the export itself: only a tighter one of the site takes anything from it.
            (Some(asked), site) => {
                let over = site.map_or(0.0, |site| (asked - site).max(0.0));
                watts = cap + over * share;
                if over > 0.0 {
                    put(&mut watts, cap, (EXPORT, WATTS), why, &mut draft.steps);
                }
            }
            (None, _) => clip(&mut watts, cap, (EXPORT, WATTS), why, &mut draft.steps),
        }
        let most = limit_of(unit.spec.limits.max_power_w);
        clip(&mut watts, most, ("max_power_w", WATTS), Why::Installer, &mut draft.steps);
        let own = limit_of(unit.caps.baseline_w);
        clip(&mut watts, own, ("baseline", WATTS), Why::Baseline, &mut draft.steps);
        if draft.want == Want::Own {
            draft.guard = Some(EXPORT);
        }
        draft.want = Want::Power { watts };
    }
}

/// The room of an inverter as its limit shall follow it: each move is a write into flash. It falls only when there is too
/// much, then by `slack` W more, so that the household's noise does not move it again; it rises only when it is what holds
/// the power back, which the power shows that is less than `near` W below it.
fn worth_a_write(room: f64, measured: Option<f64>, is: Option<Ceiling>, slack: f64, near: f64) -> f64 {
    let (Some(measured), Some(value)) = (measured, is.map(|c| c.value())) else { return room };
    if room < value {
        if measured <= room { value } else { (room - slack).max(0.0) }
    } else if measured < value - near {
        value
    } else {
        room
    }
}
