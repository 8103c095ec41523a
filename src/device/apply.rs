//! What to do next about an order: pure, time is an argument.
//!
//! ```text
//!            order                    Do::Write            settle over             checks hold
//!  (nothing) -----> Precheck / Write ----------> Settling ------------> Do::Check ------------> Kept
//!                       ^  ^                                               |                     | |
//!                       |  +------ again once, then Failed and slower -----+     refresh: Write -+ |
//!                       +------------- 30 s and 120 s later something else is held: Reverted ------+
//! ```
//!
//! The same way leads back: when the lease is over, when nobody wants anything, on stop and after a crash the aim is the
//! setpoint's `on_end`, and what is held is forgotten only when that was read back from the wire.

use super::walls;
use super::words::{Aim, Do, Effect, Kind, Phase, Spend, Told, Work};
use crate::model::{Demand, DeviceSpec, Evidence, FailSafe, IntentKey, Mono, Order, Stage};
use std::collections::VecDeque;
use std::time::Duration;

/// An order that could not be written for so long is reported as failed; it is tried further while it stands.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(10);
/// How long control may take after a start before what an earlier run left behind is ended without it.
const WAIT_PATIENCE: Duration = Duration::from_secs(15);
/// A look this old is good enough before the device's timer is restarted: what something else changed must be seen, not
/// overwritten.
const FRESH_LOOK: Duration = Duration::from_secs(2);
/// In flash a value that follows another so soon waits, and only the newest is written.
const GAP: Duration = Duration::from_secs(10);
/// So long a looser limit waits there.
const GAP_LOOSER: Duration = Duration::from_secs(60);
/// A lease for demands that have none: a standing setting, and what a device takes when a lease is over.
const NO_END: Duration = Duration::ZERO;

/// Keeps one device at what it was ordered.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) spec: DeviceSpec,
    failsafe: FailSafe,
    order: Order,
    /// A setpoint that this device must not, cannot or did not take: it counts as if nobody wanted anything.
    pub(super) rejected: Option<Rejected>,
    /// What is held on until then, although something looser is ordered.
    pub(super) stays: Option<(Demand, Mono)>,
    /// What the device may hold, and what it shall take when nothing renews that.
    pub(super) held: Option<(Demand, Demand)>,
    /// Did this run write it.
    pub(super) ours: bool,
    online_since: Option<Mono>,
    stopping: bool,
    pub(super) work: Option<Work>,
    pub(super) reverts: VecDeque<Mono>,
    pub(super) release_alarm: bool,
    /// It was told that the device does not take what protects.
    pub(super) limit_alarm: bool,
}

/// Why a setpoint counts as if nobody wanted anything.
#[derive(Debug)]
pub(super) struct Rejected {
    demand: Demand,
    cause: IntentKey,
    /// When it is tried again; `None`: never.
    until: Option<Mono>,
    failures: u32,
}

impl Keeper {
    pub(super) fn new(spec: DeviceSpec, held: Option<(Demand, Demand)>) -> Self {
        Self {
            spec,
            failsafe: FailSafe::None,
            order: Order::Wait,
            rejected: None,
            stays: None,
            held,
            ours: false,
            online_since: None,
            stopping: false,
            work: None,
            reverts: VecDeque::new(),
            release_alarm: false,
            limit_alarm: false,
        }
    }

    pub(super) fn set_order(&mut self, order: Order) {
        self.order = order;
    }

    pub(super) const fn holds_something(&self) -> bool {
        self.held.is_some()
    }

    /// Is something being written, or about to be.
    pub(super) const fn is_at_work(&self) -> bool {
        self.work.is_some()
    }

    /// What the device may hold, and what it shall take when nothing renews that.
    pub(super) const fn held(&self) -> Option<(Demand, Demand)> {
        self.held
    }

    /// From now on only the way back.
    pub(super) const fn stop(&mut self) {
        self.stopping = true;
    }

    /// The device was found (again): it may have forgotten what it was told.
    pub(super) fn found(&mut self, now: Mono, failsafe: FailSafe) {
        self.failsafe = failsafe;
        self.online_since.get_or_insert(now);
        if let Some(work) = &mut self.work {
            work.not_before = now;
            work.unreached = None;
            if work.phase == Phase::Kept && work.aim.demand != Demand::Release {
                work.phase = if work.refresh.is_some() { Phase::Write } else { Phase::Precheck };
            }
        }
    }

    /// The device is lost.
    pub(super) const fn lost(&mut self) {
        self.online_since = None;
    }

    fn aim(&self, now: Mono) -> Option<Aim> {
        let back = |(_, on_end): (Demand, Demand)| Aim {
            kind: Kind::End,
            demand: on_end,
            on_end,
            cause: None,
            end: None,
            protects: false,
            is_limited: false,
            waits: false,
        };
        let give_back = || self.held.map(back);
        if self.stopping {
            return give_back();
        }
        match &self.order {
            Order::Wait => {
                let waited = self.online_since.is_some_and(|since| now >= since.plus(WAIT_PATIENCE));
                if waited && !self.ours { give_back() } else { None }
            }
            Order::Free => give_back(),
            Order::Hold(setpoint) => {
                let demand = setpoint.demand();
                let rejected = self.rejected.as_ref().is_some_and(|r| {
                    same(&r.demand, &demand) && r.cause == *setpoint.cause() && r.until.is_none_or(|until| now < until)
                });
                let standing = demand.is_standing();
                if rejected || (!standing && now >= setpoint.end().mono) {
                    return give_back();
                }
                let on_end = setpoint.on_end();
                let kept = self.stays.filter(|(kept, until)| now < *until && !is_tighter(Some(*kept), &demand));
                // A standing setting is written beside what is held: it neither ends nor replaces it.
                Some(Aim {
                    kind: if standing { Kind::Standing } else { Kind::Hold },
                    demand: kept.map_or(demand, |(kept, _)| kept),
                    on_end,
                    cause: Some(setpoint.cause().clone()),
                    end: (!standing).then(|| setpoint.end()),
                    protects: !standing && (on_end != Demand::Release || setpoint.protects()),
                    is_limited: !standing && setpoint.protects(),
                    waits: kept.is_some(),
                })
            }
        }
    }

    /// What comes next. `reachable`: the device is found and answers, or why not.
    pub(super) fn tick(&mut self, now: Mono, reachable: Result<(), &str>) -> (Vec<Effect>, Do) {
        let (effects, mut next) = self.turn(now, reachable);
        if let (Do::Rest(wake), Order::Hold(_)) = (&mut next, &self.order) {
            // What waits for its time is looked at again then.
            let again = self.rejected.as_ref().and_then(|r| r.until).filter(|_| reachable.is_ok());
            let looser = self.stays.map(|(_, until)| until);
            *wake = [*wake, again, looser].into_iter().flatten().filter(|at| *at > now).min().or(*wake);
        }
        (effects, next)
    }

    fn turn(&mut self, now: Mono, reachable: Result<(), &str>) -> (Vec<Effect>, Do) {
        let mut effects = Vec::new();
        let Some(mut aim) = self.aim(now) else {
            self.work = None;
            return (effects, Do::Rest(self.wake_of_nothing()));
        };
        if aim.kind != Kind::End
            && let Some(reason) = walls::refusal(&self.spec, &aim.demand, reachable.is_ok().then_some(self.failsafe))
        {
            effects.push(fate(&aim, Stage::Failed(reason), Vec::new()));
            self.reject(&aim, None, 0);
            self.work = None;
            match self.aim(now) {
                Some(back) => aim = back,
                None => return (effects, Do::Rest(None)),
            }
        }
        self.take_up(now, aim);
        let Some(work) = &mut self.work else { return (effects, Do::Rest(None)) };
        let end = work.aim.end.map(|e| e.mono);
        let pair = (work.aim.demand, work.aim.on_end);
        if work.aim.kind == Kind::Hold && self.held.is_some_and(|h| h.0 == pair.0 && h.1 != pair.1) {
            self.held = Some(pair);
            effects.push(Effect::Remember(pair.0, pair.1));
        }
        let earliest = |a: Option<Mono>, b: Option<Mono>| [a, b].into_iter().flatten().min();

        let trouble = reachable.err().map(str::to_owned).or_else(|| work.unreached.clone());
        if let Some(why) = &trouble
            && work.aim.kind != Kind::End
            && work.told == Told::Nothing
            && matches!(work.phase, Phase::Write | Phase::Precheck)
        {
            let due = work.since.plus(OFFLINE_PATIENCE);
            if now >= due {
                work.told = Told::Failed;
                effects.push(fate(&work.aim, Stage::Failed(format!("device is offline: {why}")), Vec::new()));
            } else if reachable.is_err() {
                return (effects, Do::Rest(earliest(Some(due), end)));
            }
        }
        if reachable.is_err() {
            return (effects, Do::Rest(end));
        }
        if now < work.not_before {
            return (effects, Do::Rest(earliest(Some(work.not_before), end)));
        }
        let demand = work.aim.demand;
        let lease = work.aim.end.map_or(NO_END, |e| e.mono.since(now));
        let is_looked = work.looked.is_some_and(|at| now.since(at) < FRESH_LOOK);
        let next = match work.phase {
            Phase::Precheck => Do::Check { demand, lease },
            Phase::Write => Self::write(&mut self.held, &mut self.ours, work, lease),
            Phase::Settling(until) if now >= until => Do::Check { demand, lease },
            Phase::Settling(until) => Do::Rest(Some(until)),
            Phase::Kept => {
                let recheck = work.rechecks.front().copied();
                if work.refresh_at.is_some_and(|at| now >= at) {
                    if is_looked { Do::Refresh { demand, lease } } else { Do::Check { demand, lease } }
                } else if recheck.is_some_and(|at| now >= at) {
                    Do::Check { demand, lease }
                } else {
                    Do::Rest(earliest(earliest(work.refresh_at, recheck), end))
                }
            }
        };
        (effects, next)
    }

    fn write(held: &mut Option<(Demand, Demand)>, ours: &mut bool, work: &mut Work, lease: Duration) -> Do {
        let aim = &work.aim;
        let spend = spend(aim, held.map(|(demand, _)| demand));
        let mut remember = None;
        work.before = (*held, *ours);
        if aim.kind == Kind::Hold && aim.demand != Demand::Release {
            let pair = (aim.demand, aim.on_end);
            remember = (*held != Some(pair)).then_some(pair);
            *held = Some(pair);
            *ours = true;
        }
        Do::Write { demand: aim.demand, lease, remember, spend }
    }

    /// Of the last [`Do::Write`] nothing was journalled or sent: the device holds what it held before.
    pub(super) fn unsent(&mut self) {
        if let Some(work) = &self.work {
            (self.held, self.ours) = work.before;
        }
    }

    pub(super) fn reject(&mut self, aim: &Aim, until: Option<Mono>, failures: u32) {
        let Some(cause) = aim.cause.clone() else { return };
        self.rejected = Some(Rejected { demand: aim.demand, cause, until, failures });
    }

    fn wake_of_nothing(&self) -> Option<Mono> {
        match self.order {
            Order::Wait if self.held.is_some() && !self.ours => self.online_since.map(|t| t.plus(WAIT_PATIENCE)),
            _ => None,
        }
    }

    /// Make `aim` the present work, keeping what is known when it is the same.
    fn take_up(&mut self, now: Mono, aim: Aim) {
        if let Some(work) = &mut self.work
            && work.aim.kind == aim.kind
            && work.aim.demand == aim.demand
        {
            if work.aim.cause != aim.cause {
                // Somebody else wants the same: proof from the wire, no write.
                work.told = Told::Nothing;
                work.since = now;
                if work.phase == Phase::Kept {
                    work.phase = Phase::Precheck;
                }
            }
            work.aim = aim;
            return;
        }
        let maybe_so_already = match aim.kind {
            Kind::Standing => true,
            Kind::End => !self.ours,
            Kind::Hold => {
                aim.demand == Demand::Release && self.held.is_none()
                    || self.held.is_some_and(|(demand, _)| demand == aim.demand)
            }
        };
        // A demand that changes all the time is one wish: how long it waits is counted from the first.
        let again =
            self.rejected.as_ref().filter(|r| same(&r.demand, &aim.demand) && aim.cause.as_ref() == Some(&r.cause));
        let failures = again.map_or(0, |r| r.failures);
        let waits_since = self.work.as_ref().filter(|w| w.told == Told::Nothing && w.aim.cause == aim.cause);
        let since = waits_since.map_or(now, |w| w.since);
        self.work = Some(Work {
            aim,
            phase: if maybe_so_already { Phase::Precheck } else { Phase::Write },
            since,
            not_before: now,
            failures,
            told: if failures > 0 { Told::Failed } else { Told::Nothing },
            unreached: None,
            refresh: None,
            refresh_at: None,
            rechecks: VecDeque::new(),
            looked: None,
            before: (self.held, self.ours),
        });
    }
}

/// Equal, where "not a number" equals itself: what was refused once is not asked about for ever.
fn same(a: &Demand, b: &Demand) -> bool {
    #[expect(clippy::eq_op, reason = "only what is not a number differs from itself")]
    let odd = a != a && b != b;
    odd || a == b
}

/// Is `to` at least as careful as what is held; nothing held is the widest.
fn is_tighter(held: Option<Demand>, to: &Demand) -> bool {
    match (held, to) {
        (None | Some(Demand::Release), _) | (_, Demand::ChargerOff | Demand::Release) => true,
        (_, Demand::BatteryPower { watts, .. }) if *watts == 0.0 => true,
        (Some(Demand::PowerLimit { watts: from }), Demand::PowerLimit { watts: to }) => *to <= from,
        (
            Some(Demand::ChargerCurrent { amps: from, .. } | Demand::ChargerLimit { amps: from }),
            Demand::ChargerCurrent { amps: to, .. } | Demand::ChargerLimit { amps: to },
        ) => *to <= from,
        (Some(Demand::BatteryPower { watts: from, .. }), Demand::BatteryPower { watts: to, .. }) => {
            from.signum() == to.signum() && to.abs() <= from.abs()
        }
        _ => false,
    }
}

/// May this wear the device. Stopping, holding at 0 W and the way back always; a limit that protects as long as it
/// tightens; all else within the budget, and a looser limit slower than that.
fn spend(aim: &Aim, held: Option<Demand>) -> Spend {
    let is_safe = aim.demand == Demand::Release || is_stop(&aim.demand);
    if aim.kind == Kind::End || is_safe || aim.protects && is_tighter(held, &aim.demand) {
        return Spend::Free;
    }
    // What was begun is gone on with at once.
    let gap = if held == Some(aim.demand) { Duration::ZERO } else { GAP };
    Spend::Budget { gap: if aim.is_limited && !gap.is_zero() { GAP_LOOSER } else { gap } }
}

/// Does it stop what the device does.
pub(super) fn is_stop(demand: &Demand) -> bool {
    matches!(demand, Demand::ChargerOff) || matches!(demand, Demand::BatteryPower { watts, .. } if *watts == 0.0)
}

pub(super) fn fate(aim: &Aim, stage: Stage, evidence: Vec<Evidence>) -> Effect {
    Effect::Outcome { cause: aim.cause.clone(), demand: aim.demand, stage, evidence }
}
