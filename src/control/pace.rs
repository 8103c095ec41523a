//! How fast and how often a device may be moved: ramps, and the least times on and off of a charger. Never in the way of
//! what protects, nor of somebody who says stop. Pure.

use super::arbiter::{Draft, Memory, Question, Want};
use super::limits::{IMPORT, charger_min};
use super::trace::{AMPS, WATTS, Why, clip, put};
use super::view::{Seen, Unit};
use crate::model::{Action, DeviceKind, IntentKey, Mono};
use std::time::Duration;

/// The name of a limit on how fast a power may rise.
pub(crate) const RAMP: &str = "ramp_w_per_s";
/// The name of the least time on.
pub(crate) const MIN_ON: &str = "min_on";
/// The name of the least time off.
pub(crate) const MIN_OFF: &str = "min_off";
/// A ramp goes in steps of this: each is a write.
const RAMP_STEP: Duration = Duration::from_secs(5);
/// Its first step.
const RAMP_FIRST: Duration = Duration::from_secs(1);

/// How a charger stands, and since when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Switch {
    is_on: bool,
    since: Mono,
    /// It must stay as it is for its least time.
    is_bound: bool,
}

/// Who wants a charger off, by an order of his own: he is not made to wait.
fn is_told(draft: &Draft<'_>) -> bool {
    draft.intent.is_some_and(|i| {
        matches!(i.key, IntentKey::Command { .. }) && matches!(i.action, Action::Stop | Action::SetMaxCurrent { .. })
    })
}

/// Before the limits: a plan must not stop what has just been started; it goes on with its smallest current, as far as the
/// fuse has room for that.
pub(super) fn keep_on(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &[Memory]) {
    for draft in drafts {
        let (Some(unit), Some(mem)) = (q.view.units.get(draft.index), memory.get(draft.index)) else { continue };
        let (Some(least), Some(switch)) = (unit.spec.limits.min_on, mem.switch) else { continue };
        let is_stop = match draft.want {
            Want::Off => true,
            Want::Amps { amps } => amps < charger_min(unit),
            _ => false,
        };
        if is_stop && switch.is_on && switch.is_bound && !is_told(draft) && q.now.since(switch.since) < least {
            let mut amps = 0.0;
            put(&mut amps, charger_min(unit), (MIN_ON, AMPS), Why::Installer, &mut draft.steps);
            draft.want = Want::Amps { amps };
        }
    }
}

/// After the limits: what was stopped by a limit or a plan stays off for its least time; and it is written down who is on.
pub(super) fn keep_off(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &mut [Memory]) {
    for draft in drafts {
        let (Some(unit), Some(mem)) = (q.view.units.get(draft.index), memory.get_mut(draft.index)) else { continue };
        if unit.spec.kind != DeviceKind::Charger {
            continue;
        }
        if q.view.seen.get(draft.index).is_some_and(Seen::is_unplugged) {
            // The next car has had its rest.
            mem.switch = None;
            continue;
        }
        let wants_on = !is_off(unit, draft.want);
        let rests = |s: Switch| {
            let least = unit.spec.limits.min_off.unwrap_or_default();
            !s.is_on && s.is_bound && q.now.since(s.since) < least
        };
        if wants_on && mem.switch.is_some_and(rests) {
            let mut amps = match draft.want {
                Want::Amps { amps } => amps,
                _ => f64::INFINITY,
            };
            clip(&mut amps, 0.0, (MIN_OFF, AMPS), Why::Installer, &mut draft.steps);
            if draft.want == Want::Own {
                draft.guard = Some(MIN_OFF);
            }
            draft.want = Want::Off;
        }
        let is_on = !is_off(unit, draft.want);
        match &mut mem.switch {
            Some(switch) if switch.is_on == is_on => {
                // A limit that lasts longer than somebody's stop counts from now on.
                switch.is_bound = switch.is_bound && (is_on || !is_told(draft) || is_limited(draft));
            }
            switch => {
                // The first look is no switching: how long it has been so nobody knows.
                let is_bound = switch.is_some() && (is_on || !is_told(draft) || is_limited(draft));
                *switch = Some(Switch { is_on, since: q.now, is_bound });
            }
        }
    }
}

fn is_off(unit: &Unit, want: Want) -> bool {
    match want {
        Want::Off => true,
        Want::Amps { amps } => amps < charger_min(unit),
        _ => false,
    }
}

fn is_limited(draft: &Draft<'_>) -> bool {
    draft.steps.iter().any(|s| s.name == IMPORT)
}

/// A power on its way up: the last one that was let pass, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ramp {
    /// W, signed as in the demand.
    watts: f64,
    at: Mono,
}

/// After the limits: the power of a battery moves away from zero, and the limit of an inverter up, by no more than the ramp.
/// Towards zero and down it is at once: that is what protects, and what stops.
pub(super) fn limit_ramp(q: &Question<'_, '_>, drafts: &mut [Draft<'_>], memory: &mut [Memory]) {
    for draft in drafts {
        let (Some(unit), Some(mem)) = (q.view.units.get(draft.index), memory.get_mut(draft.index)) else { continue };
        let Some(per_s) = unit.spec.limits.ramp_w_per_s else { continue };
        let (sign, watts) = match &mut draft.want {
            Want::Charge { watts, .. } => (-1.0, watts),
            Want::Discharge { watts } => (1.0, watts),
            Want::Power { watts } => (1.0, watts),
            Want::Hold => {
                mem.ramp = Some(Ramp { watts: 0.0, at: q.now });
                continue;
            }
            _ => {
                mem.ramp = None;
                continue;
            }
        };
        let quantum = per_s * RAMP_STEP.as_secs_f64();
        let ramp = match mem.ramp {
            // An inverter that nobody held may give all it has: its limit begins there and has nothing to ramp.
            None if unit.spec.kind == DeviceKind::Inverter => Ramp { watts: *watts, at: q.now },
            // It begins where the device is; in the other direction that is zero.
            last if last.is_none_or(|l| l.watts * sign < 0.0) => {
                let measured = q.view.seen.get(draft.index).and_then(|s| s.power_w).unwrap_or(0.0);
                let from = if last.is_some() { 0.0 } else { (measured * sign).max(0.0) };
                Ramp { watts: (from + per_s * RAMP_FIRST.as_secs_f64()).min(*watts) * sign, at: q.now }
            }
            Some(last) if *watts < last.watts * sign => Ramp { watts: *watts * sign, at: q.now },
            Some(last) if *watts > last.watts * sign && q.now.since(last.at) >= RAMP_STEP => {
                Ramp { watts: (last.watts * sign + quantum).min(*watts) * sign, at: q.now }
            }
            Some(last) => last,
            None => continue,
        };
        clip(watts, ramp.watts * sign, (RAMP, WATTS), Why::Installer, &mut draft.steps);
        mem.ramp = Some(ramp);
    }
}
