//! Command intents and how each fares: what the tracker of commands is told.

use super::arbiter::{Decision, Holder};
use super::effect::{EffectWatch, Energy};
use super::remote::HeldBack;
use super::tell::Budget;
use crate::model::{
    Action, Applied, DeviceId, Intent, IntentKey, IntentUpdate, Mono, Outcome, Point, Progress, Sample, Stage,
    Timestamp, UplinkName,
};
use std::time::Duration;

/// How often it is told what a running command has delivered: no more than this is lost beside the store's own interval.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Changes of what is applied, and the proofs of them, are told at once so often (each); then one per [`CHANGE_EVERY`], always the
/// newest: a limit that moves with the load, or a ramp, must not flood the sender.
const CHANGES_AT_ONCE: u32 = 4;
const CHANGE_EVERY: Duration = Duration::from_secs(10);

/// Where a command stands with control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was decided yet.
    New,
    Active,
    Suspended,
    /// The owner's pause holds it back.
    Paused,
}

#[derive(Debug)]
struct Claim {
    intent: Intent,
    phase: Phase,
    applied: Applied,
    effect: EffectWatch,
    energy: Energy,
    /// The sum that was told last, and when; `None`: it has not acted yet.
    told: Option<(Mono, f64)>,
    /// What is applied now, where that is not told yet.
    newest: Option<Applied>,
    /// Since it took the device it was verified; and proofs since then that are not told yet: the newest.
    is_verified: bool,
    proof: Option<IntentUpdate>,
    changes: Budget,
    proofs: Budget,
}

/// All running commands.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<Claim>);

impl Claims {
    /// Their intents.
    pub(crate) fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.0.iter().map(|c| &c.intent)
    }

    /// A new command. Of two commands of one rank on a device the last accepted stays; standing settings and setpoints do
    /// not touch each other. The same key again changes nothing.
    pub(crate) fn add(&mut self, intent: Intent, now: Mono, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        if self.0.iter().any(|c| c.intent.key == intent.key) {
            return;
        }
        let rivals = |c: &Claim| {
            c.intent.device == intent.device
                && c.intent.rank == intent.rank
                && c.intent.action.is_standing() == intent.action.is_standing()
        };
        if let Some(newer) = self.0.iter().find(|c| rivals(c) && c.intent.accepted > intent.accepted) {
            // Happens when commands are recovered after a restart in any order.
            let progress = Progress::Superseded(newer.intent.key.to_string());
            updates.push(IntentUpdate { key: intent.key, at, progress });
            return;
        }
        self.0.retain_mut(|c| {
            let stays = !rivals(c);
            if !stays {
                c.close(now, at, updates);
                let progress = Progress::Superseded(intent.key.to_string());
                updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress });
            }
            stays
        });
        self.0.push(Claim {
            intent,
            phase: Phase::New,
            applied: Applied::default(),
            effect: EffectWatch::default(),
            energy: Energy::default(),
            told: None,
            newest: None,
            is_verified: false,
            proof: None,
            changes: Budget::new(CHANGES_AT_ONCE, CHANGE_EVERY),
            proofs: Budget::new(CHANGES_AT_ONCE, CHANGE_EVERY),
        });
    }

    /// End those that `ends` names.
    pub(crate) fn end(
        &mut self,
        now: Mono,
        at: Timestamp,
        updates: &mut Vec<IntentUpdate>,
        ends: impl Fn(&Intent) -> bool,
    ) {
        self.over(now, at, updates, ends, |delivered_wh| Progress::Ended { delivered_wh });
    }

    /// End those that `ends` names before their time, and say why.
    pub(crate) fn cut(
        &mut self,
        now: Mono,
        at: Timestamp,
        updates: &mut Vec<IntentUpdate>,
        why: &str,
        ends: impl Fn(&Intent) -> bool,
    ) {
        self.over(now, at, updates, ends, |delivered_wh| Progress::Cut { why: why.to_owned(), delivered_wh });
    }

    fn over(
        &mut self,
        now: Mono,
        at: Timestamp,
        updates: &mut Vec<IntentUpdate>,
        ends: impl Fn(&Intent) -> bool,
        progress: impl Fn(Option<f64>) -> Progress,
    ) {
        self.0.retain_mut(|c| {
            let is_over = ends(&c.intent);
            if is_over {
                c.tell_newest(at, updates);
                c.energy.pause(now);
                updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress: progress(c.energy.wh()) });
            }
            !is_over
        });
    }

    /// Does this one still run.
    pub(crate) fn runs(&self, key: &IntentKey) -> bool {
        self.0.iter().any(|c| c.intent.key == *key)
    }

    /// These wait for the end of the owner's pause.
    pub(crate) fn hold_back(&mut self, held: &HeldBack, now: Mono, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        for c in &mut self.0 {
            if c.phase != Phase::Paused && held.intents.iter().any(|i| i.key == c.intent.key) {
                c.phase = Phase::Paused;
                c.effect = EffectWatch::default();
                c.energy.pause(now);
                let progress = Progress::Suspended(held.reason.clone());
                updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress });
            }
        }
    }

    /// The pause has another end: those who wait for it are told again.
    pub(crate) fn pause_changed(&mut self) {
        for c in self.0.iter_mut().filter(|c| c.phase == Phase::Paused) {
            c.phase = Phase::Suspended;
        }
    }

    /// Tell what each has delivered so far, every some seconds: it must outlive this process.
    pub(crate) fn tell_energy(&mut self, now: Mono, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        for c in self.0.iter_mut().filter(|c| c.told.is_some_and(|(told, _)| now.since(told) >= TELL_EVERY)) {
            if let Some(wh) = c.energy.wh().filter(|wh| c.told.is_some_and(|(_, told)| told < *wh)) {
                c.told = Some((now, wh));
                updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress: Progress::Delivered { wh } });
            }
        }
    }

    /// End all of a source on a device.
    pub(crate) fn release(
        &mut self,
        source: &UplinkName,
        device: &DeviceId,
        now: Mono,
        at: Timestamp,
        updates: &mut Vec<IntentUpdate>,
    ) {
        self.end(now, at, updates, |i| {
            i.device == *device && matches!(&i.key, IntentKey::Command { uplink, .. } if uplink == source)
        });
    }

    /// The next instant at which one of them ends.
    pub(crate) fn next_end(&self) -> Option<Mono> {
        self.0.iter().map(|c| c.intent.deadline).min()
    }

    /// A device was read.
    pub(crate) fn sample(&mut self, sample: &Sample, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        for c in self.0.iter_mut().filter(|c| c.phase == Phase::Active && c.intent.device == sample.device) {
            c.energy.sample(&c.intent.action, sample.mono, sample.num(&Point::PowerW));
            if c.effect.sample(sample) {
                updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress: Progress::Effect });
            }
        }
    }

    /// A device reports. A command that failed, or that something else undid, is over; so is a standing setting that was
    /// verified.
    pub(crate) fn outcome(&mut self, outcome: &Outcome, now: Mono, updates: &mut Vec<IntentUpdate>) {
        let Some(position) = self.0.iter().position(|c| Some(&c.intent.key) == outcome.cause.as_ref()) else { return };
        let Some(claim) = self.0.get_mut(position) else { return };
        let (key, at) = (claim.intent.key.clone(), outcome.at);
        if matches!(outcome.stage, Stage::Failed(_) | Stage::Reverted(_)) {
            claim.close(now, at, updates);
        }
        let progress = Progress::Device { stage: outcome.stage.clone(), evidence: outcome.evidence.clone() };
        let update = IntentUpdate { key: key.clone(), at, progress };
        let is_again = outcome.stage == Stage::Verified && std::mem::replace(&mut claim.is_verified, true);
        if is_again && !claim.proofs.take(now) {
            claim.proof = Some(update);
        } else {
            claim.proof = None;
            updates.push(update);
        }
        match &outcome.stage {
            Stage::Written => {}
            Stage::Verified if claim.intent.action.is_standing() => self.end(now, at, updates, |i| i.key == key),
            Stage::Verified => claim.effect.verified(outcome.demand, now),
            Stage::Failed(_) | Stage::Reverted(_) => {
                self.0.remove(position);
            }
        }
    }

    /// What was decided on the device of each. `power` is what the device does now, as far as known.
    pub(crate) fn settle(
        &mut self,
        device: &DeviceId,
        decision: &Decision<'_>,
        power: Option<f64>,
        now: Mono,
        at: Timestamp,
        updates: &mut Vec<IntentUpdate>,
    ) {
        for c in self.0.iter_mut().filter(|c| c.intent.device == *device) {
            let key = &c.intent.key;
            if let Some(holder) = decision.holder.as_ref().filter(|h| h.key == *key) {
                c.hold(holder, power, now, at, updates);
            } else if c.phase != Phase::Suspended
                && let Some(stronger) = decision.winner
                && decision.losers.iter().any(|i| i.key == *key)
            {
                c.phase = Phase::Suspended;
                c.effect = EffectWatch::default();
                c.energy.pause(now);
                let progress = Progress::Suspended(format!("{}: {}", stronger.rank, stronger.key));
                updates.push(IntentUpdate { key: key.clone(), at, progress });
            }
        }
        self.0.retain_mut(|c| {
            let Some((_, why)) = decision.impossible.iter().find(|(i, _)| i.key == c.intent.key) else { return true };
            c.close(now, at, updates);
            let progress = Progress::Device { stage: Stage::Failed(why.clone()), evidence: Vec::new() };
            updates.push(IntentUpdate { key: c.intent.key.clone(), at, progress });
            false
        });
    }

    /// A standing setting is on its way to its device.
    pub(crate) fn standing_sent(&mut self, key: &IntentKey, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        for c in self.0.iter_mut().filter(|c| c.intent.key == *key && c.phase != Phase::Active) {
            c.phase = Phase::Active;
            if let Action::SetReserve { soc_pct } = c.intent.action {
                c.applied.params.insert("soc_pct".to_owned(), soc_pct);
            }
            updates.push(IntentUpdate { key: key.clone(), at, progress: Progress::Active(c.applied.clone()) });
        }
    }
}

impl Claim {
    /// It is over in a way that says nothing of energy: what it has delivered is told before.
    fn close(&mut self, now: Mono, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        self.tell_newest(at, updates);
        self.energy.pause(now);
        if let Some(wh) = self.energy.wh() {
            updates.push(IntentUpdate { key: self.intent.key.clone(), at, progress: Progress::Delivered { wh } });
        }
    }

    fn hold(&mut self, holder: &Holder, power: Option<f64>, now: Mono, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        if self.phase != Phase::Active {
            self.energy.begin(&self.intent.action, now, power);
            self.told.get_or_insert((now, 0.0));
            (self.newest, self.proof, self.is_verified) = (None, None, false);
        } else {
            if self.proof.is_some() && self.proofs.take(now) {
                updates.extend(self.proof.take());
            }
            if !differs(&self.applied, &holder.applied) {
                self.newest = None;
                return;
            }
            if !self.changes.take(now) {
                self.newest = Some(holder.applied.clone());
                return;
            }
        }
        self.phase = Phase::Active;
        self.newest = Some(holder.applied.clone());
        self.tell_applied(at, updates);
    }

    fn tell_applied(&mut self, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        if let Some(applied) = self.newest.take() {
            self.applied = applied;
            let progress = Progress::Active(self.applied.clone());
            updates.push(IntentUpdate { key: self.intent.key.clone(), at, progress });
        }
    }

    /// Its last word carries the newest of everything.
    fn tell_newest(&mut self, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        if self.phase == Phase::Active {
            self.tell_applied(at, updates);
            updates.extend(self.proof.take());
        }
    }
}

/// Is the change worth telling: another limit, another parameter, or more than noise in a number.
fn differs(old: &Applied, new: &Applied) -> bool {
    old.limited_by != new.limited_by
        || old.params.len() != new.params.len()
        || old.params.iter().zip(&new.params).any(|((k0, v0), (k1, v1))| {
            let noise = if k0 == "power_w" { (v0.abs() * 0.01).max(25.0) } else { 0.05 };
            k0 != k1 || (v0 - v1).abs() >= noise
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Demand, LeaseEnd, Params, Rank};

    #[test]
    fn a_limit_that_moves_all_the_time_is_no_flood_and_the_end_carries_the_newest() {
        let at = Timestamp::from_ms(0);
        let (key, device): (_, DeviceId) = (IntentKey::Limit("any"), "battery".parse().unwrap());
        let end = LeaseEnd { mono: Mono::from_ms(1_000_000), wall: at };
        let action = Action::Discharge { power_w: None, min_soc_pct: None, max_soc_pct: None };
        let intent = Intent {
            key: key.clone(),
            device: device.clone(),
            action: action.clone(),
            rank: Rank::Command,
            source: String::new(),
            accepted: 1,
            since: at,
            ends_at: at,
            deadline: end.mono,
            why: None,
        };
        let (mut claims, mut updates) = (Claims::default(), Vec::new());
        claims.add(intent, Mono::from_ms(0), at, &mut updates);
        for s in 1..=609u32 {
            let now = Mono::from_ms(u64::from(s) * 1000);
            let demand = Demand::BatteryPower { watts: f64::from(s) * 100.0, grid: true };
            let applied =
                Applied { params: Params::from([("power_w".to_owned(), f64::from(s) * 100.0)]), limited_by: None };
            let holder = Holder {
                key: key.clone(),
                rank: Rank::Command,
                source: String::new(),
                asked: action.clone(),
                end,
                demand,
                on_end: Demand::Release,
                applied,
            };
            let decision = Decision { holder: Some(holder), ..Decision::default() };
            claims.settle(&device, &decision, None, now, at, &mut updates);
            let stage = Stage::Verified;
            let outcome =
                Outcome { device: device.clone(), cause: Some(key.clone()), demand, at, stage, evidence: vec![] };
            claims.outcome(&outcome, now, &mut updates);
        }
        let count = |updates: &[IntentUpdate], from: &str| {
            updates.iter().filter(|u| format!("{:?}", u.progress).starts_with(from)).count()
        };
        let (applied, proofs) = (count(&updates, "Active"), count(&updates, "Device"));
        // The first, 4 at once, then 6 in a minute, for ten minutes.
        assert!((60..=65).contains(&applied) && (60..=65).contains(&proofs), "{applied} and {proofs}");
        updates.clear();
        claims.end(Mono::from_ms(609_500), at, &mut updates, |_| true);
        let Progress::Active(last) = &updates[0].progress else { panic!("{updates:?}") };
        assert_eq!(last.params["power_w"], 60_900.0);
        assert!(matches!(updates.last().map(|u| &u.progress), Some(Progress::Ended { .. })));
    }
}
