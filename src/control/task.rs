//! The loop: gathers events, lets `core` decide, carries the effects out.

use super::core::{Core, Effect, Now};
use super::{ControlHandle, ControlMsg};
use crate::model::{
    ControlStatus, Decided, DeviceId, DeviceSpec, DeviceStatus, Event, Intent, IntentKey, IntentUpdate, Order, Outcome,
    Pause, Sample, SiteLimit, SiteSpec,
};
use crate::plan::PlanDoc;
use crate::runtime::{Clock, Exit, Shutdown};
use crate::store::{StoreError, StoreHandle};
use crate::wire::explain_json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A device as control sees it: what it is, where its orders go, what its task says of it.
#[derive(Debug)]
pub struct ControlledDevice {
    /// As configured.
    pub spec: DeviceSpec,
    /// The cell its task takes orders from.
    pub orders: watch::Sender<Order>,
    /// Its task's own word.
    pub status: watch::Receiver<DeviceStatus>,
}

/// What control is made of.
#[derive(Debug)]
pub struct ControlParts {
    /// The site and its limits.
    pub site: SiteSpec,
    /// All devices, also those that are only read.
    pub devices: Vec<ControlledDevice>,
    /// Every device's samples.
    pub samples: mpsc::Receiver<Arc<Sample>>,
    /// Every device's reports.
    pub outcomes: mpsc::Receiver<Outcome>,
    /// To the room that tracks commands.
    pub updates: mpsc::Sender<IntentUpdate>,
    /// For events.
    pub store: StoreHandle,
    /// The clock.
    pub clock: Clock,
    /// The plans: document, order of acceptance, who sent it.
    pub plans: Vec<(Arc<PlanDoc>, u64, String)>,
    /// Command intents that an earlier run left running.
    pub intents: Vec<Intent>,
    /// Those of them that end when the car is unplugged.
    pub sessions: BTreeSet<IntentKey>,
    /// Site limits that an earlier run left running.
    pub site_limits: Vec<SiteLimit>,
    /// The owner's pause of remote control that an earlier run left in force.
    pub pause: Option<Pause>,
}

/// Control's task.
#[derive(Debug)]
pub struct ControlTask {
    core: Core,
    devices: Vec<Cells>,
    samples: mpsc::Receiver<Arc<Sample>>,
    outcomes: mpsc::Receiver<Outcome>,
    inbox: mpsc::Receiver<ControlMsg>,
    updates: mpsc::Sender<IntentUpdate>,
    status: watch::Sender<ControlStatus>,
    store: StoreHandle,
    clock: Clock,
    /// Updates and events on their way: control never waits for those who read them.
    unsent: VecDeque<IntentUpdate>,
    untold: VecDeque<Event>,
    /// Decisions that the store had no room for: the newest of each device is offered again in the next cycle.
    unkept: BTreeMap<DeviceId, Arc<Decided>>,
}

/// The two cells between control and a device task.
#[derive(Debug)]
struct Cells {
    orders: watch::Sender<Order>,
    status: watch::Receiver<DeviceStatus>,
}

/// More than this unread means that the reader is gone or hangs; the oldest are dropped and said so.
const MOST_UNREAD: usize = 4096;

/// A handle and the task to spawn.
#[must_use]
pub fn create(parts: ControlParts) -> (ControlHandle, ControlTask) {
    let (inbox, rx) = mpsc::channel(16);
    let (tx, status) = watch::channel(ControlStatus::default());
    let ControlParts {
        site,
        devices,
        samples,
        outcomes,
        updates,
        store,
        clock,
        plans,
        intents,
        sessions,
        site_limits,
        pause,
    } = parts;
    let (specs, mut cells): (Vec<_>, Vec<_>) =
        devices.into_iter().map(|d| (d.spec, Cells { orders: d.orders, status: d.status })).unzip();
    let mut core = Core::new(site, specs, clock.mono());
    let now = at(&clock);
    cells.iter_mut().enumerate().for_each(|(i, c)| core.device(i, &c.status.borrow_and_update(), now));
    for (doc, order, source) in plans {
        core.message(ControlMsg::Plan { doc, order, source }, now);
    }
    if let Some(Pause { until }) = pause {
        core.message(ControlMsg::Pause { until }, now);
    }
    for intent in intents {
        let is_session = sessions.contains(&intent.key);
        core.message(if is_session { ControlMsg::Session(intent) } else { ControlMsg::Intent(intent) }, now);
    }
    site_limits.into_iter().for_each(|l| core.message(ControlMsg::SiteLimit(l), now));
    let task = ControlTask {
        core,
        devices: cells,
        samples,
        outcomes,
        inbox: rx,
        updates,
        status: tx,
        store,
        clock,
        unsent: VecDeque::new(),
        untold: VecDeque::new(),
        unkept: BTreeMap::new(),
    };
    (ControlHandle { inbox, status }, task)
}

fn at(clock: &Clock) -> Now {
    Now { mono: clock.mono(), wall: clock.now(), clock: clock.state() }
}

/// What woke the loop.
enum Wake {
    Stop,
    Orphaned,
    Message(ControlMsg),
    Outcome(Outcome),
    Sample(Arc<Sample>),
    Tick,
    /// Room for an update, or an event was taken: nothing to decide.
    Delivered,
}

impl ControlTask {
    /// Runs until shutdown. Orders are left as they are: the device tasks take their `on_end` by themselves.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // One event at a time is on its way to the store.
        let mut telling = Telling::default();
        let mut is_deaf = false;
        loop {
            if telling.0.is_none()
                && let Some(event) = self.untold.pop_front()
            {
                telling = Telling::new(self.store.clone(), event);
            }
            let wake = self.core.next_wake(at(&self.clock)).unwrap_or(Duration::from_secs(60));
            let woke = tokio::select! {
                biased;
                () = shutdown.wait() => Wake::Stop,
                msg = self.inbox.recv() => msg.map_or(Wake::Orphaned, Wake::Message),
                Some(outcome) = self.outcomes.recv() => Wake::Outcome(outcome),
                Some(sample) = self.samples.recv() => Wake::Sample(sample),
                permit = self.updates.reserve(), if !self.unsent.is_empty() && !is_deaf => {
                    match (permit, self.unsent.pop_front()) {
                        (Ok(permit), Some(update)) => permit.send(update),
                        _ => is_deaf = true,
                    }
                    Wake::Delivered
                }
                () = telling.wait() => Wake::Delivered,
                _ = tick.tick() => Wake::Tick,
                () = tokio::time::sleep(wake) => Wake::Tick,
            };
            let now = at(&self.clock);
            match woke {
                Wake::Stop => return Exit::Shutdown,
                Wake::Orphaned => return Exit::Orphaned,
                Wake::Delivered => continue,
                Wake::Message(msg) => self.core.message(msg, now),
                Wake::Outcome(outcome) => self.core.outcome(&outcome, now),
                Wake::Sample(sample) => self.core.sample(sample, now),
                Wake::Tick => {}
            }
            self.gather(now);
            self.decide(now, is_deaf);
        }
    }

    /// Whatever else is there already belongs to the same cycle.
    fn gather(&mut self, now: Now) {
        while let Ok(msg) = self.inbox.try_recv() {
            self.core.message(msg, now);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.core.outcome(&outcome, now);
        }
        while let Ok(sample) = self.samples.try_recv() {
            self.core.sample(sample, now);
        }
        for (index, cells) in self.devices.iter_mut().enumerate() {
            // An error says that the device task is gone, which its supervisor knows; the last word stays.
            if cells.status.has_changed().unwrap_or(false) {
                self.core.device(index, &cells.status.borrow_and_update(), now);
            }
        }
    }

    fn decide(&mut self, now: Now, is_deaf: bool) {
        for effect in self.core.cycle(now) {
            match effect {
                Effect::Order(index, order) => {
                    if let Some(cells) = self.devices.get(index) {
                        cells.orders.send_replace(order);
                    }
                }
                Effect::Update(update) if !is_deaf => push(&mut self.unsent, update, "update of a command"),
                Effect::Update(_) => {}
                Effect::Event(event) => push(&mut self.untold, event, "event"),
                Effect::Decided(decided) => drop(self.unkept.insert(decided.device.clone(), decided)),
            }
        }
        let store = &self.store;
        self.unkept.retain(|device, d| {
            let json = explain_json(d).to_string();
            store.decided(device.clone(), d.at, d.clock, json) == Err(StoreError::Busy)
        });
        self.status.send_replace(self.core.status().clone());
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, what: &'static str) {
    if queue.len() >= MOST_UNREAD {
        queue.pop_front();
        tracing::error!(what, "control's reader does not read: the oldest is dropped");
    }
    queue.push_back(item);
}

type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// An event on its way to the store.
#[derive(Default)]
struct Telling(Option<Writing>);

impl Telling {
    fn new(store: StoreHandle, event: Event) -> Self {
        Self(Some(Box::pin(async move { store.event(event).await })))
    }

    /// Until it is there; for ever when there is none.
    async fn wait(&mut self) {
        match &mut self.0 {
            Some(future) => {
                // The store is gone only while the process ends.
                let _is_stopped = future.await.is_err();
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}
