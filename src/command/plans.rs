//! The plan documents in force.

use super::admit::may_control;
use crate::model::{DeviceId, DeviceSpec, PlanId, PlanState, SiteSpec, Timestamp, UplinkName};
use crate::plan::PlanDoc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Documents kept at most: each costs memory and a look per control cycle.
const MAX_PLANS: usize = 100;

/// A plan document in force, for people and lists.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSummary {
    /// Its id.
    pub id: PlanId,
    /// The device it is for; `None`: a tariff.
    pub device: Option<DeviceId>,
    /// `weekly`, `slots`, `tariff`, `solar` or `price`.
    pub kind: &'static str,
    /// Who sent it: an uplink's name or `local`.
    pub source: String,
    /// The document in its normal form.
    pub json: Arc<Value>,
    /// When it next wants something else; `None`: never.
    pub next_change: Option<Timestamp>,
    /// The action it wants now, by name; `None`: nothing.
    pub active: Option<String>,
    /// Why it wants that, and what it means to do, where it is a plan that looks at the house.
    pub state: Option<Arc<PlanState>>,
}

/// What to do with a document that came.
pub(super) enum Verdict {
    /// Write it down, then it is in force.
    Save(Arc<PlanDoc>, String),
    /// It is in force already.
    Unchanged,
    /// Remove it.
    Delete(PlanId),
    /// All that is wrong with it.
    Refuse(Vec<String>),
}

#[derive(Default)]
pub(super) struct Plans(BTreeMap<PlanId, Entry>);

struct Entry {
    doc: Arc<PlanDoc>,
    json: Arc<Value>,
    source: UplinkName,
}

impl Plans {
    pub(super) fn put(&mut self, doc: Arc<PlanDoc>, source: UplinkName) {
        let json = Arc::new(doc.to_json());
        self.0.insert(doc.id().clone(), Entry { doc, json, source });
    }

    pub(super) fn remove(&mut self, id: &PlanId) {
        self.0.remove(id);
    }

    /// Judge a document, or its removal. The owner may replace and remove any document, another channel only its own.
    pub(super) fn judge(
        &self,
        uplink: &UplinkName,
        name: &str,
        body: Option<&[u8]>,
        devices: &[DeviceSpec],
        site: &SiteSpec,
    ) -> Verdict {
        let id = match name.parse::<PlanId>() {
            Ok(id) => id,
            Err(e) => return Verdict::Refuse(vec![format!("plan id: {e}")]),
        };
        let old = self.0.get(&id);
        if let Some(old) = old.filter(|old| old.source != *uplink && *uplink != UplinkName::local()) {
            return Verdict::Refuse(vec![format!("plan `{id}` belongs to `{}`: choose another id", old.source)]);
        }
        let Some(body) = body.filter(|body| !body.is_empty()) else {
            return match old {
                Some(_) => Verdict::Delete(id),
                // A removal that is delivered twice is no fault.
                None if *uplink != UplinkName::local() => Verdict::Unchanged,
                None => Verdict::Refuse(vec![format!("there is no plan `{id}`")]),
            };
        };
        let kind_of = |id: &_| devices.iter().find(|spec| spec.id == *id).map(|spec| spec.kind);
        let doc = match PlanDoc::parse(Some(&id), body, kind_of, &site.timezone) {
            Ok(doc) => doc,
            Err(reasons) => return Verdict::Refuse(reasons),
        };
        let mut reasons = Vec::new();
        if let Some(spec) = devices.iter().find(|spec| Some(&spec.id) == doc.device()) {
            reasons.extend(may_control(spec).err());
        }
        if old.is_none() && self.0.len() >= MAX_PLANS {
            reasons.push(format!("there are {MAX_PLANS} plans already: delete one"));
        }
        if !reasons.is_empty() {
            return Verdict::Refuse(reasons);
        }
        if old.is_some_and(|old| old.source == *uplink && *old.json == doc.to_json()) {
            return Verdict::Unchanged;
        }
        // JSON is UTF-8, and this was read as JSON.
        Verdict::Save(Arc::new(doc), String::from_utf8_lossy(body).into_owned())
    }

    /// `states`: of those that look at the house, as control tells them.
    pub(super) fn summaries(&self, now: Timestamp, states: &BTreeMap<PlanId, Arc<PlanState>>) -> Vec<PlanSummary> {
        let summary = |entry: &Entry| {
            let state = states.get(entry.doc.id()).cloned();
            let wanted = entry.doc.at(now).map(|wanted| wanted.action.name());
            PlanSummary {
                id: entry.doc.id().clone(),
                device: entry.doc.device().cloned(),
                kind: entry.doc.kind(),
                source: entry.source.to_string(),
                json: Arc::clone(&entry.json),
                next_change: state.as_ref().map_or_else(|| entry.doc.next_change(now), |s| s.next_change),
                active: state.as_ref().map_or(wanted, |s| s.action).map(str::to_owned),
                state,
            }
        };
        self.0.values().map(summary).collect()
    }
}

/// A document as a gateway without any takes it: what is put in force and what is kept, or all that is wrong with it.
#[cfg(test)]
pub(crate) fn taken(
    name: &str,
    body: &str,
    devices: &[DeviceSpec],
    site: &SiteSpec,
) -> Result<(Arc<PlanDoc>, String), Vec<String>> {
    match Plans::default().judge(&UplinkName::local(), name, Some(body.as_bytes()), devices, site) {
        Verdict::Save(doc, body) => Ok((doc, body)),
        Verdict::Refuse(reasons) => Err(reasons),
        Verdict::Unchanged | Verdict::Delete(_) => Err(vec!["it is no document".to_owned()]),
    }
}

/// The answer to a plan document.
pub(super) fn answer(plan: &str, state: &str, at: Timestamp, reasons: &[String]) -> Value {
    json!({ "id": plan, "state": state, "ts": at.to_string(), "reasons": reasons })
}
