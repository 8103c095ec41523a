//! The state between cycles. Events go in, effects come out; nothing here waits, reads a clock or does I/O.

use super::ControlMsg;
use super::alarms::{Alarms, Cause};
use super::arbiter::{BASELINE_LEASE, Decision, GUARD_LEASE, LONGEST_LEASE, Memory, Question, decide};
use super::claims::Claims;
use super::frozen::Frozen;
use super::limits::{Bounds, EXPORT, IMPORT};
use super::plans::{Cycle, Plans};
use super::remote::Remote;
use super::say::{Scene, Stance};
use super::session::{Sessions, UNPLUGGED};
use super::tell::Teller;
use super::view::{Freshness, Seen, Unit, View};
use crate::model::{
    Action, Applied, ClockState, ControlStatus, ControlledBy, Coupling, Decided, Demand, DeviceId, DeviceKind,
    DeviceSpec, DeviceState, DeviceStatus, Event, EventState, GridSide, Intent, IntentKey, IntentUpdate, LeaseEnd,
    Mono, Order, Outcome, Params, Pause, Point, Progress, Rank, Sample, Setpoint, Severity, SiteLimit, SiteSpec, Stage,
    Timestamp,
};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// So long control waits for the first values before it decides without them.
const FIRST_VALUES: Duration = Duration::from_secs(10);
/// What the sender of an event is told when the owner opts out.
const OPTED_OUT: &str = "opted out by the owner";
/// After a setpoint replaced a standing setting in the device's cell: try that one again.
const STANDING_RETRY: Duration = Duration::from_secs(5);

/// One instant on all clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) mono: Mono,
    pub(crate) wall: Timestamp,
    pub(crate) clock: ClockState,
}

/// What a cycle wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// For the device with this index.
    Order(usize, Order),
    Update(IntentUpdate),
    Event(Event),
    /// For the journal.
    Decided(Arc<Decided>),
}

/// What control knows and has told of one device.
#[derive(Debug, Default)]
struct Desk {
    sample: Option<Arc<Sample>>,
    online_since: Option<Mono>,
    /// The first decision was made.
    is_ready: bool,
    /// The last order for what it holds.
    order: Order,
    /// A standing setting lies in its cell instead of `order`: whose, and which. A plan's next slot may want another.
    standing: Option<(IntentKey, Action)>,
    /// Not before this.
    standing_after: Mono,
    /// Its task's own word.
    state: DeviceState,
    error: Option<String>,
    teller: Teller,
}

/// Control without its channels.
#[derive(Debug)]
pub(crate) struct Core {
    site: SiteSpec,
    zone: TimeZone,
    units: Vec<Unit>,
    /// In the order of `units`.
    desks: Vec<Desk>,
    memory: Vec<Memory>,
    controlled: BTreeSet<DeviceId>,
    claims: Claims,
    remote: Remote,
    sessions: Sessions,
    plans: Plans,
    site_limits: Vec<SiteLimit>,
    alarms: Alarms,
    frozen: Frozen,
    started: Mono,
    /// What events brought before the next cycle.
    pending: Vec<IntentUpdate>,
    untold: Vec<Event>,
    status: ControlStatus,
}

impl Core {
    pub(crate) fn new(site: SiteSpec, specs: Vec<DeviceSpec>, started: Mono) -> Self {
        let units: Vec<_> = specs.into_iter().map(|s| Unit { spec: Arc::new(s), caps: Arc::default() }).collect();
        Self {
            // Checked when the configuration was read.
            zone: TimeZone::get(&site.timezone).unwrap_or(TimeZone::UTC),
            site,
            desks: units.iter().map(|_| Desk::default()).collect(),
            memory: units.iter().map(|_| Memory::default()).collect(),
            controlled: units.iter().filter(|u| u.is_controlled()).map(|u| u.spec.id.clone()).collect(),
            units,
            claims: Claims::default(),
            remote: Remote::default(),
            sessions: Sessions::default(),
            plans: Plans::default(),
            site_limits: Vec::new(),
            alarms: Alarms::default(),
            frozen: Frozen::default(),
            started,
            pending: Vec::new(),
            untold: Vec::new(),
            status: ControlStatus::default(),
        }
    }

    /// Control's own word after the last cycle.
    pub(crate) const fn status(&self) -> &ControlStatus {
        &self.status
    }

    pub(crate) fn message(&mut self, msg: ControlMsg, now: Now) {
        match msg {
            ControlMsg::Intent(intent) => self.intent(intent, now),
            ControlMsg::Session(intent) => {
                self.sessions.add(intent.key.clone(), intent.device.clone());
                self.intent(intent, now);
            }
            ControlMsg::Release { uplink, device } => {
                self.claims.release(&uplink, &device, now.mono, now.wall, &mut self.pending);
            }
            ControlMsg::Withdraw(key) => {
                self.claims.end(now.mono, now.wall, &mut self.pending, |i| i.key == key);
                self.end_site_limits(now, |l| l.key == key);
            }
            ControlMsg::SiteLimit(limit) => self.site_limit(limit, now),
            ControlMsg::Plan { doc, order, source } => self.plans.put(doc, order, source),
            ControlMsg::DropPlan(id) => self.plans.drop_plan(&id),
            ControlMsg::Pause { until } => {
                self.remote.pause(Pause { until });
                self.claims.pause_changed();
            }
            ControlMsg::Resume => self.remote.resume(),
            ControlMsg::OptOut { device } => {
                let is_meant = |i: &Intent| i.rank == Rank::Event && device.as_ref().is_none_or(|d| *d == i.device);
                self.claims.cut(now.mono, now.wall, &mut self.pending, OPTED_OUT, is_meant);
            }
        }
    }

    fn intent(&mut self, intent: Intent, now: Now) {
        // Refused at the door already, unless the configuration changed over a restart or the device was not known.
        let why = if !self.controlled.contains(&intent.device) {
            format!("{} is not a device that may be controlled", intent.device)
        } else if let Action::SetMode { mode } = &intent.action {
            format!("the profile of {} cannot set mode {mode}", intent.device)
        } else {
            return self.claims.add(intent, now.mono, now.wall, &mut self.pending);
        };
        let progress = Progress::Device { stage: Stage::Failed(why), evidence: Vec::new() };
        self.pending.push(IntentUpdate { key: intent.key, at: now.wall, progress });
    }

    pub(crate) fn sample(&mut self, sample: Arc<Sample>, now: Now) {
        let Some(index) = self.index(&sample.device) else { return };
        if let Some(poll) = self.units.get(index).filter(|u| u.is_grid()).map(|u| u.spec.poll) {
            let net_w = self.net_w(now.mono);
            if self.frozen.follow(&sample, net_w, poll, now.mono) {
                // It grows old like one of a meter that says nothing.
                return;
            }
        }
        self.claims.sample(&sample, now.wall, &mut self.pending);
        for key in self.sessions.sample(&sample) {
            self.claims.cut(now.mono, now.wall, &mut self.pending, UNPLUGGED, |i| i.key == key);
        }
        if let Some(desk) = self.desks.get_mut(index) {
            desk.teller.sample(&sample, now.wall);
            desk.sample = Some(sample);
        }
    }

    pub(crate) fn outcome(&mut self, outcome: &Outcome, now: Now) {
        if let (Demand::Reserve { pct }, Some(IntentKey::Plan(id)), Stage::Verified | Stage::Failed(_)) =
            (outcome.demand, &outcome.cause, &outcome.stage)
        {
            // A plan's standing setting that fails is not tried again within its slot either: it would never end.
            self.plans.standing_done(id, &Action::SetReserve { soc_pct: pct });
        }
        // A command's sender gets a result; of a plan that its device refuses nobody else would learn.
        if let (Some(IntentKey::Plan(id)), Stage::Failed(why)) = (&outcome.cause, &outcome.stage)
            && self.plans.failed(id, now.mono)
        {
            self.untold.push(Event {
                ts: now.wall,
                severity: Severity::Warning,
                device: Some(outcome.device.clone()),
                code: "plan_failed".to_owned(),
                text: format!("{} does not follow plan {id}: {why}", outcome.device),
                state: EventState::Raised,
            });
        }
        self.claims.outcome(outcome, now.mono, &mut self.pending);
        if let Some(desk) = self.index(&outcome.device).and_then(|i| self.desks.get_mut(i)) {
            desk.teller.outcome(outcome, now.mono);
        }
    }

    pub(crate) fn device(&mut self, index: usize, status: &DeviceStatus, now: Now) {
        let (Some(unit), Some(desk)) = (self.units.get_mut(index), self.desks.get_mut(index)) else { return };
        if status.state == DeviceState::Online {
            desk.online_since.get_or_insert(now.mono);
        }
        desk.state = status.state;
        desk.error.clone_from(&status.error);
        if *unit.caps != status.capabilities {
            unit.caps = Arc::new(status.capabilities.clone());
        }
    }

    /// One arbitration over everything, and what follows from it.
    pub(crate) fn cycle(&mut self, now: Now) -> Vec<Effect> {
        self.claims.end(now.mono, now.wall, &mut self.pending, |i| i.deadline <= now.mono);
        self.end_site_limits(now, |l| l.deadline <= now.mono);
        let samples: Vec<_> = self.desks.iter().map(|d| d.sample.clone()).collect();
        let view = View::new(&self.units, &samples, self.site.phases, now.mono);
        let Now { mono, wall, clock } = now;
        let mut intents = self.plans.intents(Cycle { mono, wall, clock, view: &view, phases: self.site.phases });
        intents.extend(self.claims.intents().cloned());
        self.remote.turn(now.mono);
        let held_back = self.remote.hold_back(&mut intents);
        self.claims.hold_back(&held_back, now.mono, now.wall, &mut self.pending);
        let (standing, held): (Vec<_>, Vec<_>) = intents.into_iter().partition(|i| i.action.is_standing());

        let bounds = Bounds::new(&self.site, &self.site_limits);
        let question =
            Question { view: &view, intents: &held, site: &self.site, bounds, now: now.mono, wall: now.wall };
        let mut decisions = decide(&question, &mut self.memory);
        held_back.tell(&self.units, &mut decisions);

        let mut effects = Vec::new();
        let is_grid_known = self.is_grid_known(&view, bounds, now.mono);
        let mut holders = BTreeMap::new();
        let mut live = std::mem::take(&mut self.status.decided);
        let heard = |i: usize| {
            let sample = samples.get(i).and_then(Option::as_ref)?;
            Some(now.wall.minus(now.mono.since(sample.mono)))
        };
        let grid_heard = self.units.iter().position(Unit::is_grid).and_then(heard);
        for (i, (unit, decision)) in self.units.iter().zip(&decisions).enumerate() {
            let Some(desk) = self.desks.get_mut(i) else { continue };
            let is_blocked = now.clock == ClockState::Untrusted;
            let mut scene = Scene {
                unit,
                seen: view.seen.get(i).unwrap_or(&Seen::NEVER),
                view: &view,
                decision,
                order: &Order::Wait,
                bounds,
                zone: &self.zone,
                now,
                stance: if unit.is_controlled() { Stance::Starting } else { Stance::ReadOnly },
                state: desk.state,
                error: None,
                heard: heard(i),
                grid_heard,
                remote: self.remote.status(),
                blocked: self.plans.first_for(&unit.spec.id).filter(|_| is_blocked && unit.is_controlled()),
            };
            desk.is_ready = desk.is_ready || is_safe(decision) || desk.may_decide(is_grid_known, now.mono);
            if !desk.is_ready {
                // What was worked out without values must not slow down what follows.
                if let Some(memory) = self.memory.get_mut(i) {
                    *memory = Memory::default();
                }
                desk.tell(scene, &mut live, &mut effects);
                continue;
            }
            let power = view.seen.get(i).and_then(|s| s.power_w);
            self.claims.settle(&unit.spec.id, decision, power, now.mono, now.wall, &mut self.pending);
            if let Some(order) = desk.hold(decision.order(unit, &self.site, now.mono, now.wall), now.mono) {
                effects.push(Effect::Order(i, order));
            }
            let setting = standing.iter().filter(|s| s.device == unit.spec.id && unit.is_controlled());
            let strongest = setting.max_by(|a, b| (a.rank, a.accepted, &a.key).cmp(&(b.rank, b.accepted, &b.key)));
            if let Some(order) = desk.set(strongest, now.mono) {
                if let Some(intent) = strongest.filter(|_| desk.standing.is_some()) {
                    self.claims.standing_sent(&intent.key, now.wall, &mut self.pending);
                }
                effects.push(Effect::Order(i, order));
            }
            if let Some(h) = &decision.holder {
                // A plan without an end has a lease all the same, which is renewed: nothing for people.
                let end = h.end.wall.if_ends().filter(|_| !decision.is_open());
                let ends_at = end.map(|end| desk.lease_end().unwrap_or(end));
                let plan = match &h.key {
                    IntentKey::Plan(id) => Some(id.clone()),
                    _ => None,
                };
                let by = ControlledBy { source: h.source.clone(), rank: h.rank, action: h.asked.name(), plan, ends_at };
                holders.insert(unit.spec.id.clone(), by);
            }
            if unit.is_controlled() {
                scene.stance = Stance::Controlled;
            }
            desk.tell(scene, &mut live, &mut effects);
        }
        let (load_w, grid_w) = (view.load_w, view.grid_w);
        let is_started = now.mono.since(self.started) >= FIRST_VALUES;
        let is_grid_lost = view.units.iter().zip(&view.seen).any(|(u, s)| {
            u.is_grid()
                && match s.fresh {
                    // An answer without the power is as good as none.
                    Freshness::Fresh => s.power_w.is_none(),
                    Freshness::Stale => true,
                    Freshness::Never => is_started,
                }
        });
        self.raise_alarms(&decisions, is_grid_lost, now, &mut effects);
        self.claims.tell_energy(now.mono, now.wall, &mut self.pending);
        self.sessions.keep(|key| self.claims.runs(key));
        effects.extend(self.pending.drain(..).map(Effect::Update));
        effects.extend(self.untold.drain(..).map(Effect::Event));
        let (remote, plans) = (self.remote.status(), self.plans.states().clone());
        let cycles = self.status.cycles.wrapping_add(1);
        self.status = ControlStatus { holders, plans, decided: live, load_w, grid_w, remote, cycles };
        effects
    }

    /// How long nothing changes by itself; `None`: nobody knows of anything.
    pub(crate) fn next_wake(&self, now: Now) -> Option<Duration> {
        let limits = self.site_limits.iter().map(|l| l.deadline);
        let lease = limits.chain(self.claims.next_end()).chain(self.remote.ends()).min().map(|end| end.since(now.mono));
        let plan = self.plans.next_change().map(|t| t.since(now.wall));
        // What is due already waits for the next tick (plans do while the clock is not to be trusted): no spinning.
        [lease, plan].into_iter().flatten().filter(|d| !d.is_zero()).min()
    }

    /// What all devices that are measured for themselves feed in, W; `None` when one of them does not tell.
    fn net_w(&self, now: Mono) -> Option<f64> {
        self.units.iter().zip(&self.desks).try_fold(0.0, |sum, (unit, desk)| {
            let sign = match (unit.spec.kind, unit.spec.coupling) {
                (DeviceKind::Inverter, _) | (DeviceKind::Battery, Coupling::Ac) => 1.0,
                (DeviceKind::Charger, _) => -1.0,
                _ => return Some(sum),
            };
            let sample = desk.sample.as_ref().filter(|s| now.since(s.mono) <= unit.max_age())?;
            Some(sum + sign * sample.num(&Point::PowerW)?)
        })
    }

    fn index(&self, device: &DeviceId) -> Option<usize> {
        self.units.iter().position(|u| u.spec.id == *device)
    }

    /// The worst case is for a meter that fell silent, not for the first seconds of a start.
    fn is_grid_known(&self, view: &View<'_>, bounds: Bounds, now: Mono) -> bool {
        let is_limited = bounds.import_w.is_some() || bounds.export_w.is_some();
        let grid = view.units.iter().position(Unit::is_grid);
        let is_awaited = grid.is_some_and(|i| view.seen.get(i).is_some_and(|s| s.fresh == Freshness::Never));
        !(is_limited && is_awaited) || now.since(self.started) >= FIRST_VALUES
    }

    fn site_limit(&mut self, limit: SiteLimit, now: Now) {
        if self.site_limits.iter().any(|l| l.key == limit.key) {
            return;
        }
        let installer = Bounds::new(&self.site, &[]);
        let own = match limit.side {
            GridSide::Import => installer.import_w,
            GridSide::Export => installer.export_w,
        };
        let is_tighter = own.is_some_and(|own| own < limit.power_w);
        let watts = own.map_or(limit.power_w, |own| own.min(limit.power_w));
        let applied = Applied {
            params: Params::from([("power_w".to_owned(), watts)]),
            limited_by: is_tighter.then(|| "installer".to_owned()),
        };
        self.pending.push(IntentUpdate { key: limit.key.clone(), at: now.wall, progress: Progress::Active(applied) });
        self.site_limits.push(limit);
    }

    fn end_site_limits(&mut self, now: Now, ends: impl Fn(&SiteLimit) -> bool) {
        let pending = &mut self.pending;
        self.site_limits.retain(|l| {
            let is_over = ends(l);
            if is_over {
                let progress = Progress::Ended { delivered_wh: None };
                pending.push(IntentUpdate { key: l.key.clone(), at: now.wall, progress });
            }
            !is_over
        });
    }

    fn raise_alarms(&mut self, decisions: &[Decision<'_>], is_grid_lost: bool, now: Now, effects: &mut Vec<Effect>) {
        let ready = decisions.iter().zip(&self.desks).filter(|(_, desk)| desk.is_ready);
        let limits: Vec<_> =
            ready.filter_map(|(d, _)| d.holder.as_ref()).filter_map(|h| h.applied.limited_by.as_deref()).collect();
        let grid = self.units.iter().find(|u| u.is_grid()).map(|u| &u.spec.id);
        let is_blocked = now.clock == ClockState::Untrusted && self.plans.is_any_for(&self.controlled);
        let causes = [
            (Cause::GridMeterStale, is_grid_lost, grid),
            (Cause::ImportLimit, limits.contains(&IMPORT), None),
            (Cause::ExportLimit, limits.contains(&EXPORT), None),
            (Cause::PlanBlockedClock, is_blocked, None),
            (Cause::PriceMissing, self.plans.is_price_missing(), None),
        ];
        for (cause, is_on, device) in causes {
            effects.extend(self.alarms.set(cause, is_on, device, now.mono, now.wall).map(Effect::Event));
        }
    }
}

impl Desk {
    /// Is it known well enough for a first decision.
    fn may_decide(&self, is_grid_known: bool, now: Mono) -> bool {
        let is_due = self.online_since.is_some_and(|t| now.since(t) >= FIRST_VALUES);
        is_grid_known && (self.sample.is_some() || is_due)
    }

    /// Tell what was decided, where that is news.
    fn tell(&mut self, scene: Scene<'_>, live: &mut BTreeMap<DeviceId, Arc<Decided>>, effects: &mut Vec<Effect>) {
        let device = &scene.unit.spec.id;
        let told = self.teller.look(&Scene { order: &self.order, error: self.error.as_deref(), ..scene });
        if let Some(decided) = told.live {
            live.insert(device.clone(), decided);
        }
        effects.extend(told.journal.map(Effect::Decided));
    }

    /// The order to send for what it holds, when that changed materially.
    fn hold(&mut self, order: Order, now: Mono) -> Option<Order> {
        if !is_material(&self.order, &order, now) {
            return None;
        }
        self.order = order.clone();
        self.teller.ordered(&order);
        if self.standing.take().is_some() {
            self.standing_after = now.plus(STANDING_RETRY);
        }
        Some(order)
    }

    /// The order to send for a standing setting, or to take its place when it is done.
    fn set(&mut self, wanted: Option<&Intent>, now: Mono) -> Option<Order> {
        let Some(intent) = wanted else {
            return self.standing.take().map(|_| self.order.clone());
        };
        let is_there = self.standing.as_ref().is_some_and(|(key, what)| *key == intent.key && *what == intent.action);
        if is_there || now < self.standing_after {
            return None;
        }
        let Action::SetReserve { soc_pct } = intent.action else { return None };
        self.standing = Some((intent.key.clone(), intent.action.clone()));
        let end = LeaseEnd { mono: intent.deadline, wall: intent.ends_at };
        Some(Order::Hold(Setpoint::new(
            intent.device.clone(),
            Demand::Reserve { pct: soc_pct },
            intent.key.clone(),
            intent.action.clone(),
            end,
            Demand::Release,
        )))
    }

    fn lease_end(&self) -> Option<Timestamp> {
        match &self.order {
            Order::Hold(setpoint) => Some(setpoint.end().wall),
            Order::Wait | Order::Free => None,
        }
    }
}

/// Stopping a device never waits for anything.
fn is_safe(decision: &Decision<'_>) -> bool {
    decision
        .holder
        .as_ref()
        .is_some_and(|h| matches!(h.key, IntentKey::Command { .. }) && matches!(h.asked, Action::Stop | Action::Idle))
}

/// Is the new order worth a write on the wire.
fn is_material(old: &Order, new: &Order, now: Mono) -> bool {
    match (old, new) {
        (Order::Hold(old), Order::Hold(new)) => {
            old.cause() != new.cause()
                || is_other(old.demand(), new.demand())
                || is_other(old.on_end(), new.on_end())
                || is_other_end(old, new, now)
        }
        (old, new) => old != new,
    }
}

fn is_other_end(old: &Setpoint, new: &Setpoint, now: Mono) -> bool {
    if matches!(new.cause(), IntentKey::Limit(_)) {
        let lease = if new.demand() == Demand::Release { BASELINE_LEASE } else { GUARD_LEASE };
        return old.end().mono.since(now) < lease / 2;
    }
    // What lasts longer than any lease is renewed in time.
    if new.end().mono.since(now) >= LONGEST_LEASE {
        return old.end().mono.since(now) < LONGEST_LEASE / 2;
    }
    // A plan's end is worked out from the wall clock in each cycle: that wavers by rounding.
    let (a, b) = (old.end().mono.ms(), new.end().mono.ms());
    a.abs_diff(b) > 1500
}

/// Noise in a demand: below 25 W or 1 % upwards, and below 1 W downwards, where a limit tightens.
pub(super) fn is_other(old: Demand, new: Demand) -> bool {
    let watts = |old: f64, new: f64| {
        let is_tighter = new.abs() < old.abs() || old * new < 0.0;
        (new - old).abs() >= if is_tighter { 1.0 } else { (old.abs() * 0.01).max(25.0) }
    };
    match (old, new) {
        (Demand::BatteryPower { watts: a, grid: x }, Demand::BatteryPower { watts: b, grid: y }) => {
            x != y || watts(a, b)
        }
        (Demand::PowerLimit { watts: a }, Demand::PowerLimit { watts: b }) => watts(a, b),
        (Demand::ChargerCurrent { amps: a, phases: x }, Demand::ChargerCurrent { amps: b, phases: y }) => {
            x != y || (a - b).abs() >= 0.1
        }
        (Demand::ChargerLimit { amps: a }, Demand::ChargerLimit { amps: b }) => (a - b).abs() >= 0.1,
        (old, new) => old != new,
    }
}
