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
use super::words::{Aim, Checked, Do, Effect, Kind, Looked, Phase, Told, Trouble, Work, Wrote};
use crate::model::{Demand, DeviceSpec, Evidence, FailSafe, IntentKey, Mono, Order, Severity, Stage};
use std::collections::VecDeque;
use std::time::Duration;

/// An order that could not be written for so long is reported as failed; it is tried further while it stands.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(10);
/// How long control may take after a start before what an earlier run left behind is ended without it.
const WAIT_PATIENCE: Duration = Duration::from_secs(15);
/// When a verified setpoint is read back again: foreign controllers and firmware take over after about a minute.
const RECHECKS: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(120)];
/// So often later on, while it is held: a foreign hand may come at any time, and reading wears nothing.
const RECHECK_EVERY: Duration = Duration::from_secs(120);
/// So often where it protects a fuse or the agreed export.
const GUARD_EVERY: Duration = Duration::from_secs(5);
/// So often an hour a setpoint that something else changed is written again; one that protects is written always.
const REWRITES_AN_HOUR: usize = 3;
/// The longest pause before a setpoint that protects is written again.
const GUARD_PAUSE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
/// A lease for demands that have none: a standing setting, and what a device takes when a lease is over.
const NO_END: Duration = Duration::ZERO;

/// Keeps one device at what it was ordered.
#[derive(Debug)]
pub(super) struct Keeper {
    spec: DeviceSpec,
    failsafe: FailSafe,
    order: Order,
    /// A setpoint that this device must not or cannot take: it counts as if nobody wanted anything.
    rejected: Option<(Demand, IntentKey)>,
    /// What the device may hold, and what it shall take when nothing renews that.
    held: Option<(Demand, Demand)>,
    /// Did this run write it.
    ours: bool,
    online_since: Option<Mono>,
    stopping: bool,
    work: Option<Work>,
    reverts: VecDeque<Mono>,
    release_alarm: bool,
}

impl Keeper {
    pub(super) fn new(spec: DeviceSpec, held: Option<(Demand, Demand)>) -> Self {
        Self {
            spec,
            failsafe: FailSafe::None,
            order: Order::Wait,
            rejected: None,
            held,
            ours: false,
            online_since: None,
            stopping: false,
            work: None,
            reverts: VecDeque::new(),
            release_alarm: false,
        }
    }

    pub(super) fn set_order(&mut self, order: Order) {
        self.order = order;
    }

    pub(super) const fn holds_something(&self) -> bool {
        self.held.is_some()
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
        let back =
            |(_, on_end): (Demand, Demand)| Aim { kind: Kind::End, demand: on_end, on_end, cause: None, end: None };
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
                let rejected = self.rejected.as_ref().is_some_and(|(d, c)| same(d, &demand) && c == setpoint.cause());
                let standing = demand.is_standing();
                if rejected || (!standing && now >= setpoint.end().mono) {
                    return give_back();
                }
                // A standing setting is written beside what is held: it neither ends nor replaces it.
                Some(Aim {
                    kind: if standing { Kind::Standing } else { Kind::Hold },
                    demand,
                    on_end: setpoint.on_end(),
                    cause: Some(setpoint.cause().clone()),
                    end: (!standing).then(|| setpoint.end()),
                })
            }
        }
    }

    /// What comes next. `reachable`: the device is found and answers, or why not.
    pub(super) fn tick(&mut self, now: Mono, reachable: Result<(), &str>) -> (Vec<Effect>, Do) {
        let mut effects = Vec::new();
        let Some(mut aim) = self.aim(now) else {
            self.work = None;
            return (effects, Do::Rest(self.wake_of_nothing()));
        };
        if aim.kind != Kind::End
            && let Some(reason) = walls::refusal(&self.spec, &aim.demand, reachable.is_ok().then_some(self.failsafe))
        {
            effects.push(fate(&aim, Stage::Failed(reason), Vec::new()));
            self.rejected = aim.cause.map(|cause| (aim.demand, cause));
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
        let next = match work.phase {
            Phase::Precheck => Do::Check { demand, lease },
            Phase::Write => Self::write(&mut self.held, &mut self.ours, work, lease),
            Phase::Settling(until) if now >= until => Do::Check { demand, lease },
            Phase::Settling(until) => Do::Rest(Some(until)),
            Phase::Kept => {
                let recheck = work.rechecks.front().copied();
                if work.refresh_at.is_some_and(|at| now >= at) {
                    Self::write(&mut self.held, &mut self.ours, work, lease)
                } else if recheck.is_some_and(|at| now >= at) {
                    Do::Check { demand, lease }
                } else {
                    Do::Rest(earliest(earliest(work.refresh_at, recheck), end))
                }
            }
        };
        (effects, next)
    }

    fn write(held: &mut Option<(Demand, Demand)>, ours: &mut bool, work: &Work, lease: Duration) -> Do {
        let aim = &work.aim;
        let mut remember = None;
        if aim.kind == Kind::Hold && aim.demand != Demand::Release {
            let pair = (aim.demand, aim.on_end);
            remember = (*held != Some(pair)).then_some(pair);
            *held = Some(pair);
            *ours = true;
        }
        Do::Write { demand: aim.demand, lease, remember }
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
        let waits_since = self.work.as_ref().filter(|w| w.told == Told::Nothing && w.aim.cause == aim.cause);
        let since = waits_since.map_or(now, |w| w.since);
        self.work = Some(Work {
            aim,
            phase: if maybe_so_already { Phase::Precheck } else { Phase::Write },
            since,
            not_before: now,
            failures: 0,
            told: Told::Nothing,
            unreached: None,
            refresh: None,
            refresh_at: None,
            rechecks: VecDeque::new(),
        });
    }

    /// What became of a [`Do::Write`].
    pub(super) fn wrote(&mut self, now: Mono, result: Result<Wrote, Trouble>) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        match result {
            Ok(wrote) => {
                work.unreached = None;
                work.refresh = if work.aim.kind == Kind::Hold { wrote.refresh } else { None };
                work.refresh_at = work.refresh.map(|every| now.plus(every));
                if work.phase == Phase::Kept {
                    return Vec::new();
                }
                work.phase = Phase::Settling(now.plus(wrote.settle));
                if work.aim.kind != Kind::End && work.told != Told::Verified {
                    return vec![fate(&work.aim, Stage::Written, Vec::new())];
                }
                Vec::new()
            }
            Err(Trouble::Unreached(why)) => {
                work.phase = Phase::Write;
                work.not_before = now.plus(Duration::from_secs(1));
                work.unreached = Some(why);
                Vec::new()
            }
            Err(Trouble::Refused(why)) => {
                work.phase = Phase::Write;
                self.failed(now, why, Vec::new())
            }
            Err(Trouble::Impossible(why)) => self.impossible(now, why),
        }
    }

    /// What became of a [`Do::Check`].
    pub(super) fn checked(&mut self, now: Mono, result: Result<Looked, Trouble>) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let Looked { checks, refresh } = match result {
            Ok(looked) => looked,
            Err(Trouble::Unreached(why)) => {
                work.not_before = now.plus(Duration::from_secs(1));
                work.unreached = Some(why);
                return Vec::new();
            }
            Err(Trouble::Refused(why)) => {
                // What cannot be read back is not verified; a look that was only for thrift is left out.
                if matches!(work.phase, Phase::Precheck) {
                    work.phase = Phase::Write;
                    return Vec::new();
                }
                work.phase = Phase::Write;
                return self.failed(now, format!("the read-back was refused: {why}"), Vec::new());
            }
            Err(Trouble::Impossible(why)) => return self.impossible(now, why),
        };
        work.unreached = None;
        let accepted = self.spec.control.accept_no_failsafe || !matches!(work.aim.demand, Demand::BatteryPower { .. });
        let bad: Vec<&Checked> = checks.iter().filter(|c| !(c.ok || c.failsafe && accepted)).collect();
        let reason = bad.first().map(|c| {
            let e = &c.evidence;
            format!("{} reads {}, written was {}", e.address, e.read, e.wrote)
        });
        let only_failsafe = !bad.is_empty() && bad.iter().all(|c| c.failsafe);
        let evidence: Vec<Evidence> = checks.iter().map(|c| c.evidence.clone()).collect();
        match (work.phase, reason) {
            (Phase::Kept, None) => {
                while work.rechecks.front().is_some_and(|at| now >= *at) {
                    work.rechecks.pop_front();
                }
                if work.rechecks.is_empty() && work.aim.kind == Kind::Hold {
                    work.rechecks.push_back(now.plus(if protects(&work.aim) { GUARD_EVERY } else { RECHECK_EVERY }));
                }
                Vec::new()
            }
            (phase, None) => {
                if phase == Phase::Precheck && work.aim.kind == Kind::Hold && work.refresh.is_none() {
                    // It is so already, by an earlier write: how much of the device's timer is left nobody knows.
                    work.refresh = refresh;
                    work.refresh_at = refresh.map(|_| now);
                }
                self.verified(now, evidence)
            }
            (Phase::Precheck, Some(_)) => {
                work.phase = Phase::Write;
                Vec::new()
            }
            (Phase::Kept, Some(reason)) => self.reverted(now, reason, evidence),
            (_, Some(reason)) if only_failsafe && work.failures > 0 => {
                let why = format!(
                    "the device's own fail-safe timer does not work ({reason}): set [device.control] \
                     accept_no_failsafe = true to control it all the same"
                );
                let effects = vec![fate(&work.aim, Stage::Failed(why), evidence)];
                self.rejected = work.aim.cause.clone().map(|cause| (work.aim.demand, cause));
                self.work = None;
                effects
            }
            (_, Some(reason)) => {
                work.phase = Phase::Write;
                self.failed(now, reason, evidence)
            }
        }
    }

    fn verified(&mut self, now: Mono, evidence: Vec<Evidence>) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let mut effects = Vec::new();
        if work.told != Told::Verified {
            effects.push(fate(&work.aim, Stage::Verified, evidence));
        }
        work.told = Told::Verified;
        work.failures = 0;
        work.phase = Phase::Kept;
        let released = work.aim.kind == Kind::End || work.aim.demand == Demand::Release;
        // What was given back is the owner's to change.
        let rechecks = match work.aim.kind {
            _ if released => &[][..],
            Kind::Hold if protects(&work.aim) => &[GUARD_EVERY][..],
            _ => &RECHECKS[..],
        };
        work.rechecks = rechecks.iter().map(|after| now.plus(*after)).collect();
        if work.aim.kind == Kind::End {
            self.work = None;
        }
        self.ours = true;
        if released {
            if self.held.take().is_some() {
                effects.push(Effect::NotHeld);
            }
            self.ours = false;
            if std::mem::take(&mut self.release_alarm) {
                effects.push(self.alarm("release_failed", Severity::Info, "released".into(), false));
            }
        }
        effects
    }

    fn reverted(&mut self, now: Mono, reason: String, evidence: Vec<Evidence>) -> Vec<Effect> {
        self.reverts.retain(|at| now.since(*at) < HOUR);
        self.reverts.push_back(now);
        let Some(work) = &mut self.work else { return Vec::new() };
        work.phase = Phase::Write;
        work.failures = 0;
        work.rechecks.clear();
        work.refresh_at = None;
        let times = self.reverts.len();
        let guards = protects(&work.aim);
        work.not_before = if guards {
            now.plus((Duration::from_secs(1) * (1 << times.min(6).saturating_sub(1))).min(GUARD_PAUSE))
        } else if times > REWRITES_AN_HOUR {
            self.reverts.front().map_or(now, |first| first.plus(HOUR))
        } else {
            now.plus(Duration::from_secs(5) * (1 << times.min(4)))
        };
        let mut effects = Vec::new();
        if work.told != Told::Reverted {
            effects.push(fate(&work.aim, Stage::Reverted(reason.clone()), evidence));
        }
        work.told = Told::Reverted;
        if !guards || times <= REWRITES_AN_HOUR {
            effects.push(self.alarm("setpoint_reverted", Severity::Warning, reason, true));
        }
        effects
    }

    /// A write or its proof failed: once more soon, then it is reported and tried ever more slowly.
    fn failed(&mut self, now: Mono, reason: String, evidence: Vec<Evidence>) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        work.failures += 1;
        let slow = |first: u64, cap: u64| Duration::from_secs((first << work.failures.min(10)).min(cap));
        let wait = match (work.aim.kind, work.failures) {
            (_, 1) => Duration::from_secs(1),
            (Kind::End, _) => slow(1, 60),
            _ => slow(10, 900),
        };
        work.not_before = now.plus(wait);
        if work.failures < 2 || matches!(work.told, Told::Failed | Told::Reverted) {
            return Vec::new();
        }
        work.told = Told::Failed;
        let mut effects = vec![fate(&work.aim, Stage::Failed(reason.clone()), evidence)];
        effects.extend(self.alarm_of_release(reason));
        effects
    }

    fn impossible(&mut self, now: Mono, why: String) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let mut effects = Vec::new();
        if work.told != Told::Failed {
            effects.push(fate(&work.aim, Stage::Failed(why.clone()), Vec::new()));
        }
        work.told = Told::Failed;
        if let (Some(cause), true) = (work.aim.cause.clone(), work.aim.kind != Kind::End) {
            self.rejected = Some((work.aim.demand, cause));
            self.work = None;
        } else {
            work.not_before = now.plus(Duration::from_secs(60));
            effects.extend(self.alarm_of_release(why));
        }
        effects
    }

    fn alarm_of_release(&mut self, reason: String) -> Option<Effect> {
        let ends = self.work.as_ref().is_some_and(|w| w.aim.kind == Kind::End);
        if !ends || std::mem::replace(&mut self.release_alarm, true) {
            return None;
        }
        Some(self.alarm("release_failed", Severity::Critical, reason, true))
    }

    fn alarm(&self, code: &'static str, severity: Severity, reason: String, raised: bool) -> Effect {
        let text = match (code, raised) {
            ("release_failed", true) => {
                format!("{} does not go back to its baseline: {reason}. derd keeps trying", self.spec.id)
            }
            ("release_failed", false) => format!("{} is back at its baseline", self.spec.id),
            _ => format!("something else changed {}: {reason}", self.spec.id),
        };
        Effect::Alarm { code, severity, text, raised }
    }
}

/// Equal, where "not a number" equals itself: what was refused once is not asked about for ever.
fn same(a: &Demand, b: &Demand) -> bool {
    #[expect(clippy::eq_op, reason = "only what is not a number differs from itself")]
    let odd = a != a && b != b;
    odd || a == b
}

/// Does a fuse or the agreed export depend on it: then what follows it is a tighter value, not the baseline.
fn protects(aim: &Aim) -> bool {
    aim.kind == Kind::Hold && aim.on_end != Demand::Release
}

fn fate(aim: &Aim, stage: Stage, evidence: Vec<Evidence>) -> Effect {
    Effect::Outcome { cause: aim.cause.clone(), demand: aim.demand, stage, evidence }
}
