//! The plan documents and what they want now.

use super::claims::is_standing;
use crate::model::{Action, ClockState, DeviceId, Intent, IntentKey, Mono, PlanId, Timestamp};
use crate::plan::{PlanDoc, Wanted};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// The begins of the slots whose standing setting was verified, newest last. More than one, as a wall clock that is set
    /// back shows a slot again.
    done: VecDeque<Timestamp>,
    /// The standing settings that it wanted last, each with the begin of its slot, newest last.
    offered: VecDeque<(Action, Timestamp)>,
    /// When its failure was last told.
    failure_told: Option<Mono>,
}

/// A plan that its device does not follow is told so often.
const FAILURE_EVERY: Duration = Duration::from_secs(3600);
/// Slots remembered of each plan: two months of a daily setting.
const MAX_DONE: usize = 64;
/// A device is at most a few settings behind: the one it makes, and the one in its cell.
const MAX_OFFERED: usize = 4;

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
            done: VecDeque::new(),
            offered: VecDeque::new(),
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

    /// This standing setting of the plan was verified: not again in its slot.
    pub(crate) fn standing_done(&mut self, id: &PlanId, setting: &Action) {
        if let Some(entry) = self.0.get_mut(id) {
            // Its slot may be over since it was sent; the next one still wants its own.
            let slot = entry.offered.iter().rev().find(|(action, _)| action == setting).map(|(_, since)| *since);
            if let Some(slot) = slot.filter(|slot| !entry.done.contains(slot)) {
                if entry.done.len() == MAX_DONE {
                    entry.done.pop_front();
                }
                entry.done.push_back(slot);
            }
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
        if is_standing(&wanted.action) {
            if self.done.contains(&wanted.since) {
                return None;
            }
            let offer = (wanted.action.clone(), wanted.since);
            if self.offered.back() != Some(&offer) {
                if self.offered.len() == MAX_OFFERED {
                    self.offered.pop_front();
                }
                self.offered.push_back(offer);
            }
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
