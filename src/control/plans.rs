//! The plan documents and what they want now.

use super::limits::{charger_max, charger_min};
use super::view::{Unit, View};
use crate::model::{Action, ClockState, DeviceId, DeviceKind, Intent, IntentKey, Mono, PlanId, PlanState, Timestamp};
use crate::plan::{Batteries, Moment, Outlook, OwnState, PlanDoc, Strategy, Tariffs, Wanted, Wish};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Entry {
    doc: Arc<PlanDoc>,
    order: u64,
    source: String,
    /// Of a document that looks at the house.
    smart: Option<Running>,
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

/// A strategy, and the intent that its wish became.
#[derive(Debug)]
struct Running {
    strategy: Box<dyn Strategy>,
    /// With when it began, on both clocks.
    wish: Option<(Wish, Timestamp, Mono)>,
    /// The end of its lease on both clocks.
    ends: (Timestamp, Mono),
}

/// A plan that its device does not follow is told so often.
const FAILURE_EVERY: Duration = Duration::from_secs(3600);
/// Slots remembered of each plan: two months of a daily setting.
const MAX_DONE: usize = 64;
/// A device is at most a few settings behind: the one it makes, and the one in its cell.
const MAX_OFFERED: usize = 4;
/// A wish is a lease: without a next cycle it ends. Renewed at half its time.
const LEASE: Duration = Duration::from_secs(900);
/// So long a device may take to do what a wish expects of it.
const ABOUT: Duration = Duration::from_secs(30);

/// All plan documents.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    all: BTreeMap<PlanId, Entry>,
    /// Those that look at the house, by device and id.
    smart: Vec<PlanId>,
    tariffs: Tariffs,
    tariffs_version: u64,
    /// What the strategies say of themselves, as told last.
    states: BTreeMap<PlanId, Arc<PlanState>>,
}

/// The instant and the picture of a cycle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cycle<'a> {
    pub(crate) mono: Mono,
    pub(crate) wall: Timestamp,
    pub(crate) clock: ClockState,
    pub(crate) view: &'a View<'a>,
    pub(crate) phases: u8,
}

impl Plans {
    /// New or replaced.
    pub(crate) fn put(&mut self, doc: Arc<PlanDoc>, order: u64, source: String) {
        let id = doc.id().clone();
        self.drop_plan(&id);
        if let Some(tariff) = doc.tariff() {
            self.tariffs.insert(id.clone(), Arc::clone(tariff));
        }
        let smart = doc.strategy().map(|strategy| Running {
            strategy,
            wish: None,
            ends: (Timestamp::default(), Mono::default()),
        });
        // The cached span is empty: asked afresh at the next cycle.
        let entry = Entry {
            doc,
            order,
            source,
            smart,
            wanted: None,
            from: Timestamp::from_ms(1),
            until: Some(Timestamp::from_ms(0)),
            done: VecDeque::new(),
            offered: VecDeque::new(),
            failure_told: None,
        };
        self.all.insert(id, entry);
        self.order_smart();
    }

    fn order_smart(&mut self) {
        let smart = self.all.iter().filter(|(_, e)| e.smart.is_some());
        let mut ids: Vec<_> = smart.map(|(id, e)| (e.doc.device(), id)).collect();
        ids.sort_unstable();
        self.smart = ids.into_iter().map(|(_, id)| id.clone()).collect();
    }

    pub(crate) fn drop_plan(&mut self, id: &PlanId) {
        self.all.remove(id);
        self.states.remove(id);
        self.tariffs.remove(id);
        self.tariffs_version = self.tariffs_version.wrapping_add(1);
        self.order_smart();
    }

    /// Is there a plan that goes by the wall clock for one of these devices.
    pub(crate) fn is_any_for(&self, devices: &BTreeSet<DeviceId>) -> bool {
        self.all.values().any(|e| e.needs_clock() && e.doc.device().is_some_and(|d| devices.contains(d)))
    }

    /// Does a plan have to do without a price that it wants.
    pub(crate) fn is_price_missing(&self) -> bool {
        self.all.values().filter_map(|e| e.smart.as_ref()).any(|s| s.strategy.forecast().is_price_missing)
    }

    /// A plan for this device that goes by the wall clock.
    pub(crate) fn first_for(&self, device: &DeviceId) -> Option<&PlanId> {
        self.all.iter().find(|(_, e)| e.needs_clock() && e.doc.device() == Some(device)).map(|(id, _)| id)
    }

    /// This standing setting of the plan was verified: not again in its slot.
    pub(crate) fn standing_done(&mut self, id: &PlanId, setting: &Action) {
        if let Some(entry) = self.all.get_mut(id) {
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
        let Some(entry) = self.all.get_mut(id) else { return false };
        let is_due = entry.failure_told.is_none_or(|told| now.since(told) >= FAILURE_EVERY);
        if is_due {
            entry.failure_told = Some(now);
        }
        is_due
    }

    /// What they want now. While the wall clock is not to be trusted: nothing that goes by it.
    pub(crate) fn intents(&mut self, cycle: Cycle<'_>) -> Vec<Intent> {
        let is_trusted = cycle.clock != ClockState::Untrusted;
        let mut intents = Vec::new();
        if is_trusted {
            let by_clock = self.all.iter_mut().filter(|(_, e)| e.smart.is_none());
            intents.extend(by_clock.filter_map(|(id, e)| e.intent(id, cycle.mono, cycle.wall)));
        }
        intents.extend(self.smart_intents(cycle, is_trusted));
        intents
    }

    /// Device by device: what one is about to take of the surplus is gone for the next.
    fn smart_intents(&mut self, cycle: Cycle<'_>, is_trusted: bool) -> Vec<Intent> {
        let mut found: Vec<(f64, Intent)> = Vec::new();
        let (mut taken_w, mut about_w, mut strongest) = (0.0, 0.0, f64::NEG_INFINITY);
        let mut device: Option<DeviceId> = None;
        for id in &self.smart {
            let Some(entry) = self.all.get_mut(id) else { continue };
            if device.as_ref() != entry.doc.device() {
                device = entry.doc.device().cloned();
                taken_w += about_w;
                (about_w, strongest) = (0.0, f64::NEG_INFINITY);
            }
            let asked = entry.ask(cycle, is_trusted, (&self.tariffs, self.tariffs_version), taken_w);
            tell(&mut self.states, id, entry);
            let Some((wish, since, about)) = asked else { continue };
            let expects = wish.expects_w.unwrap_or(0.0);
            if expects > strongest {
                (strongest, about_w) = (expects, about);
            }
            found.extend(entry.smart_intent(id, &wish, since).map(|intent| (expects, intent)));
        }
        the_most_wins(&mut found);
        found.into_iter().map(|(_, intent)| intent).collect()
    }

    /// What the documents that look at the house say of themselves.
    pub(crate) const fn states(&self) -> &BTreeMap<PlanId, Arc<PlanState>> {
        &self.states
    }

    /// The next instant at which one of them wants something else.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.all.values().filter(|e| e.smart.is_none()).filter_map(|e| e.until).min()
    }
}

/// Of several that look at the house for one device, with one rank, the one that wants most counts: one that follows the sun
/// and one that waits for cheap hours complement each other. They share out their places in the order of acceptance.
fn the_most_wins(found: &mut [(f64, Intent)]) {
    let before: Vec<_> = found.iter().map(|(w, i)| (*w, i.accepted, i.device.clone(), i.rank)).collect();
    for (watts, intent) in found.iter_mut() {
        let peers = || before.iter().filter(|(_, _, device, rank)| *device == intent.device && *rank == intent.rank);
        let is_less = |w: f64, accepted: u64| w.total_cmp(watts).then(accepted.cmp(&intent.accepted)).is_lt();
        let place = peers().filter(|(w, accepted, ..)| is_less(*w, *accepted)).count();
        let mut places: Vec<u64> = peers().map(|(_, accepted, ..)| *accepted).collect();
        places.sort_unstable();
        if let Some(accepted) = places.get(place) {
            intent.accepted = *accepted;
        }
    }
}

/// Note how a strategy stands, where that changed.
fn tell(states: &mut BTreeMap<PlanId, Arc<PlanState>>, id: &PlanId, entry: &Entry) {
    let Some(smart) = &entry.smart else { return };
    let forecast = smart.strategy.forecast();
    let wish = smart.wish.as_ref().map(|(wish, ..)| wish);
    let (action, why) = (wish.map(|w| w.action.name()), Some(smart.strategy.why()).filter(|why| !why.is_empty()));
    let is_same = states.get(id).is_some_and(|s| {
        s.action == action
            && s.why.as_ref() == why
            && s.next_change == forecast.next_change
            && (Arc::ptr_eq(&s.planned, &forecast.planned) || s.planned == forecast.planned)
    });
    if !is_same {
        let (next_change, planned) = (forecast.next_change, Arc::clone(&forecast.planned));
        states.insert(id.clone(), Arc::new(PlanState { action, why: why.cloned(), next_change, planned }));
    }
}

/// The document's own device in the picture.
fn own(view: &View<'_>, index: usize, unit: &Unit) -> OwnState {
    let Some(seen) = view.seen.get(index) else { return OwnState::default() };
    OwnState {
        power_w: seen.power_w,
        phase_a: seen.phase_a.map(|a| a.map(f64::abs)),
        is_plugged: seen.is_plugged,
        session_wh: seen.session_wh,
        delivered_wh: seen.delivered_wh,
        soc_pct: seen.soc_pct,
        min_current_a: charger_min(unit),
        max_current_a: charger_max(unit),
        can_switch_phases: unit.caps.phase_switch,
    }
}

/// All batteries, whichever side of an inverter they are on: what they give is not of the sun either way.
fn batteries(view: &View<'_>) -> Option<Batteries> {
    let all = || view.units.iter().zip(&view.seen).filter(|(u, _)| u.spec.kind == DeviceKind::Battery);
    all().next()?;
    let power_w = all().map(|(_, s)| s.power_w).sum();
    let soc_pct = all().map(|(_, s)| s.soc_pct).reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))).flatten();
    Some(Batteries { power_w, soc_pct })
}

impl Entry {
    /// Does it go by the wall clock.
    fn needs_clock(&self) -> bool {
        self.smart.as_ref().is_none_or(|s| s.strategy.needs_clock())
    }

    /// Ask the strategy. What it wants, and since when.
    fn ask(
        &mut self,
        cycle: Cycle<'_>,
        is_trusted: bool,
        tariffs: (&Tariffs, u64),
        taken_w: f64,
    ) -> Option<(Wish, Timestamp, f64)> {
        let (smart, device) = (self.smart.as_mut()?, self.doc.device()?);
        let index = cycle.view.units.iter().position(|u| u.spec.id == *device)?;
        let unit = cycle.view.units.get(index)?;
        let own = own(cycle.view, index, unit);
        let outlook = Outlook {
            grid_w: cycle.view.grid_w.map(|w| w + taken_w),
            own,
            batteries: batteries(cycle.view),
            site_phases: cycle.phases,
            tariffs: tariffs.0,
            tariffs_version: tariffs.1,
        };
        let moment = Moment { mono: cycle.mono, wall: is_trusted.then_some(cycle.wall) };
        let wish = smart.strategy.want(moment, &outlook);
        let Some(wish) = wish else {
            smart.wish = None;
            return None;
        };
        let (since, changed) = match &smart.wish {
            Some((old, since, changed)) if old.action == wish.action => (*since, *changed),
            _ => (cycle.wall, cycle.mono),
        };
        // What a car does not take soon after it was offered it does not take.
        let is_new = cycle.mono.since(changed) < ABOUT;
        let about_w =
            wish.expects_w.zip(own.power_w).filter(|_| is_new).map_or(0.0, |(expects, draws)| expects - draws);
        if changed == cycle.mono || smart.ends.1.since(cycle.mono) < LEASE / 2 {
            smart.ends = (cycle.wall.plus(LEASE), cycle.mono.plus(LEASE));
        }
        smart.wish = Some((wish.clone(), since, changed));
        Some((wish, since, about_w))
    }

    fn smart_intent(&self, id: &PlanId, wish: &Wish, since: Timestamp) -> Option<Intent> {
        let (ends_at, deadline) = self.smart.as_ref()?.ends;
        Some(Intent {
            key: IntentKey::Plan(id.clone()),
            device: self.doc.device()?.clone(),
            action: wish.action.clone(),
            rank: self.doc.rank(),
            source: self.source.clone(),
            accepted: self.order,
            since,
            ends_at,
            deadline,
            why: Some(Arc::clone(&wish.why)),
        })
    }

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
        if wanted.action.is_standing() {
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
            device: self.doc.device()?.clone(),
            action: wanted.action.clone(),
            rank: self.doc.rank(),
            source: self.source.clone(),
            accepted: self.order,
            since: wanted.since,
            ends_at: wanted.until,
            deadline: now.plus(wanted.until.since(wall)),
            why: None,
        })
    }
}
