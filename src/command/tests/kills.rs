//! Each command reaches exactly one final state, whatever ends the process and when.
//!
//! The task with the real control and the real store, on threads and clocks that the test holds in its hand: every wait
//! is a place where the process may end. What was not written down then is lost: what control knew, what was on its way
//! between the rooms, the sums that wait for the next commit.

use super::super::*;
use super::*;
use crate::control::{ControlHandle, ControlMsg, Core, Effect, Now};
use crate::runtime::{Clock, Exit, ShutdownSwitch};
use crate::store::{Ask, Ends, NoticeBody, StoreError, StoreHandle, StoreSettings, Worker};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

const DEVICES: [&str; 2] = ["battery", "charger"];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A command comes: by which channel, for what, with which id and body.
    Command {
        is_local: bool,
        device: usize,
        id: usize,
        body: usize,
    },
    /// The task runs until it waits.
    Run,
    /// The disk does one thing.
    Disk,
    /// Control runs a cycle.
    Control,
    /// One report of control reaches the task.
    Report,
    /// A device reports this on what it was told.
    Device {
        device: usize,
        stage: usize,
    },
    /// All of the above until nothing moves.
    Settle,
    Owner(usize),
    Wait(u64),
    /// The clock is set: so many seconds from where it should be; or is not to be trusted.
    Clock(Option<i64>),
    /// The backend gets what waits for it, and confirms it or not.
    Fetch {
        confirms: bool,
    },
    /// The car comes or leaves.
    Plug(bool),
    /// The disk takes nothing, or does again.
    Broken(bool),
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let command = (prop::bool::weighted(0.25), 0..3usize, 0..5usize, 0..12usize)
        .prop_map(|(is_local, device, id, body)| Step::Command { is_local, device, id, body });
    prop_oneof![
        8 => command,
        4 => Just(Step::Run),
        4 => Just(Step::Disk),
        3 => Just(Step::Control),
        3 => Just(Step::Report),
        5 => (0..2usize, 0..10usize).prop_map(|(device, stage)| Step::Device { device, stage }),
        4 => Just(Step::Settle),
        1 => (0..4usize).prop_map(Step::Owner),
        3 => prop::sample::select(vec![1, 5, 20, 70, 400, 1000]).prop_map(Step::Wait),
        1 => prop::sample::select(vec![None, Some(0), Some(0), Some(-300), Some(500)]).prop_map(Step::Clock),
        1 => any::<bool>().prop_map(|confirms| Step::Fetch { confirms }),
        1 => any::<bool>().prop_map(Step::Plug),
        1 => prop::bool::weighted(0.4).prop_map(Step::Broken),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// The body of a command. Most ids have one body, so that it comes again as it was.
fn body(device: usize, id: usize, body: usize, is_local: bool) -> Json {
    let end = |s: i64| Timestamp::from_ms(t(NOW).ms() + 1000 * s).to_string();
    let kind = if body < 9 { (id + 5 * device) % 7 } else { body };
    let mut json = match (device, kind) {
        (0, 0) => json!({"action": "idle"}),
        (0, 1) => json!({"action": "charge", "params": {"power_w": 2000}, "ends_at": end(600)}),
        (0, 2) => json!({"action": "discharge", "params": {"power_w": 1000}}),
        (0, 3) => json!({"action": "set_reserve", "params": {"soc_pct": 30}}),
        (0, 4) => json!({"action": "charge", "params": {"power_w": 3000}, "rank": "event"}),
        (0, 5) => json!({"action": "discharge", "params": {"power_w": 3000}, "rank": "grid", "ends_at": end(900)}),
        (1, 0) => json!({"action": "stop"}),
        (1, 1 | 2) => json!({"action": "set_max_current", "params": {"current_a": 10}}),
        (1, 3) => {
            json!({"action": "set_max_current", "params": {"current_a": 8}, "rank": "event", "ends_at": end(300)})
        }
        (1, 4 | 5) => json!({"action": "start"}),
        (2, 0..=2) => json!({"action": "set_import_limit", "params": {"power_w": 4000}, "ends_at": end(500)}),
        (2, 3..=5) => json!({"action": "set_export_limit", "params": {"power_w": 1000}}),
        (_, 6 | 9) => json!({"action": "release"}),
        (0, 10) => json!({"action": "auto"}),
        _ => json!({"action": "explode"}),
    };
    json["id"] = json!(format!("c-{id}"));
    if is_local {
        json.as_object_mut().unwrap().remove("rank");
    }
    json
}

/// A command as the outside knows it.
type Key = (UplinkName, Option<DeviceId>, CommandId);

fn key_of(result: &CommandResult) -> Option<Key> {
    Some((result.uplink.clone(), result.device.clone(), result.id.clone()?))
}

/// A simulated device: its order, and its power.
#[derive(Default)]
struct Sim {
    order: Order,
    power: f64,
}

/// One life of the process.
struct Life {
    task: Pin<Box<dyn Future<Output = Exit>>>,
    is_over: bool,
    switch: ShutdownSwitch,
    handle: CommandHandle,
    inbox: mpsc::Receiver<ControlMsg>,
    status: watch::Sender<ControlStatus>,
    core: Core,
    updates: mpsc::Sender<IntentUpdate>,
    unsent: VecDeque<IntentUpdate>,
    asks: mpsc::Receiver<Ask>,
    worker: Worker,
    sims: Vec<Sim>,
    answers: Vec<(Key, oneshot::Receiver<CommandResult>)>,
}

struct World {
    folder: tempfile::TempDir,
    clock: Clock,
    /// Where the wall clock should be.
    seconds: i64,
    broken: bool,
    /// The disk took nothing for a while: what a command went through meanwhile is told in one.
    was_broken: bool,
    is_plugged: bool,
    seq: u64,
    life: Option<Life>,
    /// Was ever said to be on its way.
    accepted: BTreeSet<Key>,
    /// What the backend was told of each command, in the order of the notices.
    told: BTreeMap<Key, Vec<CommandResult>>,
    notices: BTreeSet<u64>,
    /// The sums that the disk had at the starts.
    delivered: BTreeMap<Key, f64>,
    /// Final on the disk: it may not act again.
    over: BTreeMap<Key, CommandResult>,
    /// Acted while the disk took nothing: a kill then leaves no trace of it.
    unwritten: BTreeSet<Key>,
}

fn controllable() -> Vec<DeviceSpec> {
    let mut specs = devices();
    specs.retain(|spec| DEVICES.contains(&spec.id.as_str()));
    for spec in &mut specs {
        spec.control.accept_no_failsafe = true;
    }
    specs
}

fn settings(world: &World) -> StoreSettings {
    StoreSettings { uplinks: vec![mqtt().uplink], ..StoreSettings::new(world.folder.path().join("derd.db")) }
}

impl World {
    fn new() -> Self {
        let in_memory = std::path::Path::new("/dev/shm");
        let folder = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
        Self {
            folder: folder.unwrap(),
            clock: Clock::manual(t(NOW)),
            seconds: 0,
            broken: false,
            was_broken: false,
            is_plugged: true,
            seq: 0,
            life: None,
            accepted: BTreeSet::new(),
            told: BTreeMap::new(),
            notices: BTreeSet::new(),
            delivered: BTreeMap::new(),
            over: BTreeMap::new(),
            unwritten: BTreeSet::new(),
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.mono(), wall: self.clock.now(), clock: self.clock.state() }
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().unwrap()
    }

    /// The process starts: the same in the same order as `app` and `control::create` do it.
    fn start(&mut self) {
        let (asks_tx, asks) = mpsc::channel(512);
        let (outbox_tx, outbox) = watch::channel(0);
        let (store_status_tx, store_status) = watch::channel(StoreStatus::default());
        let dropped = Arc::new(AtomicU64::new(0));
        let ends = Ends {
            asks: mpsc::channel(1).1,
            dropped: Arc::clone(&dropped),
            outbox: outbox_tx,
            status: store_status_tx,
        };
        let mut worker = Worker::new(settings(self), self.clock.clone(), ends).unwrap();
        let open = ask(&mut worker, Ask::OpenCommands).unwrap();
        let plans = ask(&mut worker, Ask::Plans).unwrap();
        let word = read_word(ask(&mut worker, |tx| Ask::Meta(OWNER_WORD.to_owned(), tx)).unwrap().as_deref());
        for command in &open {
            let result = &command.command.result;
            if let (Some(key), Some(wh), Some(_)) = (key_of(result), result.delivered_wh, result.started_at) {
                let before = self.delivered.insert(key.clone(), wh).unwrap_or_default();
                assert!(wh >= before, "{key:?}: {wh} Wh after {before} Wh");
            }
        }
        let store = StoreHandle {
            asks: asks_tx,
            live: broadcast::channel(1).0,
            next_row: Arc::new(AtomicU64::new(0)),
            dropped,
            outbox,
            status: store_status,
        };
        let found = recover(&open, &plans, &controllable(), &site(), &word, &self.clock);
        let mut core = Core::new(site(), controllable(), self.clock.mono());
        let now = self.now();
        let mut online = status(&["charge", "discharge", "idle", "set_max_current", "set_reserve"], FailSafe::None);
        online.capabilities.max_current_a = Some(16.0);
        online.capabilities.min_current_a = Some(6.0);
        (0..DEVICES.len()).for_each(|i| core.device(i, &online, now));
        if let Some(Pause { until }) = found.pause {
            core.message(ControlMsg::Pause { until }, now);
        }
        for intent in found.intents {
            let is_session = found.sessions.contains(&intent.key);
            core.message(if is_session { ControlMsg::Session(intent) } else { ControlMsg::Intent(intent) }, now);
        }
        found.site_limits.into_iter().for_each(|l| core.message(ControlMsg::SiteLimit(l), now));
        let (control, inbox, status) = ControlHandle::for_test();
        let (updates, updates_rx) = mpsc::channel(64);
        let (switch, shutdown) = ShutdownSwitch::new();
        let (handle, task) = create(CommandParts {
            devices: controllable(),
            site: site(),
            capabilities: BTreeMap::new(),
            store,
            control,
            updates: updates_rx,
            clock: self.clock.clone(),
            open,
            recent: ask(&mut worker, |tx| Ask::NewestCommands(RECENT, tx)).unwrap(),
            plans,
            owner: word,
        });
        self.life = Some(Life {
            task: Box::pin(tokio::task::unconstrained(task.run(shutdown))),
            is_over: false,
            switch,
            handle,
            inbox,
            status,
            core,
            updates,
            unsent: VecDeque::new(),
            asks,
            worker,
            sims: DEVICES.iter().map(|_| Sim::default()).collect(),
            answers: Vec::new(),
        });
    }

    /// The task runs until it waits.
    async fn run(&mut self) {
        let life = self.life();
        if !life.is_over {
            life.is_over = poll_fn(|cx| Poll::Ready(life.task.as_mut().poll(cx).is_ready())).await;
        }
        let accepted = &mut self.accepted;
        self.life.as_mut().unwrap().answers.retain_mut(|(key, answer)| match answer.try_recv() {
            Ok(result) => {
                if !result.state.is_final() {
                    accepted.insert(key.clone());
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }

    /// The disk does one thing. Was there one.
    fn disk(&mut self) -> bool {
        let broken = self.broken;
        let life = self.life.as_mut().unwrap();
        let Ok(ask) = life.asks.try_recv() else { return false };
        let no = || StoreError::Sqlite { attempt: "write", reason: "disk full".to_owned() };
        match ask {
            Ask::Admit(new, tx) if broken => {
                if let Some(key) = key_of(&new.result) {
                    self.unwritten.insert(key);
                }
                drop(tx.send(Err(no())));
            }
            Ask::SaveResult(_, tx) | Ask::TellResult(_, tx) | Ask::SetMeta(_, _, tx) if broken => {
                drop(tx.send(Err(no())));
            }
            Ask::SaveResult(result, tx) => {
                // As the disk has it: a final result stays what it is.
                if let Some(key) = key_of(&result).filter(|_| result.state.is_final()) {
                    self.over.entry(key).or_insert_with(|| (*result).clone());
                }
                life.worker.handle(Ask::SaveResult(result, tx));
            }
            Ask::Admit(new, tx) => {
                if let Some(key) = key_of(&new.result) {
                    self.unwritten.remove(&key);
                }
                life.worker.handle(Ask::Admit(new, tx));
            }
            ask => drop(life.worker.handle(ask)),
        }
        true
    }

    /// Control gathers and decides. Did anything come of it.
    fn control(&mut self) -> bool {
        let now = self.now();
        let life = self.life.as_mut().unwrap();
        let mut any = false;
        while let Ok(msg) = life.inbox.try_recv() {
            life.core.message(msg, now);
            any = true;
        }
        for effect in life.core.cycle(now) {
            match effect {
                Effect::Order(i, order) => {
                    any = true;
                    if let Order::Hold(setpoint) = &order
                        && let IntentKey::Command { uplink, device, id } = setpoint.cause()
                    {
                        let key = (uplink.clone(), device.clone(), id.clone());
                        // What is on its way to control counts as told.
                        let is_old =
                            !matches!(&life.sims[i].order, Order::Hold(old) if old.cause() == setpoint.cause());
                        if let Some(end) = self.over.get(&key).filter(|_| is_old) {
                            panic!("{key:?} acts again after {end:?}");
                        }
                    }
                    life.sims[i].order = order;
                }
                Effect::Update(update) => {
                    any = true;
                    life.unsent.push_back(update);
                }
                Effect::Event(_) | Effect::Decided(_) => {}
            }
        }
        life.status.send_replace(life.core.status().clone());
        any
    }

    /// One report reaches the task. Was there one.
    fn report(&mut self) -> bool {
        let life = self.life();
        let Some(update) = life.unsent.pop_front() else { return false };
        if let Err(e) = life.updates.try_send(update) {
            life.unsent.push_front(match e {
                mpsc::error::TrySendError::Full(update) => update,
                mpsc::error::TrySendError::Closed(_) => return false,
            });
            return false;
        }
        true
    }

    fn device(&mut self, i: usize, stage: usize) {
        let now = self.now();
        let life = self.life();
        let Order::Hold(setpoint) = life.sims[i].order.clone() else { return };
        let stage = match stage {
            0..=2 => Stage::Written,
            3..=7 => Stage::Verified,
            8 => Stage::Failed("illegal data value".to_owned()),
            _ => Stage::Reverted("something else wrote".to_owned()),
        };
        let word = format!("{:?}", setpoint.demand());
        let proof = Evidence {
            at: now.wall,
            via: "modbus".to_owned(),
            address: "unit 1 holding 1".to_owned(),
            wrote: word.clone(),
            read: word,
        };
        if stage == Stage::Verified {
            life.sims[i].power = match setpoint.demand() {
                Demand::BatteryPower { watts, .. } => watts,
                Demand::ChargerCurrent { amps, .. } => amps * 690.0,
                _ => 0.0,
            };
        }
        let outcome = Outcome {
            device: setpoint.device().clone(),
            cause: Some(setpoint.cause().clone()),
            demand: setpoint.demand(),
            at: now.wall,
            stage,
            evidence: vec![proof],
        };
        life.core.outcome(&outcome, now);
    }

    /// Everything until nothing moves.
    async fn settle(&mut self) {
        for _ in 0..200 {
            self.run().await;
            let disk = self.disk();
            let control = self.control();
            let report = self.report();
            if !disk && !control && !report {
                return self.run().await;
            }
        }
        panic!("it never comes to rest");
    }

    /// Time passes; the devices are read.
    async fn wait(&mut self, seconds: u64) {
        let by = Duration::from_secs(seconds);
        self.seconds += seconds.cast_signed();
        self.clock.advance(by);
        self.samples();
        // Enough for every timer of the task to go off once.
        tokio::time::advance(by.min(Duration::from_secs(61))).await;
        let life = self.life();
        life.worker.turn();
        self.control();
    }

    fn samples(&mut self) {
        let now = self.now();
        self.seq += 1;
        let (seq, is_plugged) = (self.seq, self.is_plugged);
        let life = self.life();
        for (name, sim) in DEVICES.iter().zip(&life.sims) {
            let state = match *name {
                "battery" => "idle",
                _ if is_plugged => "charging",
                _ => "unplugged",
            };
            let points = vec![
                (Point::PowerW, Ok(Value::Num(sim.power))),
                (Point::SocPct, Ok(Value::Num(50.0))),
                (Point::State, Ok(Value::Text(state.into()))),
            ];
            let (ts, mono, clock) = (now.wall, now.mono, now.clock);
            let boot = BootId::new("b007").unwrap();
            let sample = Sample { device: name.parse().unwrap(), boot, seq, ts, clock, mono, points };
            life.core.sample(Arc::new(sample), now);
        }
    }

    /// What waits for the backend: all that it has not confirmed.
    fn fetch(&mut self, confirms: bool) {
        let life = self.life.as_mut().unwrap();
        let uplink = mqtt().uplink;
        let items = ask(&mut life.worker, |tx| Ask::Outbox(uplink.clone(), 100_000, tx)).unwrap();
        let ids = items.iter().map(|item| item.notice.id).collect();
        for item in items {
            let NoticeBody::Result(result) = item.notice.body else { continue };
            let Some(key) = key_of(&result).filter(|_| self.notices.insert(item.notice.id)) else { continue };
            // Answers to a command that was not taken are not the running one's.
            let reason = result.reason.as_deref().unwrap_or_default();
            if reason != "busy" && !reason.starts_with("same id with another body") {
                self.told.entry(key).or_default().push(result);
            }
        }
        if confirms {
            life.worker.handle(Ask::OutboxDone(uplink, ids));
        }
    }

    /// The process is gone, with all that it only knew.
    fn kill(&mut self) {
        let life = self.life.take().unwrap();
        drop(life);
        // What acted while the disk took nothing has left no trace.
        let lost = std::mem::take(&mut self.unwritten);
        self.accepted.retain(|key| !lost.contains(key));
    }

    async fn stop(&mut self) {
        let life = self.life();
        life.switch.stop();
        for _ in 0..300 {
            self.run().await;
            if !self.disk() {
                if self.life().is_over {
                    break;
                }
                // It waits for the next try.
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        assert!(self.life().is_over);
        if !self.broken {
            ask(&mut self.life().worker, Ask::Flush).unwrap();
        }
        self.kill();
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Command { is_local, device, id, body: salt } => {
                let (answer, rx) = oneshot::channel();
                let json = body(device, id, salt, is_local);
                let target = DEVICES.get(device).map_or(Target::Site, |name| Target::Device((*name).to_owned()));
                let on: Option<DeviceId> = DEVICES.get(device).map(|name| name.parse().unwrap());
                let ranks = vec![Rank::Command, Rank::Event, Rank::Grid];
                let origin = if is_local { local() } else { Origin { ranks, ..mqtt() } };
                let key = (origin.uplink.clone(), on, json["id"].as_str().unwrap().parse().unwrap());
                let raw = RawCommand {
                    origin,
                    target,
                    body: json.to_string().into_bytes(),
                    retained: false,
                    expires_in: Some(Duration::from_secs(60)),
                    received: self.clock.now(),
                    reply_to: ReplyTo::default(),
                    answer,
                };
                if self.life().handle.try_command(raw).is_ok() {
                    self.life().answers.push((key, rx));
                }
            }
            Step::Run => self.run().await,
            Step::Disk => drop(self.disk()),
            Step::Control => drop(self.control()),
            Step::Report => drop(self.report()),
            Step::Device { device, stage } => self.device(device, stage),
            Step::Settle => self.settle().await,
            Step::Owner(wish) => {
                let wish = match wish {
                    0 => OwnerWish::Pause(None),
                    1 => OwnerWish::Pause(Some(Duration::from_secs(100))),
                    2 => OwnerWish::Resume,
                    _ => OwnerWish::OptOut(None),
                };
                let (answer, _rx) = oneshot::channel();
                drop(self.life().handle.try_owner(OwnerAsk { wish, answer }));
            }
            Step::Wait(seconds) => self.wait(seconds).await,
            Step::Clock(ahead) => {
                let right = t(NOW).ms() + 1000 * (self.seconds + ahead.unwrap_or_default());
                self.clock.step(Timestamp::from_ms(right), ahead.is_some());
            }
            Step::Fetch { confirms } => self.fetch(confirms),
            Step::Plug(is_plugged) => self.is_plugged = is_plugged,
            Step::Broken(broken) => {
                self.broken = broken;
                self.was_broken |= broken;
            }
            Step::Kill => {
                self.kill();
                self.start();
            }
            Step::Stop => {
                self.stop().await;
                self.start();
            }
        }
    }

    /// All ends well: the clock is right, the disk works, and everything has the time that it was given.
    async fn end(&mut self) {
        self.broken = false;
        self.step(Step::Clock(Some(0))).await;
        for seconds in [1, 1, 61, 61, 1000, 200, 61, 86_400, 200, 61] {
            self.settle().await;
            self.wait(seconds).await;
        }
        self.settle().await;
        self.fetch(true);
    }

    fn check(&mut self) {
        let open = ask(&mut self.life().worker, Ask::OpenCommands).unwrap();
        assert!(open.is_empty(), "without an end on the disk: {open:#?}");
        for (key, told) in &self.told {
            for pair in told.windows(2) {
                assert!(
                    may_follow(&pair[0], &pair[1], self.was_broken),
                    "{key:?}: {:#?}\nthen {:#?}",
                    pair[0],
                    pair[1]
                );
            }
            let end = told.last().unwrap();
            assert!(end.state.is_final(), "{key:?} was never told its end: {told:#?}");
            if let Some(before) = self.delivered.get(key)
                && !matches!(end.state, CommandState::Rejected)
            {
                let wh = end.delivered_wh.unwrap_or_default();
                assert!(wh >= *before, "{key:?}: {wh} Wh at the end, {before} Wh before");
            }
        }
        for key in self.accepted.iter().filter(|(uplink, ..)| *uplink != local().uplink) {
            assert!(self.told.contains_key(key), "{key:?} was accepted and never told");
        }
    }
}

/// May the backend see these two results of one command, one after the other.
fn may_follow(a: &CommandResult, b: &CommandResult, may_skip: bool) -> bool {
    use CommandState::*;
    match (a.state, b.state) {
        (a_state, b_state) if a_state.is_final() => a_state == b_state && a.ended_at == b.ended_at,
        (_, b_state) if b_state.is_final() => true,
        (_, Suspended) => true,
        (Suspended, next) => next == Accepted,
        // A limit of the site is not written anywhere.
        (Accepted, Held) => a.device.is_none() || may_skip,
        (Written, Held) => may_skip,
        (Accepted, next) => matches!(next, Accepted | Written | Verified),
        (Written, next) => matches!(next, Written | Verified),
        (Verified, next) => matches!(next, Verified | Held),
        (from, next) => from == next,
    }
}

fn ask<T>(
    worker: &mut Worker,
    make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Ask,
) -> Result<T, StoreError> {
    let (tx, mut rx) = oneshot::channel();
    worker.handle(make(tx));
    rx.try_recv().unwrap()
}

fn play(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.start();
        for step in steps {
            world.step(step).await;
        }
        world.end().await;
        world.check();
    });
}

const fn command(device: usize, id: usize) -> Step {
    Step::Command { is_local: false, device, id, body: 0 }
}

#[test]
fn what_is_told_again_does_not_overtake_what_came_after_it() {
    play(vec![command(1, 1), command(1, 1), command(0, 0)]);
}

#[test]
fn an_old_idle_does_not_act_again_after_a_restart() {
    // The second takes the place of the first; then the broker brings the first again.
    play(vec![command(0, 0), command(0, 1), Step::Settle, Step::Kill, command(0, 0)]);
}

#[test]
fn an_end_that_the_disk_refused_is_written_down_when_it_works_again() {
    let mut steps = vec![command(0, 1), Step::Settle, Step::Broken(true), Step::Device { device: 0, stage: 8 }];
    steps.extend([Step::Settle, Step::Wait(1), Step::Settle, Step::Wait(1), Step::Settle, Step::Wait(1), Step::Settle]);
    play(steps);
}

proptest! {
    #[test]
    fn every_command_has_exactly_one_end(steps in prop::collection::vec(step(), 1..80)) {
        play(steps);
    }
}
