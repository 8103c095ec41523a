//! Properties of the pure parts, and the task on channels.

use super::arbiter::{Decision, Memory, Question, decide};
use super::core::Now;
use super::limits::{Bounds, Ceiling, Pace, charger_max, charger_min, charger_own_max};
use super::say::{Scene, Stance};
use super::view::{NOMINAL_V, Unit, View};
use super::{ControlBusy, ControlHandle, ControlMsg, ControlParts, ControlledDevice, create};
use crate::model::{
    Action, Applied, BootId, Capabilities, ClockState, ControlSettings, Coupling, Decided, Demand, DeviceKind,
    DeviceLimits, DeviceSpec, DeviceState, DeviceStatus, Intent, IntentKey, IntentUpdate, Mono, Order, Outcome, Params,
    Point, Progress, Rank, RemoteControl, Role, Sample, SiteSpec, Standing, StoreStatus, Timestamp, TraceStep,
    UplinkName, Value,
};
use crate::runtime::{Clock, Exit, ShutdownSwitch};
use crate::store::StoreHandle;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

const NOW: Mono = Mono::from_ms(100_000);
const WALL: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn spec(id: &str, kind: DeviceKind) -> DeviceSpec {
    DeviceSpec {
        id: id.parse().unwrap(),
        kind,
        role: (kind == DeviceKind::Meter).then_some(Role::Grid),
        coupling: Coupling::Ac,
        profile: String::new(),
        link: String::new(),
        unit: 1,
        poll: Duration::from_secs(1),
        invert: false,
        limits: DeviceLimits {
            max_charge_w: Some(5000.0),
            max_discharge_w: Some(4000.0),
            min_soc_pct: Some(10.0),
            max_soc_pct: Some(95.0),
            max_power_w: Some(9000.0),
            max_current_a: Some(20.0),
            ..DeviceLimits::default()
        },
        control: ControlSettings {
            enabled: true,
            accept_no_failsafe: false,
            fallback_current_a: Some(8.0),
            ..ControlSettings::default()
        },
    }
}

fn units() -> Vec<Unit> {
    [
        ("grid", DeviceKind::Meter),
        ("pv", DeviceKind::Inverter),
        ("battery", DeviceKind::Battery),
        ("second", DeviceKind::Battery),
        ("car", DeviceKind::Charger),
        ("van", DeviceKind::Charger),
    ]
    .into_iter()
    .map(|(id, kind)| Unit {
        spec: Arc::new(spec(id, kind)),
        caps: Arc::new(Capabilities {
            actions: vec!["set_max_current", "set_power_limit"],
            rated_w: Some(10_000.0),
            max_current_a: Some(32.0),
            min_current_a: Some(6.0),
            ..Capabilities::default()
        }),
    })
    .collect()
}

fn sample(id: &str, at: Mono, power: Option<f64>, soc: Option<f64>) -> Arc<Sample> {
    let field = |v: Option<f64>| v.map(Value::Num).ok_or(crate::model::NullReason::Unavailable);
    Arc::new(Sample {
        device: id.parse().unwrap(),
        ts: WALL,
        mono: at,
        boot: BootId::new("0").unwrap(),
        seq: 0,
        clock: ClockState::Synced,
        points: vec![(Point::PowerW, field(power)), (Point::SocPct, field(soc))],
    })
}

fn some_action(kind: DeviceKind) -> BoxedStrategy<Action> {
    let watts = 0.0..12_000.0;
    match kind {
        DeviceKind::Battery => prop_oneof![
            watts.clone().prop_map(|w| Action::Charge {
                power_w: Some(w),
                min_soc_pct: None,
                max_soc_pct: None,
                grid: true
            }),
            watts.prop_map(|w| Action::Discharge { power_w: Some(w), min_soc_pct: None, max_soc_pct: None }),
            Just(Action::Idle),
            Just(Action::Auto),
        ]
        .boxed(),
        DeviceKind::Charger => prop_oneof![
            Just(Action::Start),
            Just(Action::Stop),
            Just(Action::Auto),
            (0.0..40.0).prop_map(|a| Action::SetMaxCurrent { current_a: a, phases: None }),
        ]
        .boxed(),
        _ => prop_oneof![
            watts.clone().prop_map(|w| Action::SetPowerLimit { power_w: w }),
            watts.prop_map(|w| Action::SetExportLimit { power_w: w }),
            (0.0..100.0).prop_map(|p| Action::SetPowerLimitPct { pct: p }),
            Just(Action::Auto),
        ]
        .boxed(),
    }
}

fn intents() -> impl Strategy<Value = Vec<Intent>> {
    let devices = [
        ("pv", DeviceKind::Inverter),
        ("battery", DeviceKind::Battery),
        ("second", DeviceKind::Battery),
        ("car", DeviceKind::Charger),
        ("van", DeviceKind::Charger),
    ];
    let one = prop::sample::select(devices.to_vec())
        .prop_flat_map(|(id, kind)| (Just(id), some_action(kind), prop::sample::select(Rank::ALL.to_vec())));
    prop::collection::vec(one, 0..8).prop_map(|list| {
        list.into_iter().enumerate().map(|(n, (id, action, rank))| intent(id, action, rank, n as u64)).collect()
    })
}

fn intent(id: &str, action: Action, rank: Rank, accepted: u64) -> Intent {
    Intent {
        key: IntentKey::Command {
            uplink: UplinkName::local(),
            device: Some(id.parse().unwrap()),
            id: format!("c{accepted}").parse().unwrap(),
        },
        device: id.parse().unwrap(),
        action,
        rank,
        source: "test".into(),
        accepted,
        since: WALL,
        ends_at: WALL.plus(Duration::from_secs(60)),
        deadline: NOW.plus(Duration::from_secs(60)),
        why: None,
    }
}

/// Power of a device, if it tells; its age in ms.
fn reading(range: std::ops::Range<f64>) -> impl Strategy<Value = (Option<f64>, u64)> {
    (prop::option::weighted(0.9, range), prop_oneof![9 => 0..4000_u64, 1 => 6000..60_000_u64])
}

fn home() -> impl Strategy<Value = Vec<Option<Arc<Sample>>>> {
    let soc = prop::option::weighted(0.9, 0.0..100.0);
    (
        reading(-20_000.0..20_000.0),
        reading(0.0..10_000.0),
        (reading(-5000.0..5000.0), soc.clone()),
        (reading(-5000.0..5000.0), soc),
        reading(0.0..14_000.0),
        reading(0.0..14_000.0),
    )
        .prop_map(|(grid, pv, (b1, s1), (b2, s2), car, van)| {
            let see = |id: &str, (power, age): (Option<f64>, u64), soc| {
                Some(sample(id, Mono::from_ms(NOW.ms() - age), power, soc))
            };
            vec![
                see("grid", grid, None),
                see("pv", pv, None),
                see("battery", b1, s1),
                see("second", b2, s2),
                see("car", car, None),
                see("van", van, None),
            ]
        })
}

fn site(fuse: Option<f64>, export: Option<f64>) -> SiteSpec {
    SiteSpec { name: "home".into(), timezone: "UTC".into(), phases: 3, main_fuse_a: fuse, export_limit_w: export }
}

fn demand(decision: &Decision<'_>) -> Option<Demand> {
    decision.holder.as_ref().map(|h| h.demand)
}

fn ask<'a>(view: &View<'_>, site: &SiteSpec, intents: &'a [Intent]) -> Vec<Decision<'a>> {
    let q = Question { view, intents, site, bounds: Bounds::new(site, &[]), now: NOW, wall: WALL };
    decide(&q, &mut vec![Memory::default(); view.units.len()])
}

/// A plan without an end has a lease with one.
#[test]
fn every_lease_ends() {
    let (units, site) = (units(), site(None, None));
    let mut wish = intent("battery", Action::Idle, Rank::Plan, 1);
    (wish.ends_at, wish.deadline) = (Timestamp::FOREVER, Mono::from_ms(u64::MAX));
    let samples = vec![None; units.len()];
    let (view, wishes) = (View::new(&units, &samples, 3, NOW), [wish]);
    let decisions = ask(&view, &site, &wishes);
    let Order::Hold(held) = decisions[2].order(&units[2], &site, NOW, WALL) else { panic!("{decisions:?}") };
    let longest = Duration::from_secs(30 * 24 * 3600);
    assert_eq!((held.end().mono, held.end().wall), (NOW.plus(longest), WALL.plus(longest)));
}

/// Is the trace of a decision true: the winner is the holder, and the last limit left what is demanded.
pub(super) fn truth(decided: &Decided) -> Result<(), String> {
    let mut winners = decided.trace.iter().filter_map(|s| match s {
        TraceStep::Intent { outcome: Standing::Wins, key, rank, .. } => Some((key, *rank)),
        _ => None,
    });
    let (winner, second) = (winners.next(), winners.next());
    if second.is_some() {
        return Err("two winners".into());
    }
    match (&decided.holder, winner) {
        (None, None) => {}
        (Some(h), Some((key, rank))) if h.key == *key && h.rank == rank => {}
        (Some(h), None) if matches!(h.key, IntentKey::Limit(_)) => {}
        other => return Err(format!("holder and winner: {other:?}")),
    }
    for step in &decided.trace {
        if let (TraceStep::Intent { outcome: Standing::Waits, rank, .. }, Some((_, best))) = (step, winner)
            && *rank > best
        {
            return Err(format!("{rank} waits for {best}"));
        }
    }
    let limits: Vec<_> = decided.trace.iter().filter(|s| matches!(s, TraceStep::Limit { .. })).collect();
    for pair in limits.windows(2) {
        if let [TraceStep::Limit { to, .. }, TraceStep::Limit { from, .. }] = pair
            && from.is_none_or(|from| (from - to).abs() > 0.11)
        {
            return Err(format!("a gap between limits: {pair:?}"));
        }
    }
    if let Some(TraceStep::Limit { to, .. }) = limits.last() {
        let is = match decided.demand {
            Some(Demand::BatteryPower { watts, .. }) => watts.abs(),
            Some(Demand::PowerLimit { watts }) => watts,
            Some(Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps }) => amps,
            Some(Demand::ChargerOff) => 0.0,
            _ => f64::NAN,
        };
        if (is - to).abs() > 0.051 {
            return Err(format!("the last limit left {to}, and {is} is demanded"));
        }
    }
    if decided.sentence.is_empty() || decided.sentence.contains("  ") || !decided.sentence.ends_with('.') {
        return Err(format!("no sentence: {:?}", decided.sentence));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_decision_breaks_a_limit(
        samples in home(),
        intents in intents(),
        fuse in prop::option::of(10.0..63.0),
        export in prop::option::of(0.0..10_000.0),
        seed in any::<u64>(),
    ) {
        let (units, site) = (units(), site(fuse, export));
        let view = View::new(&units, &samples, 3, NOW);
        let decisions = ask(&view, &site, &intents);
        // The order in which intents lie there means nothing.
        let mut shuffled = intents.clone();
        let n = shuffled.len().max(1);
        shuffled.rotate_left(usize::try_from(seed % n as u64).unwrap());
        shuffled.reverse();
        prop_assert_eq!(&ask(&view, &site, &shuffled), &decisions);

        for (i, (unit, decision)) in units.iter().zip(&decisions).enumerate() {
            let order = decision.order(unit, &site, NOW, WALL);
            if let Order::Hold(s) = &order {
                prop_assert!(s.end().mono > NOW && s.end().mono <= NOW.plus(Duration::from_secs(30 * 24 * 3600)));
            }
            let scene = Scene {
                unit,
                seen: &view.seen[i],
                view: &view,
                decision,
                order: &order,
                bounds: Bounds::new(&site, &[]),
                zone: &jiff::tz::TimeZone::UTC,
                now: Now { mono: NOW, wall: WALL, clock: ClockState::Synced },
                stance: Stance::Controlled,
                state: DeviceState::Online,
                error: None,
                heard: None,
                grid_heard: None,
                blocked: None,
                remote: RemoteControl::default(),
            };
            let told = truth(&scene.decided(None));
            prop_assert!(told.is_ok(), "{told:?}\n{decision:#?}");
        }
        let mut drawn = 0.0;
        let mut own = 0.0;
        let mut is_all_off = true;
        for ((unit, decision), seen) in units.iter().zip(&decisions).zip(&view.seen) {
            let demand = demand(decision);
            match (unit.spec.kind, demand) {
                (DeviceKind::Battery, Some(Demand::BatteryPower { watts, .. })) => {
                    prop_assert!((-5000.0..=4000.0).contains(&watts), "{watts}");
                    let soc = seen.soc_pct.unwrap_or(f64::NAN);
                    prop_assert!(watts == 0.0 || (watts < 0.0 && soc < 95.0) || (watts > 0.0 && soc > 10.0), "{watts} at {soc}");
                    if fuse.is_some() && view.grid_w.is_none() {
                        prop_assert!(watts >= 0.0, "charges while the meter is silent");
                    }
                    if watts <= 0.0 && !matches!(decision.holder.as_ref().unwrap().asked, Action::Discharge { .. }) {
                        drawn -= watts;
                        own -= seen.power_w.unwrap_or(0.0);
                        is_all_off &= watts == 0.0;
                    }
                }
                (DeviceKind::Battery, other) => prop_assert!(matches!(other, None | Some(Demand::Release))),
                (DeviceKind::Charger, demand) => {
                    own += seen.power_w.unwrap_or(0.0);
                    let amps = match demand {
                        Some(Demand::ChargerCurrent { amps, .. } | Demand::ChargerLimit { amps }) => amps,
                        Some(Demand::ChargerOff) => 0.0,
                        // Left alone: it may take all it can, whatever the installer allows derd to tell it.
                        _ => charger_own_max(unit),
                    };
                    let is_left_alone = matches!(demand, None | Some(Demand::Release));
                    prop_assert!(is_left_alone || amps == 0.0 || (charger_min(unit)..=charger_max(unit)).contains(&amps), "{amps}");
                    if fuse.is_some() && view.grid_w.is_none() {
                        prop_assert!(amps <= 8.0, "{amps} A while the meter is silent");
                        let on_end = decision.holder.as_ref().unwrap().on_end;
                        prop_assert!(!matches!(on_end, Demand::Release));
                    }
                    drawn += amps * 3.0 * NOMINAL_V;
                    is_all_off &= amps == 0.0;
                }
                (DeviceKind::Inverter, Some(Demand::PowerLimit { watts })) => {
                    prop_assert!((0.0..=10_000.0).contains(&watts), "{watts}");
                    if let Some(export) = export {
                        let end = decision.holder.as_ref().unwrap().on_end;
                        let is_tight = matches!(end, Demand::PowerLimit { watts: w } if w <= export);
                        prop_assert!(is_tight, "{end:?}");
                        if let (None, _) | (_, None) = (view.grid_w, seen.power_w) {
                            prop_assert!(watts <= export, "{watts} W blind");
                        }
                    }
                }
                _ => {}
            }
        }
        if let (Some(fuse), Some(grid)) = (fuse, view.grid_w) {
            let limit = fuse * 3.0 * NOMINAL_V;
            prop_assert!(is_all_off || grid - own + drawn <= limit + 1.0, "{grid} - {own} + {drawn} > {limit}");
        }
    }

    /// A ceiling lies never above all the room that was there lately.
    #[test]
    fn a_ceiling_follows_the_room(rooms in prop::collection::vec(0.0..100.0, 2..60)) {
        let pace = Pace { skew: Duration::from_millis(1300), rise: Duration::from_secs(5), deadband: 1.0, patience: 1 };
        let mut ceiling = Ceiling::new(rooms[0]);
        for (i, room) in rooms.iter().enumerate() {
            let before = ceiling.value();
            ceiling.follow(*room, Mono::from_ms(i as u64 * 500), pace);
            // Skew and one step on either side: 5 steps of half a second.
            let lately = rooms[i.saturating_sub(5)..=i].iter().copied().fold(0.0, f64::max);
            prop_assert!(ceiling.value() <= lately, "{} > {lately} at {i}", ceiling.value());
            if ceiling.value() > before {
                let least = rooms[i.saturating_sub(10)..=i].iter().copied().fold(f64::INFINITY, f64::min);
                prop_assert_eq!(ceiling.value(), least);
            }
        }
    }
}

fn store() -> (StoreHandle, impl Send) {
    let (asks, rx) = mpsc::channel(8);
    let (live, _) = broadcast::channel(1);
    let (_, outbox) = watch::channel(0);
    let (_, status) = watch::channel(StoreStatus::default());
    let counter = || Arc::new(AtomicU64::new(0));
    (StoreHandle { asks, live, next_row: counter(), dropped: counter(), outbox, status }, rx)
}

/// A house with a battery. Its channels lead nowhere.
fn battery_alone(
    orders: watch::Sender<Order>,
    status: watch::Receiver<DeviceStatus>,
    store: StoreHandle,
    clock: &Clock,
) -> ControlParts {
    ControlParts {
        site: site(None, None),
        devices: vec![ControlledDevice { spec: spec("battery", DeviceKind::Battery), orders, status }],
        samples: mpsc::channel(1).1,
        outcomes: mpsc::channel(1).1,
        updates: mpsc::channel(1).0,
        store,
        clock: clock.clone(),
        plans: vec![],
        intents: vec![],
        sessions: std::collections::BTreeSet::new(),
        site_limits: vec![],
        pause: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_reaches_the_device_and_its_fate_the_tracker() {
    let clock = Clock::manual(WALL);
    let (orders, mut ordered) = watch::channel(Order::Wait);
    let online = DeviceStatus { state: DeviceState::Online, ..DeviceStatus::default() };
    let (_seen, status) = watch::channel(online);
    let (samples, samples_rx) = mpsc::channel(4);
    let (outcomes, outcomes_rx) = mpsc::channel(4);
    let (updates_tx, mut updates) = mpsc::channel(1);
    let (store, _asks) = store();
    let (handle, task) = create(ControlParts {
        samples: samples_rx,
        outcomes: outcomes_rx,
        updates: updates_tx,
        ..battery_alone(orders, status, store, &clock)
    });
    let (switch, shutdown) = ShutdownSwitch::new();
    let running = tokio::task::JoinSet::from_iter([task.run(shutdown)]);

    samples.send(sample("battery", clock.mono(), Some(0.0), Some(50.0))).await.unwrap();
    ordered.wait_for(|o| *o == Order::Free).await.unwrap();
    let mut wish = intent(
        "battery",
        Action::Charge { power_w: Some(9000.0), min_soc_pct: None, max_soc_pct: None, grid: true },
        Rank::Command,
        1,
    );
    wish.deadline = Mono::from_ms(5000);
    handle.send(ControlMsg::Intent(wish.clone())).await.unwrap();
    let setpoint = match ordered.wait_for(|o| *o != Order::Free).await.unwrap().clone() {
        Order::Hold(setpoint) => setpoint,
        other => panic!("{other:?}"),
    };
    assert_eq!(setpoint.demand(), Demand::BatteryPower { watts: -5000.0, grid: true });
    let applied =
        Applied { params: Params::from([("power_w".into(), 5000.0)]), limited_by: Some("max_charge_w".into()) };
    let told = |progress| IntentUpdate { key: wish.key.clone(), at: WALL, progress };
    assert_eq!(updates.recv().await, Some(told(Progress::Active(applied))));

    let outcome = |stage| Outcome {
        device: "battery".parse().unwrap(),
        cause: Some(wish.key.clone()),
        demand: setpoint.demand(),
        at: WALL,
        stage,
        evidence: vec![],
    };
    // A reader that is slow loses nothing and stops nothing.
    for stage in [crate::model::Stage::Written, crate::model::Stage::Verified] {
        outcomes.send(outcome(stage)).await.unwrap();
        let progress = updates.recv().await.unwrap().progress;
        assert!(matches!(progress, Progress::Device { .. }), "{progress:?}");
    }
    for n in 0..3_u64 {
        clock.advance(Duration::from_millis(1000));
        samples.send(sample("battery", Mono::from_ms(1000 * (n + 1)), Some(-4900.0), Some(50.0))).await.unwrap();
    }
    assert_eq!(updates.recv().await.unwrap().progress, Progress::Effect);

    clock.advance(Duration::from_secs(2));
    ordered.wait_for(|o| *o == Order::Free).await.unwrap();
    let Some(IntentUpdate { progress: Progress::Ended { delivered_wh: Some(wh) }, .. }) = updates.recv().await else {
        panic!("it has ended");
    };
    // 0 to 4900 W in the first second, then 4 s at 4900 W.
    assert!((wh - 4900.0 * 4.5 / 3600.0).abs() < 0.01, "{wh}");

    let mut status = handle.status();
    let cycles = status.borrow().cycles;
    status.wait_for(|s| s.cycles > cycles + 2).await.unwrap();
    switch.stop();
    assert_eq!(running.join_all().await, vec![Exit::Shutdown]);
    assert_eq!(handle.send(ControlMsg::Withdraw(wish.key)).await, Err(ControlBusy::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_refuses() {
    let (handle, _inbox, _status) = ControlHandle::for_test();
    let msg = || ControlMsg::DropPlan("p".parse().unwrap());
    for _ in 0..16 {
        handle.send(msg()).await.unwrap();
    }
    assert_eq!(handle.send(msg()).await, Err(ControlBusy::Full));
}

/// A store that hangs holds nothing up, and gets each device's newest decision as soon as it has room.
#[tokio::test(start_paused = true)]
async fn a_busy_store_gets_the_newest_decision_later() {
    let clock = Clock::manual(WALL);
    let (orders, mut ordered) = watch::channel(Order::Wait);
    let online = DeviceStatus { state: DeviceState::Online, ..DeviceStatus::default() };
    let (_seen, status) = watch::channel(online);
    let (samples, samples_rx) = mpsc::channel(4);
    let (_outcomes, outcomes_rx) = mpsc::channel(4);
    let (updates_tx, _updates) = mpsc::channel(8);
    let (asks, mut asked) = mpsc::channel(1);
    let counter = || Arc::new(AtomicU64::new(0));
    let store = StoreHandle {
        asks,
        live: broadcast::channel(1).0,
        next_row: counter(),
        dropped: counter(),
        outbox: watch::channel(0).1,
        status: watch::channel(StoreStatus::default()).1,
    };
    let other = "pv".parse().unwrap();
    store.decided(other, WALL, ClockState::Synced, "fills the queue".into()).unwrap();
    let (handle, task) = create(ControlParts {
        samples: samples_rx,
        outcomes: outcomes_rx,
        updates: updates_tx,
        ..battery_alone(orders, status, store, &clock)
    });
    let (switch, shutdown) = ShutdownSwitch::new();
    let running = tokio::task::JoinSet::from_iter([task.run(shutdown)]);
    samples.send(sample("battery", clock.mono(), Some(0.0), Some(50.0))).await.unwrap();
    ordered.wait_for(|o| *o == Order::Free).await.unwrap();
    let action = Action::Charge { power_w: Some(3000.0), min_soc_pct: None, max_soc_pct: None, grid: true };
    handle.send(ControlMsg::Intent(intent("battery", action, Rank::Command, 1))).await.unwrap();
    ordered.wait_for(|o| *o != Order::Free).await.unwrap();
    // Only now the store reads: first what filled its queue, then the newest of what waited.
    let mut texts = Vec::new();
    while texts.len() < 2 {
        if let Some(crate::store::Ask::Decided(decision)) = asked.recv().await {
            texts.push(decision.json);
        }
    }
    assert_eq!(texts[0], "fills the queue");
    assert!(texts[1].contains(r#""action":"charge""#), "{texts:?}");
    switch.stop();
    assert_eq!(running.join_all().await, vec![Exit::Shutdown]);
}
