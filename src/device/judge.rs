//! What came of a write or a look, and what follows from it: the second half of the keeper; pure.

use super::apply::{Keeper, fate, is_stop};
use super::words::{Aim, Checked, Effect, Kind, Looked, Phase, Told, Trouble, Wrote};
use crate::model::{Demand, Evidence, IntentKey, Mono, Severity, Stage};
use std::time::Duration;

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

impl Keeper {
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
                if work.aim.kind != Kind::End && work.told != Told::Verified && !work.aim.waits {
                    return vec![fate(&work.aim, Stage::Written, wrote.fallback)];
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
            Err(Trouble::Unsafe(seen)) => {
                work.phase = Phase::Write;
                let reason = read_instead(&seen.evidence);
                if work.failures > 0 {
                    self.is_unsafe(&reason, vec![seen.evidence])
                } else {
                    self.failed(now, reason, Vec::new())
                }
            }
            Err(Trouble::Later(until)) => self.stay(now, until),
            Err(Trouble::Spent { why, until }) => self.spent(now, why, until),
        }
    }

    /// What is ordered has to wait: the device stays at what it holds, which is watched further.
    fn stay(&mut self, now: Mono, until: Mono) -> Vec<Effect> {
        let wanted = self.work.as_ref().map(|w| w.aim.demand);
        match self.held {
            Some((kept, _)) if wanted != Some(kept) => {
                self.stays = Some((kept, until));
                self.work = None;
            }
            _ => {
                if let Some(work) = &mut self.work {
                    work.phase = Phase::Write;
                    work.not_before = until.max(now.plus(Duration::from_secs(1)));
                }
            }
        }
        Vec::new()
    }

    /// The budget is used up: a limit that nobody asked for stays as tight as it is; whoever asked gets an answer. What a
    /// plan has stopped stays stopped: to give it back would let a car charge by itself, and would be two more writes for
    /// each cloud.
    fn spent(&mut self, now: Mono, why: String, until: Mono) -> Vec<Effect> {
        let Some(work) = &self.work else { return Vec::new() };
        let (aim, is_told) = (work.aim.clone(), work.told == Told::Failed);
        let is_stopped = self.held.is_some_and(|(held, _)| is_stop(&held)) && !is_stop(&aim.demand);
        match aim.cause {
            Some(IntentKey::Limit(_)) if self.held.is_some() => return self.stay(now, until),
            Some(IntentKey::Plan(_)) if is_stopped => {
                let mut effects = self.stay(now, until);
                effects.extend((!is_told).then(|| fate(&aim, Stage::Failed(why), Vec::new())));
                return effects;
            }
            _ => {}
        }
        self.reject(&aim, Some(until), 1);
        self.work = None;
        if is_told { Vec::new() } else { vec![fate(&aim, Stage::Failed(why), Vec::new())] }
    }

    fn is_unsafe(&mut self, reason: &str, evidence: Vec<Evidence>) -> Vec<Effect> {
        let Some(work) = self.work.take() else { return Vec::new() };
        let why = format!(
            "the device's own fail-safe timer does not work ({reason}): set [device.control] accept_no_failsafe = true \
             to control it all the same"
        );
        self.reject(&work.aim, None, 0);
        vec![fate(&work.aim, Stage::Failed(why), evidence)]
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
            // These are of writes.
            Err(Trouble::Unsafe(_) | Trouble::Later(_) | Trouble::Spent { .. }) => return Vec::new(),
        };
        work.unreached = None;
        let accepted = self.spec.control.accept_no_failsafe || !matches!(work.aim.demand, Demand::BatteryPower { .. });
        let bad: Vec<&Checked> = checks.iter().filter(|c| !(c.ok || c.failsafe && accepted)).collect();
        let reason = bad.first().map(|c| read_instead(&c.evidence));
        if reason.is_none() {
            work.looked = Some(now);
        }
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
            (_, Some(reason)) if only_failsafe && work.failures > 0 => self.is_unsafe(&reason, evidence),
            (_, Some(reason)) => {
                work.phase = Phase::Write;
                self.failed(now, reason, evidence)
            }
        }
    }

    fn verified(&mut self, now: Mono, evidence: Vec<Evidence>) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let mut effects = Vec::new();
        if work.told != Told::Verified && !work.aim.waits {
            effects.push(fate(&work.aim, Stage::Verified, evidence));
        }
        if work.aim.kind == Kind::Hold {
            (self.rejected, self.stays) = (None, self.stays.filter(|_| work.aim.waits));
        }
        work.told = Told::Verified;
        work.failures = 0;
        work.phase = Phase::Kept;
        let is_kept = std::mem::take(&mut self.limit_alarm);
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
        if is_kept {
            effects.push(self.alarm("limit_refused", Severity::Info, "taken".into(), false));
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
            _ if protects(&work.aim) => slow(1, 60),
            _ => slow(10, 900),
        };
        work.not_before = now.plus(wait);
        if work.failures < 2 {
            return Vec::new();
        }
        if matches!(work.told, Told::Failed | Told::Reverted) {
            self.undo();
            return Vec::new();
        }
        work.told = Told::Failed;
        let mut effects = vec![fate(&work.aim, Stage::Failed(reason.clone()), evidence)];
        effects.extend(self.alarm_of_limit(&reason));
        effects.extend(self.alarm_of_release(reason));
        self.undo();
        effects
    }

    /// What could not be written whole, or not be proven, does not stay as it is: the device is led back, and it is tried
    /// again later. What protects is tried further as it is: half of it is better than none.
    fn undo(&mut self) {
        let Some(work) = &self.work else { return };
        if work.aim.kind == Kind::Hold && !work.aim.protects {
            let (aim, until, failures) = (work.aim.clone(), work.not_before, work.failures);
            self.reject(&aim, Some(until), failures);
            self.work = None;
        }
    }

    fn impossible(&mut self, now: Mono, why: String) -> Vec<Effect> {
        let Some(work) = &mut self.work else { return Vec::new() };
        let mut effects = Vec::new();
        if work.told != Told::Failed {
            effects.push(fate(&work.aim, Stage::Failed(why.clone()), Vec::new()));
        }
        work.told = Told::Failed;
        if work.aim.cause.is_some() && work.aim.kind != Kind::End {
            let aim = work.aim.clone();
            effects.extend(self.alarm_of_limit(&why));
            self.reject(&aim, None, 0);
            self.work = None;
        } else {
            work.not_before = now.plus(Duration::from_secs(60));
            effects.extend(self.alarm_of_release(why));
        }
        effects
    }

    /// A device that refuses what protects the fuse or the agreed export: nobody else would say so.
    fn alarm_of_limit(&mut self, reason: &str) -> Option<Effect> {
        let is_one = self.work.as_ref().is_some_and(|w| protects(&w.aim));
        if !is_one || std::mem::replace(&mut self.limit_alarm, true) {
            return None;
        }
        Some(self.alarm("limit_refused", Severity::Critical, reason.to_owned(), true))
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
            ("limit_refused", true) => {
                let id = &self.spec.id;
                format!("{id} does not take what protects the fuse or the agreed export: {reason}. derd keeps trying")
            }
            ("limit_refused", false) => format!("{} takes what it is told again", self.spec.id),
            ("release_failed", false) => format!("{} is back at its baseline", self.spec.id),
            _ => format!("something else changed {}: {reason}", self.spec.id),
        };
        Effect::Alarm { code, severity, text, raised }
    }
}

fn read_instead(e: &Evidence) -> String {
    format!("{} reads {}, written was {}", e.address, e.read, e.wrote)
}

/// Does a fuse or the agreed export depend on it: then what follows it is a tighter value, not the baseline.
fn protects(aim: &Aim) -> bool {
    aim.kind == Kind::Hold && aim.protects
}
