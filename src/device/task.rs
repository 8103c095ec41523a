//! The loop of a device: one request at a time; orders before discovery, discovery before polls.

use super::DeviceParts;
use super::apply::Keeper;
use super::baseline::Accept;
use super::find::Finder;
use super::guarded::Guarded;
use super::perform::carry_out;
use super::poll::Poll;
use super::purse::Purse;
use super::words::{Do, Effect};
use crate::link::{LinkHandle, LinkState};
use crate::model::{
    BootId, Demand, DeviceSpec, DeviceState, DeviceStatus, Event, EventState, Held, Mono, Order, Outcome, Sample,
    Severity, Stage,
};
use crate::profile::{Driver, Program};
use crate::runtime::{Clock, Exit, Shutdown};
use crate::store::StoreHandle;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// A device is led back within this time on stop; what is not verified by then is done by the next start.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// The journal's queue may be full for this long before a setpoint goes out without waiting further.
pub(super) const JOURNAL_WAIT: Duration = Duration::from_secs(1);
/// Stopping and holding at 0 W are safe by themselves and wait for nobody.
pub(super) const URGENT_WAIT: Duration = Duration::from_millis(10);
/// Outcomes that wait for control.
const OUTCOMES: usize = 64;

/// The side of a device that does the work.
#[derive(Debug)]
pub struct DeviceTask {
    pub(super) spec: DeviceSpec,
    pub(super) driver: Driver,
    pub(super) clock: Clock,
    pub(super) boot: BootId,
    pub(super) link: Wire,
    pub(super) out: Out,
    pub(super) keeper: Keeper,
    pub(super) finder: Finder,
    pub(super) poll: Poll,
    pub(super) orders: watch::Receiver<Order>,
    /// The program that was written last: its checks are what must read back.
    pub(super) program: Option<(Demand, Program)>,
    pub(super) purse: Purse,
    /// Who wants a new baseline accepted.
    accepts: mpsc::Receiver<Accept>,
    pub(super) guarded: Guarded,
}

/// The way to the device.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) handle: LinkHandle,
    pub(super) state: watch::Receiver<LinkState>,
}

/// The ways to everybody else.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) store: StoreHandle,
    pub(super) samples: mpsc::Sender<Arc<Sample>>,
    outcomes: mpsc::Sender<Outcome>,
    waiting: VecDeque<Outcome>,
    pub(super) status: watch::Sender<DeviceStatus>,
    /// Not yet in the journal, because its queue was full.
    unjournalled: Option<Held>,
}

impl DeviceTask {
    pub(super) fn new(
        parts: DeviceParts,
        orders: watch::Receiver<Order>,
        accepts: mpsc::Receiver<Accept>,
        status: watch::Sender<DeviceStatus>,
    ) -> Self {
        let held = parts.held.map(|h| (h.demand, h.on_end));
        let purse = Purse::new(parts.wear.as_deref(), parts.spec.control.flash_writes_per_day, &parts.clock);
        status.send_modify(|s| s.wear = purse.rows());
        let state = parts.link.state();
        Self {
            keeper: Keeper::new(parts.spec.clone(), held),
            finder: Finder::new(parts.baseline),
            poll: Poll::new(parts.spec.poll),
            spec: parts.spec,
            driver: parts.driver,
            clock: parts.clock,
            boot: parts.boot,
            link: Wire { handle: parts.link, state },
            out: Out {
                store: parts.store,
                samples: parts.samples,
                outcomes: parts.outcomes,
                waiting: VecDeque::new(),
                status,
                unjournalled: None,
            },
            orders,
            program: None,
            purse,
            accepts,
            guarded: Guarded::new(parts.wills, parts.left),
        }
    }

    /// Find, poll and control the device until the shutdown, or until nobody holds its handle; then lead it back.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Exit {
        self.settle_left(&mut shutdown).await;
        let exit = loop {
            if shutdown.is_stopping() {
                break Exit::Shutdown;
            }
            self.out.flush();
            match self.orders.has_changed() {
                Ok(true) => {
                    let order = self.orders.borrow_and_update().clone();
                    self.keeper.set_order(order);
                }
                Ok(false) => {}
                Err(_) => break Exit::Orphaned,
            }
            if let Ok(reply) = self.accepts.try_recv() {
                self.accept_baseline(reply);
            }
            let now = self.clock.mono();
            self.look_at_link(now);
            self.look_at_watch(now).await;
            let until = match self.apply(now).await {
                Some(until) => until,
                None => continue,
            };
            if self.advance(now, &mut shutdown).await {
                continue;
            }
            let wake = [until, self.due()].into_iter().flatten().min();
            self.wait(wake, &mut shutdown).await;
        };
        self.wind_down().await;
        exit
    }

    /// One step for the order: `None` when something was done, else when to look again.
    async fn apply(&mut self, now: Mono) -> Option<Option<Mono>> {
        let reachable = self.reachable();
        let (effects, next) = self.keeper.tick(now, reachable.as_ref().copied().map_err(String::as_str));
        self.emit(effects).await;
        if let Do::Rest(until) = next {
            return Some(until);
        }
        let effects = carry_out(self, next).await;
        self.emit(effects).await;
        self.show_wear();
        None
    }

    /// One request for discovery or the poll, if one is due.
    async fn advance(&mut self, now: Mono, shutdown: &mut Shutdown) -> bool {
        let Some(request) = self.next_request(now) else { return false };
        let answer = tokio::select! {
            answer = self.link.handle.request(request) => answer,
            // A read that nobody waits for any more may be dropped.
            () = shutdown.wait() => return true,
        };
        self.take_answer(answer).await;
        true
    }

    async fn wait(&mut self, wake: Option<Mono>, shutdown: &mut Shutdown) {
        let pause = match wake {
            Some(wake) => wake.since(self.clock.mono()).max(Duration::from_millis(1)),
            None => Duration::from_secs(3600),
        };
        let mut accept = None;
        let owes = !self.out.waiting.is_empty();
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            // The head of the loop takes the order, or notices that nobody gives any.
            changed = self.orders.changed() => if changed.is_ok() {
                self.orders.mark_changed();
            },
            changed = self.link.state.changed() => if changed.is_err() {
                // The link's task is gone; requests say so. Do not spin on its cell.
                sleep(pause.min(Duration::from_secs(1))).await;
            },
            Some(reply) = self.accepts.recv() => accept = Some(reply),
            _room = self.out.outcomes.reserve(), if owes => {}
            () = sleep(pause) => {}
        }
        if let Some(reply) = accept {
            self.accept_baseline(reply);
        }
    }

    /// May orders go to the wire, or why not.
    fn reachable(&self) -> Result<(), String> {
        if let LinkState::Down(why) = &*self.link.state.borrow()
            && self.link.handle.via() == "modbus"
        {
            return Err(why.clone());
        }
        self.finder.controllable().map_err(|why| why.to_owned())
    }

    async fn emit(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Outcome { cause, demand, stage, evidence } => {
                    tracing::debug!(device = %self.spec.id, ?demand, ?stage, "setpoint");
                    let (device, at) = (self.spec.id.clone(), self.clock.now());
                    let owns = demand.is_standing() && stage == Stage::Verified;
                    self.out.report(Outcome { device, cause, demand, at, stage, evidence });
                    if owns {
                        self.owns(&demand).await;
                    }
                }
                Effect::NotHeld => {
                    self.out.forget(self.spec.id.clone()).await;
                    self.gave_back();
                    self.no_will().await;
                }
                Effect::Remember(demand, on_end) => {
                    let held = Held { device: self.spec.id.clone(), demand, on_end, since: self.clock.now() };
                    self.out.journal(held, JOURNAL_WAIT).await;
                    self.write_will(&demand).await;
                }
                Effect::Alarm { code, severity, text, raised } => self.event(code, severity, text, raised).await,
            }
        }
    }

    pub(super) async fn event(&self, code: &str, severity: Severity, text: String, raised: bool) {
        if raised {
            tracing::warn!(device = %self.spec.id, code, "{text}");
        } else {
            tracing::info!(device = %self.spec.id, code, "{text}");
        }
        let event = Event {
            ts: self.clock.now(),
            severity,
            device: Some(self.spec.id.clone()),
            code: code.to_owned(),
            text,
            state: if raised { EventState::Raised } else { EventState::Cleared },
        };
        if !matches!(timeout(JOURNAL_WAIT, self.out.store.event(event)).await, Ok(Ok(()))) {
            tracing::warn!(device = %self.spec.id, code, "the store did not take an event");
        }
    }

    pub(super) fn set_state(&self, state: DeviceState, error: Option<String>) {
        self.out.status.send_if_modified(|status| {
            let changed = status.state != state || status.error != error;
            status.state = state;
            status.error = error;
            changed
        });
    }

    /// Lead the device back, in bounded time.
    async fn wind_down(&mut self) {
        self.keeper.stop();
        let way_back = async {
            while self.keeper.holds_something() {
                let now = self.clock.mono();
                match self.apply(now).await {
                    None => {}
                    Some(Some(until)) => sleep(until.since(now).max(Duration::from_millis(1))).await,
                    Some(None) => break,
                }
            }
        };
        let in_time = timeout(STOP_WITHIN, way_back).await.is_ok();
        self.out.flush();
        self.purse.again();
        self.show_wear();
        if self.keeper.holds_something() {
            tracing::warn!(device = %self.spec.id, in_time, "not verified to be back; the next start goes on with it");
        }
    }
}

impl Out {
    /// Report to control, in order; when its queue is full the report waits here.
    fn report(&mut self, outcome: Outcome) {
        if self.waiting.len() >= OUTCOMES {
            // Control has not taken anything for so long that only the newest still matter.
            self.waiting.pop_front();
            tracing::error!(device = %outcome.device, "control does not take reports: the oldest is lost");
        }
        self.waiting.push_back(outcome);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(outcome) = self.waiting.pop_front() {
            match self.outcomes.try_send(outcome) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(outcome)) => {
                    self.waiting.push_front(outcome);
                    return;
                }
                // Control has ended, and so will this task.
                Err(mpsc::error::TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    /// Put `held` into the store's queue, for `wait` at most: a full queue must not keep a setpoint from its device.
    pub(super) async fn journal(&mut self, held: Held, wait: Duration) {
        self.unjournalled = None;
        match timeout(wait, self.store.held(held.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(device = %held.device, "journal of setpoints: {error}"),
            Err(_) => {
                tracing::warn!(device = %held.device, "the journal of setpoints is behind");
                self.unjournalled = Some(held);
            }
        }
    }

    /// Put into the journal what did not get in before.
    pub(super) async fn catch_up(&mut self) {
        if let Some(held) = self.unjournalled.take() {
            self.journal(held, URGENT_WAIT).await;
        }
    }

    async fn forget(&mut self, device: crate::model::DeviceId) {
        self.unjournalled = None;
        if !matches!(timeout(JOURNAL_WAIT, self.store.not_held(device.clone())).await, Ok(Ok(()))) {
            // The next start will look at the device again and find it as it should be.
            tracing::warn!(%device, "the journal of setpoints did not take a release");
        }
    }
}
