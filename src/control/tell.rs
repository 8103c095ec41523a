//! When a decision is worth telling, and how often: live always, into the journal within bounds. Pure.

use super::core::is_other;
use super::effect::EffectWatch;
use super::say::{Scene, Stance};
use super::view::Freshness;
use crate::model::{
    Decided, Demand, DeviceState, IntentKey, LeaseState, Mono, Order, Outcome, Sample, Stage, Timestamp,
};
use std::sync::Arc;
use std::time::Duration;

/// A change of nothing but numbers (or of a lease that does well) goes into the journal so often.
const NUMBERS_EVERY: Duration = Duration::from_secs(60);
/// So many changes of reasons go into the journal at once; then one per [`REASONS_EVERY`], so that flapping cannot
/// write a card full: the last one always comes.
const REASONS_AT_ONCE: u32 = 20;
const REASONS_EVERY: Duration = Duration::from_secs(60);
/// A wall-clock end that is worked out anew wavers by rounding.
const SAME_END_MS: i64 = 1500;

/// How much a decision changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Change {
    #[default]
    None,
    /// For the live view only.
    Trifle,
    Number,
    Reason,
}

/// How far the device got with what it was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lease {
    pub(super) cause: Option<IntentKey>,
    pub(super) demand: Demand,
    pub(super) state: LeaseState,
    pub(super) at: Timestamp,
    /// Why it failed.
    pub(super) reason: String,
    proof: String,
}

impl Lease {
    fn new(outcome: &Outcome) -> Self {
        let (state, reason) = match &outcome.stage {
            Stage::Written => (LeaseState::Written, ""),
            Stage::Verified => (LeaseState::Verified, ""),
            Stage::Failed(why) => (LeaseState::Failed, why.as_str()),
            Stage::Reverted(why) => (LeaseState::Reverted, why.as_str()),
        };
        let proof = |e: &crate::model::Evidence| format!("{} {}: wrote {}, read {}", e.via, e.address, e.wrote, e.read);
        Self {
            cause: outcome.cause.clone(),
            demand: outcome.demand,
            state,
            at: outcome.at,
            reason: reason.to_owned(),
            proof: outcome.evidence.iter().map(proof).collect::<Vec<_>>().join("; "),
        }
    }

    const fn is_fault(&self) -> bool {
        matches!(self.state, LeaseState::Failed | LeaseState::Reverted)
    }

    /// For the trace: whose, the reason, the proof.
    pub(super) fn text(&self) -> String {
        let what = match self.state {
            LeaseState::Written => "the device acknowledged the writes",
            LeaseState::Verified => "read back from the device",
            LeaseState::Held => "the effect is seen in its power",
            LeaseState::Failed | LeaseState::Reverted => &self.reason,
        };
        let whose = self.cause.as_ref().map_or_else(|| "release".to_owned(), ToString::to_string);
        let proof = if self.proof.is_empty() { String::new() } else { format!(" ({})", self.proof) };
        format!("{whose}: {what}{proof}")
    }
}

/// What a decision is compared by: small values, no texts.
#[derive(Debug, PartialEq)]
struct Mark {
    stance: Stance,
    state: DeviceState,
    is_stale: bool,
    holder: Option<IntentKey>,
    limited_by: Option<String>,
    steps: Vec<&'static str>,
    losers: Vec<IntentKey>,
    impossible: Vec<IntentKey>,
    grid: Option<(bool, Option<Freshness>)>,
    paused: Vec<IntentKey>,
    is_soc_known: Option<bool>,
    is_blocked: bool,
    demand: Option<Demand>,
    end: Option<Timestamp>,
    why: Option<Arc<str>>,
}

impl Mark {
    fn new(s: &Scene<'_>) -> Self {
        let d = s.decision;
        Self {
            stance: s.stance,
            state: s.state,
            is_stale: s.seen.fresh == Freshness::Stale,
            holder: d.holder.as_ref().map(|h| h.key.clone()),
            limited_by: d.holder.as_ref().and_then(|h| h.applied.limited_by.clone()),
            steps: d.steps.iter().map(|s| s.name).collect(),
            losers: d.losers.iter().map(|i| i.key.clone()).collect(),
            impossible: d.impossible.iter().map(|(i, _)| i.key.clone()).collect(),
            grid: s.grid_state(),
            paused: d.paused.iter().map(|i| i.key.clone()).collect(),
            is_soc_known: s.needs_soc().then_some(s.seen.soc_pct.is_some()),
            is_blocked: s.blocked.is_some(),
            demand: demand(s),
            end: end(s),
            why: why(s).cloned(),
        }
    }

    /// Compares without building anything: this runs for every device in every cycle.
    fn change(&self, s: &Scene<'_>) -> Change {
        let d = s.decision;
        let is_same = self.stance == s.stance
            && self.state == s.state
            && self.is_stale == (s.seen.fresh == Freshness::Stale)
            && self.is_blocked == s.blocked.is_some();
        if !is_same {
            return Change::Reason;
        }
        if s.stance != Stance::Controlled {
            return Change::None;
        }
        let is_same = self.holder.as_ref() == d.holder.as_ref().map(|h| &h.key)
            && self.limited_by.as_deref() == d.holder.as_ref().and_then(|h| h.applied.limited_by.as_deref())
            && self.steps.iter().eq(d.steps.iter().map(|s| &s.name))
            && self.losers.iter().eq(d.losers.iter().map(|i| &i.key))
            && self.paused.iter().eq(d.paused.iter().map(|i| &i.key))
            // A command that cannot be done is gone with the next cycle: that is no news.
            && d.impossible.iter().all(|(i, _)| self.impossible.contains(&i.key))
            && self.grid == s.grid_state()
            && self.is_soc_known == s.needs_soc().then_some(s.seen.soc_pct.is_some());
        if !is_same {
            return Change::Reason;
        }
        let is_other = match (self.demand, demand(s)) {
            (Some(old), Some(new)) => is_other(old, new),
            (old, new) => old != new,
        };
        let is_moved = match (self.end, end(s)) {
            (Some(old), Some(new)) => (old.ms() - new.ms()).abs() > SAME_END_MS,
            (old, new) => old != new,
        };
        // A plan says the same for hours, from one text: most often the first look finds it.
        let is_reworded = match (&self.why, why(s)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && old != new,
            (old, new) => old.is_some() != new.is_some(),
        };
        if is_other || is_moved || is_reworded { Change::Number } else { Change::None }
    }
}

fn demand(s: &Scene<'_>) -> Option<Demand> {
    match (&s.decision.holder, s.order) {
        (Some(holder), _) => Some(holder.demand),
        // The baseline, or a standing setting in its place: all the same.
        (None, Order::Hold(_)) => Some(Demand::Release),
        (None, Order::Free | Order::Wait) => None,
    }
}

/// A limit holds as long as it is needed, a plan that looks at the house as long as it wants the same: their leases are
/// renewed all the time.
fn end(s: &Scene<'_>) -> Option<Timestamp> {
    let holder = s.decision.holder.as_ref().filter(|_| !s.decision.is_open());
    holder.filter(|h| !matches!(h.key, IntentKey::Limit(_))).map(|h| h.end.wall)
}

/// What the plan that holds it says of why.
fn why<'a>(s: &Scene<'a>) -> Option<&'a Arc<str>> {
    s.decision.winner.and_then(|w| w.why.as_ref())
}

/// What was told of one device.
#[derive(Debug, Default)]
pub(super) struct Teller {
    mark: Option<Mark>,
    live: Option<Arc<Decided>>,
    lease: Option<Lease>,
    effect: EffectWatch,
    /// The lease changed since it was last told.
    news: Change,
    /// What the journal does not have yet.
    owed: Change,
    journalled: Option<Mono>,
    budget: Budget,
}

/// What one look brought.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// For the live view, when it changed.
    pub(super) live: Option<Arc<Decided>>,
    /// For the journal.
    pub(super) journal: Option<Arc<Decided>>,
}

impl Teller {
    /// The device reports on what it was told.
    pub(super) fn outcome(&mut self, outcome: &Outcome, now: Mono) {
        let lease = Lease::new(outcome);
        if lease.state == LeaseState::Verified {
            self.effect.verified(lease.demand, now);
        }
        // A lease is proven again and again: the same is no news, and what is held stays held.
        if let Some(old) = self.lease.as_ref().filter(|old| old.cause == lease.cause && old.demand == lease.demand) {
            let is_known = old.state == lease.state && old.reason == lease.reason;
            if is_known || (old.state >= lease.state && !lease.is_fault() && !old.is_fault()) {
                return;
            }
        }
        self.news = self.news.max(match lease.state {
            LeaseState::Failed | LeaseState::Reverted => Change::Reason,
            LeaseState::Verified | LeaseState::Held => Change::Number,
            LeaseState::Written => Change::Trifle,
        });
        self.lease = Some(lease);
    }

    /// The device was read.
    pub(super) fn sample(&mut self, sample: &Sample, at: Timestamp) {
        if self.effect.sample(sample)
            && let Some(lease) = self.lease.as_mut().filter(|l| l.state == LeaseState::Verified)
        {
            (lease.state, lease.at) = (LeaseState::Held, at);
            lease.proof.clear();
            self.news = self.news.max(Change::Number);
        }
    }

    /// A new order went out: what was proven of the last one says nothing of this one. A fault stays to be read until the
    /// device reports again.
    pub(super) fn ordered(&mut self, order: &Order) {
        let is_other = self.lease.as_ref().is_some_and(|lease| match order {
            Order::Hold(s) => lease.cause.as_ref() != Some(s.cause()) || lease.demand != s.demand(),
            Order::Free | Order::Wait => lease.demand != Demand::Release,
        });
        if is_other && self.lease.as_ref().is_some_and(|l| !l.is_fault()) {
            (self.lease, self.effect) = (None, EffectWatch::default());
        }
    }

    /// Look at what was decided now.
    pub(super) fn look(&mut self, s: &Scene<'_>) -> Told {
        let now = s.now.mono;
        let change = self.mark.as_ref().map_or(Change::Reason, |m| m.change(s)).max(std::mem::take(&mut self.news));
        let mut told = Told::default();
        if change != Change::None {
            self.mark = Some(Mark::new(s));
            let decided = Arc::new(s.decided(self.lease.as_ref()));
            told.live = Some(Arc::clone(&decided));
            self.live = Some(decided);
            self.owed = self.owed.max(change);
        }
        let is_due = match self.owed {
            Change::None | Change::Trifle => false,
            Change::Number => self.journalled.is_none_or(|t| now.since(t) >= NUMBERS_EVERY),
            Change::Reason => self.budget.take(now),
        };
        if is_due {
            (self.owed, self.journalled) = (Change::None, Some(now));
            told.journal.clone_from(&self.live);
        }
        told
    }
}

/// Some at once, then one at a time.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    every: Duration,
    left: u32,
    filled: Mono,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(REASONS_AT_ONCE, REASONS_EVERY)
    }
}

impl Budget {
    /// So many at once, then one in this time (more than 0).
    pub(super) const fn new(most: u32, every: Duration) -> Self {
        Self { most, every, left: most, filled: Mono::from_ms(0) }
    }

    /// Is there one left: then it is taken.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let more = u32::try_from(now.since(self.filled).as_millis() / self.every.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.most);
            self.filled = self.filled.plus(self.every.saturating_mul(more));
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}
