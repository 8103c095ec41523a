//! derd without its tasks: the real control, the real keepers and drivers, the real door and tracking of commands; the
//! disk is a struct that outlives it.

use crate::command::{Incoming, Surroundings, Target, Tracked, What, admit, kept_body, recover, taken};
use crate::control::{ControlMsg, Core, Effect, Now};
use crate::device::bench_tests::{Bench, Out};
use crate::link::LinkError;
use crate::model::{
    CommandResult, CommandState, DeviceId, DeviceSpec, DeviceStatus, Event, EventState, Held, Intent, IntentKey, Mono,
    Order, Origin, OwnerWord, PlanId, Rank, ReplyTo, SiteLimit, SiteSpec, Timestamp, UplinkName,
};
use crate::profile::{Answer, Catalogue, Request};
use crate::runtime::Clock;
use crate::store::{NewCommand, OpenCommand, StoredPlan};
use std::collections::BTreeMap;
use std::time::Duration;

/// What survives a power cut.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) held: BTreeMap<DeviceId, Held>,
    pub(super) baselines: BTreeMap<DeviceId, String>,
    pub(super) wear: BTreeMap<DeviceId, String>,
    pub(super) open: Vec<OpenCommand>,
    pub(super) plans: Vec<StoredPlan>,
    pub(super) order: u64,
    pub(super) boots: u64,
    /// Results on their way out, oldest first.
    pub(super) outbox: Vec<CommandResult>,
    pub(super) events: Vec<Event>,
    /// Decisions that were journalled.
    pub(super) decisions: u64,
}

impl Disk {
    fn save(&mut self, result: CommandResult) {
        if result.state.is_final() {
            self.open.retain(|c| Some(&c.command.id) != result.id.as_ref() || c.command.device != result.device);
        } else if let Some(open) = self.open.iter_mut().find(|c| Some(&c.command.id) == result.id.as_ref()) {
            open.command.result = result.clone();
        }
        self.outbox.push(result);
    }
}

/// Asks a device: its index, the request.
pub(super) type Wire<'a> = &'a mut dyn FnMut(usize, &Request) -> Result<Answer, LinkError>;

/// One run of the process.
pub(super) struct Gateway {
    pub(super) clock: Clock,
    site: SiteSpec,
    specs: Vec<DeviceSpec>,
    core: Core,
    benches: Vec<Bench>,
    statuses: Vec<DeviceStatus>,
    pub(super) orders: Vec<Order>,
    tracked: BTreeMap<IntentKey, Tracked>,
    /// Something came that control has not looked at.
    is_news: bool,
}

impl Gateway {
    pub(super) fn start(site: &SiteSpec, specs: &[DeviceSpec], disk: &mut Disk, wall: Timestamp) -> Self {
        disk.boots += 1;
        let clock = Clock::manual(wall);
        let found = recover(&disk.open, &disk.plans, specs, site, &OwnerWord::default(), &clock);
        assert_eq!(found.refused_plans, vec![]);
        let catalogue = Catalogue::load(&[]).unwrap();
        let benches = specs.iter().map(|spec| {
            let driver = catalogue.get(&spec.profile).unwrap().driver(spec).unwrap();
            let baseline = disk.baselines.get(&spec.id).cloned();
            Bench::new(
                spec.clone(),
                driver,
                disk.held.get(&spec.id),
                baseline,
                disk.wear.get(&spec.id).map(String::as_str),
                disk.boots,
                &clock,
            )
        });
        let benches = benches.collect();
        let mut made = Self {
            core: Core::new(site.clone(), specs.to_vec(), clock.mono()),
            site: site.clone(),
            benches,
            statuses: specs.iter().map(|_| DeviceStatus::default()).collect(),
            orders: specs.iter().map(|_| Order::Wait).collect(),
            specs: specs.to_vec(),
            clock,
            tracked: found.tracked,
            is_news: true,
        };
        let now = made.now();
        for (doc, order, source) in found.plans {
            made.core.message(ControlMsg::Plan { doc, order, source }, now);
        }
        found.intents.into_iter().for_each(|i| made.core.message(ControlMsg::Intent(i), now));
        found.site_limits.into_iter().for_each(|l| made.core.message(ControlMsg::SiteLimit(l), now));
        found.settled.into_iter().for_each(|result| disk.save(result));
        made
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.clock.mono(), wall: self.clock.now(), clock: self.clock.state() }
    }

    /// A document comes from the owner.
    pub(super) fn plan(&mut self, name: &str, body: &str, disk: &mut Disk) {
        let id: PlanId = name.parse().unwrap();
        let (doc, body) = taken(name, body, &self.specs, &self.site).unwrap();
        disk.order += 1;
        let (order, source, accepted_at) = (disk.order, UplinkName::local(), self.clock.now());
        disk.plans.push(StoredPlan { id, body, source: source.clone(), order, accepted_at });
        let msg = ControlMsg::Plan { doc, order, source: source.to_string() };
        self.core.message(msg, self.now());
        self.is_news = true;
    }

    /// A command comes, as the command task takes it: judged, written down, then it acts.
    pub(super) fn command(&mut self, uplink: &str, rank: Rank, target: &str, body: &str, disk: &mut Disk) {
        let now = self.now();
        let origin = Origin { uplink: uplink.parse().unwrap(), ranks: vec![rank] };
        let target = if target == "site" { Target::Site } else { Target::Device(target.to_owned()) };
        let incoming = Incoming {
            origin: &origin,
            target: &target,
            body: body.as_bytes(),
            retained: false,
            expires_in: None,
            received: now.wall,
        };
        let status =
            |id: &DeviceId| self.specs.iter().position(|s| s.id == *id).and_then(|i| self.statuses.get(i)).cloned();
        let around = Surroundings { devices: &self.specs, status: &status, clock: now.clock, now: now.wall };
        let admitted = match admit(&incoming, &around) {
            Ok(admitted) => admitted,
            Err(no) => {
                let mut result = CommandResult::new(origin.uplink, no.device, no.id, no.state, now.wall);
                result.reason = Some(no.reason);
                return disk.save(result);
            }
        };
        disk.order += 1;
        let order = disk.order;
        let uplink = origin.uplink.clone();
        let key =
            IntentKey::Command { uplink: uplink.clone(), device: admitted.device.clone(), id: admitted.id.clone() };
        let result = CommandResult {
            requested: admitted.requested.clone(),
            reply_to: ReplyTo::default(),
            ..CommandResult::new(
                uplink.clone(),
                admitted.device.clone(),
                Some(admitted.id.clone()),
                CommandState::Accepted,
                now.wall,
            )
        };
        let command = NewCommand {
            uplink: uplink.clone(),
            device: admitted.device.clone(),
            id: admitted.id.clone(),
            body: kept_body(&origin, body.as_bytes()),
            result: result.clone(),
            ends_at: admitted.ends_at,
            accepted_at: now.wall,
        };
        disk.open.push(OpenCommand { command, order });
        let deadline = now.mono.plus(admitted.lease);
        let tracked = Tracked::new(result.clone(), admitted.what.is_standing(), deadline, order);
        let ends_at = admitted.ends_at;
        let msg = match (admitted.what, admitted.device) {
            (What::Intent { action, rank, source }, Some(device)) => {
                let (since, accepted) = (now.wall, order);
                self.tracked.insert(key.clone(), tracked);
                ControlMsg::Intent(Intent {
                    key,
                    device,
                    action,
                    rank,
                    source,
                    accepted,
                    since,
                    ends_at,
                    deadline,
                    why: None,
                })
            }
            (What::SiteLimit { side, power_w }, _) => {
                self.tracked.insert(key.clone(), tracked);
                ControlMsg::SiteLimit(SiteLimit { key, side, power_w, ends_at, deadline })
            }
            (_, Some(device)) => {
                let ended = CommandResult { state: CommandState::Ended, ended_at: Some(now.wall), ..result.clone() };
                disk.save(ended);
                ControlMsg::Release { uplink, device }
            }
            (_, None) => panic!("the week releases no site limits"),
        };
        disk.outbox.push(result);
        self.core.message(msg, now);
        self.is_news = true;
    }

    /// Let these devices be polled now.
    pub(super) fn poll(&mut self, which: &[usize], wire: Wire<'_>, disk: &mut Disk) {
        let now = self.now();
        let mut out = Vec::new();
        for index in which {
            self.benches[*index].poll(now.mono, now.wall, now.clock, &mut |r| wire(*index, r), &mut out);
            self.take(*index, &mut out, disk);
        }
        self.is_news = true;
    }

    /// Decide and carry out, until nothing more is due at this instant.
    pub(super) fn turn(&mut self, wire: Wire<'_>, disk: &mut Disk) {
        let now = self.now();
        let mut out = Vec::new();
        for _ in 0..16 {
            if std::mem::take(&mut self.is_news) {
                for effect in self.core.cycle(now) {
                    match effect {
                        Effect::Order(index, order) => {
                            self.orders[index] = order.clone();
                            self.benches[index].order(order);
                        }
                        Effect::Update(update) => {
                            let Some(tracked) = self.tracked.get_mut(&update.key) else { continue };
                            let changes = tracked.apply(&update);
                            changes.results.into_iter().for_each(|result| disk.save(result));
                            if tracked.result().state.is_final() {
                                self.tracked.remove(&update.key);
                            }
                            if changes.withdraw {
                                self.core.message(ControlMsg::Withdraw(update.key), now);
                                self.is_news = true;
                            }
                        }
                        Effect::Event(event) => disk.events.push(event),
                        Effect::Decided(_) => disk.decisions += 1,
                    }
                }
            }
            for index in 0..self.benches.len() {
                if self.benches[index].rests_until.is_some_and(|at| at <= now.mono) {
                    self.benches[index].apply(now.mono, now.wall, &mut |r| wire(index, r), &mut out);
                    self.take(index, &mut out, disk);
                }
            }
            if !self.is_news {
                return;
            }
        }
        panic!("control does not come to rest");
    }

    fn take(&mut self, index: usize, out: &mut Vec<Out>, disk: &mut Disk) {
        let now = self.now();
        let id = &self.specs[index].id;
        for out in out.drain(..) {
            match out {
                Out::Sample(sample) => self.core.sample(sample, now),
                Out::Outcome(outcome) => self.core.outcome(&outcome, now),
                Out::Status(status) => {
                    self.core.device(index, &status, now);
                    self.statuses[index] = status;
                }
                Out::Held(held) => {
                    disk.held.insert(id.clone(), held);
                    continue;
                }
                Out::NotHeld => {
                    disk.held.remove(id);
                    continue;
                }
                Out::Baseline(json) => {
                    disk.baselines.insert(id.clone(), json);
                    continue;
                }
                Out::Wear(json) => {
                    disk.wear.insert(id.clone(), json);
                    continue;
                }
                Out::Alarm(code) => {
                    disk.events.push(Event {
                        ts: now.wall,
                        severity: crate::model::Severity::Warning,
                        device: Some(id.clone()),
                        code: code.to_owned(),
                        text: String::new(),
                        state: EventState::Raised,
                    });
                    continue;
                }
            }
            self.is_news = true;
        }
    }

    /// Is anything due within this time apart from polls.
    pub(super) fn is_due(&self, within: Duration) -> bool {
        let now = self.now();
        let until = now.mono.plus(within);
        let keeper = |b: &Bench| b.rests_until.is_some_and(|at| at <= until);
        self.is_news || self.benches.iter().any(keeper) || self.core.next_wake(now).is_some_and(|d| d <= within)
    }

    /// When control wants to be woken.
    pub(super) fn wake(&mut self, at: Mono) {
        if self.core.next_wake(self.now()).is_some_and(|d| self.now().mono.plus(d) <= at) {
            self.is_news = true;
        }
    }
}
