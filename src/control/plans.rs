//! The plan documents and what they want now.

use super::claims::is_standing;
use crate::model::{ClockState, DeviceId, Intent, IntentKey, Mono, PlanId, Timestamp};
use crate::plan::{PlanDoc, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Entry {
    doc: Arc<PlanDoc>,
    order: u64,
    source: String,
    /// What it wanted when it was last asked, and the span of wall time for which that holds.
    wanted: Option<Wanted>,
    from: Timestamp,
    until: Option<Timestamp>,
    /// The begin of the slot whose standing setting was verified.
    done: Option<Timestamp>,
    /// When its failure was last told.
    failure_told: Option<Mono>,
}

/// A plan that its device does not follow is told so often.
const FAILURE_EVERY: Duration = Duration::from_secs(3600);

/// All plan documents.
#[derive(Debug, Default)]
pub(crate) struct Plans(BTreeMap<PlanId, Entry>);

impl Plans {
    /// New or replaced.
    pub(crate) fn put(&mut self, doc: Arc<PlanDoc>, order: u64, source: String) {
        let id = doc.id().clone();
        // The cached span is empty: asked afresh at the next cycle.
        let entry = Entry {
            doc,
            order,
            source,
            wanted: None,
            from: Timestamp::from_ms(1),
            until: Some(Timestamp::from_ms(0)),
            done: None,
            failure_told: None,
        };
        self.0.insert(id, entry);
    }

    pub(crate) fn drop_plan(&mut self, id: &PlanId) {
        self.0.remove(id);
    }

    /// Is there a plan for one of these devices.
    pub(crate) fn is_any_for(&self, devices: &BTreeSet<DeviceId>) -> bool {
        self.0.values().any(|e| devices.contains(e.doc.device()))
    }

    /// A plan for this device.
    pub(crate) fn first_for(&self, device: &DeviceId) -> Option<&PlanId> {
        self.0.iter().find(|(_, e)| e.doc.device() == device).map(|(id, _)| id)
    }

    /// The standing setting of this plan was verified: not again in this slot.
    pub(crate) fn standing_done(&mut self, id: &PlanId) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.done = entry.wanted.as_ref().map(|w| w.since);
        }
    }

    /// What this plan wants failed on its device: is that to be told now.
    pub(crate) fn failed(&mut self, id: &PlanId, now: Mono) -> bool {
        let Some(entry) = self.0.get_mut(id) else { return false };
        let is_due = entry.failure_told.is_none_or(|told| now.since(told) >= FAILURE_EVERY);
        if is_due {
            entry.failure_told = Some(now);
        }
        is_due
    }

    /// What they want now. While the wall clock is not to be trusted: nothing.
    pub(crate) fn intents(&mut self, now: Mono, wall: Timestamp, clock: ClockState) -> Vec<Intent> {
        if clock == ClockState::Untrusted {
            return Vec::new();
        }
        self.0.iter_mut().filter_map(|(id, entry)| entry.intent(id, now, wall)).collect()
    }

    /// The next instant at which one of them wants something else.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|e| e.until).min()
    }
}

impl Entry {
    fn intent(&mut self, id: &PlanId, now: Mono, wall: Timestamp) -> Option<Intent> {
        // Asking a document costs a walk over its rules: once per change, or when the wall clock was set back.
        if wall < self.from || self.until.is_some_and(|u| wall >= u) {
            self.wanted = self.doc.at(wall);
            self.until = match &self.wanted {
                Some(w) => Some(w.until),
                None => self.doc.next_change(wall),
            };
            self.from = wall;
        }
        let wanted = self.wanted.as_ref()?;
        if is_standing(&wanted.action) && self.done == Some(wanted.since) {
            return None;
        }
        Some(Intent {
            key: IntentKey::Plan(id.clone()),
            device: self.doc.device().clone(),
            action: wanted.action.clone(),
            rank: self.doc.rank(),
            source: self.source.clone(),
            accepted: self.order,
            since: wanted.since,
            ends_at: wanted.until,
            deadline: now.plus(wanted.until.since(wall)),
        })
    }
}
