//! The whole task under paused time: the wire and the store are channels answered by the test, the device is a charger
//! with the local API of its vendor.

use super::tests::{hold, spec};
use super::{DeviceHandle, DeviceParts, create};
use crate::guard::Journal;
use crate::link::{Job, LinkError, LinkHandle, LinkState};
use crate::model::{
    BootId, ControlSettings, Demand, DeviceId, DeviceKind, DeviceState, DeviceStatus, EventState, Held, IntentKey,
    Order, Outcome, Point, Sample, Stage, StoreStatus, Timestamp,
};
use crate::profile::{Answer, Catalogue, Request};
use crate::runtime::{Clock, Exit, ShutdownSwitch};
use crate::store::{Ask, StoreHandle};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(300);
const TEN: Demand = Demand::ChargerCurrent { amps: 10.0, phases: None };
const SIX: Demand = Demand::ChargerCurrent { amps: 6.0, phases: None };

/// What the test sees and sets of the charger and the store.
#[derive(Default)]
struct World {
    keys: Value,
    trouble: Option<LinkError>,
    log: Vec<String>,
    stuck: bool,
    kept: Vec<(DeviceId, String)>,
}

struct Rig {
    device: DeviceHandle,
    samples: mpsc::Receiver<Arc<Sample>>,
    outcomes: mpsc::Receiver<Outcome>,
    link: watch::Sender<LinkState>,
    journal: mpsc::Sender<Ask>,
    world: Arc<Mutex<World>>,
    switch: ShutdownSwitch,
    tasks: JoinSet<Option<Exit>>,
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap()
}

fn note(world: &Mutex<World>, ask: Ask) {
    let line = match ask {
        Ask::Held(held) => format!("held {:?}", held.demand),
        Ask::NotHeld(_) => "not held".into(),
        Ask::Baseline(device, json) => {
            let line = format!("baseline {json}");
            lock(world).kept = vec![(device, json)];
            line
        }
        Ask::Baselines(reply) => {
            let kept = lock(world).kept.clone();
            return reply.send(Ok(kept)).unwrap();
        }
        Ask::Event(event) => format!("{} {}", event.code, event.state == EventState::Raised),
        _ => return,
    };
    lock(world).log.push(line);
}

/// Charger and store as one, so that the order of what reaches them is seen.
async fn serve(world: Arc<Mutex<World>>, mut jobs: mpsc::Receiver<Job>, mut asks: mpsc::Receiver<Ask>) -> Option<Exit> {
    loop {
        let stuck = lock(&world).stuck;
        tokio::select! {
            biased;
            ask = asks.recv(), if !stuck => note(&world, ask?),
            job = jobs.recv() => {
                let job = job?;
                let answer = answer(&mut lock(&world), &job.request);
                job.reply.send(answer);
            }
        }
    }
}

fn answer(world: &mut World, request: &Request) -> Result<Answer, LinkError> {
    if let Some(trouble) = &world.trouble {
        return Err(trouble.clone());
    }
    let Request::Http { path, .. } = request else { panic!("{request:?}") };
    let url = url::Url::parse(&format!("http://x{path}")).unwrap();
    if url.path() == "/api/set" {
        let mut line = "set".to_owned();
        for (key, value) in url.query_pairs() {
            line += &format!(" {key}={value}");
            world.keys[key.as_ref()] = serde_json::from_str(&value).unwrap();
        }
        world.log.push(line);
    }
    Ok(Answer::Json(world.keys.clone()))
}

fn start(held: Option<Demand>, baseline: Option<&str>) -> Rig {
    start_with(
        held,
        baseline,
        ControlSettings { enabled: true, accept_no_failsafe: true, ..ControlSettings::default() },
    )
}

fn start_with(held: Option<Demand>, baseline: Option<&str>, control: ControlSettings) -> Rig {
    let nrg: Vec<f64> = vec![230., 230., 230., 0., 16., 16., 16., 3680., 3680., 3680., 0., 11040., 99., 99., 99., 0.];
    let keys = json!({
        "car": 2, "nrg": nrg, "eto": 1000, "wh": 10.0, "amp": 16, "frc": 0, "fwv": "60.2", "sse": "S1", "typ": "go-eCharger",
        "ama": 16,
    });
    let world = Arc::new(Mutex::new(World { keys, ..World::default() }));
    let mut spec = spec(DeviceKind::Charger);
    spec.profile = "go-e/charger".into();
    spec.control = control;
    let profile = Catalogue::load(&[]).unwrap().get("go-e/charger").unwrap();
    let driver = profile.driver(&spec).unwrap();
    let (link, jobs, link_state) = LinkHandle::double("http");
    let (asks_tx, asks) = mpsc::channel(64);
    let store = StoreHandle {
        asks: asks_tx.clone(),
        live: broadcast::channel(16).0,
        next_row: Arc::default(),
        dropped: Arc::default(),
        outbox: watch::channel(0).1,
        status: watch::channel(StoreStatus::default()).1,
    };
    let (samples_tx, samples) = mpsc::channel(512);
    let (outcomes_tx, outcomes) = mpsc::channel(2);
    let clock = Clock::system();
    let held = held.map(|demand| Held {
        device: spec.id.clone(),
        demand,
        on_end: Demand::Release,
        since: Timestamp::from_ms(0),
    });
    let (device, task) = create(DeviceParts {
        spec,
        driver,
        link,
        store,
        clock,
        boot: BootId::new("ab").unwrap(),
        samples: samples_tx,
        outcomes: outcomes_tx,
        held,
        baseline: baseline.map(str::to_owned),
        wear: None,
        wills: Journal::none(),
        left: None,
    });
    let (switch, shutdown) = ShutdownSwitch::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(Arc::clone(&world), jobs, asks));
    tasks.spawn(async move { Some(task.run(shutdown).await) });
    Rig { device, samples, outcomes, link: link_state, journal: asks_tx, world, switch, tasks }
}

impl Rig {
    async fn status(&self, is: impl FnMut(&DeviceStatus) -> bool) -> DeviceStatus {
        timeout(LONG, self.device.status().wait_for(is)).await.expect("the state comes").unwrap().clone()
    }

    async fn online(&self) {
        self.status(|s| s.state == DeviceState::Online).await;
    }

    async fn sample(&mut self) -> Arc<Sample> {
        timeout(LONG, self.samples.recv()).await.expect("a sample comes").unwrap()
    }

    async fn outcome(&mut self) -> (Option<IntentKey>, Stage, usize) {
        let o = timeout(LONG, self.outcomes.recv()).await.expect("an outcome comes").unwrap();
        (o.cause, o.stage, o.evidence.len())
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.world).log)
    }

    /// The store takes nothing more, and its queue is full.
    async fn stick(&self) {
        lock(&self.world).stuck = true;
        for _ in 0..3 {
            while self.journal.try_send(Ask::Acked("x".parse().unwrap(), Vec::new())).is_ok() {}
            tokio::task::yield_now().await;
        }
    }

    async fn stop(&mut self) -> Vec<String> {
        self.switch.stop();
        let ended = timeout(LONG, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Some(exit) = ended.unwrap() {
                    return Some(exit);
                }
            }
            None
        });
        assert_eq!(ended.await.unwrap(), Some(Exit::Shutdown));
        self.log()
    }
}

fn cause(name: &'static str) -> Option<IntentKey> {
    Some(IntentKey::Limit(name))
}

#[tokio::test(start_paused = true)]
async fn found_recorded_and_polled_at_the_same_instants() {
    let mut rig = start(None, None);
    assert_eq!(rig.device.status().borrow().state, DeviceState::Connecting);
    rig.online().await;
    assert_eq!(rig.log(), ["baseline {\"amp\":16,\"frc\":0,\"ama\":16}"]);
    let first = rig.sample().await;
    assert_eq!((first.seq, first.num(&Point::PowerW)), (0, Some(11040.0)));
    for seq in 1..5 {
        let sample = rig.sample().await;
        assert_eq!((sample.seq, sample.mono.ms() % 1000), (seq, 0), "aligned");
    }
    let status = rig.device.status().borrow().clone();
    assert_eq!((status.info.serial.as_deref(), status.failed_polls, status.slipped_polls), (Some("S1"), 0, 0));
    assert_eq!(rig.stop().await, Vec::<String>::new(), "nothing held, nothing written");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_journalled_written_proven_and_given_back() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.log();
    rig.device.order(hold(TEN, SIX, "fuse", 10_000));
    assert_eq!(rig.outcome().await, (cause("fuse"), Stage::Written, 0));
    assert_eq!(rig.outcome().await, (cause("fuse"), Stage::Verified, 1));
    assert_eq!(rig.log(), ["held ChargerCurrent { amps: 10.0, phases: None }", "set amp=10 frc=2"], "journal first");
    rig.device.order(hold(TEN, SIX, "fuse", 20_000));
    for _ in 0..200 {
        rig.sample().await;
    }
    assert_eq!(rig.log(), Vec::<String>::new(), "an equal value is not written again");
    rig.device.order(Order::Free);
    assert_eq!(rig.outcome().await, (None, Stage::Verified, 1));
    rig.sample().await;
    assert_eq!(rig.log(), ["set amp=6", "not held"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_ends_without_control() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.log();
    rig.device.order(hold(TEN, Demand::Release, "a", 100));
    rig.outcome().await;
    rig.outcome().await;
    assert_eq!(rig.outcome().await, (None, Stage::Verified, 1));
    assert_eq!(rig.log()[2..], ["set amp=16 frc=0", "not held"], "back to what the installer set");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn something_else_changes_it() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.device.order(hold(TEN, SIX, "a", 10_000));
    rig.outcome().await;
    rig.outcome().await;
    rig.log();
    lock(&rig.world).keys["amp"] = json!(32);
    let (_, stage, evidence) = rig.outcome().await;
    assert!(matches!(&stage, Stage::Reverted(why) if why.contains("32")), "{stage:?}");
    assert_eq!(evidence, 1);
    assert_eq!(rig.outcome().await.1, Stage::Written);
    assert_eq!(rig.outcome().await.1, Stage::Verified);
    assert_eq!(rig.log(), ["setpoint_reverted true", "set amp=10"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silent_then_back() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.device.order(hold(TEN, SIX, "a", 10_000));
    rig.outcome().await;
    rig.outcome().await;
    rig.log();
    lock(&rig.world).trouble = Some(LinkError::Timeout("port open, unit silent".into()));
    let status = rig.status(|s| s.state == DeviceState::Offline).await;
    assert_eq!((status.failed_polls, status.error.as_deref()), (3, Some("port open, unit silent")));
    rig.device.order(hold(SIX, SIX, "b", 10_000));
    let (who, stage, _) = rig.outcome().await;
    assert_eq!(who, cause("b"));
    assert!(matches!(&stage, Stage::Failed(why) if why.starts_with("device is offline")), "{stage:?}");
    assert_eq!(rig.log(), ["device_offline true"], "once");
    lock(&rig.world).trouble = None;
    rig.online().await;
    assert_eq!(rig.outcome().await, (cause("b"), Stage::Written, 0));
    assert_eq!(rig.outcome().await, (cause("b"), Stage::Verified, 1));
    let log = rig.log();
    assert!(log.contains(&"device_offline false".to_owned()) && log.contains(&"set amp=6".to_owned()), "{log:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn never_there_is_connecting_and_no_alarm() {
    let mut rig = start(None, None);
    lock(&rig.world).trouble = Some(LinkError::Down("nothing listens".into()));
    rig.status(|s| s.error.as_deref() == Some("nothing listens")).await;
    let none = timeout(LONG, rig.samples.recv()).await;
    assert!(none.is_err());
    assert_eq!(rig.device.status().borrow().state, DeviceState::Connecting);
    assert_eq!(rig.log(), Vec::<String>::new());
    lock(&rig.world).trouble = None;
    let asked = rig.status(|s| s.state == DeviceState::Online);
    assert!(timeout(Duration::from_secs(13), asked).await.is_ok(), "back within seconds");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_device_in_its_place_is_read_only() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.log();
    lock(&rig.world).keys["sse"] = json!("S2");
    rig.link.send_replace(LinkState::Up { epoch: 2 });
    rig.status(|s| s.state == DeviceState::Quarantined).await;
    rig.device.order(hold(TEN, SIX, "a", 10_000));
    let (_, stage, _) = rig.outcome().await;
    assert!(matches!(&stage, Stage::Failed(why) if why.contains("another device")), "{stage:?}");
    assert_eq!(rig.log(), ["device_changed true"]);
    let seq = rig.sample().await.seq;
    assert_eq!(rig.sample().await.seq, seq + 1, "it is still read");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_leads_back_to_the_tighter_value() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.device.order(hold(TEN, SIX, "fuse", 10_000));
    rig.outcome().await;
    rig.outcome().await;
    rig.log();
    let log = rig.stop().await;
    assert_eq!(log[0], "set amp=6", "frc is 2 already, and nobody knows what writing it costs");
    assert_eq!(lock(&rig.world).keys["amp"], json!(6));
}

#[tokio::test(start_paused = true)]
async fn stopping_with_a_dead_device_takes_no_longer_than_its_bound() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.device.order(hold(TEN, SIX, "fuse", 10_000));
    rig.outcome().await;
    rig.outcome().await;
    lock(&rig.world).trouble = Some(LinkError::Down("gone".into()));
    let clock = Clock::system();
    rig.stop().await;
    assert!(clock.mono().ms() <= 3_100, "{} ms", clock.mono().ms());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_is_ended_when_nobody_wants_anything() {
    let baseline = "{\"amp\":16,\"frc\":0}";
    let mut rig = start(Some(TEN), Some(baseline));
    lock(&rig.world).keys["amp"] = json!(10);
    rig.online().await;
    assert_eq!(rig.log(), Vec::<String>::new(), "control has not decided");
    assert_eq!(rig.outcome().await, (None, Stage::Verified, 1));
    rig.sample().await;
    assert_eq!(rig.log(), ["set amp=16", "not held"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_no_journal_and_others_not_for_ever() {
    let mut rig = start(None, None);
    rig.online().await;
    rig.log();
    rig.stick().await;
    let before = Clock::system();
    rig.device.order(hold(Demand::ChargerOff, SIX, "a", 10_000));
    assert_eq!(rig.outcome().await.1, Stage::Written);
    assert_eq!(rig.log(), ["set frc=1"]);
    assert!(before.mono().ms() <= 20, "at once");
    rig.device.order(hold(TEN, SIX, "b", 10_000));
    while rig.outcome().await != (cause("b"), Stage::Verified, 1) {}
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn not_enabled_means_no_write() {
    let mut rig = start_with(None, None, ControlSettings::default());
    rig.online().await;
    rig.log();
    rig.device.order(hold(TEN, SIX, "a", 10_000));
    let (_, stage, _) = rig.outcome().await;
    assert_eq!(stage, Stage::Failed("control is not enabled: set [device.control] enabled = true".into()));
    rig.sample().await;
    assert_eq!(rig.stop().await, Vec::<String>::new());
}
